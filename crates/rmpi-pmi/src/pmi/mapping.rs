//! The `PMI_process_mapping` text: which rank is on which node. Written in full and in the oldest form, which
//! every client reads: a list that wraps round kills Intel MPI, repeats and bare numbers kill MPICH before 4.1.

use rmpi_wire::service::Space;
use std::fmt::Write as _;

/// Bytes of the text, at most: a reply must fit the 1023 bytes that MPICH before 4.1 reads.
const MAX_TEXT: usize = 960;

/// The text for a namespace, or `None` when it is too long: clients then compare host names.
#[must_use]
pub fn mapping(space: &Space) -> Option<String> {
    // Runs of ranks that follow each other on one node, in the order of ranks.
    let ranges = |(i, n): (u32, &rmpi_wire::service::SpaceNode)| {
        n.ranks.ranges().iter().map(|&(lo, hi)| (lo, hi, i)).collect::<Vec<_>>()
    };
    let mut runs: Vec<(u32, u32, u32)> = (0u32..).zip(&space.nodes).flat_map(ranges).collect();
    runs.sort_unstable();
    // A block is as many ranks on each of several nodes that follow each other: (first node, nodes, ranks).
    let mut blocks: Vec<(u32, u32, u32)> = Vec::new();
    for (lo, hi, node) in runs {
        let count = hi - lo + 1;
        match blocks.last_mut() {
            Some((first, nodes, ranks)) if *ranks == count && *first + *nodes == node => *nodes += 1,
            _ => blocks.push((node, 1, count)),
        }
    }
    let mut text = String::from("(vector");
    for (first, nodes, ranks) in blocks {
        let _ = write!(text, ",({first},{nodes},{ranks})");
        if text.len() > MAX_TEXT {
            return None;
        }
    }
    text.push(')');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pmi::testing::space;

    #[test]
    fn worked_layouts() {
        let text = |nodes: &[&[u32]]| mapping(&space(0, nodes)).unwrap();
        assert_eq!(text(&[&[0, 1, 2, 3]]), "(vector,(0,1,4))");
        assert_eq!(text(&[&[0, 1], &[2, 3]]), "(vector,(0,2,2))");
        assert_eq!(text(&[&[0, 2], &[1, 3]]), "(vector,(0,2,1),(0,2,1))");
        assert_eq!(text(&[&[0, 1, 2], &[3, 4]]), "(vector,(0,1,3),(1,1,2))");
        assert_eq!(text(&[&[0, 1, 4, 5], &[2, 3]]), "(vector,(0,2,2),(0,1,2))");
        assert_eq!(text(&[&[1, 3], &[0], &[2]]), "(vector,(1,1,1),(0,1,1),(2,1,1),(0,1,1))");
    }

    #[test]
    fn a_text_too_long_for_one_value_is_not_given() {
        let odd: Vec<u32> = (0..400).filter(|r| r % 3 == 0).collect();
        let even: Vec<u32> = (0..400).filter(|r| r % 3 != 0).collect();
        assert_eq!(mapping(&space(0, &[&odd, &even])), None);
    }
}
