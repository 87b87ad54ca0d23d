//! All grammars and their errors, combination rules, and hostile input.

use super::*;
use proptest::prelude::*;
use rmpi_types::spec::{BindTo, Object, Slots};

const D: HostDialect = HostDialect::Default;

fn file(text: &str) -> Result<ParsedHosts, HostsError> {
    parse_hostfile(text.as_bytes(), "hosts", D)
}

fn list(text: &str) -> HostList {
    parse_host_list(text, "--host", D).unwrap()
}

/// `n1=2 n2=* …`
fn show(hosts: &ParsedHosts) -> String {
    let one = |h: &rmpi_types::spec::Host| {
        let user = h.user.as_ref().map(|u| format!("{u}@")).unwrap_or_default();
        let port = h.port.map(|p| format!("#{p}")).unwrap_or_default();
        let max = h.max_slots.map(|m| format!("/{m}")).unwrap_or_default();
        match h.slots {
            Slots::Auto => format!("{user}{}{port}=*{max}", h.name),
            Slots::Count(n) => format!("{user}{}{port}={n}{max}", h.name),
        }
    };
    hosts.hosts.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_grammar_is_read() {
    for (text, expected) in [
        ("n1 slots=2", "n1=2"),
        ("n1 slots = 2", "n1=2"),
        ("n1 slots= 2 max-slots =4", "n1=2/4"),
        ("n1 2", "n1=2"),
        ("n1 cpu=2", "n1=2"),
        ("n1 COUNT=2 cpu_max=3", "n1=2/3"),
        ("n1:2", "n1=2"),
        ("root@n1 slots=2", "root@n1=2"),
        ("n1 username=root", "root@n1=*"),
        ("n1:2 user=root", "root@n1=2"),
        ("n1 port=2222", "n1#2222=*"),
        ("10.0.0.2 slots=2", "10.0.0.2=2"),
        ("n[1-3] slots=2", "n1=2 n2=2 n3=2"),
        ("n[1-2,7].x:4", "n1.x=4 n2.x=4 n7.x=4"),
        ("n[08-10]", "n08=* n09=* n10=*"),
        ("r[1-2]n[1-2]:1", "r1n1=1 r1n2=1 r2n1=1 r2n2=1"),
        ("fe80::1", "fe80::1=*"),
        ("[fe80::1]:4", "fe80::1=4"),
        ("[fe80::1%eth0] slots=4", "fe80::1%eth0=4"),
        ("u@[::1]:4", "u@::1=4"),
        ("1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8=9"),
        ("n1\nn2 slots=1\nn1\nn3 slots=4 max_slots=4", "n1=2 n2=1 n3=4/4"),
        ("n1 slots=2\nn1 slots=2", "n1=4"),
        ("n1\nn2\nn3\n^n1", "n2=* n3=*"),
        ("n1 slots=2 # comment", "n1=2"),
        ("# all\n// of\n/* these\nn9 slots=9 */ n1:1 // x", "n1=1"),
        ("n1\nn1\nn2\nn1", "n1=3 n2=*"),
        ("h1:2,h2:2", "h1=2 h2=2"),
        ("h1 slots=2, h2 slots=3 ,h3", "h1=2 h2=3 h3=*"),
        ("\u{feff}n1\r\nn2\r\n", "n1=* n2=*"),
        ("N1\nn1", "N1=2"),
        ("localhost port=2201\nlocalhost port=2202", "localhost#2201=* localhost#2202=*"),
        ("n1 sockets=2 cores_per_socket=8", "n1=*"),
        ("n1 slots=0", "n1=0"),
        ("n1:2\nn2 slots=2\nroot@n3 2", "n1=2 n2=2 root@n3=2"),
    ] {
        assert_eq!(show(&file(text).unwrap()), expected, "{text}");
    }
}

#[test]
fn hydra_and_horovod_differ_where_counts_are_missing() {
    let hydra = parse_hostfile(b"n1\nn2:2\nn1", "hosts", HostDialect::Hydra).unwrap();
    assert_eq!(show(&hydra), "n1=2 n2=2");
    assert_eq!(hydra.listed, [0, 1, 0]);
    assert_eq!(hydra.places(99), [0, 1, 1, 0]);
    assert_eq!(hydra.places(2), [0, 1]);
    let e = parse_host_list("h1:2,h2", "-H", HostDialect::Horovod).unwrap().into_hosts().unwrap_err();
    assert_eq!(e.to_string(), "-H: h2 has no slot count; write h2:1 for one");
}

#[test]
fn errors_say_where_and_what_to_do() {
    for (text, column, expected) in [
        ("n1 slots=x", 10, "hosts:1: slots: 'x' is not a number"),
        ("n1:x", 1, "hosts:1: slots: 'x' is not a number"),
        ("n1 slots=-1", 10, "hosts:1: slots: '-1' is not a number"),
        (
            "n1 slots=99999999999999999999",
            10,
            "hosts:1: slots: 99999999999999999999 is more than the limit of 1000000",
        ),
        (
            "n0\nn1 slots=4 max_slots=2",
            1,
            "hosts:2: n1: max_slots=2 is below slots=4; raise max_slots or lower slots",
        ),
        ("", 0, "hosts: no host in the file"),
        ("\n # n1\n", 0, "hosts: no host in the file"),
        ("n1\n^n1", 0, "hosts: every host is excluded by ^ entries"),
        ("n1 slot_s=2", 4, "hosts:1: unknown key 'slot_s' (did you mean slots?)"),
        ("n1 gpus=2", 4, "hosts:1: unknown key 'gpus' (did you mean cpus?)"),
        ("n1 n2", 4, "hosts:1: unexpected 'n2'; write one host a line, or commas between hosts"),
        ("slots=2", 1, "hosts:1: 'slots=' without a host before it"),
        ("n1 slots=", 4, "hosts:1: slots= needs a value"),
        ("n1 = 2", 1, "hosts:1: 'n1=' without a host before it"),
        ("n1:2 slots=3", 6, "hosts:1: slots of n1 are given twice here; keep one of them"),
        ("n1 port=0", 9, "hosts:1: port: '0' is not a port number (1 to 65535)"),
        ("n1 port=+7", 9, "hosts:1: port: '+7' is not a port number (1 to 65535)"),
        ("-oProxyCommand=x", 1, "hosts:1: '-oProxyCommand=' without a host before it"),
        ("-n1", 1, "hosts:1: '-n1' is not a host name: it must begin with a letter or digit"),
        ("n1;id", 1, "hosts:1: 'n1;id' is not a host name: ';' cannot be part of it"),
        ("a$b@n1", 1, "hosts:1: 'a$b' is not a user name"),
        ("n[3-1]", 1, "hosts:1: 'n[3-1]' is not a range of host names; write n[1-3,7]"),
        ("n[1-3", 1, "hosts:1: 'n[1-3' is not a range of host names; write n[1-3,7]"),
        ("n[1-999999]", 1, "hosts:1: more than 100000 hosts"),
        ("n1\n  /* x", 3, "hosts:2: the comment that begins here with /* is never closed by */"),
        ("a@n1\nb@n1", 1, "hosts:2: n1 is given with user 'b' here and user 'a' before; a host has one user"),
        ("+n0", 1, "hosts:1: +n0 is relative to a host list; give one with --hostfile, or name the host"),
        ("+x", 1, "hosts:1: '+x' is not a host name: write +nK (the K-th host, from 0), +e or +e:K"),
        (
            "n1 binding=gpu",
            12,
            "hosts:1: binding: 'gpu' is not known; write none, hwthread, core, socket or numa",
        ),
    ] {
        let e = file(text).unwrap_err();
        assert_eq!((e.to_string().as_str(), e.column), (expected, column), "{text}");
    }
    let e = parse_hostfile(b"\x7fELF\x02\x01\x01\0\0", "a.out", D).unwrap_err();
    let says = "a.out:1: byte 0x7f does not belong in a text file; is this the right file?";
    assert_eq!((e.to_string().as_str(), e.column), (says, 1));
    let e = parse_hostfile(&vec![b'x'; MAX_LINE + 1], "hosts", D).unwrap_err();
    assert_eq!(e.to_string(), "hosts:1: line longer than 65536 bytes; is this the right file?");
    let e = parse_hostfile(&vec![b'\n'; MAX_FILE + 1], "hosts", D).unwrap_err();
    assert_eq!(e.to_string(), "hosts: larger than 16777216 bytes; is this the right file?");
    let many = "n1:1\n".repeat(MAX_HOSTS + 1);
    assert_eq!(file(&many).unwrap_err().to_string(), "hosts:100001: more than 100000 hosts");
}

#[test]
fn errors_point_at_the_column() {
    assert_eq!(file("n1 slots=x").unwrap_err().pointer().unwrap(), "n1 slots=x\n         ^");
    assert_eq!(file("").unwrap_err().pointer(), None);
}

#[test]
fn attributes_and_notes_are_kept() {
    let hosts = file("n1 slots=2 binding=socket\nn1 slots=1\nn2:1\nn2:1\nn3").unwrap();
    assert_eq!(hosts.hosts[0].bind_to, Some(BindTo::Object(Object::Package)));
    assert_eq!(hosts.hosts[1].origin, "hosts:3");
    assert_eq!(hosts.notes, ["hosts: n[1-2] listed more than once; the slots are added up"]);
    assert_eq!(hosts.listed, [0, 0, 1, 1, 2]);
}

#[test]
fn lists_count_mentions() {
    for (text, expected) in [
        ("n1,n1,n2", "n1=2 n2=1"),
        ("h1,h2:4,h1", "h1=2 h2=4"),
        ("h:*,i:auto", "h=* i=*"),
        ("n[1-3]:2,^n2", "n1=2 n3=2"),
        ("u@n1:2", "u@n1=2"),
        (" n1 , n2 ,", "n1=1 n2=1"),
        ("[::1]:2,::2", "::1=2 ::2=1"),
    ] {
        assert_eq!(show(&list(text).into_hosts().unwrap()), expected, "{text}");
    }
    let e = parse_host_list("n1,n2:x", "--host", D).unwrap_err();
    assert_eq!((e.to_string().as_str(), e.column), ("--host: slots: 'x' is not a number", 4));
    assert_eq!(parse_host_list(" ,", "-H", D).unwrap_err().to_string(), "-H: no host in the list");
}

#[test]
fn later_lists_filter_earlier_ones() {
    let pool = parse_hostfile(b"n1:2\nn2:2\nn3:2\n", "hosts.txt", D).unwrap();
    for (filter, expected) in [
        ("n2", "n2=1"),
        ("n2,n3:2", "n2=1 n3=2"),
        ("n3,n1:*", "n3=1 n1=2"),
        ("+n0,+n2", "n1=2 n3=2"),
        ("+n1:1", "n2=1"),
        ("n2,n2", "n2=2"),
        ("^n2", "n1=2 n3=2"),
        ("n[1-3],^n2", "n1=1 n3=1"),
        ("+e:2", "n1=2 n2=2"),
        ("n2:9", "n2=2"),
    ] {
        assert_eq!(show(&combine(&pool, &list(filter)).unwrap()), expected, "{filter}");
    }
    for (filter, expected) in [
        ("m2", "m2 is not in hosts.txt (did you mean n2?)"),
        ("other", "other is not in hosts.txt"),
        ("+n3", "--host: +n3 does not exist: hosts.txt has 3 hosts, +n0 is the first"),
        ("n1,+e:3", "--host: +e:3: only 2 hosts of hosts.txt are not used by earlier programs"),
        ("^n1,^n2,^n3", "--host: every host is excluded by ^ entries"),
    ] {
        assert_eq!(combine(&pool, &list(filter)).unwrap_err().to_string(), expected, "{filter}");
    }
    assert_eq!(
        combine(&pool, &list("n2:9")).unwrap().notes,
        ["--host: n2:9 is more than hosts.txt gives it; 2 used"]
    );
    let auto = file("n1\nn2").unwrap();
    assert_eq!(show(&combine(&auto, &list("n1:3,n2:*")).unwrap()), "n1=3 n2=*");
    // A host file filtering an allocation: a bare line takes what the allocation gives.
    let narrower = read_hostfile(b"n3\nn1 slots=1\n", "hf", D).unwrap();
    assert_eq!(show(&combine(&pool, &narrower).unwrap()), "n3=2 n1=1");
}

#[test]
fn programs_have_their_own_hosts() {
    let pool = parse_hostfile(b"n1:2\nn2:2\nn3:2\n", "hosts.txt", D).unwrap();
    let lists = [Some(list("n2:2")), Some(list("+e")), None];
    let (all, contexts) = per_context(Some(&pool), &lists).unwrap();
    assert_eq!(show(&all), "n1=2 n2=2 n3=2");
    assert_eq!(contexts, [Some(vec![1]), Some(vec![0, 2]), None]);
    let (all, contexts) = per_context(None, &[Some(list("n1,n2")), Some(list("n2:2,n3"))]).unwrap();
    assert_eq!(show(&all), "n1=1 n2=3 n3=1");
    assert_eq!(contexts, [Some(vec![0, 1]), Some(vec![1, 2])]);
    let (all, contexts) = per_context(None, &[Some(list("n[1-3],^n2")), Some(list("n1"))]).unwrap();
    assert_eq!((show(&all).as_str(), contexts), ("n1=2 n3=1", vec![Some(vec![0, 1]), Some(vec![0])]));
    let (all, contexts) = per_context(None, &[None, None]).unwrap();
    assert!(all.hosts.is_empty() && contexts == [None, None]);
    let (all, contexts) = per_context(Some(&pool), &[Some(list("n3"))]).unwrap();
    assert_eq!((show(&all).as_str(), contexts), ("n3=1", vec![None]));
}

#[test]
fn messages_escape_what_a_terminal_would_obey() {
    let e = parse_host_list("n1 slots=\u{1b}2", "--host", D).unwrap_err();
    assert_eq!(e.to_string(), "--host: slots: '\\u{1b}2' is not a number");
    let e = parse_hostfile("n1 slots=\u{9b}2".as_bytes(), "hosts", D).unwrap_err();
    assert_eq!(e.to_string(), "hosts:1: slots: '\\u{9b}2' is not a number");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for dialect in [D, HostDialect::Hydra, HostDialect::Horovod] {
            if let Err(e) = parse_hostfile(&bytes, "f", dialect) {
                prop_assert!(e.to_string().starts_with('f'));
                let _ = e.pointer();
            }
        }
    }

    #[test]
    fn words_of_the_grammar_never_panic(text in "([\\^]?[a-c]{0,2}@?(n|\\[|\\]|[0-9]|-|,|:|=|\\+n|\\+e|\\*|é| |\n|slots=|/\\*|\\*/|//|#){0,12}){0,4}") {
        if let Ok(hosts) = file(&text) {
            prop_assert!(!hosts.hosts.is_empty());
            prop_assert!(hosts.listed.iter().all(|&i| i < hosts.hosts.len()));
            prop_assert!(hosts.hosts.iter().all(|h| !h.name.is_empty() && !h.name.starts_with('-')));
        }
        if let (Ok(filter), Ok(pool)) = (parse_host_list(&text, "-H", D), file("n1:2\nn2")) {
            let _ = combine(&pool, &filter);
        }
    }

    #[test]
    fn printed_lists_read_back(hosts in proptest::collection::btree_map("[a-z][a-z0-9]{0,5}", 1u32..50, 1..8)) {
        let text: String = hosts.iter().map(|(h, n)| format!("{h} slots={n}\n")).collect();
        let back = file(&text).unwrap();
        let pairs: Vec<_> = back.hosts.iter().map(|h| (h.name.clone(), h.slots)).collect();
        prop_assert_eq!(pairs, hosts.into_iter().map(|(h, n)| (h, Slots::Count(n))).collect::<Vec<_>>());
    }
}
