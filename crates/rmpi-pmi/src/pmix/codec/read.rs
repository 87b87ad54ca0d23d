//! Unpacking. A reader takes items off a payload; nothing is allocated for what is not there, and a count is
//! compared with the bytes that are left before anything is done with it.

use super::items::Item;
use super::types::{DataType, Number, Shape};
use super::value::{Text, Value};
use super::{Codec, CodecError, MAX_DEPTH, MAX_VALUES};
use bytes::Bytes;

/// Takes values off one payload.
#[derive(Debug)]
pub struct Reader {
    codec: Codec,
    data: Bytes,
    at: usize,
    depth: u8,
    values: usize,
}

type Read<T> = Result<T, CodecError>;

impl Reader {
    /// Reads `payload`.
    #[must_use]
    pub fn new(codec: Codec, payload: Bytes) -> Self {
        Self { codec, data: payload, at: 0, depth: 0, values: 0 }
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at >= self.data.len()
    }

    pub(super) fn left(&self) -> usize {
        self.data.len() - self.at
    }

    fn take(&mut self, n: usize) -> Read<&[u8]> {
        if n > self.left() {
            return Err(CodecError::Short);
        }
        self.at += n;
        Ok(&self.data[self.at - n..self.at])
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    /// A number of `size` bytes as its type has it, sign-extended to 64 bits.
    fn integer(&mut self, size: u8, signed: bool) -> Read<u64> {
        if self.codec.flex && size > 1 {
            return self.groups(size, signed);
        }
        let bytes = self.take(usize::from(size))?;
        let negative = signed && bytes[0] & 0x80 != 0;
        let start = if negative { u64::MAX } else { 0 };
        Ok(bytes.iter().fold(start, |n, &b| n << 8 | u64::from(b)))
    }

    /// Groups of seven bits, lowest first; a ninth byte is taken whole.
    fn groups(&mut self, size: u8, signed: bool) -> Read<u64> {
        let mut n = 0u64;
        for i in 0..9 {
            let b = u64::from(self.byte()?);
            if i == 8 {
                n |= b << 56;
                break;
            }
            n |= (b & 0x7f) << (7 * i);
            if b & 0x80 == 0 {
                break;
            }
        }
        let bits = 8 * u32::from(size);
        if bits < 64 && n >> bits != 0 {
            return Err(CodecError::Range);
        }
        Ok(match (signed, n & 1) {
            (false, _) => n,
            (true, 0) => n >> 1,
            (true, _) => !(n >> 1),
        })
    }

    /// A number of this type.
    pub(super) fn number(&mut self, ty: DataType) -> Read<u64> {
        match ty.number().ok_or(CodecError::Type(ty.0))? {
            Number::Plain(size, signed) => self.integer(size, signed),
            Number::Tagged(real, omitted) if omitted && self.codec.flex => match real.number() {
                Some(Number::Plain(size, signed)) => self.integer(size, signed),
                _ => Err(CodecError::Type(real.0)),
            },
            Number::Tagged(real, _) => {
                let tag = DataType(self.u16_raw()?);
                let Some(Number::Plain(size, signed)) = tag.number() else {
                    return Err(CodecError::Mismatch { expected: real.0, found: tag.0 });
                };
                let n = self.integer(size, signed)?;
                let fits = match (ty, signed) {
                    // A negative size is no size; the 32-bit types hold what 32 bits can.
                    (DataType::SIZE, true) => n >> 63 == 0,
                    (DataType::SIZE, false) => true,
                    (DataType::PID, _) => n >> 32 == 0,
                    (_, true) => i32::try_from(n.cast_signed()).is_ok(),
                    (_, false) => n >> 32 == 0,
                };
                match ty {
                    _ if !fits => Err(CodecError::Range),
                    // C's ints are INT32 on the wire, whatever the sign of the type: one form of each number.
                    DataType::INT | DataType::UINT => Ok(i64::from(n.cast_signed() as i32).cast_unsigned()),
                    _ => Ok(n),
                }
            }
        }
    }

    pub(super) fn u16_raw(&mut self) -> Read<u16> {
        let n = self.integer(2, false)?;
        u16::try_from(n).map_err(|_| CodecError::Range)
    }

    pub(super) fn i32_raw(&mut self) -> Read<i32> {
        let n = self.integer(4, true)?;
        i32::try_from(n.cast_signed()).map_err(|_| CodecError::Range)
    }

    pub(super) fn u32_raw(&mut self) -> Read<u32> {
        let n = self.integer(4, false)?;
        u32::try_from(n).map_err(|_| CodecError::Range)
    }

    pub(super) fn i64_raw(&mut self) -> Read<i64> {
        Ok(self.integer(8, true)?.cast_signed())
    }

    /// A count of values that follow, each of at least one byte.
    pub(super) fn count(&mut self, n: i64) -> Read<usize> {
        let count = usize::try_from(n).map_err(|_| CodecError::Count(n))?;
        if count > self.left() {
            return Err(CodecError::Count(n));
        }
        self.values += count;
        if self.values > MAX_VALUES {
            return Err(CodecError::Values);
        }
        Ok(count)
    }

    /// A count written as INT32.
    pub(super) fn count32(&mut self) -> Read<usize> {
        let n = self.i32_raw()?;
        self.count(n.into())
    }

    /// A count written as SIZE.
    pub(super) fn count_size(&mut self) -> Read<usize> {
        let n = self.number(DataType::SIZE)?;
        self.count(i64::try_from(n).map_err(|_| CodecError::Count(i64::MAX))?)
    }

    /// A text; `None` is C's NULL.
    pub(super) fn text_raw(&mut self) -> Read<Option<Text>> {
        let n = self.i32_raw()?;
        if n == 0 {
            return Ok(None);
        }
        let n = usize::try_from(n).map_err(|_| CodecError::Count(n.into()))?;
        let start = self.at;
        let bytes = self.take(n)?;
        match bytes.iter().position(|&b| b == 0) {
            Some(nul) if nul + 1 == n => Ok(Some(Text(self.data.slice(start..start + nul)))),
            _ => Err(CodecError::Text),
        }
    }

    /// A text where NULL means none.
    pub(super) fn text_or_empty(&mut self) -> Read<Text> {
        Ok(self.text_raw()?.unwrap_or_default())
    }

    pub(super) fn blob_raw(&mut self) -> Read<Bytes> {
        let n = self.number(DataType::SIZE)?;
        let n = usize::try_from(n).map_err(|_| CodecError::Short)?;
        let start = self.at;
        self.take(n)?;
        Ok(self.data.slice(start..start + n))
    }

    /// A value of this type.
    pub(super) fn value(&mut self, ty: DataType) -> Read<Value> {
        Ok(match ty.shape() {
            Shape::Empty => Value::Undef,
            Shape::Number(_) => Value::Number(ty, self.number(ty)?),
            Shape::Text => Value::Text(ty, self.text_raw()?),
            Shape::Blob => Value::Blob(ty, self.blob_raw()?),
            Shape::Compound => {
                if self.depth >= MAX_DEPTH {
                    return Err(CodecError::Depth);
                }
                self.depth += 1;
                let value = Value::read_compound(self, ty);
                self.depth -= 1;
                value?
            }
            Shape::Unknown => return Err(CodecError::Type(ty.0)),
        })
    }

    /// The beginning of an item: how many values of this type follow.
    fn item(&mut self, ty: DataType) -> Read<usize> {
        if self.codec.described {
            self.expect(DataType::INT32)?;
        }
        let count = self.count32()?;
        if self.codec.described {
            self.expect(ty)?;
        }
        Ok(count)
    }

    fn expect(&mut self, ty: DataType) -> Read<()> {
        let found = self.u16_raw()?;
        if found == ty.0 { Ok(()) } else { Err(CodecError::Mismatch { expected: ty.0, found }) }
    }

    fn one_item(&mut self, ty: DataType) -> Read<()> {
        match self.item(ty)? {
            1 => Ok(()),
            n => Err(CodecError::NotOne(n)),
        }
    }

    /// An item of any number of values.
    ///
    /// # Errors
    /// What is wrong with the payload; it is of no use from there on. This holds for all that follow.
    pub fn items<T: Item>(&mut self) -> Read<Vec<T>> {
        let count = self.item(T::TYPE)?;
        self.depth += 1;
        let values = (0..count).map(|_| T::unpack(self)).collect();
        self.depth -= 1;
        values
    }

    /// An item of one value.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn one<T: Item>(&mut self) -> Read<T> {
        self.one_item(T::TYPE)?;
        self.depth += 1;
        let value = T::unpack(self);
        self.depth -= 1;
        value
    }

    /// An item SIZE and, unless that is 0, an item of as many values.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn counted<T: Item>(&mut self) -> Read<Vec<T>> {
        let announced = self.size()?;
        if announced == 0 {
            return Ok(Vec::new());
        }
        let values = self.items()?;
        if values.len() as u64 != announced {
            return Err(CodecError::Count(i64::try_from(announced).unwrap_or(i64::MAX)));
        }
        Ok(values)
    }

    /// An item SIZE and as many items of one text each.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn texts(&mut self) -> Read<Vec<Text>> {
        let announced = self.size()?;
        let count = self.count(i64::try_from(announced).map_err(|_| CodecError::Count(i64::MAX))?)?;
        (0..count).map(|_| Ok(self.text()?.unwrap_or_default())).collect()
    }

    /// An item of one number of this type.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn one_number(&mut self, ty: DataType) -> Read<u64> {
        self.one_item(ty)?;
        self.number(ty)
    }

    /// An item SIZE.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn size(&mut self) -> Read<u64> {
        self.one_number(DataType::SIZE)
    }

    /// An item RANK.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn rank(&mut self) -> Read<u32> {
        self.one_item(DataType::RANK)?;
        self.u32_raw()
    }

    /// An item STATUS.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn status(&mut self) -> Read<i32> {
        self.one_item(DataType::STATUS)?;
        self.i32_raw()
    }

    /// An item of any number of STATUS.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn statuses(&mut self) -> Read<Vec<i32>> {
        let count = self.item(DataType::STATUS)?;
        (0..count).map(|_| self.i32_raw()).collect()
    }

    /// An item of one number of one byte.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn small(&mut self, ty: DataType) -> Read<u8> {
        self.one_item(ty)?;
        self.byte()
    }

    /// An item STRING; `None` is C's NULL.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn text(&mut self) -> Read<Option<Text>> {
        self.one_item(DataType::STRING)?;
        self.text_raw()
    }

    /// An item BYTE_OBJECT.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn blob(&mut self) -> Read<Bytes> {
        self.one_item(DataType::BYTE_OBJECT)?;
        self.blob_raw()
    }

    /// An item BUFFER: a reader of the payload in it.
    ///
    /// # Errors
    /// See [`Reader::items`].
    pub fn buffer(&mut self) -> Read<Self> {
        self.one_item(DataType::BUFFER)?;
        let (kind, payload) = self.buffer_raw()?;
        let codec = Codec { described: kind == 2, ..self.codec };
        // The values inside count as this message's.
        Ok(Self { codec, data: payload, at: 0, depth: self.depth, values: self.values })
    }

    pub(super) fn buffer_raw(&mut self) -> Read<(u8, Bytes)> {
        Ok((self.byte()?, self.blob_raw()?))
    }

    pub(super) fn byte_raw(&mut self) -> Read<u8> {
        self.byte()
    }
}
