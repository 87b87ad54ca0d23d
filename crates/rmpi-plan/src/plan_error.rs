//! Why a job cannot be placed. Texts name hosts and numbers and end with what to do; nothing was started
//! when one of these is returned.

use crate::fold::fold_hosts;
use thiserror::Error;

/// A job that cannot be placed on its hosts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// `-np 0`.
    #[error("0 ranks asked for; give -np 1 or more (was it an empty variable?)")]
    ZeroRanks,
    /// Beyond [`crate::MAX_RANKS`].
    #[error("{asked} ranks asked for; at most {limit} can be started")]
    TooManyRanks {
        /// Ranks asked for.
        asked: u64,
        /// The limit.
        limit: u32,
    },
    /// More ranks than slots.
    #[error("{} asked for, {} given ({hosts}). {fix}", count(u64::from(*.asked), "rank"), count(*.given, "slot"))]
    NotEnoughSlots {
        /// Ranks of the program that did not fit.
        asked: u32,
        /// Slots it can have.
        given: u64,
        /// Hosts with their slots, folded: `n[1-3]=2, n4=1`.
        hosts: String,
        /// What to do.
        fix: String,
    },
    /// More ranks than slots of the hosts that were reached, though not than slots of all hosts.
    #[error(
        "{} asked for, the hosts that were reached have {} ({hosts}); {unreached} not reached",
        count(u64::from(*.asked), "rank"), count(*.given, "slot")
    )]
    NotReached {
        /// Ranks of the program that did not fit.
        asked: u32,
        /// Slots of the hosts that were reached.
        given: u64,
        /// Those hosts with their slots, folded.
        hosts: String,
        /// Hosts not reached, folded.
        unreached: String,
    },
    /// `ppr` or `-N` gives fewer places than ranks.
    #[error(
        "{} asked for, {pattern} gives {} on {}. Lower -np, or raise the number per node",
        count(u64::from(*.asked), "rank"), count(*.places, "place"), count(*.nodes as u64, "node")
    )]
    PatternTooSmall {
        /// Ranks asked for.
        asked: u32,
        /// `ppr:1:node` or `-N 2`.
        pattern: String,
        /// Places it gives.
        places: u64,
        /// Nodes it was applied to.
        nodes: usize,
    },
    /// `ppr` or `-N` wants more of a node than its slots.
    #[error(
        "{hosts}: {pattern} puts {} on {}. Give more slots, or add --oversubscribe",
        count(u64::from(*.ranks), "rank"), count(u64::from(*.slots), "slot")
    )]
    PatternOverSlots {
        /// The nodes, folded.
        hosts: String,
        /// `ppr:1:node` or `-N 2`.
        pattern: String,
        /// Ranks the pattern puts on each of them.
        ranks: u32,
        /// Free slots of each of them.
        slots: u32,
    },
    /// `max_slots` holds even with oversubscription.
    #[error(
        "{hosts}: max_slots={max} is reached with ranks left over. Raise max_slots, lower -np, or add hosts"
    )]
    MaxSlots {
        /// The nodes that are full, folded.
        hosts: String,
        /// Limit of the first of them.
        max: u32,
    },
    /// Nothing is left to run on.
    #[error("no host left for ranks: {why}")]
    NoHosts {
        /// Why.
        why: &'static str,
    },
    /// `seq` has too few lines.
    #[error("{} asked for, the host list has {} left for --map-by seq. Lower -np, or add lines", count(u64::from(*.asked), "rank"), count(*.lines as u64, "line"))]
    SeqTooShort {
        /// Ranks asked for.
        asked: u32,
        /// Lines left.
        lines: usize,
    },
    /// Rank file and rank count differ.
    #[error("the rank file has {lines} ranks, {asked} asked for; every rank needs one line")]
    RankfileCount {
        /// Ranks asked for.
        asked: u64,
        /// Lines of the file.
        lines: usize,
    },
    /// Several programs over one rank file without counts.
    #[error("with a rank file each of several programs needs -np")]
    RankfilePrograms,
    /// A rank file names CPUs the node does not have or we may not use.
    #[error("{origin}: {host} has no usable {what}; usable cores: {usable}")]
    RankfileCpus {
        /// `file:line`.
        origin: String,
        /// The host.
        host: String,
        /// `core 7`, `package 2`.
        what: String,
        /// Usable logical cores of the node.
        usable: String,
    },
    /// More ranks bound to an object than it has cores.
    #[error(
        "{place}: {} to bind to {} ({asked}). Start fewer ranks there, or add --bind-to {object}:overload-allowed",
        count(u64::from(*.ranks), "rank"), count(u64::from(*.units), .unit)
    )]
    Overload {
        /// Nodes (folded), with the object when it is not all of the node.
        place: String,
        /// Ranks there.
        ranks: u32,
        /// `core` or `hwthread`.
        unit: &'static str,
        /// Cores (hardware threads) there.
        units: u32,
        /// The binding asked for.
        asked: String,
        /// Its object.
        object: &'static str,
    },
    /// `--cpu-set` and what we may use have nothing in common, or nothing is known of the node's CPUs.
    #[error("{host}: no usable CPU{why}")]
    NoCpus {
        /// The host.
        host: String,
        /// Detail.
        why: String,
    },
}

/// `1 rank`, `2 ranks`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Hosts with a number each, folded by number: `n[1-3]=2, n4=1`; at most eight groups.
pub(crate) fn fold_counts<'a>(hosts: impl IntoIterator<Item = (&'a str, u32)>) -> String {
    const GROUPS: usize = 8;
    let mut at: std::collections::HashMap<u32, usize> = std::collections::HashMap::new();
    let mut groups: Vec<(u32, Vec<&str>)> = Vec::new();
    for (name, n) in hosts {
        let i = *at.entry(n).or_insert_with(|| {
            groups.push((n, Vec::new()));
            groups.len() - 1
        });
        groups[i].1.push(name);
    }
    let mut parts: Vec<String> =
        groups.iter().take(GROUPS).map(|(n, names)| format!("{}={n}", fold_hosts(names))).collect();
    if groups.len() > GROUPS {
        parts.push("…".to_owned());
    }
    parts.join(", ")
}
