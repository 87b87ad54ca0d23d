//! The key-value store in which Horovod's Gloo contexts are built. Values are opaque and shared, never evaluated. A
//! request for an address that is not there yet is held until it is, so that ranks that start late cost nothing.

use bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Bytes of all values at most.
const TOTAL: usize = 1 << 30;

/// Who waits for an answer, as the caller numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// The answer to a request for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// Here it is.
    Value(Bytes),
    /// It is not there.
    Missing,
    /// It will come: the waiter is answered then.
    Held,
}

#[derive(Debug, Default)]
struct Scope {
    values: HashMap<String, Bytes>,
    finished: HashSet<String>,
}

/// All scopes.
#[derive(Debug, Default)]
pub struct Store {
    /// Scopes whose number of members is known: they are cleared when all have finished with them.
    sizes: HashMap<String, usize>,
    scopes: HashMap<String, Scope>,
    waiting: HashMap<(String, String), Vec<Waiter>>,
    bytes: usize,
}

impl Store {
    /// A store for an assignment whose scopes have these sizes ([`crate::assign::scopes`]).
    #[must_use]
    pub fn new(sizes: Vec<(String, usize)>) -> Self {
        Self { sizes: sizes.into_iter().collect(), ..Self::default() }
    }

    /// Forgets everything, for another assignment; who waits for something of the old one is to be told that it is
    /// missing.
    #[must_use]
    pub fn reset(&mut self, sizes: Vec<(String, usize)>) -> Vec<Waiter> {
        let mut waiters: Vec<Waiter> = std::mem::take(&mut self.waiting).into_values().flatten().collect();
        waiters.sort_unstable();
        *self = Self::new(sizes);
        waiters
    }

    /// Stores a value, or overwrites it; gives who waited for it. `None` when the store is full.
    pub fn put(&mut self, scope: &str, key: &str, value: Bytes) -> Option<Vec<Waiter>> {
        let entry = self.scopes.entry(scope.to_owned()).or_default();
        let old = entry.values.get(key).map_or(0, Bytes::len);
        let bytes = self.bytes - old + value.len();
        if bytes > TOTAL {
            return None;
        }
        self.bytes = bytes;
        entry.values.insert(key.to_owned(), value);
        Some(self.waiting.remove(&(scope.to_owned(), key.to_owned())).unwrap_or_default())
    }

    /// Asks for a value. Only addresses, whose keys are numbers, are worth waiting for: names of machines
    /// (`rank_N`) are asked for in passing, and an absent one means unknown.
    pub fn get(&mut self, scope: &str, key: &str, waiter: Waiter) -> Got {
        if let Some(value) = self.scopes.get(scope).and_then(|s| s.values.get(key)) {
            return Got::Value(value.clone());
        }
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_digit()) {
            return Got::Missing;
        }
        self.waiting.entry((scope.to_owned(), key.to_owned())).or_default().push(waiter);
        Got::Held
    }

    /// A waiter has gone.
    pub fn forget(&mut self, waiter: Waiter) {
        self.waiting.retain(|_, list| {
            list.retain(|w| *w != waiter);
            !list.is_empty()
        });
    }

    /// A member has finished with a scope by this key. A scope of known size is cleared when all have, ready to be
    /// built again by the same processes; of any other the key goes.
    pub fn delete(&mut self, scope: &str, key: &str) {
        let Some(entry) = self.scopes.get_mut(scope) else { return };
        let over = match self.sizes.get(scope) {
            Some(size) => {
                entry.finished.insert(key.to_owned());
                entry.finished.len() >= *size
            }
            None => {
                let gone = entry.values.remove(key);
                self.bytes -= gone.map_or(0, |v| v.len());
                entry.values.is_empty()
            }
        };
        if over && let Some(entry) = self.scopes.remove(scope) {
            self.bytes -= entry.values.values().map(Bytes::len).sum::<usize>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn addresses_are_waited_for_and_names_are_not() {
        let mut store = Store::default();
        assert_eq!(store.get("global", "1", Waiter(1)), Got::Held);
        assert_eq!(store.get("global", "1", Waiter(2)), Got::Held);
        assert_eq!(store.get("global", "rank_1", Waiter(3)), Got::Missing);
        store.forget(Waiter(2));
        assert_eq!(store.put("global", "1", value("x")), Some(vec![Waiter(1)]));
        assert_eq!(store.get("global", "1", Waiter(4)), Got::Value(value("x")));
    }

    #[test]
    fn a_known_scope_is_cleared_when_all_have_finished_with_it() {
        let mut store = Store::new(vec![("global".into(), 2), ("local_a".into(), 2)]);
        for key in ["0", "1"] {
            assert_eq!(store.put("global", key, value("x")), Some(vec![]));
            assert_eq!(store.put("local_a", key, value("y")), Some(vec![]));
        }
        store.delete("local_a", "0");
        store.delete("global", "0");
        store.delete("global", "0");
        assert_eq!(
            store.get("global", "0", Waiter(1)),
            Got::Value(value("x")),
            "it only says that it has finished"
        );
        store.delete("global", "1");
        assert_eq!(store.get("global", "0", Waiter(2)), Got::Held, "the next round begins");
        // The slower scope's list is its own.
        store.delete("local_a", "1");
        assert_eq!(store.get("local_a", "0", Waiter(3)), Got::Held);
        assert_eq!(store.bytes, 0);
    }

    #[test]
    fn other_scopes_lose_single_keys() {
        let mut store = Store::default();
        assert_eq!(store.put("global_process_set_hash_1f", "0", value("x")), Some(vec![]));
        assert_eq!(store.put("global_process_set_hash_1f", "1", value("x")), Some(vec![]));
        store.delete("global_process_set_hash_1f", "0");
        assert_eq!(store.get("global_process_set_hash_1f", "1", Waiter(1)), Got::Value(value("x")));
        store.delete("global_process_set_hash_1f", "1");
        store.delete("global_process_set_hash_1f", "7");
        assert!(store.scopes.is_empty() && store.bytes == 0);
    }

    #[test]
    fn a_reset_lets_everybody_go() {
        let mut store = Store::new(vec![("global".into(), 2)]);
        let _ = store.get("global", "1", Waiter(7));
        let _ = store.get("cross_0", "0", Waiter(5));
        let _ = store.put("global", "0", value("x"));
        assert_eq!(store.reset(vec![("global".into(), 3)]), [Waiter(5), Waiter(7)]);
        assert_eq!(store.get("global", "0", Waiter(8)), Got::Held);
    }
}
