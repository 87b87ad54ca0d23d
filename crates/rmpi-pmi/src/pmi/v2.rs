//! PMI-2: bodies `cmd=name;key=value;...;` behind a six-byte length. A `;` inside a value is doubled, in both
//! directions. A client's `thrid` is copied into the reply.

use super::frame::{PREFIX, number};
use super::{Dialect, MAX_ATTRS, Open, PmiServer, Waiting, What, concat, send, spawn};
use crate::api::{Action, Conn};
use bytes::Bytes;
use rmpi_types::ProcId;
use rmpi_wire::service::{Answer, Group};

/// The name of fences.
const FENCE: &[u8] = b"f";

/// The pairs of a body.
#[derive(Debug, Default)]
pub(super) struct Pairs(pub(super) Vec<(Vec<u8>, Vec<u8>)>);

impl Pairs {
    pub(super) fn of(body: &[u8]) -> Self {
        let mut pairs = Vec::new();
        let mut word = Vec::new();
        let mut bytes = body.iter().copied().peekable();
        let mut end = |word: &mut Vec<u8>| {
            if let Some(at) = word.iter().position(|&b| b == b'=') {
                pairs.push((word[..at].to_vec(), word[at + 1..].to_vec()));
            }
            word.clear();
        };
        while let Some(byte) = bytes.next() {
            match byte {
                b';' if bytes.next_if_eq(&b';').is_some() => word.push(b';'),
                b';' => end(&mut word),
                _ => word.push(byte),
            }
        }
        end(&mut word);
        Self(pairs)
    }

    /// The first value of a key.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> &[u8] {
        self.get(name).unwrap_or_default()
    }
}

/// The bytes after the end that a `fullinit` of MPICH before 4.1 truly has.
fn rubbish(body: &[u8]) -> usize {
    if !body.starts_with(b"cmd=fullinit;") {
        return 0;
    }
    let end = |mark: &[u8]| body.windows(mark.len()).position(|w| w == mark).map(|at| at + mark.len());
    let end = end(b"threaded=TRUE;").or_else(|| end(b"threaded=FALSE;"));
    end.map_or(0, |end| body.len() - end)
}

/// A reply: the command, the thread id, pairs, result code.
fn reply(conn: Conn, cmd: &str, thread: Option<&[u8]>, body: &[u8], rc: i32, out: &mut Vec<Action>) {
    let mut text = format!("cmd={cmd}-response;").into_bytes();
    if let Some(thread) = thread {
        text.extend_from_slice(b"thrid=");
        text.extend_from_slice(thread);
        text.push(b';');
    }
    text.extend_from_slice(body);
    text.extend_from_slice(format!("rc={rc};").as_bytes());
    let mut bytes = format!("{:PREFIX$}", text.len()).into_bytes();
    bytes.extend_from_slice(&text);
    send(conn, bytes, out);
}

fn found(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(value) => concat(&[b"found=TRUE;value=", &doubled(value), b";"]),
        None => b"found=FALSE;".to_vec(),
    }
}

fn doubled(value: &[u8]) -> Vec<u8> {
    value.iter().flat_map(|&b| std::iter::repeat_n(b, 1 + usize::from(b == b';'))).collect()
}

impl PmiServer {
    /// One body.
    pub(super) fn body(
        &mut self,
        conn: Conn,
        mut body: Vec<u8>,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.tail = client.tail.max(rubbish(&body));
            body.truncate(body.len().saturating_sub(client.tail));
        }
        let pairs = Pairs::of(&body);
        let Some((b"cmd", cmd)) = pairs.0.first().map(|(k, v)| (k.as_slice(), v.as_slice())) else {
            return Err("a PMI-2 message without a command".into());
        };
        let thread = pairs.get("thrid").map(Bytes::copy_from_slice);
        let dialect = Dialect::V2(thread.clone());
        if cmd == b"fullinit" {
            return self.fullinit(conn, &pairs, thread.as_deref(), out);
        }
        let proc = self.proc(conn)?;
        let name = String::from_utf8_lossy(cmd).into_owned();
        let thread = thread.as_deref();
        match cmd {
            b"job-getid" => {
                let id = concat(&[b"jobid=", self.local(proc)?.name.as_bytes(), b";"]);
                reply(conn, &name, thread, &id, 0, out);
            }
            b"job-connect" => reply(conn, &name, thread, b"kvscopy=FALSE;", 0, out),
            b"job-disconnect" => reply(conn, &name, thread, b"", 0, out),
            b"kvs-put" => {
                let put = self.local(proc)?.put(proc.rank, pairs.text("key"), pairs.text("value"));
                let (body, rc): (&[u8], _) = if put { (b"", 0) } else { (b"errmsg=refused;", 1) };
                reply(conn, &name, thread, body, rc, out);
            }
            b"kvs-get" => {
                let value = self.named(proc, pairs.text("jobid")).and_then(|l| l.value(pairs.text("key")));
                reply(conn, &name, thread, &found(value.as_deref()), 0, out);
            }
            b"kvs-fence" => return self.join(conn, dialect, FENCE.to_vec(), Group::all(proc), None, out),
            b"info-putnodeattr" => self.put_attr(conn, proc, &pairs, thread, out)?,
            b"info-getnodeattr" => self.get_attr(conn, proc, &pairs, thread, out)?,
            b"info-getjobattr" => {
                let value = self.local(proc)?.value(pairs.text("key"));
                reply(conn, &name, thread, &found(value.as_deref()), 0, out);
            }
            b"name-publish" => {
                let port = Bytes::copy_from_slice(pairs.text("port"));
                return self.publish(conn, dialect, pairs.text("name"), port, out);
            }
            b"name-unpublish" => return self.unpublish(conn, dialect, pairs.text("name"), out),
            b"name-lookup" => return self.lookup(conn, dialect, pairs.text("name"), out),
            b"spawn" => match spawn::parse_v2(&pairs) {
                Ok(order) => return self.spawn(conn, dialect, order, out),
                Err(why) => {
                    tracing::info!(%proc, why, "spawn refused");
                    reply(conn, &name, thread, b"errmsg=malformed;", 1, out);
                }
            },
            b"finalize" => {
                reply(conn, &name, thread, b"", 0, out);
                out.push(Action::Finalized { proc });
            }
            b"abort" => {
                let message = pairs.get("msg").or_else(|| pairs.get("message")).unwrap_or_default();
                let said = pairs.get("exitcode").and_then(number::<i32>).filter(|&code| code != -1);
                let code = said.or_else(|| code_in(message)).unwrap_or(255);
                let message = String::from_utf8_lossy(message).into_owned();
                out.push(Action::Abort { by: proc, code, message });
            }
            _ => reply(conn, &name, thread, b"errmsg=unknown_cmd;", 1, out),
        }
        Ok(())
    }

    fn fullinit(
        &mut self,
        conn: Conn,
        pairs: &Pairs,
        thread: Option<&[u8]>,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let proc = match self.proc(conn) {
            Ok(proc) => proc,
            Err(_) => {
                let id = pairs.get("pmirank").or_else(|| pairs.get("srcid"));
                let proc = self.attach(conn, id.and_then(number))?;
                self.begin(proc, conn, out);
                proc
            }
        };
        let job = self.local(proc)?.space.job;
        let space = &self.local(proc)?.space;
        let parent = space.parent.map(|p| format!("spawner-jobid={};", super::kvs_name(job, p.ns)));
        let text = format!(
            "pmi-version=2;pmi-subversion=0;rank={};size={};appnum={};{}debugged=FALSE;pmiverbose=FALSE;",
            proc.rank,
            space.size,
            space.app_of(proc.rank).unwrap_or(0),
            parent.unwrap_or_default(),
        );
        reply(conn, "fullinit", thread, text.as_bytes(), 0, out);
        Ok(())
    }

    fn put_attr(
        &mut self,
        conn: Conn,
        proc: ProcId,
        pairs: &Pairs,
        thread: Option<&[u8]>,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let local = self.local(proc)?;
        let (key, value) = (pairs.text("key"), Bytes::copy_from_slice(pairs.text("value")));
        if local.attrs.len() >= MAX_ATTRS
            || key.len() > super::kvs::MAX_KEY
            || value.len() > super::kvs::MAX_VALUE
        {
            reply(conn, "info-putnodeattr", thread, b"errmsg=refused;", 1, out);
            return Ok(());
        }
        local.attrs.insert(Bytes::copy_from_slice(key), value.clone());
        reply(conn, "info-putnodeattr", thread, b"", 0, out);
        for waiting in local.waiting.extract_if(.., |w| w.key == key) {
            let thread = waiting.thread.as_deref();
            reply(waiting.conn, "info-getnodeattr", thread, &found(Some(&value)), 0, out);
        }
        Ok(())
    }

    fn get_attr(
        &mut self,
        conn: Conn,
        proc: ProcId,
        pairs: &Pairs,
        thread: Option<&[u8]>,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let local = self.local(proc)?;
        let key = pairs.text("key");
        let value = local.attrs.get(key);
        if value.is_none() && pairs.text("wait") == b"TRUE" {
            if local.waiting.len() >= MAX_ATTRS {
                return Err("too many requests wait for node attributes".into());
            }
            let thread = thread.map(Bytes::copy_from_slice);
            local.waiting.push(Waiting { conn, key: Bytes::copy_from_slice(key), thread });
        } else {
            reply(conn, "info-getnodeattr", thread, &found(value.map(|v| &v[..])), 0, out);
        }
        Ok(())
    }
}

/// The code in `... MPI_Abort(comm, 5) ...`: the message is the only place that has it.
fn code_in(message: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(message).ok()?;
    let (_, call) = text.split_once("MPI_Abort(")?;
    let (arguments, _) = call.split_once(')')?;
    arguments.rsplit(',').next()?.trim().parse().ok()
}

/// The end of a fence.
pub(super) fn fence_done(conn: Conn, thread: Option<&[u8]>, lost: Option<ProcId>, out: &mut Vec<Action>) {
    match lost {
        None => reply(conn, "kvs-fence", thread, b"", 0, out),
        Some(proc) => {
            let why = format!("errmsg=rank_{}_is_gone;", proc.rank);
            reply(conn, "kvs-fence", thread, why.as_bytes(), 1, out);
        }
    }
}

/// The answer to what was asked of the job.
pub(super) fn answer(
    open: &Open,
    thread: Option<&[u8]>,
    answer: &Answer,
    payload: &Bytes,
    spawned: Option<(String, u32)>,
    out: &mut Vec<Action>,
) {
    let ok = *answer == Answer::Done;
    let mut say = |cmd: &str, body: &[u8], rc| reply(open.conn, cmd, thread, body, rc, out);
    match &open.what {
        What::Publish(_) if ok => say("name-publish", b"", 0),
        What::Publish(name) => {
            say("name-publish", &concat(&[b"errmsg=duplicate_service_", &blankless(name), b";"]), 1);
        }
        What::Unpublish(_) if ok => say("name-unpublish", b"", 0),
        What::Unpublish(name) => {
            say("name-unpublish", &concat(&[b"errmsg=service_", &blankless(name), b"_not_found;"]), 1);
        }
        What::Lookup if *answer == Answer::Value => {
            // MPICH reads the one, Slurm's client the other.
            let port = doubled(payload);
            say("name-lookup", &concat(&[b"port=", &port, b";value=", &port, b";found=TRUE;"]), 0);
        }
        What::Lookup => say("name-lookup", b"found=FALSE;errmsg=service_not_found;", 1),
        What::Spawn => match spawned {
            Some((name, _)) => say("spawn", format!("jobid={name};nerrs=0;").as_bytes(), 0),
            None => say("spawn", b"errmsg=refused;nerrs=1;", 1),
        },
        What::Barrier(_) => {}
    }
}

/// A name as it may stand in an error text.
fn blankless(name: &[u8]) -> Vec<u8> {
    name.iter().map(|&b| if b == b' ' || b == b';' { b'_' } else { b }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_semicolons_are_one() {
        let pairs = Pairs::of(b"cmd=kvs-put;key=k;value=a value;;with=odd chars;");
        assert_eq!(pairs.get("value"), Some(&b"a value;with=odd chars"[..]));
        assert_eq!(pairs.get("nothing"), None);
        assert_eq!(doubled(b"a;b"), b"a;;b");
    }

    #[test]
    fn rubbish_after_fullinit_is_found() {
        assert_eq!(rubbish(b"cmd=fullinit;pmirank=0;threaded=FALSE;\0\0\0\0\0\0"), 6);
        assert_eq!(rubbish(b"cmd=fullinit;pmirank=0;threaded=TRUE;"), 0);
        assert_eq!(rubbish(b"cmd=fullinit;pmirank=0;"), 0);
        assert_eq!(rubbish(b"cmd=kvs-fence;\0;valu"), 0);
    }

    #[test]
    fn abort_codes_are_in_the_message() {
        assert_eq!(code_in(b"application called MPI_Abort(MPI_COMM_WORLD, 5) - process 1"), Some(5));
        assert_eq!(code_in(b"MPI_Abort(x, -3)"), Some(-3));
        assert_eq!(code_in(b"no code"), None);
    }
}
