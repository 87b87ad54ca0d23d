//! Rails between real hosts: several interfaces, lost packets, links that go and come, strangers. What happened is
//! read from counters of interfaces and packet filters; nothing is timed.

#![allow(clippy::print_stdout, reason = "tests say what they skip and what they measured")]

use rmpi_tests::cluster::Cluster;
use rmpi_tests::cluster_or_skip;
use rmpi_tests::faults::{self, Filter, Packets};
use rmpi_tests::procs::{self, Job, ends_within, until};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything: a machine may be slow and have much else to do.
const LIMIT: Duration = Duration::from_secs(120);
const HOSTS: [&str; 2] = ["n1", "n2"];
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
/// In this order, as the ranks of any job listen for TCP.
const RAILS: [(&str, Packets); 2] = [("tls", Packets::Tcp), ("quic", Packets::Udp)];

/// Two hosts, and our programs, if packets can be filtered there.
fn two_hosts(mbit: Option<u32>) -> Option<(Cluster, PathBuf)> {
    if let Err(why) = Filter::available() {
        println!("skipped: no packet filters here: {why}");
        return None;
    }
    let cluster = cluster_or_skip(2, mbit)?;
    let bin = cluster.install(&["rmpirun", "rmpid", "rmpi-bench"]);
    Some((cluster, bin))
}

/// Two ranks, one on each host, that exchange random messages of up to 4 MiB and check every byte until told to stop.
struct Soak<'a> {
    cluster: &'a Cluster,
    job: Job,
    stop: PathBuf,
    /// What the hosts' interfaces had sent before: of `eth0`, and of `eth1` where there is one.
    before: Vec<u64>,
    interfaces: &'static [&'static str],
}

impl<'a> Soak<'a> {
    fn start(
        cluster: &'a Cluster,
        bin: &Path,
        interfaces: &'static [&'static str],
        options: &[&str],
    ) -> Self {
        Self::gated(cluster, bin, interfaces, options, None)
    }

    /// The same; the ranks begin when there is a file `gate`.
    fn gated(
        cluster: &'a Cluster,
        bin: &Path,
        interfaces: &'static [&'static str],
        options: &[&str],
        gate: Option<&Path>,
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let stop = cluster.shared().join(format!("stop.{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut job = cluster.command("n0", bin.join("rmpirun"));
        job.arg("--hostfile").arg(cluster.hostfile());
        job.args(["-np", "2", "--map-by", "node", "--mca", "mpi_yield_when_idle", "1"]).args(options);
        if let Some(gate) = gate {
            let wait = format!("until test -e {}; do sleep 0.05; done; exec \"$0\" \"$@\"", gate.display());
            job.args(["sh", "-c", &wait]);
        }
        job.arg(bin.join("rmpi-bench")).args(["--seconds", "600", "--until"]).arg(&stop).arg("soak");
        job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let before = interfaces.iter().map(|eth| both(cluster, eth)).collect();
        let job = procs::start(&mut job, 3 * LIMIT);
        Self { cluster, job, stop, before, interfaces }
    }

    /// Bytes sent since the start, over each interface, by both hosts.
    fn carried(&self) -> Vec<u64> {
        self.interfaces.iter().zip(&self.before).map(|(eth, b)| both(self.cluster, eth) - b).collect()
    }

    /// Waits while the job runs until `holds`.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let mut ended = false;
        let seen = until(LIMIT, || {
            ended = matches!(self.job.try_wait(), Ok(Some(_)));
            ended || holds(self)
        });
        assert!(!ended, "the job ended before {what}: {}", text(&mut self.job).1);
        assert!(seen, "it did not come to {what}; carried {:?}", self.carried());
    }

    /// Waits until so many bytes more have been carried.
    fn carries(&mut self, bytes: u64) {
        let until = self.carried().iter().sum::<u64>() + bytes;
        self.until("the next bytes", |s| s.carried().iter().sum::<u64>() >= until);
    }

    /// Waits until so many packets more have met a filter.
    fn meets(&mut self, packets: u64, filters: &[Filter<'_>]) {
        let wanted: Vec<u64> = filters.iter().map(|f| f.met() + packets).collect();
        self.until("the next packets", |_| filters.iter().zip(&wanted).all(|(f, w)| f.met() >= *w));
    }

    /// Lets it end; every byte was right.
    fn ends_well(mut self) -> Vec<u64> {
        std::fs::write(&self.stop, "").expect("our own folder");
        let (code, out, err) = ended(&mut self.job);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains("soak np=2 "), "{out}{err}");
        println!("{}", out.trim_end());
        self.carried()
    }

    /// It ends by itself with an error that names a rank and its host, the one as the other sees it.
    fn ends_with_a_lost_peer(mut self) -> String {
        let (code, out, err) = ended(&mut self.job);
        assert!(code != 0, "{out}{err}");
        let named = ["rank 1 on n2 is lost: ", "rank 0 on n1 is lost: "];
        assert!(named.iter().any(|n| err.contains(n)), "{err}");
        println!("{err}");
        err
    }
}

fn both(cluster: &Cluster, interface: &str) -> u64 {
    HOSTS.iter().map(|host| faults::sent(cluster, host, interface)).sum()
}

fn text(job: &mut Job) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    job.stdout.take().map(|mut o| o.read_to_string(&mut out));
    job.stderr.take().map(|mut e| e.read_to_string(&mut err));
    (out, err)
}

/// How it ended, and what it said.
fn ended(job: &mut Job) -> (i32, String, String) {
    assert!(ends_within(job, LIMIT), "the job does not end");
    let code = job.wait().ok().and_then(|s| s.code()).unwrap_or(-1);
    let (out, err) = text(job);
    (code, out, err)
}

/// Nothing of a job is left on its hosts.
fn left_clean(cluster: &Cluster) {
    let left = || HOSTS.iter().flat_map(|h| cluster.ps(h)).collect::<Vec<_>>();
    assert!(until(LIMIT, || left().is_empty()), "{:?}", left());
}

#[test]
fn two_interfaces() {
    let Some((cluster, bin)) = two_hosts(Some(400)) else { return };
    cluster.second_network(Some(400));
    for options in [&["--streams", "1"][..], &["--streams", "2"], &["--mca", "btl_tcp_links", "2"]] {
        let mut soak = Soak::start(&cluster, &bin, &["eth0", "eth1"], options);
        soak.carries(50 << 20);
        let carried = soak.ends_well();
        println!("{options:?}: {carried:?}");
        let (less, all) = (*carried.iter().min().unwrap_or(&0), carried.iter().sum::<u64>());
        if options == ["--streams", "1"] {
            // What hosts ask each other about addresses.
            assert!(less < 100_000, "{carried:?}");
        } else {
            assert!(less >= all / 5, "{options:?}: {carried:?}");
        }
    }
    // An interface that goes takes its connection with it, and that the pair: nobody waits for ever.
    let mut soak = Soak::start(&cluster, &bin, &["eth0", "eth1"], &["--streams", "2"]);
    soak.until("a second connection", |s| s.carried()[1] >= 10 << 20);
    cluster.cut_second("n2");
    soak.ends_with_a_lost_peer();
    left_clean(&cluster);
}

/// A link that loses packets, and is silent for a second, carries every byte.
fn survives(cluster: &Cluster, bin: &Path, rail: &str, packets: Packets) {
    let filters = HOSTS.map(|host| Filter::lossy(cluster, host, packets));
    for _ in 0..3 {
        let mut soak = Soak::start(cluster, bin, &["eth0"], &["--transport", rail]);
        soak.meets(10, &filters);
        let (since, silence) = (Instant::now(), Filter::silent(cluster, "n2", packets));
        // The length of the fault, not of a wait.
        std::thread::sleep(Duration::from_secs(1));
        let met = silence.met();
        drop(silence);
        if since.elapsed() > Duration::from_millis(2500) {
            println!("{rail}: again: a second took {:?} on this machine", since.elapsed());
            continue;
        }
        soak.carries(20 << 20);
        soak.ends_well();
        assert!(met > 0, "nothing was silenced");
        println!("{rail}: lost {:?} one by one, {met} in a second", filters.each_ref().map(Filter::met));
        return;
    }
    println!("skipped: {rail} through a second of silence: this machine is too slow to make one");
}

#[test]
fn lost_packets() {
    let Some((cluster, bin)) = two_hosts(None) else { return };
    for (rail, packets) in RAILS {
        survives(&cluster, &bin, rail, packets);
    }
    // A link that stays silent is a lost peer.
    let soaks = RAILS.map(|(rail, packets)| {
        let mut soak = Soak::start(&cluster, &bin, &["eth0"], &["--transport", rail]);
        soak.meets(300, &[Filter::counted(&cluster, "n2", packets)]);
        (soak, Filter::silent(&cluster, "n2", packets))
    });
    for (soak, silence) in soaks {
        soak.ends_with_a_lost_peer();
        assert!(silence.met() > 0, "nothing was silenced");
    }
    left_clean(&cluster);
}

/// Two jobs at once on the same hosts. What the ranks of one send to each other reaches the other's, as from strangers
/// who have keys, but other ones: they get nowhere, and disturb nobody.
#[test]
fn strangers() {
    let Some((cluster, bin)) = two_hosts(None) else { return };
    let started = RAILS.map(|(rail, packets)| {
        let ports = || HOSTS.map(|host| faults::ports(&cluster, host, packets));
        assert_eq!(ports(), [[], []], "{rail}");
        let mut soak = Soak::start(&cluster, &bin, &["eth0"], &["--transport", rail]);
        soak.meets(300, &[Filter::counted(&cluster, "n2", packets)]);
        let found = ports();
        assert!(found.iter().all(|p| p.len() == 1), "{rail}: {found:?}");
        let victims = found.map(|p| p[0]);
        let gate = cluster.shared().join(format!("gate.{rail}"));
        let mut strangers = Soak::gated(&cluster, &bin, &[], &["--transport", rail], Some(&gate));
        strangers.until("listening ranks", |_| ports().iter().all(|p| p.len() == 2));
        let [zero, one] = ports();
        // Ranks 0 and 1 may both be who dials.
        let detours = [(0, &one, 1), (1, &zero, 0)].map(|(from, ports, to)| {
            let port = *ports.iter().find(|p| **p != victims[to]).expect("two ports");
            Filter::detour(&cluster, HOSTS[from], packets, ADDRESSES[to], port, victims[to])
        });
        std::fs::write(&gate, "").expect("our own folder");
        (soak, strangers, detours)
    });
    for (soak, strangers, detours) in started {
        let err = strangers.ends_with_a_lost_peer();
        assert!(err.contains("no address answered"), "{err}");
        assert!(detours.iter().map(Filter::met).sum::<u64>() > 0, "nobody came that way");
        soak.ends_well();
    }
    left_clean(&cluster);
}
