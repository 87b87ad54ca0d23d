//! Ranks for slots, as Horovod counts them: hosts in order, a host's slots one after the other.

use crate::Member;

/// One rank's place and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The process.
    pub member: Member,
    /// World rank.
    pub rank: u32,
    /// Ranks in all.
    pub size: u32,
    /// Ranks on this host.
    pub local_size: u32,
    /// Which of the hosts that have a rank of this local number.
    pub cross_rank: u32,
    /// How many such hosts there are.
    pub cross_size: u32,
}

impl Slot {
    /// The answer to `GET /rank_and_size/...`.
    #[must_use]
    pub fn answer(&self) -> String {
        format!(
            "{},{},{},{},{},{}",
            self.rank, self.size, self.member.local, self.local_size, self.cross_rank, self.cross_size
        )
    }
}

/// The answer that tells a process it is not in the job any more.
pub const NOT_IN_IT: &str = "-1,-1,-1,-1,-1,-1";

/// Fills the slots of `hosts` (label, slots) in order with at most `most` ranks.
#[must_use]
pub fn assign(hosts: &[(String, u32)], most: u32) -> Vec<Slot> {
    let mut left = most;
    let mut placed: Vec<(&str, u32)> = Vec::new();
    for (host, slots) in hosts {
        let here = left.min(*slots);
        left -= here;
        if here > 0 {
            placed.push((host, here));
        }
    }
    let size = placed.iter().map(|(_, n)| n).sum();
    let mut out = Vec::new();
    for (i, &(host, here)) in placed.iter().enumerate() {
        for local in 0..here {
            let has = |(_, n): &&(&str, u32)| *n > local;
            let rank = u32::try_from(out.len()).unwrap_or(u32::MAX);
            let count =
                |list: &[(&str, u32)]| u32::try_from(list.iter().filter(has).count()).unwrap_or(u32::MAX);
            let member = Member { host: host.to_owned(), local };
            let (cross_rank, cross_size) = (count(&placed[..i]), count(&placed));
            out.push(Slot { member, rank, size, local_size: here, cross_rank, cross_size });
        }
    }
    out
}

/// The sizes of the scopes that Horovod opens for an assignment: `global`, `local_HOST`, `cross_N`.
#[must_use]
pub fn scopes(slots: &[Slot]) -> Vec<(String, usize)> {
    let mut out = vec![("global".to_owned(), slots.len())];
    for slot in slots {
        if slot.member.local == 0 {
            out.push((format!("local_{}", slot.member.host), slot.local_size as usize));
        }
        if slot.cross_rank == 0 {
            out.push((format!("cross_{}", slot.member.local), slot.cross_size as usize));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[(&str, u32)]) -> Vec<(String, u32)> {
        list.iter().map(|(h, n)| ((*h).to_owned(), *n)).collect()
    }

    #[test]
    fn the_specification_s_example() {
        let slots = assign(&hosts(&[("a", 2), ("b", 1)]), 8);
        let answers: Vec<String> = slots.iter().map(Slot::answer).collect();
        assert_eq!(answers, ["0,3,0,2,0,2", "1,3,1,2,0,1", "2,3,0,1,1,2"]);
        let mut sizes = scopes(&slots);
        sizes.sort();
        let want = [("cross_0", 2), ("cross_1", 1), ("global", 3), ("local_a", 2), ("local_b", 1)];
        assert_eq!(sizes, want.map(|(n, s)| (n.to_owned(), s)));
    }

    #[test]
    fn the_most_is_kept_and_empty_hosts_are_passed_over() {
        let slots = assign(&hosts(&[("a", 0), ("b", 3), ("c", 3)]), 4);
        let places: Vec<String> = slots.iter().map(|s| s.member.to_string()).collect();
        assert_eq!(places, ["b:0", "b:1", "b:2", "c:0"]);
        assert_eq!(slots[3].local_size, 1);
        assert!(assign(&[], 4).is_empty());
    }
}
