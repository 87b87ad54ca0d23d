//! A node's segment: made by the daemon, attached to by ranks.

use crate::area::Area;
use crate::heap::{Block, Heap};
use crate::layout::{GONE, HEADER, Layout, MAGIC, Span, VERSION, WORLD};
use crate::map::Mapping;
use crate::single::Single;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// What the byte of a rank says.
const GONE_BYTE: u8 = 1;
const REFUSES: u8 = 2;

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The system refused.
    #[error("cannot map the node's shared memory")]
    System(#[from] io::Error),
    /// Its header is not one of this library.
    #[error("not a shared-memory segment of this version: rebuild the program with this rmpirun's library")]
    Header,
    /// Its header contradicts the launcher's table.
    #[error(
        "the shared-memory segment is for {found} ranks on this node where the launcher's table has {expected}"
    )]
    Ranks {
        /// In the header.
        found: u32,
        /// In the table.
        expected: u32,
    },
}

/// Makes the memory file of a node with these ranks of the world, by local number. Nobody can make it shorter or
/// longer afterwards.
///
/// # Errors
/// What the kernel says (memory, descriptors, a limit on file sizes); too many ranks.
pub fn create(world: &[u32]) -> io::Result<OwnedFd> {
    let layout = u32::try_from(world.len()).ok().and_then(Layout::new);
    let layout = layout.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fd = memfd_create(c"rmpi-node", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let file = File::from(fd);
    file.set_len(layout.length())?;
    fcntl(
        &file,
        FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL),
    )?;
    file.write_all_at(&layout.header(world), 0)?;
    Ok(file.into())
}

/// Notes in a node's memory file that the process of a local rank has ended.
///
/// # Errors
/// What the kernel says.
pub fn mark_gone(file: impl AsFd, local_rank: u32) -> io::Result<()> {
    let at = i64::try_from(GONE).unwrap_or(0) + i64::from(local_rank);
    nix::sys::uio::pwrite(file, &[GONE_BYTE], at)?;
    Ok(())
}

/// Notes in a node's memory file that the ranks must not reach this local rank through it.
///
/// # Errors
/// What the kernel says.
pub fn refuse(file: impl AsFd, local_rank: u32) -> io::Result<()> {
    let at = i64::try_from(GONE).unwrap_or(0) + i64::from(local_rank);
    nix::sys::uio::pwrite(file, &[REFUSES], at)?;
    Ok(())
}

/// A node's segment as one of its ranks sees it.
#[derive(Debug)]
pub struct Segment {
    file: File,
    core: Arc<Mapping>,
    header: Area,
    layout: Layout,
    me: u32,
    heap: Mutex<Heap>,
    single: Single,
}

impl Segment {
    /// Maps all but the heaps. `me` of `ranks` is this rank's local number.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn attach(fd: OwnedFd, me: u32, ranks: u32) -> Result<Self, SegmentError> {
        let file = File::from(fd);
        let layout = Layout::new(ranks).filter(|_| me < ranks).ok_or(SegmentError::Header)?;
        let length = file.metadata()?.len();
        if length < HEADER {
            return Err(SegmentError::Header);
        }
        let mut head = [0; 24];
        file.read_exact_at(&mut head, 0)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if head[..8] != MAGIC || word(8) != VERSION {
            return Err(SegmentError::Header);
        }
        if word(12) != ranks {
            return Err(SegmentError::Ranks { found: word(12), expected: ranks });
        }
        // A file that could become shorter would end this process by a signal.
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).unwrap_or(0);
        let sealed = SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK);
        if length != layout.length() || !sealed {
            return Err(SegmentError::Header);
        }
        let core = Arc::new(Mapping::new(&file, 0, layout.core().len)?);
        let header = part(&core, Span { start: 0, len: HEADER });
        let heap = Mutex::new(Heap::new(Layout::HEAP));
        let parts =
            |span: fn(&Layout, u32) -> Span| (0..ranks).map(|r| part(&core, span(&layout, r))).collect();
        let single = Single::new(parts(Layout::state), parts(Layout::offers), me);
        Ok(Self { file, core, header, layout, me, heap, single })
    }

    /// Where things are.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// This rank's local number.
    #[must_use]
    pub fn me(&self) -> u32 {
        self.me
    }

    /// Ranks of the node.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        self.layout.ranks()
    }

    /// The world's number of a local rank, as the daemon wrote it.
    #[must_use]
    pub fn world_rank(&self, local: u32) -> Option<u32> {
        if local >= self.ranks() {
            return None;
        }
        let at = usize::try_from(WORLD).ok()? + 4 * local as usize;
        Some(u32::from_le(self.header.word32(at)?.load(Ordering::Relaxed)))
    }

    /// Why a local rank will not answer here, if so: the daemon has seen its process end, or it uses another
    /// transport.
    #[must_use]
    pub fn absent(&self, local: u32) -> Option<&'static str> {
        let at = usize::try_from(GONE).unwrap_or(0) + local as usize;
        match self.header.byte(at).filter(|_| local < self.ranks())?.load(Ordering::Acquire) {
            0 => None,
            REFUSES => Some("it uses another transport than this rank; all must choose alike"),
            _ => Some("its process has ended"),
        }
    }

    /// Part of the segment mapped at the start.
    ///
    /// # Panics
    /// When `span` is none of the layout's parts outside the heaps.
    #[must_use]
    pub fn area(&self, span: Span) -> Area {
        part(&self.core, span)
    }

    /// Reading other ranks' own memory.
    #[must_use]
    pub fn single(&self) -> &Single {
        &self.single
    }

    /// The area of a local rank for collectives of the world. Zero at the start.
    ///
    /// # Panics
    /// When `local` is not a rank of the node.
    #[must_use]
    pub fn coll(&self, local: u32) -> Area {
        self.area(self.layout.coll(local))
    }

    /// Takes a piece of this rank's heap; contents arbitrary.
    #[must_use]
    pub fn alloc(&self, len: u64) -> Option<Block> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner).alloc(len)
    }

    /// Gives a piece back, and its memory to the system. Nobody may use it any more.
    pub fn free(&self, block: Block) {
        let start = self.layout.heap(self.me).start + block.offset;
        let hole = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if let (Ok(at), Ok(len)) = (i64::try_from(start), i64::try_from(block.len)) {
            // Memory that is not given back is used by the next allocation.
            let _ = nix::fcntl::fallocate(&self.file, hole, at, len);
        }
        self.heap.lock().unwrap_or_else(PoisonError::into_inner).free(block);
    }

    /// Maps a piece of the heap of a local rank. What another rank says of its heap need not be checked before.
    ///
    /// # Errors
    /// A piece outside the heap or not of whole pages; what the kernel says.
    pub fn heap(&self, local: u32, block: Block) -> io::Result<Area> {
        let Block { offset, len } = block;
        let whole = offset.is_multiple_of(4096) && len.is_multiple_of(4096) && len > 0;
        let inside = offset.checked_add(len).is_some_and(|end| end <= Layout::HEAP);
        if local >= self.ranks() || !whole || !inside {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mapping = Arc::new(Mapping::new(&self.file, self.layout.heap(local).start + offset, len)?);
        Area::new(&mapping, 0, mapping.len()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

fn part(core: &Arc<Mapping>, span: Span) -> Area {
    let (start, len) = (usize::try_from(span.start), usize::try_from(span.len));
    let area = start.ok().zip(len.ok()).and_then(|(start, len)| Area::new(core, start, len));
    #[expect(clippy::expect_used, reason = "spans come from the layout; the mapping was made by it")]
    area.expect("a part of the mapped segment")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(file: &OwnedFd, me: u32, ranks: u32) -> Result<Segment, SegmentError> {
        Segment::attach(file.try_clone().unwrap(), me, ranks)
    }

    #[test]
    fn ranks_see_each_others_writes_and_what_the_daemon_wrote() {
        let file = create(&[7, 9]).unwrap();
        let (a, b) = (attach(&file, 0, 2).unwrap(), attach(&file, 1, 2).unwrap());
        assert_eq!([0, 1, 2].map(|l| a.world_rank(l)), [Some(7), Some(9), None]);
        assert!(a.coll(1).write(64, b"hello"));
        let mut got = [0; 5];
        assert!(b.coll(1).read(64, &mut got) && &got == b"hello");
        assert!(!b.coll(1).read(b.coll(1).len() - 4, &mut got), "beyond the end");
        assert!(b.coll(0).word32(2).is_none() && b.coll(0).word64(8).is_some());
        assert_eq!(a.absent(1), None);
        mark_gone(&file, 1).unwrap();
        refuse(&file, 0).unwrap();
        assert_eq!(
            (a.absent(1), b.absent(1), a.absent(77)),
            (b.absent(1), Some("its process has ended"), None)
        );
        assert!(b.absent(0).is_some_and(|why| why.contains("another transport")));
    }

    #[test]
    fn heaps_are_reached_by_offset() {
        let file = create(&[0, 1]).unwrap();
        let (a, b) = (attach(&file, 0, 2).unwrap(), attach(&file, 1, 2).unwrap());
        let block = a.alloc(10_000).unwrap();
        assert!(a.heap(0, block).unwrap().write(9_990, b"0123456789"));
        let seen = b.heap(0, block).unwrap();
        let mut got = [0; 10];
        assert!(seen.read(9_990, &mut got) && &got == b"0123456789");
        a.free(block);
        assert!(seen.read(9_990, &mut got) && got == [0; 10], "the memory went back to the system");
        for (offset, len) in [(1, 4096), (0, 100), (0, 0), (Layout::HEAP, 4096), (u64::MAX - 4095, 8192)] {
            assert!(b.heap(0, Block { offset, len }).is_err(), "{offset} {len}");
        }
        assert!(b.heap(2, block).is_err());
    }

    #[test]
    fn strange_files_are_refused() {
        let file = create(&[0, 1]).unwrap();
        assert!(matches!(attach(&file, 0, 3), Err(SegmentError::Ranks { found: 2, expected: 3 })));
        assert!(attach(&file, 2, 2).is_err());
        assert!(File::from(file.try_clone().unwrap()).set_len(0).is_err(), "sealed");
        let other = memfd_create(c"x", MFdFlags::MFD_CLOEXEC).unwrap();
        assert!(matches!(attach(&other, 0, 2), Err(SegmentError::Header)));
        let other = File::from(other);
        other.write_all_at(&Layout::new(2).unwrap().header(&[0, 1]), 0).unwrap();
        other.set_len(Layout::new(2).unwrap().length()).unwrap();
        assert!(matches!(attach(&other.into(), 0, 2), Err(SegmentError::Header)), "not sealed");
    }
}
