//! Messages between ranks 0 and 1: ping-pong and stream. Other ranks only meet them at barriers.

use crate::run::{Bench, BenchError, iterations, warm_up};
use std::time::Instant;

/// Messages of a stream before its receiver answers.
const WINDOW: usize = 32;

/// Ping-pong; half of a round trip is reported.
pub(crate) fn latency(b: &Bench, max: usize) -> Result<(), BenchError> {
    let (comm, rank) = (b.comm(), b.rank());
    let mut buffer = vec![0u8; max];
    let mut n = 1;
    while n <= max {
        let (timed, warm) = (iterations(n), warm_up(iterations(n)));
        let data = &mut buffer[..n];
        data.fill(if rank == 0 { 7 } else { 0 });
        comm.barrier()?;
        let mut start = Instant::now();
        for i in 0..warm + timed {
            if i == warm {
                start = Instant::now();
            }
            if rank == 0 {
                comm.send(data, 1, 1)?;
                comm.recv(data, 1, 1)?;
            } else if rank == 1 {
                comm.recv(data, 0, 1)?;
                comm.send(data, 0, 1)?;
            }
        }
        let one_way = start.elapsed().div_f64(2.0 * timed as f64);
        b.check("latency", n, rank > 1 || (data[0] == 7 && data[n - 1] == 7))?;
        b.report("latency", n, one_way, n as f64)?;
        n *= if n < 1024 { 8 } else { 4 };
    }
    Ok(())
}

/// Windows of messages one way, each answered by one byte; the time of one message is reported.
pub(crate) fn stream(b: &Bench, mode: &'static str, min: usize, max: usize) -> Result<(), BenchError> {
    let (comm, rank) = (b.comm(), b.rank());
    let mut buffer = vec![0u8; max];
    let mut n = min;
    while n <= max {
        let (timed, warm) = (iterations(n) / 8 + 2, 1);
        let data = &mut buffer[..n];
        data.fill(if rank == 0 { 9 } else { 0 });
        comm.barrier()?;
        let mut start = Instant::now();
        for i in 0..warm + timed {
            if i == warm {
                start = Instant::now();
            }
            if rank == 0 {
                comm.scope(|s| {
                    let mut sends = Vec::with_capacity(WINDOW);
                    for _ in 0..WINDOW {
                        sends.push(s.isend(data, 1, 2)?);
                    }
                    s.wait_all(sends)
                })?;
                comm.recv(&mut [0u8], 1, 3)?;
            } else if rank == 1 {
                comm.scope(|s| {
                    let receives = s.irecv_over(data, WINDOW, 0, 2)?;
                    s.wait_all(receives)
                })?;
                comm.send(&[0u8], 0, 3)?;
            }
        }
        let one = start.elapsed().div_f64((timed * WINDOW) as f64);
        b.check(mode, n, rank != 1 || (data[0] == 9 && data[n - 1] == 9))?;
        b.report(mode, n, one, n as f64)?;
        n *= 4;
    }
    Ok(())
}
