//! What a tuning table says is done, and whatever it says every message arrives.

use super::*;

fn engines_tuned(rail: Rail, thresholds: Thresholds) -> Vec<Engine> {
    let shm = (rail == Rail::Shm).then(|| rmpi_shm::create(&[0, 1]).unwrap());
    engines_with(rail, 2, true, shm, thresholds).0
}

/// Whether a send of `len` bytes is over while its receiver has not asked for it.
fn is_eager(rail: Rail, thresholds: Thresholds, len: usize) -> bool {
    let outcome = run(
        engines_tuned(rail, thresholds),
        &Arc::new(move |me, e: &Engine| {
            let data = pattern(len, 3);
            if me == 0 {
                let op = e.with(|c| c.send_owned(to(1, 1), Box::new(data)));
                // The answer to a later message: what could be done without the receive has been done.
                e.send(to(1, 2), &[]).unwrap();
                e.recv(&from(1, 3), &mut []).unwrap();
                let over = e.with(|c| c.is_done(op));
                e.send(to(1, 4), &[]).unwrap();
                e.wait(op).0.unwrap();
                over
            } else {
                e.recv(&from(0, 2), &mut []).unwrap();
                e.send(to(0, 3), &[]).unwrap();
                e.recv(&from(0, 4), &mut []).unwrap();
                let mut got = vec![0; len];
                e.recv(&from(0, 1), &mut got).unwrap();
                assert!(got == data);
                false
            }
        }),
    );
    outcome[0]
}

#[test]
fn the_table_says_what_is_sent_without_asking() {
    let built_in = Thresholds::default();
    let few = Thresholds { eager: 2048, local_eager: 1000, ..built_in };
    let many = Thresholds { eager: 200 << 10, ..built_in };
    for rail in [Rail::Tcp, Rail::Tls, Rail::Quic] {
        for (thresholds, len, eager) in [
            (few, 2048, true),
            (few, 2049, false),
            (built_in, 64 << 10, true),
            (built_in, (64 << 10) + 1, false),
            (many, 200 << 10, true),
        ] {
            assert_eq!(is_eager(rail, thresholds, len), eager, "{len} bytes over {rail:?} by {thresholds:?}");
        }
    }
    for (thresholds, len, eager) in [(few, 1000, true), (few, 1001, false), (built_in, 1001, true)] {
        assert_eq!(is_eager(Rail::Shm, thresholds, len), eager, "{len} bytes in memory by {thresholds:?}");
    }
}

#[test]
fn messages_arrive_whatever_the_table_says() {
    let tables = [0, 1, 2].map(|which| {
        let mut t = Thresholds::default();
        for (i, threshold) in Threshold::ALL.iter().enumerate() {
            let (least, most) = (threshold.range.start(), threshold.range.end());
            // All at their least, all at their most, and a mix.
            let value = if which == 0 || (which == 2 && i % 2 == 0) { least } else { most };
            threshold.set(&mut t, &value.to_string()).unwrap();
        }
        t
    });
    for rail in [Rail::Tcp, Rail::Tls, Rail::Quic, Rail::Shm] {
        for thresholds in tables {
            let f = |me: u32, e: &Engine| {
                let near = [64, 1 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20].into_iter();
                let lens = near.flat_map(|n| [n, n + 1]).chain([0, 3 << 20]);
                for (round, len) in lens.enumerate() {
                    let (sent, mut got) = (pattern(len, round as u64), vec![0; len]);
                    if me == 0 {
                        e.send(to(1, 1), &sent).unwrap();
                        e.recv(&from(1, 2), &mut got).unwrap();
                        // One that was not asked for, behind one that was.
                        let op = e.with(|c| c.send_owned(to(1, 3), Box::new(sent.clone())));
                        e.send(to(1, 4), &sent).unwrap();
                        e.wait(op).0.unwrap();
                    } else {
                        e.recv(&from(0, 1), &mut got).unwrap();
                        e.send(to(0, 2), &got).unwrap();
                        let mut other = vec![0; len];
                        e.recv(&from(0, 4), &mut other).unwrap();
                        assert!(other == sent, "{len} bytes");
                        e.recv(&from(0, 3), &mut other).unwrap();
                        assert!(other == sent, "{len} bytes");
                    }
                    assert!(got == sent, "{len} bytes");
                }
            };
            run(engines_tuned(rail, thresholds), &Arc::new(f));
        }
    }
}
