//! Inside a real Slurm: Debian's slurmctld and a slurmd on every host of the cluster, `salloc` and `sbatch` running
//! rmpirun over `srun` and over ssh. What was run and what came of it is printed (`--nocapture`). It takes half a minute:
//! `RMPI_LONG=1` or `RMPI_SLURM=1`.

#![allow(clippy::print_stdout, reason = "the log of what was run")]

use rmpi_tests::bins;
use rmpi_tests::cluster::Cluster;
use rmpi_tests::procs::{Finished, run, until};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const HOSTS: usize = 3;
const LIMIT: Duration = Duration::from_secs(120);

/// The controller on `n0` and a daemon on every other host; they end with the cluster's hosts.
struct Slurm<'a> {
    cluster: &'a Cluster,
    conf: PathBuf,
    bin: PathBuf,
    daemons: Vec<Child>,
}

impl<'a> Slurm<'a> {
    /// Without keys and control groups: neither is to be had in namespaces, and nothing here is about them.
    fn up(cluster: &'a Cluster) -> Self {
        let dir = cluster.shared();
        let d = dir.display();
        let conf = dir.join("slurm.conf");
        let text = format!(
            "ClusterName=rmpi\nSlurmctldHost=n0\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/none\nCredType=cred/none\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\nMpiDefault=none\nReturnToService=2\nSlurmdParameters=config_overrides\n\
             SlurmctldPidFile=/tmp/slurmctld.pid\nSlurmdPidFile=/tmp/slurmd.pid\nSlurmdSpoolDir=/tmp/slurmd\n\
             StateSaveLocation=/tmp/state\nSlurmctldLogFile={d}/slurmctld.log\nSlurmdLogFile={d}/slurmd.%n.log\n\
             KillWait=2\nNodeName=n[1-{HOSTS}] CPUs=2\nPartitionName=all Nodes=ALL Default=YES State=UP\n"
        );
        fs::write(&conf, text).expect("the shared folder is writable");
        let bin = cluster.install(&["rmpirun", "rmpid"]);
        let mut slurm = Self { cluster, conf, bin, daemons: Vec::new() };
        let state = slurm.command("n0", "mkdir").args(["-p", "/tmp/state"]).status();
        assert!(state.is_ok_and(|s| s.success()));
        slurm.daemon("n0", "slurmctld");
        for i in 1..=HOSTS {
            slurm.daemon(&format!("n{i}"), "slurmd");
        }
        let idle = until(LIMIT, || {
            let nodes = slurm.command("n0", "sinfo").args(["-h", "-t", "idle", "-o", "%D"]).output();
            nodes.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).trim() == HOSTS.to_string())
        });
        let logs = ["slurmctld.log", "slurmd.n1.log"].map(|f| fs::read_to_string(dir.join(f)));
        assert!(idle, "the nodes do not become idle: {logs:?}");
        slurm
    }

    fn command(&self, host: &str, program: &str) -> Command {
        let mut command = self.cluster.command(host, "env");
        command.arg(format!("SLURM_CONF={}", self.conf.display()));
        command.arg(format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", self.bin.display()));
        command.arg(program);
        command
    }

    fn daemon(&mut self, host: &str, program: &str) {
        let null = Stdio::null;
        let child = self.command(host, program).arg("-D").stdin(null()).stdout(null()).stderr(null()).spawn();
        self.daemons.push(child.expect("it is installed"));
    }

    /// Runs a command line on `n0`, and prints both.
    fn shell(&self, line: &str) -> Finished {
        let done = run(self.command("n0", "sh").args(["-c", line]), LIMIT);
        println!(
            "$ {line}\n{}{}rc {} after {:.1} s\n",
            done.out(),
            done.stderr,
            done.code,
            done.took.as_secs_f64()
        );
        done
    }

    /// Nothing of ours is left on any host.
    fn clean(&self) -> bool {
        until(Duration::from_secs(60), || {
            (0..=HOSTS).all(|i| {
                let ours = |line: &String| line.contains("rmpi") && line.contains("/bin/");
                !self.cluster.ps(&format!("n{i}")).iter().any(ours)
            })
        })
    }
}

impl Drop for Slurm<'_> {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.iter().fold(String::new(), |mut all, line| {
        let _ = write!(all, "{line};");
        all
    })
}

fn installed(program: &str) -> bool {
    Path::new("/usr/sbin").join(program).exists()
}

#[test]
fn jobs_of_a_real_slurm() {
    if !rmpi_tests::long() && std::env::var_os("RMPI_SLURM").is_none() {
        return println!("skipped: RMPI_SLURM=1 runs it");
    }
    if !["slurmctld", "slurmd"].into_iter().all(installed) {
        return println!("skipped: Slurm is not installed (Debian: slurm-wlm)");
    }
    let cluster = match Cluster::up(HOSTS, None) {
        Ok(cluster) => cluster,
        Err(why) => return println!("skipped: {why}"),
    };
    let slurm = Slurm::up(&cluster);
    println!("programs of {}", bins::dir().display());
    let everywhere = "n1;n1;n2;n2;n3;n3;";

    // The allocation's hosts and slots, over srun.
    let done = slurm.shell("salloc -Q -N3 -n6 rmpirun hostname");
    assert_eq!((done.code, sorted(&done.out()).as_str()), (0, everywhere), "{}", done.stderr);
    let done = slurm.shell("salloc -Q -N3 -n6 rmpirun --dry-run hostname");
    assert!(done.stderr.contains("SLURM_CPU_BIND=none srun "), "{}", done.stderr);

    // Over ssh, when that is asked for.
    let done = slurm.shell("salloc -Q -N3 -n6 rmpirun --launcher ssh hostname");
    assert_eq!((done.code, sorted(&done.out()).as_str()), (0, everywhere), "{}", done.stderr);

    // Fewer slots than cores; a selection; a host outside; standard input; a failing rank.
    let done = slurm.shell("salloc -Q -N2 -n2 rmpirun sh -c 'echo $RANK of $WORLD_SIZE on $(hostname)'");
    assert_eq!(sorted(&done.out()), "0 of 2 on n1;1 of 2 on n2;");
    let done = slurm.shell("salloc -Q -N3 -n6 rmpirun --host n3:2 hostname");
    assert_eq!((done.code, done.out().as_str()), (0, "n3\nn3\n"), "{}", done.stderr);
    let done = slurm.shell("salloc -Q -w n1 -N1 -n1 rmpirun --host n2 hostname");
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("n2 is not in SLURM_JOB_NODELIST"), "{}", done.stderr);
    let done = slurm.shell("seq 100000 | salloc -Q -N2 -n2 rmpirun wc -l");
    assert_eq!(sorted(&done.out()), "0;100000;", "{}", done.stderr);
    let done = slurm.shell("salloc -Q -N3 -n3 rmpirun sh -c 'test $RANK = 2 && exit 7; sleep 30'");
    assert_eq!(done.code, 7);
    assert!(done.stderr.contains("rank 2 on n3"), "{}", done.stderr);
    assert!(slurm.clean(), "something is left");

    // A batch script runs on the first node of its allocation.
    let out = cluster.shared().join("batch.out");
    let script = "#!/bin/sh\nrmpirun -np 5 hostname\necho ended $?\n";
    fs::write(cluster.shared().join("batch.sh"), script).expect("the shared folder is writable");
    let (shown, script) = (out.display(), cluster.shared().join("batch.sh"));
    let done = slurm.shell(&format!("sbatch -W -Q -N3 -n6 -D / -o {shown} {}", script.display()));
    let text = fs::read_to_string(&out).unwrap_or_default();
    println!("{text}");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(sorted(&text), "ended 0;n1;n1;n2;n2;n3;");

    // A job that is cancelled leaves nothing.
    let line = "salloc -Q -J doomed -N3 -n6 rmpirun sleep 600 & \
                until srun -Q --jobid $(squeue -h -n doomed -o %i) --overlap -w n3 pgrep -x sleep; do sleep 0.2; done; \
                scancel -n doomed; wait $!";
    let done = slurm.shell(line);
    assert_ne!(done.code, 0);
    assert!(slurm.clean(), "something is left");

    // A task that srun started is a job of its own.
    let done = slurm.shell("srun -Q --mpi=pmi2 -N2 -n2 rmpirun sh -c 'echo $WORLD_SIZE on $(hostname)'");
    assert_eq!(sorted(&done.out()), "1 on n1;1 on n2;", "{}", done.stderr);
}
