//! What Kubernetes says of pods, of one that does not come and of our own when it ends: asked through `kubectl` where the
//! launcher pod has one and its service account may ask. Nothing depends on it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// Where operators that reach workers by `kubectl exec` put it.
const DELIVERED: &str = "/opt/kube/kubectl";
/// How long the question may take.
const LIMIT: Duration = Duration::from_secs(3);
/// What is asked, a line each: phase, why it is not scheduled, what containers wait for or ended with.
const FIELDS: &str = "jsonpath={.status.phase}{\"\\n\"}{.status.reason}{\"\\n\"}\
{range .status.conditions[?(@.status==\"False\")]}{.reason}: {.message}; {end}{\"\\n\"}\
{range .status.containerStatuses[*]}{.state.waiting.reason}: {.state.waiting.message}; {end}{\"\\n\"}\
{range .status.containerStatuses[*]}{.state.terminated.reason}: exit code {.state.terminated.exitCode}; {end}{\"\\n\"}";

/// What is asked of our own pod, a line each.
const GRACES: &str =
    "jsonpath={.metadata.deletionGracePeriodSeconds}{\"\\n\"}{.spec.terminationGracePeriodSeconds}{\"\\n\"}";

/// The program to ask with, if this is a pod and has one.
pub(super) fn kubectl() -> Option<&'static str> {
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let token = Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists();
    if Path::new(DELIVERED).exists() {
        return Some(DELIVERED);
    }
    (in_pod && token).then_some("kubectl")
}

/// What is said of the pod that a host name names; `None` when nothing may be known or nothing is wrong.
pub(super) async fn ask(kubectl: &str, host: &str) -> Option<String> {
    let pod = host.split('.').next().filter(|p| !p.is_empty())?;
    let mut command = tokio::process::Command::new(kubectl);
    command.args(["get", "pod", pod, "--request-timeout=2s", "-o", FIELDS]);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.ok()?.ok()?;
    if output.status.success() {
        return read(&String::from_utf8_lossy(&output.stdout));
    }
    let error = String::from_utf8_lossy(&output.stderr);
    error.contains("(NotFound)").then(|| "Kubernetes: there is no such pod".to_owned())
}

/// How long this pod has from SIGTERM to SIGKILL: when it is being deleted what was said then, else its manifest's word.
/// `None` when that cannot be known.
pub(crate) async fn grace() -> Option<Duration> {
    let kubectl = kubectl()?;
    // A pod's host name is its name, unless a Service gives it another: then only the manifest can tell.
    let named = std::env::var("POD_NAME").ok().filter(|n| !n.is_empty());
    let pod = named.or_else(|| crate::hosts::own_name().split('.').next().map(str::to_owned))?;
    let mut command = tokio::process::Command::new(kubectl);
    command.args(["get", "pod", &pod, "--request-timeout=2s", "-o", GRACES]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut text = String::new();
    // Its exit code may have been taken by the worker that this process also is.
    tokio::time::timeout(LIMIT, child.stdout.as_mut()?.read_to_string(&mut text)).await.ok()?.ok()?;
    seconds(&text)
}

/// The answer to [`GRACES`].
fn seconds(text: &str) -> Option<Duration> {
    let mut lines = text.lines().map(|l| l.trim().parse().ok().map(Duration::from_secs));
    let (deleted, manifest) = (lines.next().flatten(), lines.next().flatten());
    deleted.or(manifest)
}

/// The answer to [`FIELDS`] in a few words.
fn read(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    let phase = lines.next().filter(|p| !p.is_empty())?;
    let reason = lines.next().unwrap_or_default();
    let rest: Vec<&str> = lines.collect();
    // Containers say more than conditions; an ended one more than a waiting one.
    let said = |line: Option<&&str>| {
        let mut items = line?.split("; ").map(|i| i.trim_matches([':', ' ', ';']));
        items.find(|i| !i.is_empty() && !i.starts_with("exit code")).map(str::to_owned)
    };
    let detail = said(rest.get(1))
        .or_else(|| said(rest.get(2)))
        .or_else(|| (phase == "Pending").then(|| said(rest.first())).flatten());
    match (phase, detail) {
        ("Running", None) => None,
        (phase, None) if reason.is_empty() => Some(format!("Kubernetes: {phase}")),
        (phase, None) => Some(format!("Kubernetes: {phase}, {reason}")),
        (phase, Some(detail)) => Some(format!("Kubernetes: {phase}, {detail}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_of_a_deletion_counts_before_that_of_the_manifest() {
        let cases =
            [("\n30\n", Some(30)), ("5\n30\n", Some(5)), ("0\n30\n", Some(0)), ("\n\n", None), ("", None)];
        for (text, want) in cases {
            assert_eq!(seconds(text), want.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(seconds("error: x\n-3\n"), None);
    }

    #[test]
    fn answers_become_a_few_words() {
        let cases = [
            ("Running\n\n\n: ; \n: exit code ; \n", None),
            (
                "Pending\n\nUnschedulable: 0/3 nodes are available; \n\n\n",
                Some("Pending, Unschedulable: 0/3 nodes are available"),
            ),
            (
                "Pending\n\nContainersNotReady: x; \nImagePullBackOff: Back-off pulling image \"x\"; \n: exit code ; \n",
                Some("Pending, ImagePullBackOff: Back-off pulling image \"x\""),
            ),
            (
                "Running\n\nContainersNotReady: x; \nCrashLoopBackOff: back-off 10s; \n: exit code ; \n",
                Some("Running, CrashLoopBackOff: back-off 10s"),
            ),
            ("Failed\nEvicted\n\n\n\n", Some("Failed, Evicted")),
            ("Failed\n\n\n: ; \nOOMKilled: exit code 137; \n", Some("Failed, OOMKilled: exit code 137")),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(read(text), want.map(|w| format!("Kubernetes: {w}")), "{text:?}");
        }
    }
}
