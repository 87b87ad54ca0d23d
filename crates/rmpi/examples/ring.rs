//! Passes a token around a ring of ranks: `rmpirun -np 4 target/debug/examples/ring`, or alone.

use rmpi::World;
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = World::init()?;
    let comm = world.comm();
    let (rank, size) = (comm.rank(), comm.size());
    let (next, previous) = ((rank + 1) % size, (rank + size - 1) % size);
    let mut token = [0u64];
    if rank == 0 {
        comm.sendrecv(&[1u64], next, 0, &mut token, previous, 0)?;
        let rail = if size > 1 { world.rail(next) } else { world.rail(0) };
        writeln!(
            std::io::stdout(),
            "ring: token {} went through {size} ranks on {} nodes, rail={}",
            token[0],
            world.nodes(),
            rail.unwrap_or("none"),
        )?;
    } else {
        comm.recv(&mut token, previous, 0)?;
        comm.send(&[token[0] + 1], next, 0)?;
    }
    world.finalize()?;
    Ok(())
}
