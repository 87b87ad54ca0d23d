//! Good command lines and what they mean.

use super::{hosts, parse_as, printed, run, run_in, split};
use crate::{LogLevel, Parsed, Personality};
use rmpi_types::launch::EnvMerge;
use rmpi_types::spec::{
    BindTo, FileLayout, Files, Forward, HostKeys, MapBy, Object, OnFailure, RankBy, Shown, Slots, Stdin, Tag,
};
use rmpi_types::{Rank, RankSet, Transport};
use std::ffi::OsString;
use std::time::Duration;

#[test]
fn what_follows_the_program_is_its_own() {
    let command = run("-np 8 --hostfile hosts ./train -np x --zzz -- --help");
    assert_eq!(command.job.apps[0].program, "./train");
    assert_eq!(command.job.apps[0].args, ["-np", "x", "--zzz", "--", "--help"]);
    assert_eq!((command.job.apps[0].np, hosts(&command).as_str()), (Some(8), "n1:2 n2:2 n3:2"));
    let dashes = run("-np 1 -- -prog -x");
    assert_eq!((dashes.job.apps[0].program.to_str(), dashes.job.apps[0].args.len()), (Some("-prog"), 1));
}

#[test]
fn spellings_are_equal() {
    for line in ["-np 2 p", "--np 2 p", "-n 2 p", "--n=2 p", "-c 2 p", "-np 1 -np 2 p", "--np=2 p"] {
        assert_eq!(run(line).job.apps[0].np, Some(2), "{line}");
    }
    for line in ["-map-by node p", "--map_by=NODE p", "--map-by node p", "-bynode p"] {
        assert_eq!(run(line).job.placement.map_by, MapBy::Object(Object::Node), "{line}");
    }
}

#[test]
fn hosts_of_every_kind() {
    for (line, want) in [
        ("p", ""),
        ("-H n1,n1,n2 p", "n1:2 n2:1"),
        ("-H n1 --host n2:3 p", "n1:1 n2:3"),
        ("--hostfile hosts --host n2 p", "n2:1"),
        ("--hostfile hosts --host +n0,+n2 p", "n1:2 n3:2"),
        ("-f bare p", "n1:* n2:*"),
        ("-machinefile=- p", "s1:4"),
        ("--default-hostfile hosts p", "n1:2 n2:2 n3:2"),
        ("--default-hostfile hosts --hostfile bare p", "n1:* n2:*"),
        ("--default-hostfile none p", ""),
        ("--launcher fork --hostfile hosts p", "localhost:6"),
        ("--launcher fork --hostfile bare p", "localhost:*"),
    ] {
        assert_eq!(hosts(&run(line)), want, "{line}");
    }
    assert_eq!(run("--hostfile - p").job.stdin, Stdin::None);
    let listed = run("-hosts n1,n2,n1 -n 3 p");
    assert_eq!(listed.job.placement.map_by, MapBy::Seq(vec![0, 1, 0]));
    assert!(listed.job.placement.listed_order);
}

#[test]
fn files_of_placement() {
    let MapBy::Rankfile(entries) = run("--hostfile hosts -rf ranks p").job.placement.map_by else { panic!() };
    assert_eq!(entries.iter().map(|e| (e.rank.0, e.host)).collect::<Vec<_>>(), [(0, 2), (1, 0)]);
    assert_eq!(run("--hostfile hosts --map-by seq p").job.placement.map_by, MapBy::Seq(vec![0, 1, 2]));
    let line = "--hostfile hosts --map-by seq:FILE=seq p";
    assert_eq!(run(line).job.placement.map_by, MapBy::Seq(vec![1, 0, 1]));
}

#[test]
fn placement_options() {
    let p = |line: &str| run(&format!("{line} p")).job.placement;
    assert_eq!(p("-N 2").per_node, Some(2));
    assert_eq!(p("-npernode 2").map_by, MapBy::Ppr(2, Object::Node));
    assert_eq!(p("--pernode").map_by, MapBy::Ppr(1, Object::Node));
    assert_eq!(p("-npersocket 2").bind_to, BindTo::Object(Object::Package));
    assert_eq!(p("--ppr 1:numa:PE=2").pe, Some(2));
    assert_eq!(p("--rank-by fill").rank_by, Some(RankBy::Fill));
    assert_eq!(p("-bind-to none").bind_to, BindTo::None);
    assert_eq!(p("-cpus-per-proc 3").pe, Some(3));
    assert_eq!(p("--cpu-set 0-3").cpu_set.unwrap().len(), 4);
    let all = p("--nolocal --oversubscribe --use-hwthread-cpus --max-vm-size 2");
    assert!(all.nolocal && all.oversubscribe && all.use_hwthreads && all.max_nodes == Some(2));
    assert!(!p("--oversubscribe --nooversubscribe").oversubscribe);
}

#[test]
fn environment_of_the_ranks() {
    let env = [("A", "1"), ("PRE_1", "x"), ("PRE_2", "y"), ("PATH", "/bin")];
    let set = |line: &str| {
        let command = run_in(&env, line);
        let show = |v: &OsString| v.to_str().unwrap().to_owned();
        let pairs = command.job.apps[0].env.set.iter();
        pairs.map(|(n, v)| (show(n), v.as_ref().map_or("-".into(), show))).collect::<Vec<_>>()
    };
    let pairs = |list: &[(&str, &str)]| {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(
        set("-x A -x B=2,C=3 -x PRE_* p"),
        pairs(&[("A", "1"), ("B", "2,C=3"), ("PRE_1", "x"), ("PRE_2", "y")])
    );
    assert_eq!(set("-genv G=5 -env L 6 --unset-env A p"), pairs(&[("G", "5"), ("L", "6"), ("A", "-")]));
    assert_eq!(
        set("--prefix /o --mca btl self,tcp -mca btl vader --gmca k v p"),
        pairs(&[("OMPI_MCA_k", "v"), ("OMPI_MCA_btl", "self,tcp,vader"),])
    );
    let unset = run("-x NOPE p");
    assert_eq!(unset.notes, ["could not find environment variable \"NOPE\""]);
    let mode = |line: &str| {
        let env = run(line).job.apps[0].env.clone();
        (env.forward, env.merge)
    };
    assert_eq!(mode("p"), (Forward::Most, EnvMerge::Fill));
    assert_eq!(mode("--env openmpi p"), (Forward::MpiOnly, EnvMerge::Fill));
    assert_eq!(mode("--env=all p"), (Forward::Most, EnvMerge::Overwrite));
    assert_eq!(mode("-genvnone p"), (Forward::Nothing, EnvMerge::Clear));
    assert_eq!(mode("-genvnone -envall p"), (Forward::Most, EnvMerge::Fill));
    let list = run("-genvlist A,B -envlist C p").job.apps[0].env.clone();
    assert_eq!((list.forward, list.export), (Forward::Nothing, vec!["C".into(), "A".into(), "B".into()]));
}

#[test]
fn directory_and_search_path() {
    let app = run("--wdir sub --path /a:b p").job.apps.remove(0);
    assert_eq!((app.wdir, app.search), (Some("/w/sub".into()), vec!["/a".into(), "b".into()]));
}

#[test]
fn output_options() {
    let o = |line: &str| run(&format!("{line} p")).job.output;
    assert_eq!(o("--tag-output").tag, Tag::OpenMpi4);
    assert_eq!(o("-l").tag, Tag::Hydra);
    assert_eq!(o("--output json").tag, Tag::Json);
    assert_eq!(o("--timestamp-output").tag, Tag::None);
    assert_eq!(o("--output timestamp").tag, Tag::OpenMpi5Stream);
    assert_eq!(o("--output timestamp,tag").tag, Tag::OpenMpi5);
    let five = o("--output tag,TIMEST,merge,dir=d");
    assert!(five.tag == Tag::OpenMpi5 && five.timestamp && five.merge_stderr);
    assert_eq!(five.files.unwrap().layout, FileLayout::OpenMpi5("/w/d".into()));
    let files = Files { layout: FileLayout::OpenMpi4 { dir: "/o:x".into(), nojobid: true }, nocopy: true };
    assert_eq!(o("--output-filename /o:x:nocopy,nojobid").files, Some(files));
    let files = Files { layout: FileLayout::Prefix("/w/f".into()), nocopy: true };
    assert_eq!(o("--output file=f:nocopy").files, Some(files));
    assert_eq!(o("--ranks-shown 0,3-5").shown, Shown::Ranks([0, 3, 4, 5].map(Rank).into_iter().collect()));
    assert_eq!(o("--ranks-shown first").shown, Shown::Ranks(RankSet::range(0, 0)));
    assert_eq!(o("--ranks-shown failed").shown, Shown::Failed);
    assert_eq!((o("--stdio pty").pty, o("--stdio pipe").pty), (Some(true), Some(false)));
    assert!(
        o("--on-broken-pipe ignore").ignore_broken_pipe && o("-q").quiet && o("--timestamp-output").timestamp
    );
    assert!(
        run("-q -x NOPE p").notes.is_empty()
            && run_in(&[("RMPIRUN_NOTES", "0")], "-x NOPE p").notes.is_empty()
    );
    for (line, want) in [("2", Stdin::Rank(Rank(2))), ("ALL", Stdin::All), ("none", Stdin::None)] {
        assert_eq!(run(&format!("-stdin {line} p")).job.stdin, want);
    }
}

#[test]
fn reaching_hosts() {
    let r = |words: &[&str]| {
        let args = words.iter().copied().chain(["p"]).map(OsString::from).collect();
        match parse_as("mpirun", &[("HOME", "/h")], args) {
            Ok(Parsed::Run(c)) => c.job.reach,
            other => panic!("{words:?}: {other:?}"),
        }
    };
    let args = r(&["--mca", "plm_rsh_args", "-p 2222 -i ~/k -o ConnectionAttempts=10 -l me"]);
    assert_eq!((args.ssh_port, args.connect_retries, args.ssh_user.as_deref()), (Some(2222), 10, Some("me")));
    assert_eq!(args.identities[0].to_str(), Some("/h/k"));
    let over = r(&["--ssh-port", "22", "--mca", "plm_rsh_args", "-p 2222", "--host-keys", "accept-new"]);
    assert_eq!((over.ssh_port, over.host_keys), (Some(22), Some(HostKeys::AcceptNew)));
    let agent = r(&["--launch-exec", "kubectl-exec.sh 'a b'", "--mca", "plm_rsh_args", "-x"]).agent.unwrap();
    assert_eq!(agent, ["kubectl-exec.sh", "a b", "-x"]);
    assert_eq!(r(&["--mca", "plm_rsh_agent", "/usr/bin/ssh -p 7 : rsh"]).ssh_port, Some(7));
    assert_eq!(r(&["--mca", "plm_rsh_args", "-L 1:h:2"]).agent.unwrap(), ["ssh", "-L", "1:h:2"]);
    assert_eq!(r(&["-launcher", "rsh", "--launcher-exec", "/k.sh"]).agent.unwrap(), ["/k.sh"]);
    let limits = r(&["--connect-timeout", "2.5", "--connect-retries", "4", "--ssh-concurrency", "9"]);
    assert_eq!((limits.connect_timeout, limits.connect_retries), (Duration::from_millis(2500), 4));
    assert_eq!((limits.concurrency, r(&["--min-hosts", "2"]).min_hosts), (9, Some(2)));
    let paths = r(&["--daemon", "path:/d", "--ssh-config", "c", "--ssh-identity-file", "k", "--local-ssh"]);
    assert_eq!(paths.daemon.unwrap().to_str(), Some("/d"));
    assert_eq!((paths.ssh_config.unwrap().to_str(), paths.local_direct), (Some("/w/c"), false));
    assert_eq!(paths.identities[0].to_str(), Some("/w/k"));
    assert_eq!(r(&["--ssh-config=none"]).ssh_config.unwrap().to_str(), Some("none"));
}

#[test]
fn network_limits_and_failures() {
    let j = |line: &str| run(&format!("{line} p")).job;
    assert_eq!(j("-iface eth0,10.0.0.0/8").ifaces, ["eth0", "10.0.0.0/8"]);
    assert_eq!(
        j("--mca btl_tcp_if_include a --mca btl_tcp_if_include b --mca oob_tcp_if_include c").ifaces,
        ["a", "b"]
    );
    assert_eq!(j("--mca oob_tcp_if_include c").ifaces, ["c"]);
    assert_eq!(j("--port-range 5000:5010").port_range, Some((5000, 5010)));
    let data = |transport, encrypt| rmpi_types::DataPlane { transport, encrypt };
    assert_eq!(j("").data, data(Transport::Auto, false));
    assert_eq!(j("--transport quic").data, data(Transport::Quic, false));
    assert_eq!(j("--encrypt-data --transport tls").data, data(Transport::Tls, true));
    assert_eq!(j("-encrypt").data, data(Transport::Auto, true));
    assert_eq!(
        j("--mca btl_tcp_port_min_v4 5000 --mca btl_tcp_port_range_v4 10").port_range,
        Some((5000, 5009))
    );
    assert_eq!(j("--timeout 1:30").limits.job, Some(Duration::from_secs(90)));
    assert_eq!(j("--start-timeout 5").limits.launch, Some(Duration::from_secs(5)));
    let limits = j("--kill-grace 0.5 --drain 0 --heartbeat 2,10").limits;
    assert_eq!((limits.kill_grace, limits.drain), (Duration::from_millis(500), Duration::ZERO));
    assert_eq!((limits.heartbeat, limits.lost), (Duration::from_secs(2), Duration::from_secs(10)));
    for line in ["--on-failure continue", "--continuous", "--mca orte_abort_on_non_zero_status 0"] {
        assert_eq!(j(line).on_failure, OnFailure::Continue, "{line}");
    }
    assert_eq!(j("--continuous --on-failure stop").on_failure, OnFailure::Stop);
}

#[test]
fn several_programs() {
    let command = run("-genv G 1 -np 1 --host n1 -x A=1 one : -np 2 --host n2:2 --wdir /d two x");
    assert_eq!(hosts(&command), "n1:1 n2:2");
    let [one, two] = &command.job.apps[..] else { panic!() };
    assert_eq!((one.np, &one.hosts, one.env.set.len()), (Some(1), &Some(vec![0]), 2));
    assert_eq!((two.np, &two.hosts, two.env.set.len()), (Some(2), &Some(vec![1]), 1));
    assert_eq!((one.wdir.is_none(), two.args.len()), (true, 1));
    let same = run("--map-by node --oversubscribe -np 1 a : --map-by node -np 1 b");
    assert!(same.job.placement.oversubscribe);
    let file = run("--hostfile hosts -x B=2 --tag-output --app apps");
    assert_eq!(file.job.apps.len(), 2);
    assert_eq!((file.job.apps[1].args[0].to_str(), file.job.apps[0].env.set.len()), (Some("a b"), 2));
    assert_eq!((file.job.output.tag, &file.job.apps[1].hosts), (Tag::OpenMpi4, &Some(vec![1])));
    assert!(run("-np 4 --app apps").notes[0].contains("-np"));
}

#[test]
fn precedence() {
    let env = [("MPIEXEC_TIMEOUT", "10"), ("RMPIRUN_TIMEOUT", "20"), ("HYDRA_HOST_FILE", "bare")];
    let secs = |c: crate::Command| c.job.limits.job.unwrap().as_secs();
    assert_eq!(secs(run_in(&env[..1], "p")), 10);
    assert_eq!(secs(run_in(&env, "p")), 20);
    assert_eq!(secs(run_in(&env, "--timeout 30 p")), 30);
    assert_eq!(hosts(&run_in(&env, "p")), "n1:* n2:*");
    assert_eq!(hosts(&run_in(&env, "--hostfile hosts p")), "n1:2 n2:2 n3:2");
    assert_eq!(hosts(&run_in(&[("RMPIRUN_HOST", "a,b")], "--host c p")), "c:1");
    let operator = [
        ("OMPI_MCA_orte_default_hostfile", "bare"),
        ("OMPI_MCA_orte_keep_fqdn_hostnames", "true"),
        ("OMPI_MCA_plm_rsh_args", "-o ConnectionAttempts=10"),
        ("OMPI_MCA_orte_set_default_slots", "3"),
    ];
    let pod = run_in(&operator, "-np 2 p");
    assert_eq!((hosts(&pod).as_str(), pod.job.reach.connect_retries), ("n1:3 n2:3", 10));
    assert!(pod.notes.is_empty() && run_in(&[("RMPIRUN_TAG_OUTPUT", "0")], "p").job.output.tag == Tag::None);
    assert_eq!(run_in(&[("RMPIRUN_RANK", "1"), ("RMPIRUN_IFACE", "eth9")], "p").job.ifaces.len(), 0);
    let site = run_in(&[("HYDRA_BOOTSTRAP", "sge"), ("MPIEXEC_TIMEOUT", "-1"), ("RMPIRUN_TIMEOUT", "")], "p");
    assert_eq!((site.notes.len(), site.job.limits.job), (1, None));
    assert!(run_in(&[("OMPI_MCA_rmaps_base_oversubscribe", "1")], "p").job.placement.oversubscribe);
}

#[test]
fn hydra_habits() {
    let hydra = |line: &str| match parse_as("/usr/bin/mpiexec.hydra", &[], split(line)) {
        Ok(Parsed::Run(c)) => *c,
        other => panic!("{line}: {other:?}"),
    };
    let plain = hydra("p");
    assert_eq!((plain.personality, plain.job.apps[0].np), (Personality::Hydra, Some(1)));
    assert_eq!(plain.job.placement.bind_to, BindTo::None);
    let listed = hydra("-f bare -n 4 p");
    assert_eq!((hosts(&listed).as_str(), listed.job.placement.listed_order), ("n1:1 n2:1", true));
    let bound = hydra("-bind-to core:2 -map-by hwthread p");
    assert_eq!((bound.job.placement.pe, bound.job.placement.bind_order), (Some(2), Some(Object::Hwthread)));
    assert!(bound.notes.is_empty());
    assert_eq!(run("--personality hydra -f bare p").job.hosts[0].slots, Slots::Count(1));
    assert_eq!(run_in(&[("RMPIRUN_PERSONALITY", "hydra")], "p").personality, Personality::Hydra);
    assert_eq!(run("--personality ompi p").personality, Personality::Default);
}

#[test]
fn information() {
    let first = printed("mpirun", &[], "--version");
    assert!(first.starts_with(concat!(
        "rmpirun ",
        env!("CARGO_PKG_VERSION"),
        " (compatible with Open MPI mpirun 4.1 and MPICH mpiexec)\n"
    )));
    assert!(printed("m", &[("RMPIRUN_VERSION_AS", "openmpi")], "-V").starts_with("mpirun (Open MPI) 4.1"));
    assert!(printed("m", &[("RMPIRUN_VERSION_AS", "mpich")], "-info").starts_with("HYDRA build details:"));
    assert!(printed("m", &[], "-np 2 --help").starts_with("Usage: rmpirun"));
    assert!(printed("m", &[], "--help ssh").contains("--ssh-concurrency N"));
    assert!(printed("m", &[], "--help wdir").contains("--wdir, --wd DIR"));
    let shown = run("--dry-run --display-allocation --report-bindings -v --log-format json p");
    assert!(shown.display.dry_run && shown.display.map && shown.display.allocation && shown.display.bindings);
    assert!(shown.log.json && shown.log.level == LogLevel::Info);
    assert_eq!(run("-d -v p").log.level, LogLevel::Debug);
    assert!(run("--display map,bind p").display.bindings);
}

#[test]
fn accepted_without_effect() {
    let quiet = run("--allow-run-as-root --mca orte_keep_fqdn_hostnames t --mca pml ob1 -demux poll p");
    assert!(quiet.notes.is_empty());
    let noted = run("--mca plm_zzz 1 --mca iof_zzz 2 -xterm 1 p").notes;
    assert_eq!(noted[1], "launcher parameters without a meaning here: iof_zzz plm_zzz");
    assert!(noted[0].starts_with("-xterm: "));
}
