//! Orders for more ranks, in both languages, into one [`Spawn`].

use super::frame::number;
use super::v2::Pairs;
use super::{Dialect, PmiServer, What, send};
use crate::api::{Action, Conn};
use bytes::Bytes;
use rmpi_wire::service::{MAX_SPAWN_APPS, Pair, Request, Spawn, SpawnApp};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Arguments, infos or preputs of one command, at most.
const MAX_ITEMS: u32 = 1 << 16;

/// One command's values by name.
type Block<'a> = HashMap<&'a [u8], &'a [u8]>;

/// How the two languages number what repeats.
struct Style {
    program: &'static str,
    ranks: &'static str,
    args: (&'static str, &'static str, u32),
    infos: (&'static str, &'static str, &'static str),
}

const V1: Style = Style {
    program: "execname",
    ranks: "nprocs",
    args: ("argcnt", "arg", 1),
    infos: ("info_num", "info_key_", "info_val_"),
};

const V2: Style = Style {
    program: "subcmd",
    ranks: "maxprocs",
    args: ("argc", "argv", 0),
    infos: ("infokeycount", "infokey", "infoval"),
};

impl PmiServer {
    /// All blocks of a PMI-1 spawn.
    pub(super) fn spawn_v1(&mut self, conn: Conn, text: &[u8], out: &mut Vec<Action>) -> Result<(), String> {
        let proc = self.proc(conn)?;
        match parse_v1(text) {
            Ok(order) => self.spawn(conn, Dialect::V1, order, out),
            Err(why) => {
                tracing::info!(%proc, why, "spawn refused");
                send(conn, b"cmd=spawn_result rc=1 msg=malformed\n".to_vec(), out);
                Ok(())
            }
        }
    }

    pub(super) fn spawn(
        &mut self,
        conn: Conn,
        dialect: Dialect,
        order: Spawn,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        self.ask(conn, dialect, What::Spawn, Request::Spawn(Box::new(order)), Bytes::new(), out)
    }
}

fn parse_v1(text: &[u8]) -> Result<Spawn, String> {
    let mut spawn = Spawn::default();
    let mut block = Block::new();
    for line in text.split(|&b| b == b'\n') {
        if line == b"endcmd" {
            let block = std::mem::take(&mut block);
            // Every block repeats them, or only the first has them.
            if spawn.preputs.is_empty() {
                spawn.preputs = numbered(&block, ("preput_num", "preput_key_", "preput_val_"))?;
            }
            spawn.apps.push(app(&block, &V1)?);
        } else if let Some(at) = line.iter().position(|&b| b == b'=') {
            block.entry(&line[..at]).or_insert(&line[at + 1..]);
        }
    }
    checked(spawn)
}

/// A PMI-2 spawn: pairs before the first `subcmd` are for all.
pub(super) fn parse_v2(pairs: &Pairs) -> Result<Spawn, String> {
    let mut blocks = vec![Block::new()];
    for (key, value) in &pairs.0 {
        if key == b"subcmd" {
            blocks.push(Block::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.entry(key).or_insert(value);
        }
    }
    let preputs = numbered(&blocks[0], ("preputcount", "ppkey", "ppval"))?;
    let apps = blocks[1..].iter().map(|b| app(b, &V2)).collect::<Result<_, _>>()?;
    checked(Spawn { apps, preputs })
}

fn checked(spawn: Spawn) -> Result<Spawn, String> {
    if spawn.apps.is_empty() || spawn.apps.len() > MAX_SPAWN_APPS {
        return Err(format!("{} commands", spawn.apps.len()));
    }
    Ok(spawn)
}

fn get<'a>(block: &Block<'a>, name: &str) -> Option<&'a [u8]> {
    block.get(name.as_bytes()).copied()
}

fn count(block: &Block<'_>, name: &str) -> Result<u32, String> {
    let Some(text) = get(block, name) else { return Ok(0) };
    number(text).filter(|&n| n <= MAX_ITEMS).ok_or_else(|| format!("{name} is no usable number"))
}

fn numbered(block: &Block<'_>, names: (&str, &str, &str)) -> Result<Vec<Pair>, String> {
    let pair = |i| {
        let key = get(block, &format!("{}{i}", names.1)).ok_or_else(|| format!("no {}{i}", names.1))?;
        let value = get(block, &format!("{}{i}", names.2)).unwrap_or_default();
        Ok((key.to_vec(), value.to_vec()))
    };
    (0..count(block, names.0)?).map(pair).collect()
}

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

fn app(block: &Block<'_>, style: &Style) -> Result<SpawnApp, String> {
    let program = get(block, style.program).filter(|p| !p.is_empty()).ok_or("no program")?;
    let ranks = get(block, style.ranks).and_then(number::<u32>).filter(|&n| n > 0);
    let ranks = ranks.ok_or("no usable number of processes")?;
    let (args, arg, first) = style.args;
    let args = (first..first + count(block, args)?)
        .map(|i| get(block, &format!("{arg}{i}")).map(os).ok_or_else(|| format!("no {arg}{i}")))
        .collect::<Result<_, _>>()?;
    let mut app = SpawnApp { program: os(program), ranks, args, ..SpawnApp::default() };
    for (key, value) in numbered(block, style.infos)? {
        match key.as_slice() {
            b"wdir" => app.wdir = Some(os(&value)),
            b"path" => app.path = Some(os(&value)),
            b"host" | b"hosts" => {
                let names = String::from_utf8_lossy(&value).into_owned();
                app.hosts
                    .extend(names.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned));
            }
            // Reserved keys we have no meaning for, and other implementations' keys, are ignored as MPI says.
            _ => {}
        }
    }
    Ok(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spawn_of_two_commands_as_mpich_5_writes_it() {
        let text = b"mcmd=spawn\nnprocs=2\nexecname=/tmp/t/spawn\ntotspawns=2\nspawnssofar=1\nargcnt=2\n\
            arg1=arg one\narg2=b=c\npreput_num=1\npreput_key_0=PARENT_ROOT_PORT_NAME\n\
            preput_val_0=tag#0$connentry#76$\ninfo_num=1\ninfo_key_0=wdir\ninfo_val_0=/tmp\nendcmd\n\
            mcmd=spawn\nnprocs=1\nexecname=/tmp/t/spawn\ntotspawns=2\nspawnssofar=2\nargcnt=1\narg1=second\n\
            info_num=0\nendcmd\n";
        let spawn = parse_v1(text).unwrap();
        assert_eq!(spawn.preputs, [(b"PARENT_ROOT_PORT_NAME".to_vec(), b"tag#0$connentry#76$".to_vec())]);
        assert_eq!(spawn.apps.len(), 2);
        assert_eq!((spawn.apps[0].ranks, spawn.apps[1].ranks), (2, 1));
        assert_eq!(spawn.apps[0].args, ["arg one", "b=c"]);
        assert_eq!(spawn.apps[0].wdir.as_deref(), Some("/tmp".as_ref()));
    }

    #[test]
    fn a_spawn_in_pmi_2() {
        let body =
            b"cmd=spawn;ncmds=1;preputcount=1;ppkey0=P;ppval0=pport;subcmd=/tmp/t/a;maxprocs=2;argc=2;\
            argv0=-x;argv1=two words;infokeycount=1;infokey0=host;infoval0=n1,n2:2;";
        let spawn = parse_v2(&Pairs::of(body)).unwrap();
        assert_eq!(spawn.preputs, [(b"P".to_vec(), b"pport".to_vec())]);
        assert_eq!(spawn.apps[0].args, ["-x", "two words"]);
        assert_eq!(spawn.apps[0].hosts, ["n1", "n2:2"]);
    }

    #[test]
    fn hostile_counts_are_refused() {
        for text in [
            &b"mcmd=spawn\nexecname=a\nnprocs=99999999999\nendcmd\n"[..],
            b"mcmd=spawn\nexecname=a\nnprocs=1\nargcnt=4000000000\nendcmd\n",
            b"mcmd=spawn\nexecname=a\nnprocs=1\nargcnt=2\narg1=x\nendcmd\n",
            b"mcmd=spawn\nexecname=a\nnprocs=0\nendcmd\n",
            b"mcmd=spawn\nnprocs=1\nendcmd\n",
            b"",
        ] {
            assert!(parse_v1(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
