//! What a launch that waits for pods says of those that are missing. Pure rendering.

use super::fold::{fold_hosts, sanitize};
use rmpi_types::{LaunchFault, Stage};

/// Causes named one by one, at most.
const CAUSES: usize = 4;

/// `rmpirun: waiting for 3 of 16 hosts: w-4 (name not known), w-[7,9] (tcp: connection refused)`, with its
/// newline.
#[must_use]
pub fn waiting(hosts: &[(String, Option<LaunchFault>)], of: usize) -> String {
    let mut causes: Vec<(String, Vec<&str>)> = Vec::new();
    for (host, fault) in hosts {
        let cause = fault.as_ref().map_or_else(|| "no answer yet".to_owned(), cause);
        match causes.iter_mut().find(|(c, _)| *c == cause) {
            Some((_, names)) => names.push(host),
            None => causes.push((cause, vec![host])),
        }
    }
    let more = causes.len().saturating_sub(CAUSES);
    let one = |(cause, names): &(String, Vec<&str>)| {
        format!("{} ({})", fold_hosts(names.iter().copied()), sanitize(cause))
    };
    let mut list: Vec<String> = causes.iter().take(CAUSES).map(one).collect();
    if more > 0 {
        list.push(format!("{more} more"));
    }
    format!("rmpirun: waiting for {} of {of} hosts: {}\n", hosts.len(), list.join(", "))
}

/// The stage, and what was seen there.
fn cause(fault: &LaunchFault) -> String {
    let what = match fault.stage {
        Stage::Name => fault.what.clone(),
        stage => format!("{stage}: {}", fault.what),
    };
    match &fault.hint {
        Some(hint) if hint.starts_with("Kubernetes: ") => format!("{what}; {hint}"),
        _ => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_one_cause_share_a_place() {
        let refused = LaunchFault::passing(Stage::Tcp, "10.1.2.3 port 2222: connection refused");
        let hosts = [
            ("w-7".to_owned(), Some(refused.clone())),
            ("w-4".to_owned(), Some(LaunchFault::passing(Stage::Name, "not known"))),
            ("w-9".to_owned(), Some(refused)),
            ("w-1".to_owned(), None),
        ];
        let text = waiting(&hosts, 16);
        assert!(text.starts_with("rmpirun: waiting for 4 of 16 hosts: w-"), "{text}");
        assert!(text.contains("(tcp: 10.1.2.3 port 2222: connection refused), w-4 (not known)"), "{text}");
        assert!(text.ends_with("w-1 (no answer yet)\n"), "{text}");
    }
}
