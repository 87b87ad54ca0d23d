//! The allocator of a rank's own heap: first fit over free pieces, in multiples of a page. The records are
//! private memory: nobody else allocates there, and nobody can confuse it.

use std::collections::BTreeMap;

/// A piece of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First byte, counted from the start of the heap; a multiple of 4096.
    pub offset: u64,
    /// Bytes; a multiple of 4096.
    pub len: u64,
}

const PAGE: u64 = 4096;

/// Free pieces by offset; neighbours are always joined.
#[derive(Debug)]
pub(crate) struct Heap {
    free: BTreeMap<u64, u64>,
}

impl Heap {
    pub(crate) fn new(len: u64) -> Self {
        Self { free: [(0, len)].into() }
    }

    /// Takes a piece of at least `len` bytes.
    pub(crate) fn alloc(&mut self, len: u64) -> Option<Block> {
        let len = len.max(1).checked_next_multiple_of(PAGE)?;
        let (&offset, &size) = self.free.iter().find(|&(_, &size)| size >= len)?;
        self.free.remove(&offset);
        if size > len {
            self.free.insert(offset + len, size - len);
        }
        Some(Block { offset, len })
    }

    /// Gives a piece back that [`Heap::alloc`] gave.
    pub(crate) fn free(&mut self, block: Block) {
        let Block { mut offset, mut len } = block;
        if let Some((&before, &size)) = self.free.range(..offset).next_back()
            && before + size == offset
        {
            self.free.remove(&before);
            (offset, len) = (before, len + size);
        }
        if let Some(size) = self.free.remove(&(offset + len)) {
            len += size;
        }
        self.free.insert(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_do_not_meet_and_all_comes_back(steps in proptest::collection::vec((any::<bool>(), 1u64..50_000), 0..80)) {
            let mut heap = Heap::new(1 << 20);
            let mut taken: Vec<Block> = Vec::new();
            for (take, n) in steps {
                if take {
                    if let Some(b) = heap.alloc(n) {
                        prop_assert!(b.len >= n && b.offset + b.len <= 1 << 20);
                        prop_assert!(taken.iter().all(|t| t.offset + t.len <= b.offset || b.offset + b.len <= t.offset));
                        taken.push(b);
                    }
                } else if !taken.is_empty() {
                    heap.free(taken.swap_remove(usize::try_from(n).unwrap() % taken.len()));
                }
            }
            taken.into_iter().for_each(|b| heap.free(b));
            prop_assert_eq!(heap.alloc(1 << 20), Some(Block { offset: 0, len: 1 << 20 }));
        }
    }

    #[test]
    fn too_much_is_refused() {
        let mut heap = Heap::new(8192);
        assert_eq!(heap.alloc(8193), None);
        assert_eq!(heap.alloc(u64::MAX), None);
        assert_eq!(heap.alloc(0), Some(Block { offset: 0, len: 4096 }));
    }
}
