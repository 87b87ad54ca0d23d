//! Command lines of horovodrun and torchrun, files of settings, and what is generated from the table.

use super::{error, hosts, parse_as, printed, run, run_in, split};
use crate::{Command, Parsed};
use rmpi_types::launch::RankVars;
use rmpi_types::spec::{BindTo, FileLayout, MapBy, Object, Shown, Tag};
use std::time::Duration;

fn called(argv0: &str, line: &str) -> Command {
    match parse_as(argv0, &[], split(line)) {
        Ok(Parsed::Run(command)) => *command,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(argv0: &str, line: &str) -> String {
    match parse_as(argv0, &[], split(line)) {
        Err(e) => e.message,
        other => panic!("{line}: {other:?}"),
    }
}

fn words(command: &Command) -> String {
    let app = &command.job.apps[0];
    let all = std::iter::once(&app.program).chain(&app.args);
    all.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn sets(command: &Command, name: &str, value: &str) -> bool {
    let set = &command.job.apps[0].env.set;
    set.iter().any(|(n, v)| n == name && v.as_ref().is_some_and(|v| v == value))
}

#[test]
fn horovodrun() {
    let job = called(
        "horovodrun",
        "-np 4 -H h1:2,h2:2 -p 2222 --fusion-threshold-mb 64 --no-stall-check python t.py",
    );
    assert_eq!((hosts(&job).as_str(), job.job.reach.ssh_port), ("h1:2 h2:2", Some(2222)));
    assert!(
        sets(&job, "HOROVOD_FUSION_THRESHOLD", "67108864") && sets(&job, "HOROVOD_STALL_CHECK_DISABLE", "1")
    );
    assert_eq!((job.job.rank_vars, &job.job.output.tag), (RankVars::Horovod, &Tag::Horovod));
    assert_eq!(hosts(&called("horovodrun", "-np 3 p")), "localhost:3");
    let short = called("horovodrun", "--num-p 2 --verb --binding-args --bind-to=none p");
    assert_eq!((short.job.apps[0].np, &short.job.placement.bind_to), (Some(2), &BindTo::None));
    use rmpi_types::spec::Horovod;
    assert_eq!(called("horovodrun", "-np 3 p").job.horovod, Horovod::Gloo);
    assert_eq!(called("horovodrun", "-np 3 --mpi p").job.horovod, Horovod::Mpi);
    assert_eq!(called("rmpirun", "-np 3 p").job.horovod, Horovod::Mpi);
    assert_eq!(called("rmpirun", "-np 3 --gloo p").job.horovod, Horovod::Gloo);
    let elastic =
        called("horovodrun", "-np 2 --min-np 1 --reset-limit 3 --blacklist-cooldown-range 5 60 -H a:1,b:1 p");
    let Horovod::Elastic(spec) = &elastic.job.horovod else { panic!("{:?}", elastic.job.horovod) };
    assert_eq!((spec.min_np, spec.reset_limit, spec.script.is_none()), (Some(1), Some(3), true));
    assert_eq!(hosts(&elastic), "a:1 b:1");
    let files = called("/usr/bin/horovodrun", "-np 1 --output-filename d p").job.output.files.unwrap();
    assert_eq!(files.layout, FileLayout::Horovod("/w/d".into()));
    assert!(printed("horovodrun", &[], "-v").contains("rmpirun"));
    assert!(printed("horovodrun", &[], "--check-build").contains("[X] ssh"));
    for (line, part) in [
        ("-H h1 -np 1 p", "'h1' has no number of slots"),
        ("p", "-np is missing"),
        ("-np 1 -N 2 p", "unknown option '-N'"),
        ("-np 1 --min-np 2 p", "--min-np 2, -np 1, --max-np no limit do not follow one another"),
        ("-np 4 --max-np 2 --min-np 1 p", "do not follow"),
        ("-np 4 --max-np 8 p", "elastic options without"),
        ("-np 2 --mpi --min-np 1 -H a:1,b:1 p", "elastic jobs need Gloo"),
        ("-np 2 --min-np 1 --blacklist-cooldown-range 5 2 p", "the smaller first"),
        ("-np 1 --net eth0 p : q", "-np is missing"),
        ("-np 1 --autotune-w 2 --cache x p --s", ""),
        ("-np 1 --ss p", "may mean"),
    ] {
        if part.is_empty() {
            called("horovodrun", line);
        } else {
            assert!(refused("horovodrun", line).contains(part), "{line}: {}", refused("horovodrun", line));
        }
    }
}

#[test]
fn torchrun() {
    let job = called("torchrun", "--nproc_per_node=2 --max-rest 3 train.py --lr 1");
    assert_eq!((words(&job).as_str(), job.job.restarts), ("python3 -u train.py --lr 1", 3));
    assert_eq!(job.job.placement.map_by, MapBy::Ppr(2, Object::Node));
    assert!(sets(&job, "OMP_NUM_THREADS", "1") && sets(&job, "ROLE_NAME", "default"));
    assert_eq!(words(&called("torchrun", "-m pkg.train -x")), "python3 -u -m pkg.train -x");
    let plain = called("torchrun", "--no-python --standalone --rdzv-backend=c10d --rdzv-id 7 ./a");
    assert_eq!(words(&plain), "./a");
    assert!(sets(&plain, "TORCHELASTIC_RUN_ID", "7") && !sets(&plain, "OMP_NUM_THREADS", "1"));
    let logs = called("torchrun", "-r 3 -t 0:1,1:2 --log-dir d --local-ranks-filter 0 a.py").job.output;
    assert!(matches!(&logs.files.unwrap().layout, FileLayout::Torch { redirects, tee, .. }
        if redirects.all == 3 && tee.of(1) == 2 && tee.of(5) == 0));
    assert!(matches!(logs.shown, Shown::Local(_)) && logs.tag == Tag::Torch("default".into()));
    let hosted = called("torchrun", "--nnodes 2 --nproc-per-node 4 --hostfile hosts a.py");
    assert_eq!((hosted.job.placement.max_nodes, hosts(&hosted).as_str()), (Some(2), "n1:4 n2:4 n3:4"));
    for (line, part) in [
        ("--nnodes 2 a.py", "name them with --host or --hostfile"),
        ("--nnodes 1:4 a.py", "elastic"),
        ("--rdzv-backend etcd-v2 a.py", "rendezvous backend 'etcd-v2' is not built in"),
        ("--logs-specs x a.py", "python plug-ins are not loaded; use --log-dir"),
        ("-v a.py", "unknown option '-v'"),
        ("--rdzv a.py", "may mean"),
        ("-r 4 a.py", "is not 0 to 3"),
    ] {
        assert!(refused("torchrun", line).contains(part), "{line}: {}", refused("torchrun", line));
    }
    let env = [("PET_NPROC_PER_NODE", "3"), ("RMPIRUN_PERSONALITY", "torchrun")];
    assert_eq!(run_in(&env, "a.py").job.placement.map_by, MapBy::Ppr(3, Object::Node));
}

#[test]
fn files_of_settings() {
    let job = run("--tune tune p");
    assert_eq!((job.job.limits.job, &job.job.output.tag), (Some(Duration::from_secs(5)), &Tag::OpenMpi4));
    assert!(sets(&job, "A", "1") && sets(&job, "OMPI_MCA_btl", "tcp") && sets(&job, "OMPI_MCA_pml", "ob1"));
    let above = run_in(&[("RMPIRUN_TIMEOUT", "6")], "--tune tune p").job.limits.job;
    assert_eq!(above, Some(Duration::from_secs(6)), "the environment is above a tune file");
    let config = run_in(&[("XDG_CONFIG_HOME", "/c")], "--tune tune p").job.limits;
    assert_eq!((config.job, config.kill_grace), (Some(Duration::from_secs(5)), Duration::from_secs(7)));
    let bad = error("--tune bad p");
    assert!(bad.starts_with("bad:2") || bad.starts_with("bad:1"), "{bad}");
    let app = run_in(&[("RMPIRUN_WDIR", "/env")], "--app apps");
    assert_eq!(app.job.apps.len(), 2);
    assert!(app.job.apps.iter().all(|a| a.wdir.as_deref() == Some(std::path::Path::new("/env"))));
}

#[test]
fn scripts_and_pages_come_from_the_table() {
    for shell in ["bash", "zsh", "fish"] {
        let text = printed("rmpirun", &[], &format!("--completions {shell}"));
        assert!(text.contains("hostfile") && text.contains("rmpirun"), "{shell}");
    }
    assert!(error("--completions tcsh p").contains("'tcsh' is not bash, zsh or fish"));
    let page = printed("rmpirun", &[], "--man");
    assert!(page.starts_with(".TH RMPIRUN 1") && page.contains("\\-\\-hostfile"), "{page}");
}

#[test]
fn a_dry_run_names_what_was_asked_for() {
    let settings = run("-x A=1 --timeout 5 --tag-output --bind-to core p").settings();
    for want in ["timeout=5", "tag=openmpi4", "bind-to=object(core)", "program 0 sets=A=1", "program 0='p'"] {
        assert!(settings.iter().any(|s| s == want), "{want}: {settings:?}");
    }
    assert_eq!(run("p").settings(), ["program 0='p'"]);
}
