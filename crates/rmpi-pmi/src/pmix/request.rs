//! What clients ask: every command with its fields, unpacked in one place.

use super::codec::{App, Codec, CodecError, DataType, Info, Kval, Proc, Query, Reader, Text};
use super::hello::Version;
use bytes::Bytes;

/// Values put since the last commit, for one audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// For whom: see [`super::keys`].
    pub scope: u8,
    /// Keys and values.
    pub values: Vec<Kval>,
}

/// A collective operation and who takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Together {
    /// Members, with wildcards.
    pub procs: Vec<Proc>,
    /// Directives.
    pub infos: Vec<Info>,
}

/// A question for data of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// Namespace.
    pub ns: Text,
    /// Rank or wildcard.
    pub rank: u32,
    /// Directives.
    pub infos: Vec<Info>,
    /// Key; `None` asks for all.
    pub key: Option<Text>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Tell me about my job.
    JobInfo,
    /// Stop these, or my whole job.
    Abort {
        /// Exit code.
        code: i32,
        /// Why.
        message: Option<Text>,
        /// Whom; empty for the whole job.
        procs: Vec<Proc>,
    },
    /// Others may see this.
    Commit(Vec<Put>),
    /// Wait for each other.
    Fence(Together),
    /// Data of a process.
    Get(Get),
    /// I am done.
    Finalize,
    /// Make this known under names.
    Publish(Vec<Info>),
    /// What was published under these names?
    Lookup {
        /// Names.
        keys: Vec<Text>,
        /// Directives.
        infos: Vec<Info>,
    },
    /// Take these names back.
    Unpublish {
        /// Names.
        keys: Vec<Text>,
    },
    /// Start processes.
    Spawn {
        /// Directives for the job.
        infos: Vec<Info>,
        /// Programs.
        apps: Vec<App>,
    },
    /// Know each other from now on.
    Connect(Together),
    /// Part.
    Disconnect(Together),
    /// Tell others of an event.
    Notify {
        /// What.
        code: i32,
        /// For whom.
        range: u8,
        /// Details.
        infos: Vec<Info>,
    },
    /// Tell me of these events; none means all.
    RegisterEvents(Vec<i32>),
    /// No longer tell me of these events. Has no answer.
    DeregisterEvents(Vec<i32>),
    /// Questions about the system.
    Query(Vec<Query>),
    /// Write this down.
    Log {
        /// What.
        data: Vec<Info>,
        /// Directives.
        infos: Vec<Info>,
    },
    /// Do something to processes.
    JobControl {
        /// Whom; empty for the own job.
        procs: Vec<Proc>,
        /// What.
        infos: Vec<Info>,
    },
    /// Watch me.
    Monitor {
        /// How.
        monitor: Info,
        /// The event that tells when it shows no sign of life.
        code: i32,
        /// Directives.
        infos: Vec<Info>,
    },
    /// Change the allocation.
    Allocate,
    /// Something to show others who I am.
    GetCredential,
    /// Who showed me this?
    ValidateCredential(Bytes),
    /// Make a group.
    GroupConstruct {
        /// Its name.
        id: Text,
        /// Members and directives.
        of: Together,
    },
    /// End a group.
    GroupDestruct {
        /// Its name.
        id: Text,
        /// Its members; `None` when the client leaves them to us.
        procs: Option<Vec<Proc>>,
        /// Directives.
        infos: Vec<Info>,
    },
    /// Leave a group.
    GroupLeave {
        /// Its name.
        id: Text,
    },
    /// Which processes are on a node?
    ResolvePeers {
        /// Node; `None` for this one.
        node: Option<Text>,
        /// Namespace; `None` for all.
        ns: Option<Text>,
    },
    /// Which nodes has a job?
    ResolveNodes {
        /// Namespace; `None` for all.
        ns: Option<Text>,
    },
    /// A command that is not served.
    Unknown(u8),
}

/// First version that names a group's members when it ends it, and that is told them when it makes one.
const GROUP_MEMBERS: Version = Version(4, 2, 4);

impl Request {
    /// Unpacks what a client of this version and form asks.
    ///
    /// # Errors
    /// What is wrong with the payload.
    pub fn unpack(payload: Bytes, codec: Codec, version: Version) -> Result<Self, CodecError> {
        let mut reader = Reader::new(codec, payload);
        let r = &mut reader;
        Ok(match r.small(DataType::COMMAND)? {
            0 => Self::JobInfo,
            1 => Self::Abort { code: r.status()?, message: r.text()?, procs: r.counted()? },
            2 => Self::Commit(puts(r)?),
            3 => Self::Fence(together(r)?),
            4 => {
                let (ns, rank) = (r.text()?.unwrap_or_default(), r.rank()?);
                let infos = r.counted()?;
                let key = if r.is_empty() { None } else { r.text()? };
                Self::Get(Get { ns, rank, infos, key })
            }
            5 => Self::Finalize,
            6 => {
                user(r)?;
                Self::Publish(r.counted()?)
            }
            7 => {
                user(r)?;
                Self::Lookup { keys: r.texts()?, infos: r.counted()? }
            }
            8 => {
                user(r)?;
                Self::Unpublish { keys: r.texts()? }
            }
            9 => Self::Spawn { infos: r.counted()?, apps: r.counted()? },
            10 => Self::Connect(together(r)?),
            11 => Self::Disconnect(together(r)?),
            12 => {
                let code = r.status()?;
                Self::Notify { code, range: r.small(DataType::RANGE)?, infos: r.counted()? }
            }
            13 => {
                let codes = if r.size()? == 0 { Vec::new() } else { r.statuses()? };
                Self::RegisterEvents(codes)
            }
            14 => {
                let mut codes = Vec::new();
                while !r.is_empty() {
                    codes.extend(r.statuses()?);
                }
                Self::DeregisterEvents(codes)
            }
            15 => Self::Query(r.counted()?),
            16 => {
                r.one_number(DataType::TIME)?;
                Self::Log { data: r.counted()?, infos: r.counted()? }
            }
            17 => Self::Allocate,
            18 => Self::JobControl { procs: r.counted()?, infos: r.counted()? },
            19 => {
                let monitor = r.one()?;
                Self::Monitor { monitor, code: r.status()?, infos: r.counted()? }
            }
            20 => Self::GetCredential,
            21 => Self::ValidateCredential(r.blob()?),
            24 => Self::GroupConstruct { id: r.text()?.unwrap_or_default(), of: together(r)? },
            27 => Self::GroupLeave { id: r.text()?.unwrap_or_default() },
            28 => {
                let id = r.text()?.unwrap_or_default();
                let procs = if version >= GROUP_MEMBERS { Some(r.counted()?) } else { None };
                Self::GroupDestruct { id, procs, infos: r.counted()? }
            }
            37 => Self::ResolvePeers { node: r.text()?, ns: r.text()? },
            38 => Self::ResolveNodes { ns: r.text()? },
            other => Self::Unknown(other),
        })
    }

    /// The user's directive of this name.
    #[must_use]
    pub fn directive<'a>(infos: &'a [Info], key: &str) -> Option<&'a Info> {
        infos.iter().find(|i| i.key == *key)
    }
}

/// The user id that a client claims; the kernel's word was taken when it connected.
fn user(r: &mut Reader) -> Result<(), CodecError> {
    r.one_number(DataType::UINT32).map(drop)
}

fn together(r: &mut Reader) -> Result<Together, CodecError> {
    Ok(Together { procs: r.counted()?, infos: r.counted()? })
}

fn puts(r: &mut Reader) -> Result<Vec<Put>, CodecError> {
    let mut puts = Vec::new();
    while !r.is_empty() {
        let scope = r.small(DataType::SCOPE)?;
        let mut inner = r.buffer()?;
        let mut values = Vec::new();
        while !inner.is_empty() {
            values.extend(inner.items::<Kval>()?);
        }
        puts.push(Put { scope, values });
    }
    Ok(puts)
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Value, Writer};
    use super::*;

    fn unpack(w: Writer) -> Request {
        Request::unpack(w.finish(), Codec::PLAIN, Version(5, 0, 0)).unwrap()
    }

    fn command(n: u64) -> Writer {
        let mut w = Writer::new(Codec::PLAIN);
        w.one_number(DataType::COMMAND, n);
        w
    }

    #[test]
    fn a_commit_has_values_for_each_audience() {
        let mut inner = Writer::new(Codec::PLAIN);
        inner.kval(&"btl.tcp.5.0".into(), &Value::blob(vec![1, 2]));
        let mut w = command(2);
        w.one_number(DataType::SCOPE, 1).buffer(b"");
        w.one_number(DataType::SCOPE, 2).buffer(inner.bytes());
        let Request::Commit(puts) = unpack(w) else { panic!() };
        assert_eq!(puts.iter().map(|p| (p.scope, p.values.len())).collect::<Vec<_>>(), [(1, 0), (2, 1)]);
    }

    #[test]
    fn keys_of_a_lookup_are_items_of_their_own() {
        let mut w = command(7);
        w.one_number(DataType::UINT32, 1000).size(2).text(Some(&"a".into())).text(Some(&"b".into()));
        w.counted(&[Info::new("pmix.wait", Value::Number(DataType::INT, 0))]);
        let Request::Lookup { keys, infos } = unpack(w) else { panic!() };
        assert_eq!((keys, infos.len()), (vec!["a".into(), "b".into()], 1));
    }

    #[test]
    fn older_clients_do_not_name_a_groups_members_at_its_end() {
        let mut w = command(28);
        w.text(Some(&"g".into())).counted::<Info>(&[]);
        let old = Request::unpack(w.finish(), Codec::PLAIN, Version(4, 2, 2)).unwrap();
        assert_eq!(old, Request::GroupDestruct { id: "g".into(), procs: None, infos: Vec::new() });
    }

    #[test]
    fn a_get_without_a_key_asks_for_all() {
        let mut w = command(4);
        w.text(Some(&"ns".into())).rank(1).counted::<Info>(&[]);
        assert!(matches!(unpack(w), Request::Get(Get { key: None, rank: 1, .. })));
    }

    #[test]
    fn unknown_commands_are_told_apart_from_broken_ones() {
        assert_eq!(unpack(command(200)), Request::Unknown(200));
        let broken = Request::unpack(Bytes::new(), Codec::PLAIN, Version(5, 0, 0));
        assert_eq!(broken, Err(CodecError::Short));
    }
}
