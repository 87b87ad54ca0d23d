//! Which hosts must be reached.

use super::*;
use crate::hosts_needed;

#[test]
fn only_hosts_that_get_ranks_are_needed() {
    let auto = |n: usize| {
        let mut hosts = hosts(&vec![1; n]);
        hosts.iter_mut().for_each(|h| h.slots = Slots::Auto);
        hosts
    };
    let node = || by(object(Object::Node));
    for (hosts, np, placement, expected) in [
        (hosts(&[8; 1000]), Some(2), Placement::default(), 1),
        (hosts(&[8; 1000]), Some(9), Placement::default(), 2),
        (hosts(&[8; 1000]), None, Placement::default(), 1000),
        (hosts(&[8; 1000]), Some(3), node(), 3),
        (hosts(&[2; 3]), Some(7), Placement { oversubscribe: true, ..Placement::default() }, 3),
        (auto(10), Some(3), Placement::default(), 3),
        (auto(10), Some(30), Placement::default(), 10),
        (hosts(&[8; 9]), Some(4), by(MapBy::Ppr(2, Object::Node)), 2),
        (hosts(&[8; 9]), Some(5), Placement { per_node: Some(2), ..Placement::default() }, 3),
        (hosts(&[8; 9]), Some(2), Placement { pe: Some(2), ..Placement::default() }, 9),
        (hosts(&[8; 9]), None, Placement { max_nodes: Some(4), ..Placement::default() }, 4),
        (vec![], Some(2), Placement::default(), 1),
    ] {
        let spec = job(hosts, np, placement);
        let needed = hosts_needed(&spec, &[]).unwrap();
        assert_eq!(needed, (0..expected).collect::<Vec<_>>(), "{np:?} {:?}", spec.placement);
    }
    let seq = job(hosts(&[1; 5]), Some(2), by(MapBy::Seq(vec![4, 2, 0])));
    assert_eq!(hosts_needed(&seq, &[]), Ok(vec![2, 4]));
    let nolocal = job(hosts(&[2; 5]), Some(2), Placement { nolocal: true, ..Placement::default() });
    assert_eq!(hosts_needed(&nolocal, &[0]), Ok(vec![1]));
    let mut fewer = job(hosts(&[2; 5]), Some(2), Placement::default());
    fewer.reach.min_hosts = Some(1);
    assert_eq!(hosts_needed(&fewer, &[]), Ok((0..5).collect()), "the first may fail");
    let zero = job(hosts(&[2; 5]), Some(0), Placement::default());
    assert_eq!(hosts_needed(&zero, &[]), Err(PlanError::ZeroRanks));
}
