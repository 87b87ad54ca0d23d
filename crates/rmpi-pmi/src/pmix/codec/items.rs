//! Structured values, field by field in the order of the wire.

use super::CodecError;
use super::read::Reader;
use super::types::DataType;
use super::value::{Text, Value};
use super::write::Writer;

/// A value whose type is known where it stands.
pub trait Item: Sized {
    /// Its type code.
    const TYPE: DataType;

    /// Appends the fields.
    fn pack(&self, w: &mut Writer);

    /// Takes the fields off.
    ///
    /// # Errors
    /// What is wrong with the payload.
    fn unpack(r: &mut Reader) -> Result<Self, CodecError>;
}

/// A process, or a wildcard of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proc {
    /// Namespace.
    pub ns: Text,
    /// Rank or one of the wildcards in [`crate::pmix::keys`].
    pub rank: u32,
}

impl Item for Proc {
    const TYPE: DataType = DataType::PROC;

    fn pack(&self, w: &mut Writer) {
        w.text_raw(Some(&self.ns));
        w.u32_raw(self.rank);
    }

    fn unpack(r: &mut Reader) -> Result<Self, CodecError> {
        Ok(Self { ns: r.text_or_empty()?, rank: r.u32_raw()? })
    }
}

/// Flags of an [`Info`].
pub mod info_flags {
    /// The receiver must honour it.
    pub const REQUIRED: u32 = 1;
    /// The last of an array; set by some clients and of no use.
    pub const LAST: u32 = 2;
    /// Narrows down what a key means.
    pub const QUALIFIER: u32 = 8;
}

/// A directive or a piece of data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Key.
    pub key: Text,
    /// See [`info_flags`].
    pub flags: u32,
    /// Value.
    pub value: Value,
}

impl Info {
    /// Without flags.
    #[must_use]
    pub fn new(key: &'static str, value: Value) -> Self {
        Self { key: Text::fixed(key), flags: 0, value }
    }
}

impl Item for Info {
    const TYPE: DataType = DataType::INFO;

    fn pack(&self, w: &mut Writer) {
        w.text_raw(Some(&self.key));
        w.u32_raw(self.flags);
        self.value.pack_typed(w);
    }

    fn unpack(r: &mut Reader) -> Result<Self, CodecError> {
        Ok(Self { key: r.text_or_empty()?, flags: r.u32_raw()?, value: Value::unpack_typed(r)? })
    }
}

/// A key and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kval {
    /// Key.
    pub key: Text,
    /// Value.
    pub value: Value,
}

impl Kval {
    pub(super) fn pack_parts(key: &Text, value: &Value, w: &mut Writer) {
        w.text_raw(Some(key));
        value.pack_typed(w);
    }
}

impl Item for Kval {
    const TYPE: DataType = DataType::KVAL;

    fn pack(&self, w: &mut Writer) {
        Self::pack_parts(&self.key, &self.value, w);
    }

    fn unpack(r: &mut Reader) -> Result<Self, CodecError> {
        Ok(Self { key: r.text_or_empty()?, value: Value::unpack_typed(r)? })
    }
}

/// What a process published under a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pdata {
    /// Who.
    pub proc: Proc,
    /// Key.
    pub key: Text,
    /// Value.
    pub value: Value,
}

impl Item for Pdata {
    const TYPE: DataType = DataType::PDATA;

    fn pack(&self, w: &mut Writer) {
        self.proc.pack(w);
        w.text_raw(Some(&self.key));
        self.value.pack_typed(w);
    }

    fn unpack(r: &mut Reader) -> Result<Self, CodecError> {
        Ok(Self { proc: Proc::unpack(r)?, key: r.text_or_empty()?, value: Value::unpack_typed(r)? })
    }
}

/// A process in detail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcInfo {
    /// Which.
    pub proc: Proc,
    /// Its host.
    pub host: Option<Text>,
    /// Its program.
    pub program: Option<Text>,
    /// Its process id.
    pub pid: u32,
    /// Its state.
    pub state: u8,
}

impl Item for ProcInfo {
    const TYPE: DataType = DataType::PROC_INFO;

    fn pack(&self, w: &mut Writer) {
        self.proc.pack(w);
        w.text_raw(self.host.as_ref());
        w.text_raw(self.program.as_ref());
        w.number(DataType::PID, self.pid.into());
        w.byte_raw(self.state);
    }

    fn unpack(r: &mut Reader) -> Result<Self, CodecError> {
        Ok(Self {
            proc: Proc::unpack(r)?,
            host: r.text_raw()?,
            program: r.text_raw()?,
            pid: u32::try_from(r.number(DataType::PID)?).map_err(|_| CodecError::Range)?,
            state: r.byte_raw()?,
        })
    }
}

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envar {
    /// Name.
    pub name: Option<Text>,
    /// Value.
    pub value: Option<Text>,
    /// What separates it from what is there when it is added.
    pub separator: u8,
}

impl Item for Envar {
    const TYPE: DataType = DataType::ENVAR;

    fn pack(&self, w: &mut Writer) {
        w.text_raw(self.name.as_ref());
        w.text_raw(self.value.as_ref());
        w.byte_raw(self.separator);
    }

    fn unpack(r: &mut Reader) -> Result<Self, CodecError> {
        Ok(Self { name: r.text_raw()?, value: r.text_raw()?, separator: r.byte_raw()? })
    }
}

fn pack_texts(texts: &[Text], w: &mut Writer) {
    texts.iter().for_each(|t| w.text_raw(Some(t)));
}

fn unpack_texts(r: &mut Reader, count: usize) -> Result<Vec<Text>, CodecError> {
    (0..count).map(|_| r.text_or_empty()).collect()
}

fn pack_infos(infos: &[Info], w: &mut Writer) {
    w.size_raw(infos.len());
    infos.iter().for_each(|i| i.pack(w));
}

fn unpack_infos(r: &mut Reader) -> Result<Vec<Info>, CodecError> {
    let count = r.count_size()?;
    (0..count).map(|_| Info::unpack(r)).collect()
}

/// Keys somebody wants to know, and what narrows them down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Keys.
    pub keys: Vec<Text>,
    /// Qualifiers.
    pub qualifiers: Vec<Info>,
}

impl Item for Query {
    const TYPE: DataType = DataType::QUERY;

    fn pack(&self, w: &mut Writer) {
        w.length_raw(self.keys.len());
        pack_texts(&self.keys, w);
        pack_infos(&self.qualifiers, w);
    }

    fn unpack(r: &mut Reader) -> Result<Self, CodecError> {
        let count = r.count32()?;
        Ok(Self { keys: unpack_texts(r, count)?, qualifiers: unpack_infos(r)? })
    }
}

/// A program that a client wants started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct App {
    /// Program.
    pub command: Option<Text>,
    /// Arguments, the program's name among them.
    pub args: Vec<Text>,
    /// `NAME=value`.
    pub env: Vec<Text>,
    /// Working directory.
    pub wdir: Option<Text>,
    /// Processes.
    pub processes: i32,
    /// Directives.
    pub infos: Vec<Info>,
}

impl Item for App {
    const TYPE: DataType = DataType::APP;

    fn pack(&self, w: &mut Writer) {
        w.text_raw(self.command.as_ref());
        w.number(DataType::INT, self.args.len() as u64);
        pack_texts(&self.args, w);
        w.length_raw(self.env.len());
        pack_texts(&self.env, w);
        w.text_raw(self.wdir.as_ref());
        w.number(DataType::INT, i64::from(self.processes).cast_unsigned());
        pack_infos(&self.infos, w);
    }

    fn unpack(r: &mut Reader) -> Result<Self, CodecError> {
        let command = r.text_raw()?;
        let argc = r.number(DataType::INT)?.cast_signed();
        let argc = r.count(argc)?;
        let args = unpack_texts(r, argc)?;
        let count = r.count32()?;
        let env = unpack_texts(r, count)?;
        let wdir = r.text_raw()?;
        let processes = r.number(DataType::INT)?.cast_signed();
        let processes = i32::try_from(processes).map_err(|_| CodecError::Range)?;
        Ok(Self { command, args, env, wdir, processes, infos: unpack_infos(r)? })
    }
}
