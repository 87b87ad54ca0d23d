//! Rows: getting onto the hosts.

use crate::output::absolute;
use crate::row::{Act, Row, Topic, row};
use crate::values::{self, port};
use rmpi_types::spec::HostKeys;
use std::path::PathBuf;

const T: Topic = Topic::Ssh;

pub(super) const ROWS: &[Row] = &[
    row(
        T,
        "launch-exec",
        &["launcher-exec", "bootstrap-exec"],
        "CMD",
        Act::Os(|t, cmd| {
            t.job.agent = Some(cmd);
            Ok(())
        }),
        "Reach hosts by running 'CMD HOST COMMAND' instead of the built-in SSH client; 'ssh' means the built-in one.",
    ),
    row(
        T,
        "launcher",
        &["bootstrap"],
        "KIND",
        Act::Text(|t, kind| {
            (t.job.tool, t.job.ssh_asked) = (None, matches!(kind, "ssh" | "manual" | "fork"));
            (t.job.fork, t.job.rsh) = match kind {
                "ssh" | "manual" => (false, false),
                "fork" => (true, false),
                "rsh" => (false, true),
                "slurm" => return t.tool("srun"),
                "lsf" => return t.tool("blaunch"),
                "sge" => return t.tool("qrsh"),
                "pbs" => return t.tool("pbs_tmrsh"),
                "ll" | "persist" => return Err(format!("{kind} is not supported; use ssh")),
                _ => return Err(format!("'{kind}' is not known (there are: ssh fork slurm lsf sge pbs)")),
            };
            Ok(())
        }),
        "How hosts are reached: ssh (the default), fork (every host is this machine), or the tool of a resource manager: \
         slurm (srun), lsf (blaunch), sge (qrsh), pbs (pbs_tmrsh).",
    ),
    row(
        T,
        "ssh-args",
        &[],
        "ARGS",
        Act::Os(|t, args| {
            t.job.ssh_args = Some(args);
            Ok(())
        }),
        "Arguments as for ssh, in one word: -p -i -l -o -F -J (Open MPI's plm_rsh_args).",
    ),
    row(
        T,
        "ssh-port",
        &[],
        "PORT",
        Act::Text(|t, text| {
            t.job.ssh_port = Some(port(text)?);
            Ok(())
        }),
        "SSH port of hosts that give none.",
    ),
    row(
        T,
        "ssh-identity-file",
        &[],
        "FILE",
        Act::Os(|t, file| {
            let path = absolute(t, &file)?;
            t.job.identities.push(t.job.layer, path);
            Ok(())
        }),
        "Try this private key first. May be repeated.",
    ),
    row(
        T,
        "ssh-config",
        &[],
        "FILE",
        Act::Os(|t, file| {
            let path = if file == "none" { PathBuf::from("none") } else { absolute(t, &file)? };
            t.job.job.reach.ssh_config = Some(path);
            Ok(())
        }),
        "Read this instead of ~/.ssh/config and the system's file; 'none' reads nothing.",
    ),
    row(
        T,
        "host-keys",
        &[],
        "POLICY",
        Act::Text(|t, policy| {
            t.job.host_keys = Some(match policy {
                "strict" => HostKeys::Strict,
                "accept-new" => HostKeys::AcceptNew,
                "off" => HostKeys::Off,
                _ => return Err(format!("'{policy}' is not strict, accept-new or off")),
            });
            Ok(())
        }),
        "Unknown host keys: strict refuses them, accept-new adds them to known_hosts, off checks nothing. Without it \
         the SSH configuration decides, strict if that says nothing.",
    ),
    row(
        T,
        "ssh-concurrency",
        &[],
        "N",
        Act::Count(|t, n| {
            t.job.job.reach.concurrency = n as usize;
            Ok(())
        }),
        "Connections being made at once (64).",
    ),
    row(
        T,
        "connect-timeout",
        &[],
        "TIME",
        Act::Time(|t, time| {
            if time.is_zero() {
                return Err("0 is not possible: the time must be above 0".into());
            }
            t.job.connect_timeout = Some(time);
            Ok(())
        }),
        "Time for connecting and authenticating, each try (10 s).",
    ),
    row(
        T,
        "connect-retries",
        &[],
        "N",
        Act::Count(|t, n| {
            t.job.connect_retries = Some(n);
            Ok(())
        }),
        "Tries for each host (3).",
    ),
    row(
        T,
        "launch-timeout",
        &["start-timeout", "spawn-timeout"],
        "TIME",
        Act::Text(|t, text| {
            t.job.job.limits.launch = Some(values::limit(text)?);
            Ok(())
        }),
        "Time for the whole launch (60 s and 0.1 s a host; 300 s in a launcher pod).",
    ),
    row(
        T,
        "wait-hosts",
        &[],
        "TIME",
        Act::Text(|t, text| {
            t.job.job.limits.launch = Some(values::limit(text)?);
            Ok(())
        }),
        "Time that hosts may take to come: --launch-timeout by another name, for launcher pods (300 s there).",
    ),
    row(
        T,
        "dial-back",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.reach.dial_back = true;
            Ok(())
        }),
        "The launch agent passes no standard input on: it only starts the daemons, which dial us. Known of kubexec.sh.",
    ),
    row(
        T,
        "min-hosts",
        &[],
        "N",
        Act::Count(|t, n| {
            t.job.job.reach.min_hosts = Some(n);
            Ok(())
        }),
        "Go on without the others if at least N hosts can be used.",
    ),
    row(
        T,
        "daemon",
        &[],
        "HOW",
        Act::Os(|t, how| {
            use std::ffi::OsStr;
            use std::os::unix::ffi::OsStrExt;
            t.job.job.reach.daemon = match how.as_bytes() {
                b"push" | b"auto" => None,
                bytes => match bytes.strip_prefix(b"path:") {
                    Some(p) if !p.is_empty() => Some(PathBuf::from(OsStr::from_bytes(p))),
                    _ => return Err(format!("'{}' is not push, auto or path:PATH", how.to_string_lossy())),
                },
            };
            Ok(())
        }),
        "The daemon on the hosts: push (ours, the default) or path:PATH (installed there).",
    ),
    row(
        T,
        "launch-agent",
        &[],
        "CMD",
        Act::Os(|t, cmd| {
            use std::os::unix::ffi::OsStrExt;
            let name = std::path::Path::new(&cmd).file_name().unwrap_or_default().as_bytes();
            if name.starts_with(b"orted") || name.starts_with(b"prted") {
                let text =
                    format!("{}: our own daemon is used instead of {}", t.spelled, cmd.to_string_lossy());
                t.note(text);
            } else {
                t.job.job.reach.daemon = Some(PathBuf::from(cmd));
            }
            Ok(())
        }),
        "The daemon's path on the hosts, as --daemon path:PATH; Open MPI's own daemons are not used.",
    ),
    row(
        T,
        "local-ssh",
        &[],
        "",
        Act::Flag(|t| {
            t.job.job.reach.local_direct = false;
            Ok(())
        }),
        "Use SSH even for hosts that are this machine.",
    ),
];
