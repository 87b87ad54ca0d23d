//! Conversations with the server, as captured from clients.

use super::testing::space;
use super::*;
use crate::api::Gathered;
use rmpi_types::RankSet;

/// A server of one node with ranks `0..n` of namespace 0, each on the stream of its number.
fn server(nodes: &[&[u32]], here: usize) -> PmiServer {
    let mut server = PmiServer::default();
    open(&mut server, nodes, here);
    server
}

fn open(server: &mut PmiServer, nodes: &[&[u32]], here: usize) {
    feed(server, Event::Space(Arc::new(space(0, nodes))));
    for &rank in nodes[here] {
        feed(server, Event::Opened { conn: Conn(rank.into()), proc: ProcId::first(rank) });
    }
}

fn feed(server: &mut PmiServer, event: Event) -> Vec<Action> {
    let mut out = Vec::new();
    server.on(Duration::ZERO, event, &mut out);
    out
}

fn say(server: &mut PmiServer, rank: u32, text: &[u8]) -> Vec<Action> {
    feed(server, Event::Bytes { conn: Conn(rank.into()), bytes: Bytes::copy_from_slice(text) })
}

/// The bytes sent to a rank, of actions that are nothing else.
fn said(actions: &[Action], rank: u32) -> String {
    let bytes = |a: &Action| match a {
        Action::Send { conn, bytes } if conn.0 == u64::from(rank) => bytes.to_vec(),
        _ => Vec::new(),
    };
    String::from_utf8(actions.iter().flat_map(bytes).collect()).unwrap()
}

fn ask(server: &mut PmiServer, text: &str) -> String {
    said(&say(server, 0, text.as_bytes()), 0)
}

fn v2(body: &str) -> String {
    format!("{:6}{body}", body.len())
}

const NAME: &str = "kvs_07070707070707070707070707070707_0";

#[test]
fn the_topology_is_in_a_file_where_there_is_one() {
    let question = format!("cmd=get kvsname={NAME} key=PMI_hwloc_xmlfile\n");
    let answer = |s: &mut PmiServer| {
        say(s, 0, b"cmd=init pmi_version=1 pmi_subversion=1\n");
        ask(s, &question)
    };
    let mut s = server(&[&[0, 1]], 0);
    assert!(answer(&mut s).ends_with("value=unavailable\n"));
    let mut s = PmiServer::default();
    s.topology("/proc/7/fd/8");
    open(&mut s, &[&[0, 1]], 0);
    assert!(answer(&mut s).ends_with("value=/proc/7/fd/8\n"));
}

#[test]
fn the_questions_of_mpi_init() {
    let mut s = server(&[&[0, 1]], 0);
    let init = say(&mut s, 0, b"cmd=init pmi_version=1 pmi_subversion=1\n");
    assert!(init.contains(&Action::Hello { proc: ProcId::first(0) }));
    assert_eq!(said(&init, 0), "cmd=response_to_init pmi_version=1 pmi_subversion=2 rc=0\n");
    for (question, answer) in [
        ("cmd=get_maxes\n", "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024 rc=0\n"),
        ("cmd=get_appnum\n", "cmd=appnum appnum=0 rc=0\n"),
        ("cmd=get_my_kvsname\n", "cmd=my_kvsname kvsname=kvs_07070707070707070707070707070707_0 rc=0\n"),
        ("cmd=get_universe_size\n", "cmd=universe_size size=2 rc=0\n"),
        ("cmd=nonsense\n", "cmd=nonsense_result rc=-1 msg=unknown_cmd\n"),
        (
            "cmd=init pmi_version=3 pmi_subversion=1\n",
            "cmd=response_to_init pmi_version=1 pmi_subversion=2 rc=-1\n",
        ),
    ] {
        assert_eq!(ask(&mut s, question), answer);
    }
    assert_eq!(
        ask(&mut s, &format!("cmd=get kvsname={NAME} key=PMI_process_mapping\n")),
        "cmd=get_result rc=0 msg=success found=TRUE value=(vector,(0,1,2))\n"
    );
}

#[test]
fn puts_are_seen_on_the_node_and_reserved_or_foreign_ones_refused() {
    let mut s = server(&[&[0, 1]], 0);
    assert_eq!(
        ask(&mut s, &format!("cmd=put kvsname={NAME} key=-bcast-1-0 value=2F746D70\n")),
        "cmd=put_result rc=0 msg=success\n"
    );
    let got = say(&mut s, 1, format!("cmd=get kvsname={NAME} key=-bcast-1-0\n").as_bytes());
    assert_eq!(said(&got, 1), "cmd=get_result rc=0 msg=success found=TRUE value=2F746D70\n");
    for refused in [
        format!("cmd=put kvsname={NAME} key=PMI_x value=1\n"),
        "cmd=put kvsname=kvs_other key=k value=1\n".into(),
        format!("cmd=put kvsname={NAME} key= value=1\n"),
    ] {
        assert_eq!(ask(&mut s, &refused), "cmd=put_result rc=1 msg=refused\n");
    }
    for missing in ["key=none", "kvsname=kvs_other key=-bcast-1-0", "key=PMI_dead_processes"] {
        assert_eq!(ask(&mut s, &format!("cmd=get {missing}\n")), "cmd=get_result rc=1 msg=key_not_found\n");
    }
}

/// The join among actions.
fn joined(actions: &[Action]) -> (Token, GatherKey, Bytes) {
    let join = |a: &Action| match a {
        Action::Join { token, key, data, .. } => Some((*token, key.clone(), data.clone())),
        _ => None,
    };
    actions.iter().find_map(join).expect("a join")
}

#[test]
fn a_barrier_carries_what_was_put_to_the_other_node() {
    let nodes: &[&[u32]] = &[&[0], &[1]];
    let (mut a, mut b) = (server(nodes, 0), server(nodes, 1));
    say(&mut a, 0, format!("cmd=put kvsname={NAME} key=bc value=there\n").as_bytes());
    let (token_a, key, data_a) = joined(&say(&mut a, 0, b"cmd=barrier_in\n"));
    let (token_b, key_b, data_b) = joined(&say(&mut b, 1, b"cmd=barrier_in\n"));
    assert_eq!((&key, data_b.len()), (&key_b, 0));
    let result = Ok(Gathered { data: data_a, serial: 1 });
    let done = |token| Event::Gathered { key: key.clone(), tokens: vec![token], result: result.clone() };
    assert_eq!(said(&feed(&mut a, done(token_a)), 0), "cmd=barrier_out tag=0 rc=0\n");
    assert_eq!(said(&feed(&mut b, done(token_b)), 1), "cmd=barrier_out tag=0 rc=0\n");
    let got = say(&mut b, 1, format!("cmd=get kvsname={NAME} key=bc\n").as_bytes());
    assert_eq!(said(&got, 1), "cmd=get_result rc=0 msg=success found=TRUE value=there\n");
    let (_, _, again) = joined(&say(&mut a, 0, b"cmd=barrier_in\n"));
    assert!(again.is_empty(), "it was sent");
}

#[test]
fn grouped_barriers_are_told_apart_by_their_text_and_what_they_carry_travels_again() {
    let mut s = server(&[&[0, 1], &[2, 3]], 0);
    say(&mut s, 0, format!("cmd=put kvsname={NAME} key=k value=v\n").as_bytes());
    let (token, key, data) = joined(&say(&mut s, 0, b"cmd=barrier_in group=0,2:77\n"));
    assert_eq!(key.group, Group::ranks(ProcId::first(0), [0, 2].map(Rank).into_iter().collect()).unwrap());
    assert!(!data.is_empty());
    let (_, node, _) = joined(&say(&mut s, 1, b"cmd=barrier_in group=NODE:9\n"));
    assert_eq!(node.group, Group::ranks(ProcId::first(0), RankSet::range(0, 1)).unwrap());
    let (_, world, again) = joined(&say(&mut s, 0, b"cmd=barrier_in group=WORLD:5\n"));
    assert_eq!((world.group, again.is_empty()), (Group::all(ProcId::first(0)), false));
    assert_ne!(world.name, node.name);
    let done = Event::Gathered { key, tokens: vec![token], result: Err(ProcId::first(2)) };
    assert_eq!(said(&feed(&mut s, done), 0), "cmd=barrier_out tag=77 rc=1 msg=rank_2_is_gone\n");
    for bad in ["1,2", "0,9", "x", ",", "0,-1"] {
        let out = ask(&mut s, &format!("cmd=barrier_in group={bad}:1\n"));
        assert_eq!(out, "cmd=barrier_out rc=-1 msg=bad_group tag=1\n", "{bad}");
    }
}

fn requested(actions: &[Action]) -> (Token, Request, Bytes) {
    let request = |a: &Action| match a {
        Action::Request { token, request, payload, .. } => Some((*token, request.clone(), payload.clone())),
        _ => None,
    };
    actions.iter().find_map(request).expect("a request")
}

fn done(token: Token, answer: Answer, payload: &'static str) -> Event {
    Event::Answered { token, answer, payload: Bytes::from_static(payload.as_bytes()) }
}

#[test]
fn names_may_hold_blanks() {
    let mut s = server(&[&[0]], 0);
    let publish = say(&mut s, 0, b"cmd=publish_name service=svc one port=tag#0$conn port=x$\n");
    let (token, request, port) = requested(&publish);
    assert!(matches!(&request, Request::Publish { name, .. } if name == b"svc one port=tag#0$conn"));
    assert_eq!(port, "x$");
    let out = feed(&mut s, done(token, Answer::Taken, ""));
    assert_eq!(said(&out, 0), "cmd=publish_result info=ok rc=1 msg=key_already_present\n");
    let (token, _, _) = requested(&say(&mut s, 0, b"cmd=lookup_name service=svc one\n"));
    let out = feed(&mut s, done(token, Answer::Value, "port 1"));
    assert_eq!(said(&out, 0), "cmd=lookup_result port=port 1 info=ok rc=0 msg=success\n");
    let (token, _, _) = requested(&say(&mut s, 0, b"cmd=unpublish_name service=svc one\n"));
    let out = feed(&mut s, done(token, Answer::Missing, ""));
    assert_eq!(said(&out, 0), "cmd=unpublish_result info=ok rc=1 msg=service_not_found\n");
}

#[test]
fn a_spawn_is_answered_with_the_new_name_and_a_code_for_each() {
    let mut s = server(&[&[0]], 0);
    let text = b"mcmd=spawn\nnprocs=3\nexecname=./a\ntotspawns=1\nspawnssofar=1\nendcmd\n";
    let (token, request, _) = requested(&say(&mut s, 0, text));
    assert!(matches!(request, Request::Spawn(s) if s.apps[0].ranks == 3));
    let out = feed(&mut s, done(token, Answer::Spawned { ns: Namespace(4), size: 3 }, ""));
    let name = NAME.strip_suffix('0').unwrap();
    assert_eq!(said(&out, 0), format!("cmd=spawn_result rc=0 jobid={name}4 errcodes=0,0,0\n"));
    let (token, _, _) = requested(&say(&mut s, 0, text));
    let out = feed(&mut s, done(token, Answer::Refused("no".into()), ""));
    assert_eq!(said(&out, 0), "cmd=spawn_result rc=1 msg=refused\n");
}

#[test]
fn finalize_and_abort_are_passed_on() {
    let mut s = server(&[&[0]], 0);
    let proc = ProcId::first(0);
    let out = say(&mut s, 0, b"cmd=finalize\n");
    assert!(out.contains(&Action::Finalized { proc }));
    assert_eq!(said(&out, 0), "cmd=finalize_ack rc=0\n");
    let abort = |code, message: &str| Action::Abort { by: proc, code, message: message.into() };
    assert_eq!(say(&mut s, 0, b"cmd=abort exitcode=5 message=abort\n"), [abort(5, "")]);
    let text = "application called MPI_Abort(MPI_COMM_WORLD, 6) - process 0";
    let body = v2(&format!("cmd=abort;isworld=TRUE;msg={text};"));
    assert_eq!(say(&mut s, 0, body.as_bytes()), [abort(6, text)]);
}

#[test]
fn a_port_is_entered_by_number_once() {
    let mut s = server(&[&[0, 1]], 0);
    s.expect(4711, ProcId::first(1));
    feed(&mut s, Event::Eof { conn: Conn(1) });
    for conn in [10, 11, 12, 13, 14] {
        feed(&mut s, Event::Accepted { conn: Conn(conn), uid: None });
    }
    let out = say(&mut s, 10, b"cmd=initack pmiid=4711\n");
    assert_eq!(said(&out, 10), "cmd=initack rc=0\ncmd=set size=2\ncmd=set rank=1\ncmd=set debug=0\n");
    let twice = say(&mut s, 11, b"cmd=initack pmiid=4711\n");
    assert!(
        matches!(&twice[..], [Action::Close { why: Some(why), .. }] if why.contains("connected already"))
    );
    let stranger = say(&mut s, 12, b"cmd=get_maxes\n");
    assert!(matches!(&stranger[..], [Action::Close { .. }]));
    // PMI-2 says its number in its second message, MPICH's under one name and Slurm's library under another.
    s.expect(4710, ProcId::first(0));
    feed(&mut s, Event::Eof { conn: Conn(0) });
    for conn in [13, 14] {
        let hello = say(&mut s, conn, b"cmd=init pmi_version=2 pmi_subversion=0\n");
        assert!(said(&hello, conn).starts_with("cmd=response_to_init pmi_version=2"));
    }
    let full = say(&mut s, 13, v2("cmd=fullinit;srcid=4710;threaded=FALSE;").as_bytes());
    assert!(said(&full, 13).contains("fullinit-response;pmi-version=2;pmi-subversion=0;rank=0;size=2;"));
    assert!(full.contains(&Action::Hello { proc: ProcId::first(0) }));
    let twice = say(&mut s, 14, v2("cmd=fullinit;pmirank=4710;threaded=FALSE;").as_bytes());
    assert!(matches!(&twice[..], [Action::Close { .. }]));
}

#[test]
fn pmi_2_from_init_to_finalize() {
    let mut s = server(&[&[0, 1]], 0);
    assert_eq!(
        ask(&mut s, "cmd=init pmi_version=2 pmi_subversion=0\n"),
        "cmd=response_to_init pmi_version=2 pmi_subversion=0 rc=0\n"
    );
    let full = "cmd=fullinit-response;pmi-version=2;pmi-subversion=0;rank=0;size=2;appnum=0;debugged=FALSE;pmiverbose=FALSE;rc=0;";
    // MPICH 4.0 counts its prefix twice: six bytes of rubbish follow each body.
    let rubbish = "cmd=fullinit;pmirank=0;threaded=FALSE;\0\0;=\0\0";
    assert_eq!(ask(&mut s, &format!("{:<6}{rubbish}", rubbish.len())), v2(full));
    let with_rubbish = |body: &str| v2(&format!("{body};valu\0"));
    for (body, answer) in [
        ("cmd=job-getid;", format!("cmd=job-getid-response;jobid={NAME};rc=0;")),
        ("cmd=kvs-put;key=k;value=a;;b;", "cmd=kvs-put-response;rc=0;".into()),
        (
            "cmd=kvs-get;thrid=0x7f;key=k;",
            "cmd=kvs-get-response;thrid=0x7f;found=TRUE;value=a;;b;rc=0;".into(),
        ),
        ("cmd=kvs-get;jobid=;srcid=0;key=no;", "cmd=kvs-get-response;found=FALSE;rc=0;".into()),
        (
            "cmd=info-getjobattr;key=universeSize;",
            "cmd=info-getjobattr-response;found=TRUE;value=2;rc=0;".into(),
        ),
        ("cmd=info-getnodeattr;key=na;wait=FALSE;", "cmd=info-getnodeattr-response;found=FALSE;rc=0;".into()),
        ("cmd=info-getnodeattr;key=na;wait=TRUE;", String::new()),
        ("cmd=frob;", "cmd=frob-response;errmsg=unknown_cmd;rc=1;".into()),
    ] {
        let expected = if answer.is_empty() { answer } else { v2(&answer) };
        assert_eq!(ask(&mut s, &with_rubbish(body)), expected, "{body}");
    }
    let put = say(&mut s, 1, v2("cmd=info-putnodeattr;key=na;value=nv;").as_bytes());
    assert_eq!(said(&put, 0), v2("cmd=info-getnodeattr-response;found=TRUE;value=nv;rc=0;"));
    let (token, _, _) = requested(&say(&mut s, 0, with_rubbish("cmd=name-lookup;name=svc;").as_bytes()));
    let out = feed(&mut s, done(token, Answer::Value, "p#1"));
    assert_eq!(said(&out, 0), v2("cmd=name-lookup-response;port=p#1;value=p#1;found=TRUE;rc=0;"));
    let (token, key, _) = joined(&say(&mut s, 0, with_rubbish("cmd=kvs-fence;").as_bytes()));
    let result = Ok(Gathered { data: Bytes::new(), serial: 1 });
    let out = feed(&mut s, Event::Gathered { key, tokens: vec![token], result });
    assert_eq!(said(&out, 0), v2("cmd=kvs-fence-response;rc=0;"));
    assert_eq!(ask(&mut s, &with_rubbish("cmd=finalize;")), v2("cmd=finalize-response;rc=0;"));
}

#[test]
fn garbage_closes_only_its_own_stream() {
    let mut s = server(&[&[0, 1]], 0);
    let out = say(&mut s, 0, b"\xff\xff\xff\xff\xff\xff\xff");
    assert!(
        matches!(&out[..], [Action::Close { conn: Conn(0), why: Some(why) }] if why.starts_with("rank 0: "))
    );
    assert!(say(&mut s, 0, b"cmd=get_maxes\n").is_empty());
    assert!(!say(&mut s, 1, b"cmd=get_maxes\n").is_empty());
    assert!(matches!(&say(&mut s, 1, b"cmdx=1\n")[..], [Action::Close { .. }]));
}
