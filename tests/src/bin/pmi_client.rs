//! A small client of process management, written from the protocols alone: ranks of tests that keep to no rules, and
//! the time of a fence with data. Says what went wrong on standard error and ends with 1.
//!
//! `pmi_client pmix fence BYTES ROUNDS` measures; `pmi_client pmix MODE` and `pmi_client pmi MODE` misbehave as MODE
//! says. For PMI, standard input and output are the rank's socket.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Done = Result<(), String>;

/// How long an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pmix", "fence", bytes, rounds] => fences(number(bytes), number(rounds)),
        ["pmix", mode] => pmix(mode),
        ["pmi", mode] => pmi(mode),
        _ => Err("usage: pmi_client pmix|pmi MODE".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "pmi_client: {text}");
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or(1)
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set"))
}

fn check(holds: bool, what: &str) -> Done {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Waits until the launcher ends this rank.
fn hang() -> Done {
    loop {
        std::thread::park();
    }
}

/// Ends by SIGABRT.
fn die() -> Done {
    std::process::abort()
}

/// A client's stream to its PMIx server.
struct Pmix {
    stream: TcpStream,
    ns: String,
    rank: u32,
    tag: u32,
}

/// A text as it is packed: its length with the NUL, itself, the NUL.
fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), text.as_bytes(), &[0]].concat()
}

/// An item of one value.
fn one(value: &[u8]) -> Vec<u8> {
    [&1u32.to_be_bytes(), value].concat()
}

fn size(n: usize) -> Vec<u8> {
    [&[0, 15][..], &(n as u64).to_be_bytes()].concat()
}

/// The first words of a rank.
fn greeting(ns: &str, rank: u32) -> Vec<u8> {
    let ids = nix::unistd::geteuid().as_raw().to_ne_bytes();
    let group = nix::unistd::getegid().as_raw().to_ne_bytes();
    let body = [
        b"native\0\0\0\0\x08",
        &ids[..],
        &group[..],
        &[0],
        format!("{ns}\0").as_bytes(),
        &rank.to_be_bytes(),
        b"5.0.11\0v3\0\x01hash\0",
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap_or(0).to_ne_bytes();
    [&[0xff; 8][..], &length, &[0; 4], &body].concat()
}

fn dial() -> Result<TcpStream, String> {
    let uri = var("PMIX_SERVER_URI3")?;
    let address = uri.rsplit_once("//").map_or(uri.as_str(), |(_, a)| a).to_owned();
    let stream = TcpStream::connect(&address).map_err(|e| format!("{address}: {e}"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

/// Says this to the server, which must hang up.
fn turned_away(what: &str, words: &[u8]) -> Done {
    let mut stream = dial()?;
    // It may have hung up before all was said.
    let _ = stream.write_all(words);
    hung_up(&mut stream).map_err(|why| format!("{what}: {why}"))
}

/// Says this to the server, which must answer an error and hang up.
fn refused(what: &str, words: &[u8]) -> Done {
    let mut stream = dial()?;
    stream.write_all(words).map_err(|e| e.to_string())?;
    let mut status = [0; 4];
    stream.read_exact(&mut status).map_err(|e| format!("{what}: {e}"))?;
    check(i32::from_be_bytes(status) < 0, &format!("{what}: answered {status:?}"))?;
    hung_up(&mut stream).map_err(|why| format!("{what}: {why}"))
}

fn hung_up(stream: &mut TcpStream) -> Done {
    let mut rest = [0; 64];
    match stream.read(&mut rest) {
        Ok(0) => Ok(()),
        Ok(n) => Err(format!("was answered {:?}", &rest[..n])),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(format!("was not turned away: {error}")),
    }
}

impl Pmix {
    fn start() -> Result<Self, String> {
        let (ns, rank) = (var("PMIX_NAMESPACE")?, var("PMIX_RANK")?);
        let rank = rank.parse().map_err(|_| format!("PMIX_RANK={rank}"))?;
        let mut stream = dial()?;
        stream.write_all(&greeting(&ns, rank)).map_err(|e| e.to_string())?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).map_err(|e| format!("greeting: {e}"))?;
        check(answer[..4] == [0; 4], "the greeting was refused")?;
        Ok(Self { stream, ns, rank, tag: 100 })
    }

    fn send(&mut self, payload: &[u8]) -> Done {
        self.tag += 1;
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = [&[0; 4][..], &self.tag.to_be_bytes(), &length.to_be_bytes(), &[0; 4]].concat();
        self.stream.write_all(&[header, payload.to_vec()].concat()).map_err(|e| format!("send: {e}"))
    }

    /// The answer to what was sent last.
    fn answer(&mut self) -> Result<Vec<u8>, String> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).map_err(|e| format!("answer: {e}"))?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        check(word(4) == self.tag, "an answer to something else")?;
        let mut payload = vec![0; word(8) as usize];
        self.stream.read_exact(&mut payload).map_err(|e| format!("answer: {e}"))?;
        Ok(payload)
    }

    /// Sends a request that is answered with a status, and takes the status 0.
    fn done(&mut self, what: &str, payload: &[u8]) -> Done {
        self.send(payload)?;
        let answer = self.answer()?;
        check(answer.starts_with(&one(&[0; 4])), &format!("{what}: {answer:?}"))
    }

    /// Makes a value known to all.
    fn commit(&mut self, key: &str, value: &[u8]) -> Done {
        let kval = one(&[text(key), vec![0, 27], size(value.len()), value.to_vec()].concat());
        let buffer = one(&[vec![1], size(kval.len()), kval].concat());
        self.done("commit", &[one(&[2]), one(&[3]), buffer].concat())
    }

    fn fence_words(&self, data: bool) -> Vec<u8> {
        let everybody = one(&[text(&self.ns), 0xffff_fffe_u32.to_be_bytes().to_vec()].concat());
        let collect = one(&[text("pmix.collect"), vec![0; 4], vec![0, 1, u8::from(data)]].concat());
        [one(&[3]), one(&size(1)), everybody, one(&size(1)), collect].concat()
    }

    fn fence(&mut self, data: bool) -> Done {
        let words = self.fence_words(data);
        self.done("fence", &words)
    }

    /// What a rank has made known, whole.
    fn get(&mut self, rank: u32, key: &str) -> Result<Vec<u8>, String> {
        let whose = [one(&text(&self.ns)), one(&rank.to_be_bytes())].concat();
        self.send(&[one(&[4]), whose, one(&size(0)), one(&text(key))].concat())?;
        self.answer()
    }

    fn finalize(&mut self) -> Done {
        self.done("finalize", &one(&[5]))
    }
}

/// The time of fences in which every rank brings so many bytes, as rank 0 sees them after all have come.
fn fences(bytes: usize, rounds: usize) -> Done {
    let mut client = Pmix::start()?;
    let ranks: u32 = var("RMPIRUN_SIZE")?.parse().map_err(|_| "RMPIRUN_SIZE")?;
    let neighbour = (client.rank + 1) % ranks;
    let value = |rank: u32| vec![b'a' + u8::try_from(rank % 26).unwrap_or(0); bytes];
    let mut times = Vec::new();
    for round in 0..rounds {
        let key = format!("key{round}");
        client.commit(&key, &value(client.rank))?;
        client.fence(false)?;
        let start = Instant::now();
        client.fence(true)?;
        times.push(start.elapsed());
        let found = client.get(neighbour, &key)?;
        check(found.windows(bytes).any(|w| w == value(neighbour)), "the neighbour's value is not there")?;
    }
    client.finalize()?;
    times.sort_unstable();
    if client.rank == 0 {
        let ms = |at: usize| times[at].as_secs_f64() * 1e3;
        let (least, middle, most) = (ms(0), ms(rounds / 2), ms(rounds - 1));
        let line = format!(
            "fence ranks={ranks} bytes={bytes} ms: least={least:.2} median={middle:.2} most={most:.2}"
        );
        let _ = writeln!(io::stdout(), "{line}");
    }
    Ok(())
}

fn pmix(mode: &str) -> Done {
    let (ns, rank) = (var("PMIX_NAMESPACE")?, var("PMIX_RANK")?);
    let rank: u32 = rank.parse().map_err(|_| "PMIX_RANK")?;
    match mode {
        // Whoever is no client of this job is turned away, and the ranks do not notice.
        "strangers" => {
            turned_away("rubbish", &[b'x'; 4096])?;
            turned_away("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut long = greeting(&ns, rank);
            long[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
            turned_away("a greeting of 4 GiB", &long)?;
            refused("a rank that is not there", &greeting(&ns, 1_000_000))?;
            refused("another job", &greeting("nobody", rank))?;
            let mut other = greeting(&ns, rank);
            // The user that it claims to be: the first number of the credential.
            other[27..31].copy_from_slice(&12345u32.to_ne_bytes());
            turned_away("another user", &other)?;
            let half = greeting(&ns, rank);
            dial()?.write_all(&half[..half.len() / 2]).map_err(|e| e.to_string())?;
            let mut client = Pmix::start()?;
            client.fence(true)?;
            client.finalize()
        }
        // One rank's streams are closed when it talks nonsense; another stream of it goes on.
        "nonsense" => {
            let mut first = Pmix::start()?;
            let length = first.stream.write_all(&[[0; 8], [0xff; 8]].concat());
            length.map_err(|e| e.to_string())?;
            hung_up(&mut first.stream).map_err(|why| format!("a length of 4 GiB: {why}"))?;
            let mut second = Pmix::start()?;
            second.send(&[0x7f; 100])?;
            hung_up(&mut second.stream).map_err(|why| format!("a command that is none: {why}"))?;
            let mut third = Pmix::start()?;
            third.fence(true)?;
            third.finalize()
        }
        // A process and one that it has started may both be this rank.
        "twice" => {
            let (mut one, mut two) = (Pmix::start()?, Pmix::start()?);
            one.commit("one", b"first")?;
            two.fence(true)?;
            check(two.get(rank, "one")?.windows(5).any(|w| w == b"first"), "not what the other said")?;
            one.finalize()
        }
        "dies" => {
            let mut client = Pmix::start()?;
            client.fence(false)?;
            if rank == 1 { die() } else { client.fence(true) }
        }
        "absent" => {
            let mut client = Pmix::start()?;
            client.fence(false)?;
            client.stream.set_read_timeout(None).map_err(|e| e.to_string())?;
            if rank == 2 { hang() } else { client.fence(true) }
        }
        _ => Err(format!("mode {mode}")),
    }
}

/// Sends words to the PMI server and takes a line.
fn ask(words: &str) -> Result<String, String> {
    io::stdout()
        .write_all(words.as_bytes())
        .and_then(|()| io::stdout().flush())
        .map_err(|e| e.to_string())?;
    let mut line = Vec::new();
    for byte in io::stdin().lock().bytes() {
        match byte {
            Ok(b'\n') => break,
            Ok(byte) => line.push(byte),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn expect(words: &str, answer: &str) -> Done {
    let line = ask(words)?;
    check(line.starts_with(answer), &format!("{words:?} was answered {line:?}"))
}

/// What MPICH asks for at its start: a file it can read, unless this machine's devices lie nearer to some CPUs.
fn topology() -> Done {
    let name = ask("cmd=get_my_kvsname\n")?;
    let name = name.trim().strip_prefix("cmd=my_kvsname kvsname=").ok_or("no name")?;
    let answer = ask(&format!("cmd=get kvsname={name} key=PMI_hwloc_xmlfile\n"))?;
    let (_, path) = answer.trim().split_once("value=").ok_or(answer.clone())?;
    if path == "unavailable" {
        let nodes = std::fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
        let cpus = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let package = |cpu: std::fs::DirEntry| {
            std::fs::read_to_string(cpu.path().join("topology/physical_package_id")).ok()
        };
        let packages: std::collections::BTreeSet<_> = cpus.filter_map(package).collect();
        return check(nodes.trim() != "0" || packages.len() != 1, "one package and node, and no topology");
    }
    let xml = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    check(xml.contains("<topology") && xml.contains("\"PU\""), &xml)
}

fn pmi(mode: &str) -> Done {
    let rank = var("PMI_RANK")?;
    expect("cmd=init pmi_version=1 pmi_subversion=1\n", "cmd=response_to_init")?;
    expect("cmd=barrier_in\n", "cmd=barrier_out")?;
    let bad = rank == "1";
    match mode {
        "garbage" if bad => expect("cmd=what is this\n", "")?,
        "binary" if bad => expect(&"\u{7f}".repeat(100_000), "")?,
        "half" if bad => expect("999999cmd=put;", "")?,
        "others" if bad => expect("cmd=get kvsname=somebody_elses key=a\n", "cmd=get_result rc=1")?,
        "topology" => topology()?,
        "dies" if bad => return die(),
        "absent" if rank == "2" => return hang(),
        _ => {}
    }
    expect("cmd=barrier_in\n", "cmd=barrier_out")?;
    expect("cmd=finalize\n", "cmd=finalize_ack")
}
