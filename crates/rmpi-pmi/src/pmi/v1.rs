//! PMI-1: `cmd=name key=value ...` lines. Replies are in the style of Hydra 4.0 plus `rc` everywhere, which every
//! client from MPICH 3.4 to 5 and Intel MPI reads. We are version 1.2: grouped barriers.

use super::frame::number;
use super::{Dialect, Open, PmiServer, What, concat, send};
use crate::api::{Action, Conn};
use bytes::Bytes;
use rmpi_types::{ProcId, Rank, RankSet};
use rmpi_wire::service::{Answer, Domain, Group, Request, Scope, Until};

/// What clients may put: the key-value space's name must not be announced longer than 256, or MPICH before 4.1
/// has no room left for values.
const MAXES: &str = "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024 rc=0\n";
/// The name of plain barriers.
const BARRIER: &[u8] = b"b";

/// The pairs of a line, in order; words without `=` are left out.
fn pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|&b| b == b' ').filter_map(|word| {
        let at = word.iter().position(|&b| b == b'=')?;
        Some((&word[..at], &word[at + 1..]))
    })
}

fn field<'a>(line: &'a [u8], name: &str) -> &'a [u8] {
    pairs(line).find(|(key, _)| *key == name.as_bytes()).map_or(&[][..], |(_, value)| value)
}

/// Where `needle` last begins.
fn last(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).rposition(|w| w == needle)
}

/// What follows ` service=`: service names may hold blanks, which nobody quotes.
fn service(line: &[u8]) -> &[u8] {
    let key = b" service=";
    line.windows(key.len()).position(|w| w == key).map_or(&[][..], |at| &line[at + key.len()..])
}

impl PmiServer {
    /// One line.
    pub(super) fn line(&mut self, conn: Conn, line: &[u8], out: &mut Vec<Action>) -> Result<(), String> {
        let Some((b"cmd", cmd)) = pairs(line).next() else {
            return Err("a PMI line without a command".into());
        };
        if cmd == b"initack" {
            return self.initack(conn, line, out);
        }
        if cmd == b"init" {
            return self.init_v1(conn, line, out);
        }
        let proc = self.proc(conn)?;
        let mut say = |text: String| send(conn, text.into_bytes(), out);
        match cmd {
            b"get_maxes" => say(MAXES.into()),
            b"get_appnum" => {
                let app = self.local(proc)?.space.app_of(proc.rank).unwrap_or(0);
                say(format!("cmd=appnum appnum={app} rc=0\n"));
            }
            b"get_my_kvsname" => {
                let name = &self.local(proc)?.name;
                say(format!("cmd=my_kvsname kvsname={name} rc=0\n"));
            }
            b"get_universe_size" => {
                let size = self.local(proc)?.universe();
                say(format!("cmd=universe_size size={size} rc=0\n"));
            }
            b"put" => {
                let (key, value) = (field(line, "key"), field(line, "value"));
                let local = self.local(proc)?;
                let put = field(line, "kvsname") == local.name.as_bytes() && local.put(proc.rank, key, value);
                say(match put {
                    true => "cmd=put_result rc=0 msg=success\n".into(),
                    false => "cmd=put_result rc=1 msg=refused\n".into(),
                });
            }
            b"get" => {
                let value =
                    self.named(proc, field(line, "kvsname")).and_then(|l| l.value(field(line, "key")));
                match value.filter(|v| !v.is_empty()) {
                    Some(value) => {
                        let head = b"cmd=get_result rc=0 msg=success found=TRUE value=";
                        send(conn, concat(&[head, &value, b"\n"]), out);
                    }
                    None => say("cmd=get_result rc=1 msg=key_not_found\n".into()),
                }
            }
            // Only a server of long ago knew it; nothing enumerates here.
            b"getbyidx" => say("cmd=getbyidx_results rc=-1 reason=no_more_keyvals\n".into()),
            b"barrier_in" => return self.barrier_in(conn, proc, field(line, "group"), out),
            b"publish_name" => {
                let rest = service(line);
                let (name, port) = match last(rest, b" port=") {
                    Some(at) => (&rest[..at], &rest[at + 6..]),
                    None => (rest, &[][..]),
                };
                let port = Bytes::copy_from_slice(port);
                return self.publish(conn, Dialect::V1, name, port, out);
            }
            b"unpublish_name" => return self.unpublish(conn, Dialect::V1, service(line), out),
            b"lookup_name" => return self.lookup(conn, Dialect::V1, service(line), out),
            b"finalize" => {
                say("cmd=finalize_ack rc=0\n".into());
                out.push(Action::Finalized { proc });
            }
            b"abort" => {
                let code = number(field(line, "exitcode")).unwrap_or(1);
                out.push(Action::Abort { by: proc, code, message: String::new() });
            }
            _ => {
                let cmd = String::from_utf8_lossy(cmd);
                say(format!("cmd={cmd}_result rc=-1 msg=unknown_cmd\n"));
            }
        }
        Ok(())
    }

    fn init_v1(&mut self, conn: Conn, line: &[u8], out: &mut Vec<Action>) -> Result<(), String> {
        let reply = match field(line, "pmi_version") {
            b"1" => "cmd=response_to_init pmi_version=1 pmi_subversion=2 rc=0\n",
            b"2" => "cmd=response_to_init pmi_version=2 pmi_subversion=0 rc=0\n",
            _ => "cmd=response_to_init pmi_version=1 pmi_subversion=2 rc=-1\n",
        };
        // Over a port a PMI-2 client says who it is only with its next message.
        if let Ok(proc) = self.proc(conn)
            && !reply.ends_with("rc=-1\n")
        {
            self.begin(proc, conn, out);
        }
        send(conn, reply.into(), out);
        Ok(())
    }

    fn initack(&mut self, conn: Conn, line: &[u8], out: &mut Vec<Action>) -> Result<(), String> {
        let proc = self.attach(conn, number(field(line, "pmiid")))?;
        let size = self.local(proc)?.space.size;
        let rank = proc.rank;
        let text = format!("cmd=initack rc=0\ncmd=set size={size}\ncmd=set rank={rank}\ncmd=set debug=0\n");
        send(conn, text.into_bytes(), out);
        Ok(())
    }

    /// `group` is empty, or `WORLD`, `NODE` or a list of ranks, then perhaps a colon and a tag. Groups are told
    /// apart by their whole text.
    fn barrier_in(
        &mut self,
        conn: Conn,
        proc: ProcId,
        group: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        if group.is_empty() {
            return self.join(conn, Dialect::V1, BARRIER.to_vec(), Group::all(proc), None, out);
        }
        let mut parts = group.splitn(2, |&b| b == b':');
        let (who, tag) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(b"0"));
        let local = self.local(proc)?;
        let members = match who {
            b"WORLD" => Some(Group::all(proc)),
            b"NODE" => {
                let place = local.space.place_of(proc.rank).ok_or("a rank of no node")?;
                Group::ranks(proc, local.space.nodes[place].ranks.clone())
            }
            list => {
                let size = local.space.size;
                let ranks: Option<RankSet> = list
                    .split(|&b| b == b',')
                    .map(|r| number::<u32>(r).filter(|&r| r < size).map(Rank))
                    .collect();
                ranks.and_then(|ranks| Group::ranks(proc, ranks))
            }
        };
        let members = members.filter(|m| m.contains(proc) && group.len() < rmpi_wire::service::MAX_NAME);
        let Some(members) = members else {
            send(conn, concat(&[b"cmd=barrier_out rc=-1 msg=bad_group tag=", tag, b"\n"]), out);
            return Ok(());
        };
        let name = [BARRIER, group].concat();
        self.join(conn, Dialect::V1, name, members, Some(Bytes::copy_from_slice(tag)), out)
    }

    pub(super) fn publish(
        &mut self,
        conn: Conn,
        dialect: Dialect,
        name: &[u8],
        port: Bytes,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let request = Request::Publish {
            domain: Domain::Pmi,
            name: name.to_vec(),
            scope: Scope::All,
            until: Until::Job,
        };
        self.ask(conn, dialect, What::Publish(Bytes::copy_from_slice(name)), request, port, out)
    }

    pub(super) fn unpublish(
        &mut self,
        conn: Conn,
        dialect: Dialect,
        name: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let request = Request::Unpublish { domain: Domain::Pmi, name: name.to_vec(), owner_only: false };
        self.ask(conn, dialect, What::Unpublish(Bytes::copy_from_slice(name)), request, Bytes::new(), out)
    }

    pub(super) fn lookup(
        &mut self,
        conn: Conn,
        dialect: Dialect,
        name: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let request = Request::Lookup { domain: Domain::Pmi, name: name.to_vec(), wait_ms: 0 };
        self.ask(conn, dialect, What::Lookup, request, Bytes::new(), out)
    }
}

/// The end of a barrier.
pub(super) fn barrier_out(conn: Conn, tag: Option<&[u8]>, lost: Option<ProcId>, out: &mut Vec<Action>) {
    let rc =
        if let Some(proc) = lost { format!("rc=1 msg=rank_{}_is_gone", proc.rank) } else { "rc=0".into() };
    let tag = tag.unwrap_or(b"0");
    send(conn, concat(&[b"cmd=barrier_out tag=", tag, b" ", rc.as_bytes(), b"\n"]), out);
}

/// The answer to what was asked of the job.
pub(super) fn answer(
    open: &Open,
    answer: &Answer,
    payload: &Bytes,
    spawned: Option<(String, u32)>,
    out: &mut Vec<Action>,
) {
    let ok = *answer == Answer::Done;
    let line = match &open.what {
        What::Publish(_) if ok => b"cmd=publish_result info=ok rc=0 msg=success\n".to_vec(),
        What::Publish(_) => b"cmd=publish_result info=ok rc=1 msg=key_already_present\n".to_vec(),
        What::Unpublish(_) if ok => b"cmd=unpublish_result info=ok rc=0 msg=success\n".to_vec(),
        What::Unpublish(_) => b"cmd=unpublish_result info=ok rc=1 msg=service_not_found\n".to_vec(),
        What::Lookup if *answer == Answer::Value => {
            concat(&[b"cmd=lookup_result port=", payload, b" info=ok rc=0 msg=success\n"])
        }
        What::Lookup => b"cmd=lookup_result rc=1 msg=service_not_found\n".to_vec(),
        What::Spawn => match spawned {
            Some((name, size)) => {
                let codes = vec!["0"; size as usize].join(",");
                format!("cmd=spawn_result rc=0 jobid={name} errcodes={codes}\n").into_bytes()
            }
            None => b"cmd=spawn_result rc=1 msg=refused\n".to_vec(),
        },
        What::Barrier(_) => return,
    };
    send(open.conn, line, out);
}
