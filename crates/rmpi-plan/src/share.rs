//! The default division of a node's CPUs: equal contiguous shares that do not straddle NUMA nodes as long as
//! that keeps them equal.

use std::ops::Range;

/// Divides processing elements, given by their domains (package, NUMA node) in order, among `ranks`: ranges that
/// are disjoint, cover all, and differ in length by at most one. `None` when there are fewer elements than ranks.
pub(crate) fn shares<D: PartialEq>(domains: &[D], ranks: usize) -> Option<Vec<Range<usize>>> {
    if ranks == 0 || ranks > domains.len() {
        return None;
    }
    let sizes: Vec<usize> = domains.chunk_by(|a, b| a == b).map(<[D]>::len).collect();
    let aligned = if ranks >= sizes.len() { within(&sizes, ranks) } else { whole(&sizes, ranks) };
    Some(aligned.filter(|cuts| even(cuts)).unwrap_or_else(|| split(0, domains.len(), ranks)))
}

/// Whether lengths differ by at most one.
fn even(cuts: &[Range<usize>]) -> bool {
    let longest = cuts.iter().map(ExactSizeIterator::len).max();
    let shortest = cuts.iter().map(ExactSizeIterator::len).min();
    matches!((longest, shortest), (Some(l), Some(s)) if l - s <= 1)
}

/// `len` elements from `start` in `parts` ranges, the first ones longer by one.
fn split(start: usize, len: usize, parts: usize) -> Vec<Range<usize>> {
    let at = |i: usize| start + i * (len / parts) + i.min(len % parts);
    (0..parts).map(|i| at(i)..at(i + 1)).collect()
}

/// Every rank inside one domain: each further rank goes where elements per rank are most.
fn within(sizes: &[usize], ranks: usize) -> Option<Vec<Range<usize>>> {
    let total: usize = sizes.iter().sum();
    let mut given: Vec<usize> = sizes.iter().map(|s| (s * ranks / total).clamp(1, *s)).collect();
    let mut sum: usize = given.iter().sum();
    while sum < ranks {
        let open = (0..sizes.len()).filter(|&d| given[d] < sizes[d]);
        let most = open.max_by(|&a, &b| (sizes[a] * given[b]).cmp(&(sizes[b] * given[a])).then(b.cmp(&a)))?;
        given[most] += 1;
        sum += 1;
    }
    // Tiny domains were given a rank they are too small for: no even division is aligned then.
    if sum > ranks {
        return None;
    }
    let mut start = 0;
    let mut cuts = Vec::with_capacity(ranks);
    for (&size, &n) in sizes.iter().zip(&given) {
        cuts.extend(split(start, size, n));
        start += size;
    }
    Some(cuts)
}

/// Every rank the same number of whole domains.
fn whole(sizes: &[usize], ranks: usize) -> Option<Vec<Range<usize>>> {
    if !sizes.len().is_multiple_of(ranks) {
        return None;
    }
    let mut start = 0;
    let cut = |group: &[usize]| {
        let from = start;
        start += group.iter().sum::<usize>();
        from..start
    };
    Some(sizes.chunks(sizes.len() / ranks).map(cut).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lens(sizes: &[usize], ranks: usize) -> Vec<usize> {
        let domains: Vec<usize> =
            sizes.iter().enumerate().flat_map(|(d, &n)| std::iter::repeat_n(d, n)).collect();
        shares(&domains, ranks).unwrap_or_default().iter().map(ExactSizeIterator::len).collect()
    }

    #[test]
    fn shares_are_equal_then_aligned() {
        for (sizes, ranks, expected) in [
            (&[64][..], 1, &[64][..]),
            (&[32, 32], 8, &[8; 8]),
            (&[5, 5], 4, &[3, 2, 3, 2]),
            (&[4, 4], 3, &[3, 3, 2]),
            (&[4, 4, 4, 4], 2, &[8, 8]),
            (&[4, 4, 4, 4], 3, &[6, 5, 5]),
            (&[3, 5], 2, &[4, 4]),
            (&[3, 1], 4, &[1; 4]),
            (&[2], 3, &[]),
        ] {
            assert_eq!(lens(sizes, ranks), expected, "{sizes:?} {ranks}");
        }
    }

    proptest! {
        #[test]
        fn shares_cover_all_and_are_equal(sizes in proptest::collection::vec(1usize..20, 1..6), ranks in 1usize..40) {
            let domains: Vec<usize> = sizes.iter().enumerate().flat_map(|(d, &n)| std::iter::repeat_n(d, n)).collect();
            match shares(&domains, ranks) {
                None => prop_assert!(ranks > domains.len()),
                Some(cuts) => {
                    prop_assert_eq!(cuts.len(), ranks);
                    prop_assert!(even(&cuts));
                    prop_assert_eq!((cuts[0].start, cuts[ranks - 1].end), (0, domains.len()));
                    prop_assert!(cuts.windows(2).all(|w| w[0].end == w[1].start));
                }
            }
        }
    }
}
