//! Packing. Everything we pack fits: counts and lengths above what a wire has room for are cut by the callers'
//! limits long before.

use super::Codec;
use super::items::{Item, Kval};
use super::types::{DataType, Number};
use super::value::{Text, Value};
use bytes::Bytes;

/// Builds one payload.
#[derive(Debug, Default)]
pub struct Writer {
    codec: Codec,
    out: Vec<u8>,
}

impl Writer {
    /// An empty payload in this form.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self { codec, out: Vec::new() }
    }

    /// A payload inside this one: same form.
    #[must_use]
    pub fn inner(&self) -> Self {
        Self::new(self.codec)
    }

    /// The payload.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.out.into()
    }

    /// What was packed so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Appends items that were packed before in the same form.
    pub fn append(&mut self, items: &[u8]) -> &mut Self {
        self.out.extend_from_slice(items);
        self
    }

    fn integer(&mut self, n: u64, size: u8, signed: bool) {
        if self.codec.flex && size > 1 {
            let n = match (signed, n.cast_signed() < 0) {
                (false, _) => n,
                (true, false) => n << 1,
                (true, true) => (!n) << 1 | 1,
            };
            return self.groups(n);
        }
        let bytes = n.to_be_bytes();
        self.out.extend_from_slice(&bytes[8 - usize::from(size)..]);
    }

    fn groups(&mut self, mut n: u64) {
        for _ in 0..8 {
            let low = n.to_le_bytes()[0] & 0x7f;
            n >>= 7;
            if n == 0 {
                return self.out.push(low);
            }
            self.out.push(low | 0x80);
        }
        self.out.push(n.to_le_bytes()[0]);
    }

    pub(super) fn number(&mut self, ty: DataType, n: u64) {
        match ty.number() {
            Some(Number::Plain(size, signed)) => self.integer(n, size, signed),
            Some(Number::Tagged(real, omitted)) => {
                if !(omitted && self.codec.flex) {
                    self.u16_raw(real.0);
                }
                self.number(real, n);
            }
            None => debug_assert!(false, "{ty} is no number"),
        }
    }

    pub(super) fn byte_raw(&mut self, n: u8) {
        self.out.push(n);
    }

    pub(super) fn u16_raw(&mut self, n: u16) {
        self.integer(n.into(), 2, false);
    }

    pub(super) fn i32_raw(&mut self, n: i32) {
        self.integer(i64::from(n).cast_unsigned(), 4, true);
    }

    pub(super) fn u32_raw(&mut self, n: u32) {
        self.integer(n.into(), 4, false);
    }

    pub(super) fn i64_raw(&mut self, n: i64) {
        self.integer(n.cast_unsigned(), 8, true);
    }

    pub(super) fn length_raw(&mut self, n: usize) {
        self.i32_raw(i32::try_from(n).unwrap_or(i32::MAX));
    }

    pub(super) fn size_raw(&mut self, n: usize) {
        self.number(DataType::SIZE, n as u64);
    }

    pub(super) fn text_raw(&mut self, text: Option<&Text>) {
        match text {
            None => self.i32_raw(0),
            Some(Text(bytes)) => {
                self.length_raw(bytes.len() + 1);
                self.out.extend_from_slice(bytes);
                self.out.push(0);
            }
        }
    }

    pub(super) fn blob_raw(&mut self, bytes: &[u8]) {
        self.size_raw(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    fn item(&mut self, ty: DataType, count: usize) {
        if self.codec.described {
            self.u16_raw(DataType::INT32.0);
        }
        self.length_raw(count);
        if self.codec.described {
            self.u16_raw(ty.0);
        }
    }

    /// An item of these values.
    pub fn items<T: Item>(&mut self, values: &[T]) -> &mut Self {
        self.item(T::TYPE, values.len());
        values.iter().for_each(|v| v.pack(self));
        self
    }

    /// An item of one value.
    pub fn one<T: Item>(&mut self, value: &T) -> &mut Self {
        self.items(std::slice::from_ref(value))
    }

    /// An item SIZE and, unless there are none, an item of these values.
    pub fn counted<T: Item>(&mut self, values: &[T]) -> &mut Self {
        self.size(values.len() as u64);
        if !values.is_empty() {
            self.items(values);
        }
        self
    }

    /// An item KVAL, unless the form has no room for the value's type: its client could not unpack it.
    pub fn kval(&mut self, key: &Text, value: &Value) -> &mut Self {
        if self.codec.flex || value.old() {
            self.item(DataType::KVAL, 1);
            Kval::pack_parts(key, value, self);
        }
        self
    }

    /// An item of one number of this type.
    pub fn one_number(&mut self, ty: DataType, n: u64) -> &mut Self {
        self.item(ty, 1);
        self.number(ty, n);
        self
    }

    /// An item SIZE.
    pub fn size(&mut self, n: u64) -> &mut Self {
        self.one_number(DataType::SIZE, n)
    }

    /// An item RANK.
    pub fn rank(&mut self, rank: u32) -> &mut Self {
        self.one_number(DataType::RANK, rank.into())
    }

    /// An item STATUS.
    pub fn status(&mut self, status: i32) -> &mut Self {
        self.one_number(DataType::STATUS, i64::from(status).cast_unsigned())
    }

    /// An item of these STATUS.
    pub fn statuses(&mut self, codes: &[i32]) -> &mut Self {
        self.item(DataType::STATUS, codes.len());
        codes.iter().for_each(|&c| self.i32_raw(c));
        self
    }

    /// An item STRING; `None` is C's NULL.
    pub fn text(&mut self, text: Option<&Text>) -> &mut Self {
        self.item(DataType::STRING, 1);
        self.text_raw(text);
        self
    }

    /// An item BYTE_OBJECT.
    pub fn blob(&mut self, bytes: &[u8]) -> &mut Self {
        self.item(DataType::BYTE_OBJECT, 1);
        self.blob_raw(bytes);
        self
    }

    /// An item BUFFER holding `payload`, packed in the same form.
    pub fn buffer(&mut self, payload: &[u8]) -> &mut Self {
        self.item(DataType::BUFFER, 1);
        self.byte_raw(if self.codec.described { 2 } else { 1 });
        self.blob_raw(payload);
        self
    }
}
