//! Which hosts are this machine, without asking a name server, and how many descriptors all of them need.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rmpi_types::spec::{Host, Reach};
use std::net::IpAddr;

/// Descriptors a connected host may need at once: socket or pipes, agent's stderr.
const FDS_PER_HOST: u64 = 4;
/// Descriptors for everything else.
const FDS_OTHER: u64 = 64;

/// Our host name, as the system has it.
pub(crate) fn own_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "localhost".into(), |n| n.to_string_lossy().into_owned())
}

/// Whether ranks of `host` can be started here without any remote shell. A port or user of its own asks for SSH even on
/// this machine, and so does any other loopback address: those are stand-ins for other hosts. A port for all hosts does
/// not: the launcher's own host is often one of the list (`horovodrun -p 12345`, `plm_rsh_args`) and has no server there.
pub(crate) fn is_this_machine(host: &Host, reach: &Reach) -> bool {
    let plain = host.user.is_none() && host.port.is_none();
    needs_no_way(reach) && plain && (is_own_name(&host.name) || is_listed(&host.name, &reach.own_names))
}

/// Whether it is one of the names this machine was said to have.
fn is_listed(name: &str, own: &[String]) -> bool {
    own.iter().any(|n| n.eq_ignore_ascii_case(name.trim_end_matches('.')))
}

/// Whether ranks on this machine are started by this process itself.
pub(crate) fn needs_no_way(reach: &Reach) -> bool {
    reach.local_direct && (reach.agent.is_none() || reach.local_beside_agent)
}

/// An address of a name, for `--advertise`. May ask a name server: only for names the user gave for this.
pub(crate) fn resolve(name: &str) -> Option<IpAddr> {
    if let Ok(ip) = name.trim_matches(['[', ']']).parse() {
        return Some(ip);
    }
    rmpi_ssh::names::addresses(name).ok()?.into_iter().next()
}

fn is_own_name(name: &str) -> bool {
    // Most names are neither addresses nor ours: look at them cheaply, there may be thousands.
    if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return if ip.is_loopback() { is_localhost(ip) } else { is_own_address(ip) };
    }
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let own = own_name();
    let short = own.split('.').next().unwrap_or(&own);
    name.eq_ignore_ascii_case(&own) || name.eq_ignore_ascii_case(short)
}

fn is_localhost(ip: IpAddr) -> bool {
    ip == IpAddr::from([127, 0, 0, 1]) || ip.is_ipv6()
}

fn is_own_address(ip: IpAddr) -> bool {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return false };
    all.filter_map(|i| i.address).any(|a| {
        let v4 = a.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| a.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()))) == Some(ip)
    })
}

/// Raises the limit of open files to its maximum. Says so when that is not enough for `hosts` hosts.
pub(crate) fn raise_nofile(hosts: usize) -> Result<(), String> {
    let need = FDS_OTHER + hosts as u64 * FDS_PER_HOST;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((need, need));
    if soft >= need {
        return Ok(());
    }
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    if hard >= need {
        return Ok(());
    }
    Err(format!(
        "{hosts} host(s) need {need} open files and the limit is {hard}: raise it (ulimit -n {need})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_stand_ins() {
        let host = |name: &str, port| Host { name: name.into(), port, ..Host::default() };
        let reach = Reach::default();
        for (name, port, local) in [
            ("localhost", None, true),
            ("127.0.0.1", None, true),
            ("::1", None, true),
            (own_name().as_str(), None, true),
            ("127.0.0.1", Some(2222), false),
            ("127.0.0.2", None, false),
            ("nosuchhost.invalid", None, false),
            ("192.0.2.1", None, false),
        ] {
            assert_eq!(is_this_machine(&host(name, port), &reach), local, "{name}");
        }
        let off = Reach { local_direct: false, ..Reach::default() };
        assert!(!is_this_machine(&host("localhost", None), &off));
        let port = Reach { ssh_port: Some(12345), ..Reach::default() };
        assert!(is_this_machine(&host("localhost", None), &port));
        let agent = Reach { agent: Some(vec!["ssh".into()]), ..Reach::default() };
        assert!(!is_this_machine(&host("localhost", None), &agent));
    }

    #[test]
    fn a_limit_that_cannot_be_raised_is_named() {
        let error = raise_nofile(usize::MAX / 8).unwrap_err();
        assert!(error.contains("open files"), "{error}");
    }
}
