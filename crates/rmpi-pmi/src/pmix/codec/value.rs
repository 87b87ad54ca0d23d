//! Values whose type is only known when they are read: what clients put, publish and pass as directives.

use super::CodecError;
use super::items::{App, Envar, Info, Item, Kval, Pdata, Proc, ProcInfo, Query};
use super::read::Reader;
use super::types::{DataType, Shape};
use super::write::Writer;
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

/// A text of a client: any bytes but NUL.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(pub Bytes);

impl Text {
    /// A text of ours.
    #[must_use]
    pub const fn fixed(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// For people: what is not UTF-8 is replaced.
    #[must_use]
    pub fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Whether it begins so.
    #[must_use]
    pub fn starts_with(&self, prefix: &str) -> bool {
        self.0.starts_with(prefix.as_bytes())
    }
}

impl From<&str> for Text {
    /// Ends before a NUL.
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Text {
    /// Ends before a NUL.
    fn from(text: String) -> Self {
        let end = text.find('\0').unwrap_or(text.len());
        Self(Bytes::from(text).slice(..end))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lossy())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.lossy(), f)
    }
}

/// Values of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Their type.
    pub ty: DataType,
    /// The values, each of that type.
    pub values: Vec<Value>,
}

/// A value and its type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// None: as a directive it means true.
    #[default]
    Undef,
    /// Anything that is a number, sign-extended to 64 bits.
    Number(DataType, u64),
    /// STRING, FLOAT, DOUBLE (as printed) or a namespace; `None` is C's NULL.
    Text(DataType, Option<Text>),
    /// Bytes, compressed or not.
    Blob(DataType, Bytes),
    /// Seconds, microseconds.
    Timeval(i64, i64),
    /// Buffer type (1 or 2) and a payload in the form of whoever packed it.
    Buffer(u8, Bytes),
    /// A value in a value.
    Nested(Box<Self>),
    /// A process.
    Proc(Proc),
    /// A program to start.
    App(Box<App>),
    /// Key, flags, value.
    Info(Box<Info>),
    /// Process, key, value.
    Pdata(Box<Pdata>),
    /// Key, value.
    Kval(Box<Kval>),
    /// A process in detail.
    ProcInfo(Box<ProcInfo>),
    /// A question.
    Query(Box<Query>),
    /// An environment variable.
    Envar(Box<Envar>),
    /// Values of one type.
    Array(Array),
}

impl Value {
    /// A STRING.
    #[must_use]
    pub fn text(text: impl Into<Text>) -> Self {
        Self::Text(DataType::STRING, Some(text.into()))
    }

    /// A UINT32.
    #[must_use]
    pub fn u32(n: u32) -> Self {
        Self::Number(DataType::UINT32, n.into())
    }

    /// A UINT16, saturating.
    #[must_use]
    pub fn u16(n: u32) -> Self {
        Self::Number(DataType::UINT16, n.min(u16::MAX.into()).into())
    }

    /// A SIZE.
    #[must_use]
    pub fn size(n: u64) -> Self {
        Self::Number(DataType::SIZE, n)
    }

    /// A RANK.
    #[must_use]
    pub fn rank(rank: u32) -> Self {
        Self::Number(DataType::RANK, rank.into())
    }

    /// A BOOL.
    #[must_use]
    pub fn bool(b: bool) -> Self {
        Self::Number(DataType::BOOL, b.into())
    }

    /// A BYTE_OBJECT.
    #[must_use]
    pub fn blob(bytes: impl Into<Bytes>) -> Self {
        Self::Blob(DataType::BYTE_OBJECT, bytes.into())
    }

    /// A DATA_ARRAY of INFO.
    #[must_use]
    pub fn infos(infos: Vec<Info>) -> Self {
        let values = infos.into_iter().map(|i| Self::Info(Box::new(i))).collect();
        Self::Array(Array { ty: DataType::INFO, values })
    }

    /// The INFOs of a DATA_ARRAY of them, or the one that this is.
    pub fn as_infos(&self) -> impl Iterator<Item = &Info> {
        let one = if let Self::Info(info) = self { Some(&**info) } else { None };
        let many = if let Self::Array(array) = self { &array.values[..] } else { &[] };
        let many = many.iter().filter_map(|v| if let Self::Info(info) = v { Some(&**info) } else { None });
        one.into_iter().chain(many)
    }

    /// What it means as a yes or no: a directive without a value is a yes.
    #[must_use]
    pub fn truth(&self) -> bool {
        match self {
            Self::Undef => true,
            Self::Number(_, n) => *n != 0,
            Self::Text(_, text) => text.as_ref().is_some_and(|t| *t != "" && *t != "0" && *t != "false"),
            _ => false,
        }
    }

    /// As a whole number.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        if let Self::Number(_, n) = self { Some(n.cast_signed()) } else { None }
    }

    /// As a text.
    #[must_use]
    pub fn as_text(&self) -> Option<&Text> {
        if let Self::Text(_, text) = self { text.as_ref() } else { None }
    }

    /// Its type.
    #[must_use]
    pub fn ty(&self) -> DataType {
        match self {
            Self::Undef => DataType::UNDEF,
            Self::Number(ty, _) | Self::Text(ty, _) | Self::Blob(ty, _) => *ty,
            Self::Timeval(..) => DataType::TIMEVAL,
            Self::Buffer(..) => DataType::BUFFER,
            Self::Nested(_) => DataType::VALUE,
            Self::Proc(_) => DataType::PROC,
            Self::App(_) => DataType::APP,
            Self::Info(_) => DataType::INFO,
            Self::Pdata(_) => DataType::PDATA,
            Self::Kval(_) => DataType::KVAL,
            Self::ProcInfo(_) => DataType::PROC_INFO,
            Self::Query(_) => DataType::QUERY,
            Self::Envar(_) => DataType::ENVAR,
            Self::Array(_) => DataType::DATA_ARRAY,
        }
    }

    /// Whether clients of the older modules know its type and those inside.
    pub(super) fn old(&self) -> bool {
        match self {
            Self::Nested(value) => value.old(),
            Self::Info(info) => info.value.old(),
            Self::Kval(kval) => kval.value.old(),
            Self::Pdata(data) => data.value.old(),
            Self::Array(array) => array.ty.old() && array.values.iter().all(Self::old),
            _ => self.ty().old(),
        }
    }

    pub(super) fn read_compound(r: &mut Reader, ty: DataType) -> Result<Self, CodecError> {
        Ok(match ty {
            DataType::TIMEVAL => Self::Timeval(r.i64_raw()?, r.i64_raw()?),
            DataType::BUFFER => {
                let (kind, payload) = r.buffer_raw()?;
                Self::Buffer(kind, payload)
            }
            DataType::VALUE => {
                let inner = DataType(r.u16_raw()?);
                Self::Nested(Box::new(r.value(inner)?))
            }
            DataType::PROC => Self::Proc(Proc::unpack(r)?),
            DataType::APP => Self::App(Box::new(App::unpack(r)?)),
            DataType::INFO => Self::Info(Box::new(Info::unpack(r)?)),
            DataType::PDATA => Self::Pdata(Box::new(Pdata::unpack(r)?)),
            DataType::KVAL => Self::Kval(Box::new(Kval::unpack(r)?)),
            DataType::PROC_INFO => Self::ProcInfo(Box::new(ProcInfo::unpack(r)?)),
            DataType::QUERY => Self::Query(Box::new(Query::unpack(r)?)),
            DataType::ENVAR => Self::Envar(Box::new(Envar::unpack(r)?)),
            DataType::DATA_ARRAY => {
                let of = DataType(r.u16_raw()?);
                let size = r.number(DataType::SIZE)?;
                if of == DataType::UNDEF || size == 0 {
                    return Ok(Self::Array(Array { ty: of, values: Vec::new() }));
                }
                let count = r.count(i64::try_from(size).map_err(|_| CodecError::Count(i64::MAX))?)?;
                let values = (0..count).map(|_| r.value(of)).collect::<Result<_, _>>()?;
                Self::Array(Array { ty: of, values })
            }
            _ => return Err(CodecError::Type(ty.0)),
        })
    }

    /// Type code and value.
    pub(super) fn pack_typed(&self, w: &mut Writer) {
        w.u16_raw(self.ty().0);
        self.pack(w);
    }

    fn pack(&self, w: &mut Writer) {
        match self {
            Self::Undef => {}
            Self::Number(ty, n) => w.number(*ty, *n),
            Self::Text(_, text) => w.text_raw(text.as_ref()),
            Self::Blob(_, bytes) => w.blob_raw(bytes),
            Self::Timeval(s, us) => {
                w.i64_raw(*s);
                w.i64_raw(*us);
            }
            Self::Buffer(kind, payload) => {
                w.byte_raw(*kind);
                w.blob_raw(payload);
            }
            Self::Nested(value) => value.pack_typed(w),
            Self::Proc(proc) => proc.pack(w),
            Self::App(app) => app.pack(w),
            Self::Info(info) => info.pack(w),
            Self::Pdata(data) => data.pack(w),
            Self::Kval(kval) => kval.pack(w),
            Self::ProcInfo(info) => info.pack(w),
            Self::Query(query) => query.pack(w),
            Self::Envar(envar) => envar.pack(w),
            Self::Array(array) => {
                w.u16_raw(array.ty.0);
                w.size_raw(array.values.len());
                array.values.iter().for_each(|v| v.pack(w));
            }
        }
    }

    /// Type code and value.
    pub(super) fn unpack_typed(r: &mut Reader) -> Result<Self, CodecError> {
        let ty = DataType(r.u16_raw()?);
        if ty.shape() == Shape::Unknown {
            return Err(CodecError::Type(ty.0));
        }
        r.value(ty)
    }
}
