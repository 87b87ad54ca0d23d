//! Host lists of resource managers, from environments as they give them.

use super::{hosts, run_in, try_run};
use rmpi_types::CpuSet;
use rmpi_types::spec::{MapBy, RankfileCpus};

const SLURM: [(&str, &str); 4] = [
    ("SLURM_JOB_ID", "7"),
    ("SLURM_JOB_NODELIST", "n[1-3],m7"),
    ("SLURM_TASKS_PER_NODE", "2(x3),1"),
    ("SLURM_JOB_CPUS_PER_NODE", "8(x4)"),
];

#[test]
fn slurm() {
    let job = run_in(&SLURM, "p");
    assert_eq!(hosts(&job), "n1:2 n2:2 n3:2 m7:1");
    let agent: Vec<_> =
        job.job.reach.agent.unwrap().iter().map(|w| w.to_string_lossy().into_owned()).collect();
    let agent = agent.join(" ");
    assert!(agent.contains("SLURM_CPU_BIND=none srun") && agent.contains("--mpi=none --overlap"), "{agent}");
    assert!(agent.ends_with("--nodelist={host} sh -c"), "{agent}");
    assert_eq!(run_in(&SLURM, "--launcher ssh p").job.reach.agent, None);
    assert_eq!(hosts(&run_in(&SLURM, "--rmk user p")), "");
    assert_eq!(hosts(&run_in(&SLURM, "--host n2,m7 p")), "n2:1 m7:1");
    let outside = try_run(&SLURM, "--host n9 p").unwrap_err().message;
    assert!(outside.starts_with("n9 is not in SLURM_JOB_NODELIST"), "{outside}");
    let mut step = SLURM.to_vec();
    step.extend([("SLURM_STEP_ID", "3"), ("SLURM_STEP_NODELIST", "n2"), ("SLURM_STEP_TASKS_PER_NODE", "4")]);
    assert_eq!(hosts(&run_in(&step, "p")), "n2:4");
    step.push(("SLURM_STEP_ID", "4294967290"));
    assert_eq!(hosts(&run_in(&step, "p")), "n1:2 n2:2 n3:2 m7:1", "an interactive shell is no step");
    let cpus = [SLURM[0], SLURM[1], SLURM[3], ("SLURM_CPUS_PER_TASK", "4")];
    assert_eq!(hosts(&run_in(&cpus, "p")), "n1:2 n2:2 n3:2 m7:2");
    let mut task = SLURM.to_vec();
    task.extend([("SLURM_PROCID", "1"), ("PMI_RANK", "1")]);
    let singleton = run_in(&task, "p");
    assert_eq!((hosts(&singleton).as_str(), singleton.job.apps[0].np), ("", Some(1)));
    let bad = [SLURM[0], SLURM[1], ("SLURM_TASKS_PER_NODE", "x")];
    let error = try_run(&bad, "p").unwrap_err().message;
    assert_eq!(error, "SLURM_TASKS_PER_NODE: 'x' is not a list of counts");
}

#[test]
fn affinity_of_lsf() {
    let base = [("LSB_JOBID", "1"), ("LSB_MCPU_HOSTS", "h1 2 h2 1")];
    let with = |file: &'static str| [base[0], base[1], ("LSB_AFFINITY_HOSTFILE", file)];
    let map = |line: &str| match run_in(&with("/w/affinity"), line).job.placement.map_by {
        MapBy::Rankfile(places) => places.iter().map(|p| (p.host, p.cpus.clone())).collect(),
        _ => Vec::new(),
    };
    let os = |list: &str| Some(RankfileCpus::Os(CpuSet::parse_list(list).unwrap()));
    assert_eq!(map("p"), [(0, os("0,4")), (0, os("1,5")), (1, None)]);
    assert_eq!(map("-np 2 p"), [(0, os("0,4")), (0, os("1,5"))]);
    for line in ["--map-by node p", "--map-by slot p", "--bind-to none p", "--host h2 p", "--rmk user p"] {
        assert_eq!(map(line), [], "{line}");
    }
    let many = try_run(&with("/w/affinity"), "-np 4 p").unwrap_err().message;
    assert!(many.contains("LSB_AFFINITY_HOSTFILE has 3 places"), "{many}");
    assert_eq!(run_in(&with("/w/empty"), "p").job.placement.map_by, MapBy::Slot);
    for (file, text) in
        [("/w/nodes", "'n1' is none of this job's hosts"), ("/w/badcpus", "'x' is not a list")]
    {
        let error = try_run(&with(file), "p").unwrap_err().message;
        assert!(error.starts_with(&format!("{file}:1: ")) && error.contains(text), "{error}");
    }
}

#[test]
fn others() {
    for (env, want) in [
        (&[("PBS_JOBID", "1"), ("PBS_NODEFILE", "/w/nodes")][..], "n1:2 n2:1"),
        (&[("LSB_JOBID", "1"), ("LSB_MCPU_HOSTS", "h1 4 h2 2")], "h1:4 h2:2"),
        (&[("LSB_JOBID", "1"), ("LSB_HOSTS", "h1 h1 h2")], "h1:2 h2:1"),
        (&[("LSB_JOBID", "1"), ("LSB_DJOB_HOSTFILE", "/w/nodes")], "n1:2 n2:1"),
        (&[("SGE_ROOT", "/sge"), ("ARC", "lx"), ("JOB_ID", "1"), ("PE_HOSTFILE", "/w/pe")], "n1:2 n2.x:1"),
        (&[("COBALT_JOBID", "1"), ("COBALT_NODEFILE", "/w/nodes")], "n1:2 n2:1"),
        (
            &[
                ("FLUX_JOB_ID", "f"),
                ("FLUX_URI", "local:///x"),
                ("FLUX_JOB_NNODES", "2"),
                ("FLUX_JOB_SIZE", "6"),
            ],
            "f1:3 f2:3",
        ),
        (&[("PBS_NODEFILE", "/w/nodes")], ""),
    ] {
        assert_eq!(hosts(&run_in(env, "p")), want, "{env:?}");
    }
    let gone = try_run(&[("PBS_JOBID", "1"), ("PBS_NODEFILE", "/w/gone")], "p").unwrap_err().message;
    assert!(gone.starts_with("PBS_NODEFILE: cannot read '/w/gone': no such file"), "{gone}");
    let none = try_run(&[], "--rmk pbs p").unwrap_err().message;
    assert_eq!(none, "pbs has given this job no hosts: its variables are not set");
    let unknown = try_run(&[], "--rmk ll p").unwrap_err().message;
    assert!(unknown.contains("'ll' is not known"), "{unknown}");
}

#[test]
fn tools_that_are_missing() {
    let lsf = [("LSB_JOBID", "1"), ("LSB_MCPU_HOSTS", "h1 4 h2 2")];
    let job = run_in(&lsf, "p");
    assert_eq!(
        (job.job.reach.agent, job.notes),
        (None, vec!["blaunch is not in PATH here; ssh is used".into()])
    );
    let asked = try_run(&[], "--launcher lsf p").unwrap_err().message;
    assert!(asked.contains("blaunch is not in PATH here"), "{asked}");
}
