//! The other end of the pods' `kubectl`: enters a ready pod and runs a command there, without a standard input, as
//! `kubexec.sh` has it; says of others that they are pending, to those who may ask. Lines `OUT:`, `ERR:`, `EXIT:` go
//! back.

use super::Shared;
use super::server::Server;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// What `/opt/kube/kubectl` is in the launcher pod.
pub(crate) const KUBECTL: &str = r#"#!/bin/bash
exec 3<>/dev/tcp/10.78.0.1/6443 || exit 1
{ for word; do printf '%s\0' "$word"; done; printf '\4\0'; } >&3
while IFS= read -r line <&3; do
  case $line in
    OUT:*) printf '%s\n' "${line#OUT:}" ;;
    ERR:*) printf '%s\n' "${line#ERR:}" >&2 ;;
    EXIT:*) exit "${line#EXIT:}" ;;
  esac
done
echo "error: unable to upgrade connection: connection closed" >&2
exit 1
"#;

/// What the launcher's manifest says of its grace, in seconds.
pub(super) const GRACE: u64 = 12;

/// What `kubectl get` of a pod that is not ready prints: phase, reason, conditions, what containers wait for.
const PENDING: &str = "OUT:Pending\nOUT:\nOUT:\nOUT:ImagePullBackOff: Back-off pulling image; \nOUT:";

/// Listens at `ip` port 6443 in the namespace of `switch`; commands get `env`. With `rights` the launcher may ask what
/// became of a pod.
pub(super) fn start(
    switch: u32,
    ip: Ipv4Addr,
    env: Vec<(String, String)>,
    rights: bool,
    pods: Shared,
) -> Result<Server, String> {
    let ready = move |listener: &TcpListener| {
        let Ok((stream, _)) = listener.accept() else { return };
        let (env, pods) = (env.clone(), Arc::clone(&pods));
        std::thread::spawn(move || drop(serve(stream, &env, rights, &pods)));
    };
    Server::start(switch, move || TcpListener::bind((ip, 6443)), ready)
        .map_err(|e| format!("exec server: {e}"))
}

fn serve(stream: TcpStream, env: &[(String, String)], rights: bool, pods: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut words = Vec::new();
    loop {
        let mut word = Vec::new();
        if reader.read_until(0, &mut word)? == 0 {
            return Ok(());
        }
        word.pop();
        if word == [4] {
            break;
        }
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    let out = Arc::new(Mutex::new(stream));
    let say = |line: &str| {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(format!("{line}\n").as_bytes())
    };
    let launcher = words.get(2).is_some_and(|pod| pod.ends_with("-launcher"));
    if launcher && words.iter().any(|w| w.contains("terminationGracePeriodSeconds")) {
        say(&format!("OUT:\nOUT:{GRACE}"))?;
        return say("EXIT:0");
    }
    if words.first().is_some_and(|w| w == "get") {
        say(if rights { PENDING } else { "ERR:Error from server (Forbidden): pods is forbidden" })?;
        return say(if rights { "EXIT:0" } else { "EXIT:1" });
    }
    // `cp FILE POD:PATH` of the oldest operator: it is the list of pods.
    let copy = words.get(2).and_then(|to| to.split_once(':')).filter(|_| words[0] == "cp");
    let pod = copy.map_or_else(|| words.get(1).cloned().unwrap_or_default(), |(pod, _)| pod.to_owned());
    let ready = pods.lock().unwrap_or_else(PoisonError::into_inner).get(&pod).cloned();
    let Some(ready) = ready else {
        say(&format!("ERR:Error from server (NotFound): pods \"{pod}\" not found"))?;
        return say("EXIT:1");
    };
    if let Some((_, path)) = copy {
        let list = pods.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = list.iter().map(|(name, pod)| format!("{}\t{name}\n", pod.ip)).collect();
        drop(list);
        let (pid, script) = (ready.pid.to_string(), "printf %s \"$1\" > \"$0\"");
        let done = Command::new("nsenter")
            .args(["-t", &pid, "-m", "--", "sh", "-c", script, path, &text])
            .status()?;
        return say(&format!("EXIT:{}", done.code().unwrap_or(137)));
    }
    let Some(at) = words.iter().position(|w| w == "--").filter(|_| words[0] == "exec") else {
        return say("EXIT:1");
    };
    say("ERR:Defaulted container \"mpi\" out of: mpi, kubectl-delivery (init)")?;
    let mut command = Command::new("nsenter");
    command.args(["-t", &ready.pid.to_string(), "-m", "-u", "-i", "-n", "-p", "--wdns=/", "--", "env", "-i"]);
    command.args(env.iter().map(|(n, v)| format!("{n}={v}"))).args(&words[at + 1..]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pump = |from: Option<Box<dyn Read + Send>>, tag: &'static str| {
        let out = Arc::clone(&out);
        std::thread::spawn(move || {
            for line in BufReader::new(from.unwrap_or_else(|| Box::new(std::io::empty())))
                .lines()
                .map_while(Result::ok)
            {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                if out.write_all(format!("{tag}{line}\n").as_bytes()).is_err() {
                    return;
                }
            }
        })
    };
    let stdout = child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>);
    let stderr = child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>);
    let pumps = [pump(stdout, "OUT:"), pump(stderr, "ERR:")];
    let code = child.wait()?.code().unwrap_or(137);
    for pump in pumps {
        let _ = pump.join();
    }
    say(&format!("EXIT:{code}"))
}
