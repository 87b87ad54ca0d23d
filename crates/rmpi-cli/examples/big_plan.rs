//! How long it takes to understand a command line with a host file of many hosts and to place its ranks:
//! `cargo run --release -p rmpi-cli --example big_plan [HOSTS [RANKS_A_HOST]]`.

#![allow(clippy::print_stdout, reason = "prints what it measured")]

use rmpi_cli::{Parsed, Sources, parse};
use rmpi_plan::{NodeFacts, hosts_needed, place};
use rmpi_types::Topology;
use std::fmt::Write as _;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|n| n.parse::<u32>());
    let hosts = numbers.next().transpose()?.unwrap_or(10_000);
    let each = numbers.next().transpose()?.unwrap_or(8);
    let mut file = String::new();
    for i in 0..hosts {
        writeln!(file, "node{i:05}.cluster.example.org slots={each}")?;
    }
    let env = std::env::vars_os().collect();
    let start = Instant::now();
    let sources = Sources {
        env: &env,
        read_file: &|path| match path.ends_with("hosts") {
            true => Ok(file.clone().into_bytes()),
            false => Err(std::io::ErrorKind::NotFound.into()),
        },
        read_stdin: &|| Ok(Vec::new()),
        run: &|_| Err(std::io::ErrorKind::NotFound.into()),
        have: &|_| false,
        cwd: "/".into(),
        argv0: "rmpirun".into(),
    };
    let np = (hosts * each).to_string();
    let args = ["--rmk", "user", "--hostfile", "hosts", "-np", &np, "./train"].map(Into::into).to_vec();
    let Parsed::Run(command) = parse(args, &sources)? else { return Err("no job".into()) };
    let understood = start.elapsed();
    let needed = hosts_needed(&command.job, &[])?;
    let topology = Topology::flat(each);
    let facts =
        needed.iter().map(|&h| NodeFacts { hosts: vec![h], local: false, topology: topology.clone() });
    let facts: Vec<NodeFacts> = facts.collect();
    let before = start.elapsed();
    let plan = place(&command.job, &facts)?;
    let placed = start.elapsed();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    println!(
        "{hosts} hosts, {} ranks: understood in {:.1} ms, placed in {:.1} ms, peak {peak}",
        plan.ranks.len(),
        understood.as_secs_f64() * 1e3,
        (placed - before).as_secs_f64() * 1e3
    );
    Ok(())
}
