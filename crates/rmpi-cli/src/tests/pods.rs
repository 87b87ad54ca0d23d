//! Launcher pods of every operator, from the files under `tests/kubernetes`: which hosts, how many slots, which way.

use crate::{CliError, Command, Parsed, Sources, parse};
use rmpi_types::spec::{EnvMap, Slots};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kubernetes")
}

/// A launcher pod: its files, its environment, its line in `/etc/hosts`.
struct Pod {
    root: PathBuf,
    env: EnvMap,
    hosts: String,
}

fn pod(name: &str) -> Pod {
    let root = folder().join("pods").join(name).join("launcher");
    let text = std::fs::read_to_string(root.join("env")).unwrap();
    let env = text.lines().filter_map(|l| l.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect();
    Pod { root, env, hosts: "127.0.0.1 localhost\n".into() }
}

impl Pod {
    fn set(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    fn unset(mut self, name: &str) -> Self {
        self.env.remove(std::ffi::OsStr::new(name));
        self
    }

    fn hosts(mut self, line: &str) -> Self {
        self.hosts.push_str(line);
        self
    }

    fn run(&self, line: &str) -> Result<Command, CliError> {
        self.run_words(line.split_whitespace().map(OsString::from).collect(), None)
    }

    fn run_words(&self, words: Vec<OsString>, hostfile: Option<&str>) -> Result<Command, CliError> {
        let read = |path: &Path| -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/etc/hosts") => Ok(self.hosts.clone().into_bytes()),
                Some("/proc/sys/kernel/hostname") => std::fs::read(self.root.join("hostname")),
                Some("/etc/mpi/hostfile") if hostfile == Some("-") => Err(io::ErrorKind::NotFound.into()),
                Some("/etc/mpi/hostfile") if hostfile.is_some() => Ok(hostfile.unwrap_or_default().into()),
                Some(path) if path.starts_with("/etc/mpi/") => std::fs::read(self.root.join(&path[1..])),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        };
        let sources = Sources {
            env: &self.env,
            read_file: &read,
            read_stdin: &|| Ok(Vec::new()),
            run: &|words| {
                let name = words[0].to_str().unwrap_or_default();
                let script = std::fs::read_to_string(self.root.join(name.trim_start_matches('/')))?;
                let hosts = script.lines().filter_map(|l| l.strip_prefix("echo "));
                Ok(hosts.map(|h| format!("{h}\n")).collect::<String>().into_bytes())
            },
            have: &|_| false,
            cwd: "/w".into(),
            argv0: words.first().cloned().unwrap_or_default(),
        };
        match parse(words[1..].to_vec(), &sources)? {
            Parsed::Run(command) => Ok(*command),
            Parsed::Print { text } => Err(CliError::new(text)),
        }
    }
}

fn slots(command: &Command) -> Vec<(&str, u32)> {
    let count = |s: Slots| if let Slots::Count(n) = s { n } else { 0 };
    command.job.hosts.iter().map(|h| (h.name.as_str(), count(h.slots))).collect()
}

#[test]
fn every_operator_gives_hosts_slots_and_a_way() {
    const SVC: &str = "pi-worker-0.pi.default.svc";
    for (name, first, each, kubexec) in [
        ("mpi-v1alpha2-0.2", "pi-worker-0", 2, true),
        ("mpi-v1-0.3", "pi-worker-0", 2, true),
        ("training-v1-1.9", "pi-worker-0", 2, true),
        ("training-v1-1.9-gpu-launcher", "pi-launcher", 8, true),
        ("mpi-v2beta1-0.3-openmpi", "pi-worker-0.pi-worker", 2, false),
        ("mpi-v2beta1-0.4-openmpi", "pi-worker-0.pi-worker.default.svc", 2, false),
        ("mpi-v2beta1-0.8-openmpi", SVC, 2, false),
        ("mpi-v2beta1-0.8-intel", SVC, 2, false),
        ("mpi-v2beta1-0.8-mpich", SVC, 2, false),
        (
            "mpi-v2beta1-0.8-openmpi-launcher-as-worker-domain",
            "pi-launcher.pi.default.svc.cluster.local",
            4,
            false,
        ),
        ("trainer-v2.2-launcher-as-node", "mlx-launcher-0-0.mlx", 2, false),
        ("trainer-v2.3-launcher-as-node", "mlx-node-0-0.mlx", 2, false),
    ] {
        // Hydra's own host files have one slot for a bare name.
        let hydra = !name.contains("0.3-openmpi");
        for program in ["rmpirun", "mpirun", "mpiexec"].into_iter().chain(hydra.then_some("mpiexec.hydra")) {
            let command =
                pod(name).run(&format!("{program} -n 4 prog")).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(slots(&command)[0], (first, each), "{name}: {program}");
            let reach = &command.job.reach;
            assert!(reach.patient && reach.dial_back == kubexec, "{name}: {reach:?}");
            assert_eq!(reach.agent.is_some(), kubexec, "{name}");
            assert_eq!(command.job.limits.launch, Some(Duration::from_secs(300)), "{name}");
        }
    }
    let host = pod("volcano").env[std::ffi::OsStr::new("MPI_HOST")].to_str().unwrap().to_owned();
    // An old recipe leaves a comma at the end.
    let command =
        pod("volcano").run(&format!("mpiexec --allow-run-as-root --host {host}, -np 2 prog")).unwrap();
    let want = ["lm-mpi-job-mpiworker-0.lm-mpi-job", "lm-mpi-job-mpiworker-1.lm-mpi-job"].map(|h| (h, 1));
    assert_eq!(slots(&command), want);
    assert!(command.job.reach.patient);
}

#[test]
fn ranks_have_the_pod_s_grace_unless_the_user_gives_another() {
    let grace = |pod: Pod, line: &str| pod.run(line).unwrap().job.limits.pod_grace.map(|g| g.as_secs());
    assert_eq!(grace(pod("training-v1-1.9"), "mpirun prog"), Some(30));
    assert_eq!(grace(pod("training-v1-1.9"), "mpirun --kill-grace 9 prog"), None);
    assert_eq!(grace(pod("training-v1-1.9").set("RMPIRUN_KILL_GRACE", "9"), "mpirun prog"), None);
    let operators = ["OMPI_MCA_plm_rsh_agent", "OMPI_MCA_orte_default_hostfile"];
    let plain = operators.into_iter().fold(pod("training-v1-1.9"), Pod::unset);
    let own = |pod: &Pod| {
        let words = "mpirun --host localhost:2 prog".split(' ').map(OsString::from).collect();
        pod.run_words(words, Some("-")).unwrap().job.limits.pod_grace
    };
    assert_eq!(own(&plain), None, "this is no pod");
    assert!(own(&plain.set("KUBERNETES_SERVICE_HOST", "10.96.0.1")).is_some());
}

#[test]
fn the_host_file_is_found_without_its_variable() {
    let mpi = pod("mpi-v2beta1-0.8-openmpi").unset("OMPI_MCA_orte_default_hostfile");
    assert_eq!(slots(&mpi.run("mpirun prog").unwrap()).len(), 2);
    let intel = pod("mpi-v2beta1-0.8-intel").unset("I_MPI_HYDRA_HOST_FILE");
    assert_eq!(slots(&intel.run("mpiexec.hydra -n 2 prog").unwrap()).len(), 2);
    let words = |text: &str| text.split_whitespace().map(OsString::from).collect();
    let odd = "# made by hand\r\n\r\npi-worker-0 slots=2\r\n  pi-worker-1 slots=2";
    let command = mpi.run_words(words("mpirun prog"), Some(odd)).unwrap();
    assert_eq!(slots(&command), [("pi-worker-0", 2), ("pi-worker-1", 2)]);
}

#[test]
fn a_launcher_pod_without_hosts_never_runs_alone() {
    let words = |text: &str| text.split_whitespace().map(OsString::from).collect();
    let mpi = pod("mpi-v2beta1-0.8-openmpi").unset("OMPI_MCA_orte_default_hostfile");
    let error = mpi.run_words(words("mpirun -n 2 prog"), Some("-")).unwrap_err();
    assert!(error.message.contains("launcher pod, but it has no host list"), "{error}");
    let local = mpi.run_words(words("mpirun -n 2 --host localhost:2 prog"), Some("-")).unwrap();
    assert_eq!(slots(&local), [("localhost", 2)]);
    let error = pod("volcano").run("mpirun -n 2 prog").unwrap_err();
    assert!(error.message.contains("no host list"), "{error}");
}

#[test]
fn everything_through_the_exec_session_is_refused_in_words() {
    let error = pod("training-v1-1.9").run("mpirun --single-port prog").unwrap_err();
    assert!(error.message.contains("--single-port is not supported by this version"), "{error}");
}

#[test]
fn hosts_without_slots_are_left_out() {
    let words = |text: &str| text.split_whitespace().map(OsString::from).collect();
    let mpi = pod("mpi-v2beta1-0.8-openmpi");
    let command = mpi.run_words(words("mpirun prog"), Some("a slots=0\nb slots=1\n")).unwrap();
    assert_eq!(slots(&command), [("b", 1)]);
    assert!(command.notes.iter().any(|n| n.contains("a has no slots")), "{:?}", command.notes);
    let error = mpi.run_words(words("mpirun prog"), Some("a slots=0\nb slots=0\n")).unwrap_err();
    assert!(error.message.contains("slotsPerWorker"), "{error}");
}

#[test]
fn this_pod_is_known_by_its_line_in_etc_hosts() {
    let line = "10.244.0.9\tmlx-launcher-0-0.mlx.default.svc.cluster.local\tmlx-launcher-0-0\n";
    let command = pod("trainer-v2.3-launcher-as-node").hosts(line).run("mpirun prog").unwrap();
    assert!(command.job.reach.own_names.contains(&"mlx-launcher-0-0.mlx".to_owned()));
    assert!(!command.job.reach.own_names.contains(&"mlx-node-0-0.mlx".to_owned()));
}

/// The words of Flyte's launchers, as they stand.
fn flyte(which: &str) -> Vec<OsString> {
    let text = std::fs::read_to_string(folder().join("flyte.json")).unwrap();
    let line = text.lines().find(|l| l.trim_start().starts_with(&format!("\"{which}\":"))).unwrap();
    let list = &line[line.find('[').unwrap()..line.rfind(']').unwrap()];
    list[1..].split("\",").map(|w| w.trim_matches(['"', ' ', ',']).into()).collect()
}

#[test]
fn flytes_lines_run_as_they_stand() {
    let kubexec = || pod("training-v1-1.9");
    let command = kubexec().run_words(flyte("mpijob"), None).unwrap();
    let app = &command.job.apps[0];
    assert_eq!((app.np, app.program.to_str()), (Some(4), Some("python")));
    assert_eq!(app.args.last().and_then(|a| a.to_str()), Some("my_mpi_task"));
    assert!(app.args.iter().any(|a| a == "{{.input}}"), "{:?}", app.args);
    let fast = flyte("mpijob_fast_registered");
    let at = fast.iter().position(|w| w == "mpirun").unwrap();
    assert_eq!(kubexec().run_words(fast[at..].to_vec(), None).unwrap().job.apps, command.job.apps);
    // The backend before its mending writes one slot a worker.
    let hostfile = "pi-worker-0 slots=1\npi-worker-1 slots=1\n";
    let error = kubexec().run_words(flyte("mpijob"), Some(hostfile)).unwrap_err();
    assert!(error.message.contains("Flyte drops MPIJob(slots=...)"), "{error}");
    assert!(error.message.starts_with("4 ranks, 2 slots: the host file says slots=1 per worker"), "{error}");
}

#[test]
fn variables_of_another_launcher_pod_do_not_count() {
    let worker = pod("mpi-v2beta1-0.8-openmpi")
        .set("K_MPI_JOB_ROLE", "worker")
        .unset("OMPI_MCA_orte_default_hostfile")
        .unset("OMPI_MCA_plm_rsh_args");
    let words = "mpirun -n 1 prog".split(' ').map(OsString::from).collect();
    let command = worker.run_words(words, Some("-")).unwrap();
    assert!(command.job.hosts.is_empty() && !command.job.reach.patient);
}

#[test]
fn flyte_s_horovod_job_is_elastic() {
    use rmpi_types::spec::Horovod;
    let command = pod("training-v1-1.9").run_words(flyte("horovodjob"), None).unwrap();
    let Horovod::Elastic(elastic) = &command.job.horovod else { panic!("{:?}", command.job.horovod) };
    assert_eq!(elastic.script.as_deref(), Some(std::ffi::OsStr::new("/etc/mpi/discover_hosts.sh")));
    assert_eq!((elastic.min_np, elastic.max_np, elastic.slots_per_host), (Some(4), Some(4), Some(2)));
    assert_eq!(elastic.timeout, Some(Duration::from_secs(1200)));
    assert_eq!((command.job.apps[0].np, command.job.ifaces.as_slice()), (Some(4), &["eth0".to_owned()][..]));
    assert!(command.job.hosts.is_empty() && command.job.reach.dial_back, "hosts come from the script");
}
