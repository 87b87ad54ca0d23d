//! The key-value space of one namespace on one node, shared by PMI-1 and PMI-2: what local ranks put is here at
//! once, what others put comes with a gather. Held once a node, however many ranks read it.

use bytes::Bytes;
use std::collections::HashMap;

/// Bytes of keys and values one namespace may hold on a node.
const MAX_BYTES: usize = 1 << 30;
/// Bytes of one key.
pub(super) const MAX_KEY: usize = 1024;
/// Bytes of one value.
pub(super) const MAX_VALUE: usize = 16 << 10;
/// Bytes of a coded entry before its key.
const HEAD: usize = 6;

#[derive(Debug)]
struct Entry {
    value: Bytes,
    /// Put here and not yet part of a gather of the whole namespace: what a gather brings is older.
    fresh: bool,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Kvs {
    table: HashMap<Bytes, Entry>,
    bytes: usize,
}

impl Kvs {
    /// Stores what a local rank put, replacing an old value. False when it does not fit.
    pub(super) fn put(&mut self, key: Bytes, value: Bytes) -> bool {
        let fits = key.len() <= MAX_KEY
            && value.len() <= MAX_VALUE
            && self.bytes + key.len() + value.len() <= MAX_BYTES;
        if fits {
            self.store(key, Entry { value, fresh: true });
        }
        fits
    }

    fn store(&mut self, key: Bytes, entry: Entry) {
        self.bytes += key.len() + entry.value.len();
        let length = key.len();
        if let Some(old) = self.table.insert(key, entry) {
            self.bytes = self.bytes.saturating_sub(length + old.value.len());
        }
    }

    /// A value.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.table.get(key).map(|e| &e.value)
    }

    /// The coded entries of these keys, which are from now on known elsewhere if `all` take part.
    pub(super) fn contribution(&mut self, keys: &[Bytes], all: bool) -> Bytes {
        let mut out = Vec::new();
        for key in keys {
            let Some(entry) = self.table.get_mut(key) else { continue };
            entry.fresh &= !all;
            let (Ok(key_len), Ok(value_len)) = (u16::try_from(key.len()), u32::try_from(entry.value.len()))
            else {
                continue;
            };
            out.extend_from_slice(&key_len.to_le_bytes());
            out.extend_from_slice(&value_len.to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(&entry.value);
        }
        out.into()
    }

    /// Takes in what a gather brought. False when it is malformed or does not fit; what comes before the fault
    /// is kept.
    pub(super) fn merge(&mut self, mut data: Bytes) -> bool {
        while !data.is_empty() {
            let Some(&[k0, k1, v0, v1, v2, v3]) = data.first_chunk::<HEAD>() else { return false };
            let key_len = usize::from(u16::from_le_bytes([k0, k1]));
            let value_len = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
            let whole =
                key_len <= MAX_KEY && value_len <= MAX_VALUE && data.len() >= HEAD + key_len + value_len;
            if !whole || self.bytes + key_len + value_len > MAX_BYTES {
                return false;
            }
            drop(data.split_to(HEAD));
            let (key, value) = (data.split_to(key_len), data.split_to(value_len));
            if !self.table.get(&key).is_some_and(|e| e.fresh) {
                self.store(key, Entry { value, fresh: false });
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn what_one_node_contributes_another_reads() {
        let (mut here, mut there) = (Kvs::default(), Kvs::default());
        assert!(here.put(b("k"), b("old")) && here.put(b("k"), b("new")) && here.put(b("other"), b("x")));
        let sent = here.contribution(&[b("k")], true);
        assert!(there.merge(sent.clone()));
        assert_eq!(there.get(b"k"), Some(&b("new")));
        assert_eq!(there.get(b"other"), None);
        assert_eq!(here.bytes, 4 + 6);
        assert!(!there.merge(sent.slice(..sent.len() - 1)), "cut short");
        assert!(!there.merge(Bytes::from_static(&[0xff; 6])), "hostile lengths");
    }

    #[test]
    fn a_newer_put_is_not_undone_by_an_older_gather() {
        let mut kvs = Kvs::default();
        kvs.put(b("k"), b("1"));
        let sent = kvs.contribution(&[b("k")], true);
        kvs.put(b("k"), b("2"));
        assert!(kvs.merge(sent));
        assert_eq!(kvs.get(b"k"), Some(&b("2")));
    }

    #[test]
    fn oversized_puts_are_refused() {
        let mut kvs = Kvs::default();
        assert!(!kvs.put(vec![b'k'; MAX_KEY + 1].into(), b("v")));
        assert!(!kvs.put(b("k"), vec![b'v'; MAX_VALUE + 1].into()));
    }
}
