//! What Kubernetes says of a pod that does not come: asked through `kubectl` where the launcher pod has one and its
//! service account may ask. A hint and nothing more: without it all works the same.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Where operators that reach workers by `kubectl exec` put it.
const DELIVERED: &str = "/opt/kube/kubectl";
/// How long the question may take.
const LIMIT: Duration = Duration::from_secs(3);
/// What is asked, a line each: phase, why it is not scheduled, what containers wait for or ended with.
const FIELDS: &str = "jsonpath={.status.phase}{\"\\n\"}{.status.reason}{\"\\n\"}\
{range .status.conditions[?(@.status==\"False\")]}{.reason}: {.message}; {end}{\"\\n\"}\
{range .status.containerStatuses[*]}{.state.waiting.reason}: {.state.waiting.message}; {end}{\"\\n\"}\
{range .status.containerStatuses[*]}{.state.terminated.reason}: exit code {.state.terminated.exitCode}; {end}{\"\\n\"}";

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
