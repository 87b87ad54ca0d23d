//! The servers of a job's nodes with clients of all kinds: what they ask, and what they must not.

use super::testing::{UID, World, all, greeting};
use crate::api::{Action, Event};
use crate::pmix::codec::{App, DataType, Info, Kval, Pdata, Proc, Query, Text, Value};
use crate::pmix::status;
use rmpi_types::{ProcId, RankEnd};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn int(n: u64) -> Value {
    Value::Number(DataType::INT, n)
}

fn flag(key: &'static str) -> Info {
    Info::new(key, Value::bool(true))
}

#[test]
fn a_client_learns_all_about_its_job() {
    let mut world = World::new(&[&[0, 2], &[1, 3]]);
    for module in ["v3", "v41"] {
        let client = world.client_of(0, 2, "5.0.11", module);
        let tag = world.ask(client, 0, |w| w);
        let mut r = world.answer(client, tag).unwrap();
        assert_eq!(r.text(), Ok(Some(world.name(0))));
        let kvals: Vec<Kval> = all(&mut r);
        let one = |key: &str| kvals.iter().find(|k| k.key == *key).map(|k| k.value.clone());
        assert_eq!(one("pmix.job.size"), Some(Value::u32(4)));
        assert_eq!(one("pmix.nlist"), Some(Value::text("n0,n1")));
        let nodes: Vec<&Kval> = kvals.iter().filter(|k| k.key == "pmix.node.arr").collect();
        let peers: Vec<String> = nodes
            .iter()
            .map(|n| {
                n.value
                    .as_infos()
                    .find(|i| i.key == "pmix.lpeers")
                    .unwrap()
                    .value
                    .as_text()
                    .unwrap()
                    .to_string()
            })
            .collect();
        assert_eq!(peers, ["0,2", "1,3"]);
        assert_eq!(kvals.iter().filter(|k| k.key == "pmix.pblob").count(), 4);
    }
}

#[test]
fn names_of_namespaces_are_numbers_with_a_family() {
    let world = World::new(&[&[0]]);
    let (a, b): (u32, u32) =
        (world.name(0).to_string().parse().unwrap(), world.name(1).to_string().parse().unwrap());
    assert_eq!((a >> 16, a & 0xffff, b & 0xffff), (b >> 16, 1, 2));
    assert!((1..0x7fff).contains(&(a >> 16)));
}

#[test]
fn strangers_get_not_a_word() {
    let mut world = World::new(&[&[0]]);
    let name = world.name(0).to_string();
    let good = greeting(&name, 0, "5.0", "v3", UID);
    for (uid, words) in [
        (None, &good),
        (Some(UID + 1), &good),
        (Some(UID), &greeting(&name, 0, "5.0", "v3", UID + 1)),
        (Some(UID), &b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        (Some(UID), &[0xff; 16].to_vec()),
    ] {
        let client = world.dial(0, uid);
        world.say(client, words);
        let c = &world.clients[client];
        assert!(c.closed && c.welcome.is_empty(), "{uid:?} {words:?}");
    }
    let client = world.dial(0, Some(UID));
    world.say(client, &good[..20]);
    world.pass(11 * SECOND);
    assert!(world.clients[client].closed, "half a greeting is not waited for");
}

#[test]
fn wrong_names_are_refused_with_a_status() {
    let mut world = World::new(&[&[0], &[1]]);
    let name = world.name(0).to_string();
    for (ns, rank) in [("1", 0), (&*name, 9), (&*name, 1), ("", 0), ("4294967295", 0)] {
        let client = world.dial(0, Some(UID));
        world.say(client, &greeting(ns, rank, "5.0", "v3", UID));
        let c = &world.clients[client];
        assert_eq!((c.closed, &c.welcome[..]), (true, &status::NOT_FOUND.to_be_bytes()[..]), "{ns} {rank}");
    }
}

#[test]
fn a_fence_brings_data_to_every_node() {
    let mut world = World::new(&[&[0, 1], &[2]]);
    let clients =
        [world.client(0, 0), world.client_of(0, 1, "4.2.2", "v3"), world.client_of(0, 2, "6.1.0", "v61")];
    for (i, client) in clients.into_iter().enumerate() {
        let value = Value::blob(vec![u8::try_from(i).unwrap(); 3]);
        assert_eq!(world.commit(client, 2, &[("far", value.clone()), ("too", Value::size(1))]), 0);
        assert_eq!(world.commit(client, 1, &[("near", value)]), 0);
    }
    let tags = clients.map(|c| world.fence(c, true));
    for (client, tag) in clients.into_iter().zip(tags) {
        assert_eq!(world.answer(client, tag).unwrap().status(), Ok(0));
    }
    for (reader, of, key) in [(0, 2, "far"), (2, 0, "far"), (0, 1, "near"), (2, 1, "far")] {
        let tag = world.get(clients[reader], 0, of, key, &[]);
        let (status, values) = world.got(clients[reader], tag).unwrap();
        assert_eq!((status, values.iter().filter(|k| k.key == *key).count()), (0, 1));
    }
    let immediate = [flag("pmix.immediate")];
    let tag = world.get(clients[0], 0, 2, "near", &immediate);
    assert_eq!(world.got(clients[0], tag), Some((status::NOT_FOUND, Vec::new())), "not for other nodes");
}

#[test]
fn a_fence_waits_for_all_the_living() {
    let mut world = World::new(&[&[0, 1], &[2]]);
    let clients = [0, 1, 2].map(|r| world.client(0, r));
    let a = world.fence(clients[0], false);
    let b = world.fence(clients[2], false);
    assert!(world.answer(clients[0], a).is_none());
    world.die(ProcId::first(1), RankEnd::Signaled { signal: 9, core: false });
    assert_eq!(world.answer(clients[0], a).unwrap().status(), Ok(0));
    assert_eq!(world.answer(clients[2], b).unwrap().status(), Ok(0));
}

#[test]
fn a_fence_may_have_a_time_limit() {
    let mut world = World::new(&[&[0, 1]]);
    let client = world.client(0, 0);
    let procs = [Proc { ns: world.name(0), rank: 0xffff_fffe }];
    let tag = world.ask(client, 3, |w| w.counted(&procs).counted(&[Info::new("pmix.timeout", int(2))]));
    world.pass(SECOND);
    assert!(world.answer(client, tag).is_none());
    world.pass(SECOND);
    assert_eq!(world.answer(client, tag).unwrap().status(), Ok(status::TIMEOUT));
}

#[test]
fn members_that_do_not_exist_make_no_fence() {
    let mut world = World::new(&[&[0, 1]]);
    let client = world.client(0, 0);
    for (ns, rank) in [("77", 0), ("", 0xffff_fffe)] {
        let procs = [Proc { ns: ns.into(), rank }];
        assert_eq!(world.done(client, 3, |w| w.counted(&procs).counted::<Info>(&[])), status::BAD_PARAM);
    }
    let others = [Proc { ns: world.name(0), rank: 1 }];
    let status = world.done(client, 3, |w| w.counted(&others).counted::<Info>(&[]));
    assert_eq!(status, status::BAD_PARAM, "a fence of others");
}

#[test]
fn direct_modex_fetches_what_no_fence_brought() {
    let mut world = World::new(&[&[0], &[1]]);
    let (reader, writer) = (world.client(0, 0), world.client(0, 1));
    let tag = world.get(reader, 0, 1, "btl", &[]);
    assert!(world.got(reader, tag).is_none(), "waits for the commit");
    world.commit(writer, 3, &[("other", Value::text("x"))]);
    assert!(world.got(reader, tag).is_none());
    world.commit(writer, 3, &[("btl", Value::text("here"))]);
    let (status, values) = world.got(reader, tag).unwrap();
    assert_eq!((status, values.len()), (0, 2), "everything comes at once");

    let late = world.get(reader, 0, 1, "never", &[Info::new("pmix.timeout", int(3))]);
    world.pass(3 * SECOND);
    assert_eq!(world.got(reader, late), Some((status::TIMEOUT, Vec::new())));
    let over = world.get(reader, 0, 1, "never", &[]);
    assert_eq!(world.done(writer, 5, |w| w), 0);
    assert_eq!(world.got(reader, over), Some((status::NOT_FOUND, Vec::new())), "it has finalized");
}

#[test]
fn a_get_of_a_local_rank_waits_until_it_is_over() {
    let mut world = World::new(&[&[0, 1]]);
    let (reader, writer) = (world.client(0, 0), world.client(0, 1));
    let tag = world.get(reader, 0, 1, "key", &[]);
    assert!(world.got(reader, tag).is_none());
    world.commit(writer, 1, &[("key", Value::size(7))]);
    assert_eq!(world.got(reader, tag).unwrap().1, [Kval { key: "key".into(), value: Value::size(7) }]);
    let tag = world.get(reader, 0, 1, "more", &[]);
    world.die(ProcId::first(1), RankEnd::Exited(0));
    assert_eq!(world.got(reader, tag).unwrap().0, status::NOT_FOUND);
}

#[test]
fn reserved_keys_are_answered_from_what_is_known() {
    let mut world = World::new(&[&[0, 1], &[2]]);
    let client = world.client(0, 0);
    let wildcard = 0xffff_fffe;
    let mut one = |rank, key: &str, infos: &[Info]| {
        let tag = world.get(client, 0, rank, key, infos);
        world.got(client, tag).unwrap()
    };
    assert_eq!(one(wildcard, "pmix.hwlocxml2", &[flag("pmix.immediate")]).0, status::NOT_FOUND);
    assert_eq!(one(wildcard, "pmix.univ.size", &[]).1[0].value, Value::u32(3));
    assert_eq!(one(2, "pmix.hname", &[]).1[0].value, Value::text("n1"));
    assert_eq!(one(1, "pmix.lrank", &[]).1[0].value, Value::u16(1));
    let undef = 0xffff_ffff;
    assert_eq!(one(undef, "pmix.local.size", &[flag("pmix.node.info")]).1[0].value, Value::u32(2));
    let other = [Info::new("pmix.hname", Value::text("n1"))];
    assert_eq!(one(undef, "pmix.local.size", &other).1[0].value, Value::u32(1));
    assert_eq!(
        one(undef, "pmix.app.size", &[Info::new("pmix.appnum", Value::u32(0))]).1[0].value,
        Value::u32(3)
    );
    assert_eq!(one(1, "pmix.nosuch", &[]).0, status::NOT_FOUND);
}

#[test]
fn names_are_published_for_all() {
    let mut world = World::new(&[&[0], &[1]]);
    let (a, b) = (world.client(0, 0), world.client_of(0, 1, "5.0", "v4"));
    let lookup = |world: &mut World, client, keys: &[&str], infos: &[Info]| {
        world.ask(client, 7, |w| {
            w.one_number(DataType::UINT32, 0).size(keys.len() as u64);
            for key in keys {
                w.text(Some(&(*key).into()));
            }
            w.counted(infos)
        })
    };
    let waiting = lookup(&mut world, b, &["port", "other"], &[Info::new("pmix.wait", int(0))]);
    assert_eq!(
        {
            let t = lookup(&mut world, b, &["port"], &[]);
            world.answer(b, t).unwrap().status()
        },
        Ok(status::NOT_FOUND)
    );
    let publish = |world: &mut World, key: &'static str| {
        let infos =
            [Info::new(key, Value::text("here")), Info::new("pmix.range", Value::Number(DataType::RANGE, 4))];
        world.done(a, 6, |w| w.one_number(DataType::UINT32, 0).counted(&infos))
    };
    assert_eq!(publish(&mut world, "port"), 0);
    assert!(world.answer(b, waiting).is_none());
    assert_eq!(publish(&mut world, "other"), 0);
    assert_eq!(publish(&mut world, "other"), status::EXISTS);
    let mut r = world.answer(b, waiting).unwrap();
    assert_eq!(r.status(), Ok(0));
    let found: Vec<Pdata> = r.counted().unwrap();
    assert_eq!(
        found[0],
        Pdata { proc: Proc { ns: world.name(0), rank: 0 }, key: "port".into(), value: Value::text("here") }
    );
    let some = lookup(&mut world, a, &["port", "nosuch"], &[]);
    assert_eq!(world.answer(a, some).unwrap().status(), Ok(status::PARTIAL_SUCCESS));
    let gone =
        world.done(a, 8, |w| w.one_number(DataType::UINT32, 0).size(1).text(Some(&"port".into())).size(0));
    assert_eq!(gone, 0);
    let tag = lookup(&mut world, a, &["port"], &[]);
    assert_eq!(world.answer(a, tag).unwrap().status(), Ok(status::NOT_FOUND));
}

#[test]
fn spawned_ranks_and_their_parents_meet() {
    let mut world = World::new(&[&[0], &[1]]);
    let parents = [world.client(0, 0), world.client(0, 1)];
    let app = |command: &str| App {
        command: Some(command.into()),
        args: vec![command.into()],
        env: vec!["OMPI_PARENT_PORT=1".into()],
        wdir: Some("/".into()),
        processes: 2,
        infos: Vec::new(),
    };
    let tag = world.ask(parents[0], 9, |w| w.counted::<Info>(&[]).counted(&[app("nosuch")]));
    let mut r = world.answer(parents[0], tag).unwrap();
    assert_eq!((r.status(), r.text()), (Ok(status::EXE_NOT_FOUND), Ok(None)));
    let tag = world.ask(parents[0], 9, |w| w.counted::<Info>(&[]).counted(&[app("child")]));
    let mut r = world.answer(parents[0], tag).unwrap();
    assert_eq!((r.status(), r.text()), (Ok(0), Ok(Some(world.name(1)))));

    let children = [world.client(1, 0), world.client(1, 1)];
    let tag = world.get(children[0], 1, 0xffff_fffe, "pmix.parent", &[]);
    let parent = world.got(children[0], tag).unwrap().1.remove(0).value;
    assert_eq!(parent, Value::Proc(Proc { ns: world.name(0), rank: 0 }));
    let tag = world.get(children[1], 1, 1, "pmix.nrank", &[]);
    assert_eq!(
        world.got(children[1], tag).unwrap().1[0].value,
        Value::u16(2),
        "after the parents' on the node"
    );

    let both = [Proc { ns: world.name(1), rank: 0xffff_fffe }, Proc { ns: world.name(0), rank: 0xffff_fffe }];
    let all_four = [parents[0], parents[1], children[0], children[1]];
    let tags = all_four.map(|c| world.ask(c, 10, |w| w.counted(&both).counted::<Info>(&[])));
    for (client, tag) in all_four.into_iter().zip(tags) {
        let mut r = world.answer(client, tag).unwrap();
        assert_eq!(r.status(), Ok(0));
        assert!(r.blob().unwrap().len() > 100 && r.is_empty(), "the other job's information");
    }
    world.commit(children[1], 3, &[("key", Value::size(1))]);
    let tag = world.get(parents[1], 1, 1, "key", &[]);
    assert_eq!(world.got(parents[1], tag).unwrap().1.last().unwrap().key, "key");
}

#[test]
fn groups_have_numbers_and_know_what_members_said() {
    for (version, told) in [("4.2.2", false), ("5.0.8", true)] {
        let mut world = World::new(&[&[0], &[1]]);
        let clients = [world.client_of(0, 0, version, "v3"), world.client_of(0, 1, version, "v3")];
        let procs = [0, 1].map(|rank| Proc { ns: world.name(0), rank });
        let mut tags = Vec::new();
        for (n, client) in (7..).zip(clients) {
            let said = Value::infos(vec![Info::new("pmix.grp.lclid", Value::size(n))]);
            let infos = [flag("pmix.grp.actxid"), Info::new("pmix.grp.info", said)];
            tags.push(world.ask(client, 24, |w| w.text(Some(&"g".into())).counted(&procs).counted(&infos)));
        }
        let mut r = world.answer(clients[0], tags[0]).unwrap();
        assert_eq!(r.status(), Ok(0));
        if told {
            assert_eq!(r.counted::<Proc>().unwrap().len(), 2);
        }
        let context = r.size().unwrap();
        assert!(context > 0 && r.is_empty());
        let qualifier = Info { key: Text::fixed("pmix.grp.ctxid"), flags: 8, value: Value::size(context) };
        let tag = world.get(clients[0], 0, 1, "pmix.grp.lclid", std::slice::from_ref(&qualifier));
        let (status, values) = world.got(clients[0], tag).unwrap();
        assert_eq!((status, &values[0].key), (0, &Text::fixed("pmix.qual.val")));
        let infos: Vec<&Info> = values[0].value.as_infos().collect();
        assert_eq!((&infos[0].value, infos[1]), (&Value::size(8), &qualifier));

        let tags = clients.map(|c| {
            world.ask(c, 28, |w| {
                w.text(Some(&"g".into()));
                if told {
                    w.counted(&procs);
                }
                w.counted::<Info>(&[])
            })
        });
        for (client, tag) in clients.into_iter().zip(tags) {
            assert_eq!(world.answer(client, tag).unwrap().status(), Ok(0));
        }
    }
}

#[test]
fn the_newest_clients_are_told_what_members_said_at_once() {
    let mut world = World::new(&[&[0]]);
    let client = world.client_of(0, 0, "6.1.0", "v61");
    let said = Value::infos(vec![Info::new("pmix.grp.lclid", Value::size(3))]);
    let tag = world.ask(client, 24, |w| {
        w.text(Some(&"g".into())).counted::<Proc>(&[]).counted(&[Info::new("pmix.grp.info", said)])
    });
    let mut r = world.answer(client, tag).unwrap();
    assert_eq!((r.status(), r.counted::<Proc>().unwrap().len()), (Ok(0), 1));
    assert_eq!(r.one_number(DataType::BOOL), Ok(1));
    assert!(r.size().unwrap() > 0);
    assert_eq!((r.size(), r.one::<Info>().unwrap().key), (Ok(1), "pmix.grp.info".into()));
}

fn codes(client: &mut super::testing::Client) -> Vec<i32> {
    let codec = client.codec;
    let events = client.inbox.drain(..).filter(|f| f.tag == 0);
    let mut codes = Vec::new();
    for frame in events {
        let mut r = crate::pmix::codec::Reader::new(codec, frame.payload);
        assert_eq!(r.small(DataType::COMMAND), Ok(12));
        codes.push(r.status().unwrap());
        r.one::<Proc>().unwrap();
        r.counted::<Info>().unwrap();
        assert!(r.is_empty());
    }
    codes
}

fn register(world: &mut World, client: usize, list: &[i32]) {
    let status = world.done(client, 13, |w| {
        w.size(list.len() as u64);
        if !list.is_empty() {
            w.statuses(list);
        }
        w.size(0)
    });
    assert_eq!(status, 0);
}

#[test]
fn events_reach_those_who_want_them_once() {
    let mut world = World::new(&[&[0, 1], &[2]]);
    let clients = [0, 1, 2].map(|r| world.client(0, r));
    register(&mut world, clients[1], &[]);
    register(&mut world, clients[2], &[-5000]);
    let notify = |world: &mut World, code, range, infos: &[Info]| {
        let status =
            world.done(clients[0], 12, |w| w.status(code).one_number(DataType::RANGE, range).counted(infos));
        assert_eq!(status, 0);
    };
    notify(&mut world, -5000, 3, &[]);
    notify(&mut world, -5001, 3, &[flag("pmix.evnondef")]);
    notify(&mut world, -5000, 2, &[]);
    notify(&mut world, -5000, 7, &[]);
    assert_eq!(codes(&mut world.clients[clients[0]]), [0; 0], "no echo");
    let to_two = Value::Proc(Proc { ns: world.name(0), rank: 2 });
    notify(&mut world, -5000, 6, &[Info::new("pmix.evrange", to_two)]);
    assert_eq!(codes(&mut world.clients[clients[1]]), [-5000, -5000]);
    register(&mut world, clients[1], &[-5001]);
    assert_eq!(codes(&mut world.clients[clients[1]]), [-5001], "kept for who registers late, and told once");
    let mut of_two = codes(&mut world.clients[clients[2]]);
    of_two.dedup();
    assert_eq!(of_two, [-5000]);
    let tag = world.ask(clients[1], 14, |w| w.statuses(&[i32::MIN]));
    assert!(world.answer(clients[1], tag).is_none(), "the end of a registration has no answer");
    notify(&mut world, -5002, 5, &[]);
    assert_eq!(codes(&mut world.clients[clients[1]]), [0; 0]);
}

#[test]
fn failures_are_events() {
    let mut world = World::new(&[&[0], &[1, 2]]);
    let client = world.client(0, 0);
    register(&mut world, client, &[-200, -402, -7]);
    world.die(ProcId::first(1), RankEnd::Signaled { signal: 9, core: false });
    world.die(ProcId::first(2), RankEnd::Exited(3));
    assert_eq!(codes(&mut world.clients[client]), [status::ABORTED_BY_SIG, status::PROC_ABORTED]);
}

#[test]
fn heartbeats_that_stay_away_are_an_event() {
    let mut world = World::new(&[&[0, 1]]);
    let (beating, other) = (world.client(0, 0), world.client(0, 1));
    register(&mut world, other, &[-109]);
    let infos =
        [Info::new("pmix.monitor.btime", Value::u32(2)), Info::new("pmix.monitor.bdrop", Value::u32(2))];
    let status = world.done(beating, 19, |w| w.one(&flag("pmix.monitor.mbeat")).status(-109).counted(&infos));
    assert_eq!(status, 0);
    world.pass(3 * SECOND);
    world.say(beating, &crate::pmix::frame::encode(1, b""));
    world.pass(3 * SECOND);
    assert_eq!(codes(&mut world.clients[other]), [0; 0]);
    world.pass(2 * SECOND);
    assert_eq!(codes(&mut world.clients[other]), [-109]);
}

#[test]
fn the_rest_is_answered_with_what_there_is() {
    let mut world = World::new(&[&[0], &[1]]);
    let client = world.client(0, 0);
    let queries = [Query { keys: vec!["pmix.qry.ns".into(), "nosuch".into()], qualifiers: Vec::new() }];
    let tag = world.ask(client, 15, |w| w.counted(&queries));
    let mut r = world.answer(client, tag).unwrap();
    assert_eq!(r.status(), Ok(status::PARTIAL_SUCCESS));
    assert_eq!(r.counted::<Info>().unwrap()[0].value, Value::text(world.name(0)));
    assert_eq!(
        world.done(client, 17, |w| w.one_number(DataType::ALLOC_DIRECTIVE, 1).size(0)),
        status::NOT_SUPPORTED
    );
    assert_eq!(world.done(client, 99, |w| w), status::NOT_SUPPORTED);
    let tag = world.ask(client, 20, |w| w.size(0));
    let mut r = world.answer(client, tag).unwrap();
    assert_eq!(r.status(), Ok(0));
    let credential = r.blob().unwrap();
    assert_eq!(world.done(client, 21, |w| w.blob(&credential).size(0)), 0);
    assert_eq!(world.done(client, 21, |w| w.blob(b"x.1").size(0)), status::INVALID_CRED);
    let tag = world.ask(client, 37, |w| w.text(Some(&"n1".into())).text(None));
    let mut r = world.answer(client, tag).unwrap();
    assert_eq!((r.status(), r.counted::<Proc>().unwrap()[0].rank), (Ok(0), 1));
    let tag = world.ask(client, 38, |w| w.text(None));
    let mut r = world.answer(client, tag).unwrap();
    assert_eq!((r.status(), r.text()), (Ok(0), Ok(Some("n0,n1".into()))));
    let data = [Info::new("pmix.log.stderr", Value::text("see\n"))];
    assert_eq!(world.done(client, 16, |w| w.one_number(DataType::TIME, 0).counted(&data).size(0)), 0);
    assert!(world.log.iter().any(|a| matches!(a, Action::Output { bytes, .. } if bytes == "see\n")));
}

#[test]
fn what_a_rank_registers_is_removed_when_it_ends() {
    let mut world = World::new(&[&[0, 1]]);
    let client = world.client(0, 0);
    let infos = [
        Info::new("pmix.reg.cleanup", Value::text("/dev/shm/a,/dev/shm/b,relative")),
        flag("pmix.clnup.recurse"),
    ];
    let status = world.done(client, 18, |w| w.counted::<Proc>(&[]).counted(&infos));
    assert_eq!(status, 0);
    world.log.clear();
    world.die(ProcId::first(0), RankEnd::Exited(0));
    let removed: Vec<&Action> = world.log.iter().filter(|a| matches!(a, Action::Remove { .. })).collect();
    assert_eq!(removed.len(), 2);
}

#[test]
fn the_life_of_a_client_is_told_to_the_driver() {
    let mut world = World::new(&[&[0]]);
    let proc = ProcId::first(0);
    let client = world.client(0, 0);
    let again = world.client(0, 0);
    assert_eq!(world.done(client, 1, |w| w.status(7).text(Some(&"why".into())).size(0)), 0);
    assert_eq!(world.done(client, 5, |w| w), 0);
    assert_eq!(world.done(again, 5, |w| w), 0);
    let told: Vec<&Action> = world.log.iter().filter(|a| !matches!(a, Action::Folder { .. })).collect();
    let abort = Action::Abort { by: proc, code: 7, message: "why".into() };
    assert_eq!(told, [&Action::Hello { proc }, &abort, &Action::Finalized { proc }]);
}

#[test]
fn garbage_ends_a_stream_and_nothing_else() {
    let mut world = World::new(&[&[0, 1]]);
    let good = world.client(0, 0);
    for bytes in [
        &[0xff; 64][..],
        &crate::pmix::frame::encode(101, b""),
        &crate::pmix::frame::encode(101, &[0, 0, 0, 1, 4, 9, 9]),
        &crate::pmix::frame::encode(
            101,
            &[0, 0, 0, 1, 3, 0, 0, 0, 1, 0, 15, 255, 255, 255, 255, 255, 255, 255, 255],
        ),
    ] {
        let bad = world.client(0, 1);
        world.say(bad, bytes);
        assert!(world.clients[bad].closed, "{bytes:?}");
    }
    let tag = world.ask(good, 0, |w| w);
    assert!(world.answer(good, tag).is_some());
}

#[test]
fn a_stream_that_ends_leaves_its_part_in_a_fence() {
    let mut world = World::new(&[&[0, 1]]);
    let (a, b) = (world.client(0, 0), world.client(0, 1));
    let get = world.get(a, 0, 1, "never", &[]);
    world.fence(a, false);
    let conn = crate::api::Conn(1);
    world.feed(0, Event::Eof { conn });
    let tag = world.fence(b, false);
    assert_eq!(world.answer(b, tag).unwrap().status(), Ok(0));
    assert!(world.answer(a, get).is_none());
}

#[test]
fn one_environment_serves_every_mpi() {
    let mut world = World::new(&[&[0], &[1]]);
    let vars = world.servers[1].shared_env(ProcId::first(0), 4711);
    let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
    assert!(get("PMIX_SERVER_URI3").unwrap().ends_with(".1;tcp4://127.0.0.1:4711"));
    assert_eq!(
        (get("PMIX_HOSTNAME"), get("PMIX_NAMESPACE")),
        (Some("n1".into()), Some(world.name(0).to_string()))
    );
    assert_eq!(get("OMPI_MCA_orte_precondition_transports").unwrap().len(), 33);
    assert_eq!(world.servers[1].rank_env(ProcId::first(1))[0], ("PMIX_RANK", "1".into()));
    assert_eq!(get("OMPI_MCA_mpi_yield_when_idle"), None);
    world.pass(SECOND);
}
