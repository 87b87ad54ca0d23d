//! The type codes, and what each looks like on the wire.

use std::fmt;

/// A type code. Any number may come off a wire; those below have a packing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataType(pub u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal),* $(,)?) => {
        impl DataType {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            const fn name(self) -> Option<&'static str> {
                match self.0 { $($code => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

codes! {
    /// No value.
    UNDEF = 0,
    /// One byte.
    BOOL = 1,
    /// One byte.
    BYTE = 2,
    /// Text.
    STRING = 3,
    /// A number of things, 64 bits.
    SIZE = 4,
    /// Process id.
    PID = 5,
    /// C's `int`.
    INT = 6,
    /// 8 bits, signed.
    INT8 = 7,
    /// 16 bits, signed.
    INT16 = 8,
    /// 32 bits, signed.
    INT32 = 9,
    /// 64 bits, signed.
    INT64 = 10,
    /// C's `unsigned`.
    UINT = 11,
    /// 8 bits.
    UINT8 = 12,
    /// 16 bits.
    UINT16 = 13,
    /// 32 bits.
    UINT32 = 14,
    /// 64 bits.
    UINT64 = 15,
    /// Travels as text.
    FLOAT = 16,
    /// Travels as text.
    DOUBLE = 17,
    /// Seconds and microseconds.
    TIMEVAL = 18,
    /// Seconds since 1970.
    TIME = 19,
    /// A status code.
    STATUS = 20,
    /// A value with its type.
    VALUE = 21,
    /// A process.
    PROC = 22,
    /// A program to start.
    APP = 23,
    /// Key, flags, value.
    INFO = 24,
    /// Process, key, value.
    PDATA = 25,
    /// A payload inside a payload.
    BUFFER = 26,
    /// Bytes.
    BYTE_OBJECT = 27,
    /// Key, value.
    KVAL = 28,
    /// How long published data lives.
    PERSIST = 30,
    /// A pointer: its value never travels.
    POINTER = 31,
    /// For whom a value was put.
    SCOPE = 32,
    /// For whom published data or an event is.
    RANGE = 33,
    /// What a client asks.
    COMMAND = 34,
    /// Flags of an INFO.
    INFO_DIRECTIVES = 35,
    /// A type code.
    DATA_TYPE = 36,
    /// State of a process.
    PROC_STATE = 37,
    /// A process with host, program, pid and state.
    PROC_INFO = 38,
    /// Values of one type.
    DATA_ARRAY = 39,
    /// A rank.
    RANK = 40,
    /// Keys asked for, with qualifiers.
    QUERY = 41,
    /// Bytes of a compressed text.
    COMPRESSED_STRING = 42,
    /// What an allocation request wants.
    ALLOC_DIRECTIVE = 43,
    /// Streams of a process, as bits.
    IOF_CHANNEL = 45,
    /// An environment variable with a separator.
    ENVAR = 46,
    /// State of a job; from here on only newer modules carry them.
    JOB_STATE = 50,
    /// State of a link.
    LINK_STATE = 51,
    /// Kinds of devices, as bits.
    DEVTYPE = 57,
    /// Locality, as bits.
    LOCTYPE = 58,
    /// Bytes of a compressed byte object.
    COMPRESSED_BYTE_OBJECT = 59,
    /// A namespace's name.
    PROC_NSPACE = 60,
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// So many bytes, signed or not.
    Plain(u8, bool),
    /// Preceded by the code of the real type, which flex modules leave out if the last field says so.
    Tagged(DataType, bool),
}

/// The shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing.
    Empty,
    /// A number.
    Number(Number),
    /// Length and bytes with a NUL.
    Text,
    /// Size and bytes.
    Blob,
    /// Has fields.
    Compound,
    /// Has no packing here.
    Unknown,
}

impl DataType {
    pub(super) const fn number(self) -> Option<Number> {
        Some(match self {
            Self::BOOL
            | Self::BYTE
            | Self::UINT8
            | Self::PERSIST
            | Self::POINTER
            | Self::SCOPE
            | Self::RANGE
            | Self::COMMAND
            | Self::PROC_STATE
            | Self::ALLOC_DIRECTIVE
            | Self::JOB_STATE
            | Self::LINK_STATE => Number::Plain(1, false),
            Self::INT8 => Number::Plain(1, true),
            Self::INT16 => Number::Plain(2, true),
            Self::UINT16 | Self::DATA_TYPE | Self::IOF_CHANNEL | Self::LOCTYPE => Number::Plain(2, false),
            Self::INT32 | Self::STATUS => Number::Plain(4, true),
            Self::UINT32 | Self::RANK | Self::INFO_DIRECTIVES => Number::Plain(4, false),
            Self::INT64 => Number::Plain(8, true),
            Self::UINT64 | Self::TIME | Self::DEVTYPE => Number::Plain(8, false),
            Self::INT | Self::UINT => Number::Tagged(Self::INT32, true),
            Self::SIZE => Number::Tagged(Self::UINT64, true),
            Self::PID => Number::Tagged(Self::UINT32, false),
            _ => return None,
        })
    }

    pub(super) const fn shape(self) -> Shape {
        match self {
            Self::UNDEF => Shape::Empty,
            Self::STRING | Self::FLOAT | Self::DOUBLE | Self::PROC_NSPACE => Shape::Text,
            Self::BYTE_OBJECT | Self::COMPRESSED_STRING | Self::COMPRESSED_BYTE_OBJECT => Shape::Blob,
            Self::TIMEVAL
            | Self::VALUE
            | Self::PROC
            | Self::APP
            | Self::INFO
            | Self::PDATA
            | Self::BUFFER
            | Self::KVAL
            | Self::PROC_INFO
            | Self::DATA_ARRAY
            | Self::QUERY
            | Self::ENVAR => Shape::Compound,
            _ => match self.number() {
                Some(number) => Shape::Number(number),
                None => Shape::Unknown,
            },
        }
    }

    /// Whether clients with fixed-size integers (modules `v21`, `v3`) know the type.
    #[must_use]
    pub const fn old(self) -> bool {
        self.0 <= Self::ENVAR.0
    }
}
