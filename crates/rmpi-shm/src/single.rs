//! Reading the private memory of another rank of the node in one copy, where the kernel lets this process do that.
//!
//! A rank that offers memory says who it is: process id, namespace of process ids, and a place in its memory with a
//! number that nobody else has there. Each read fetches that number and the data in one call, so that a process
//! which is not the one meant (another namespace's, or one that has its id now) is noticed. What may go wrong is up to the
//! kernel (`ptrace` permissions: Yama, a filter, another user namespace, a process that is not dumpable) and is an
//! error value here; addresses that another rank names are used in this call only.
#![allow(unsafe_code, reason = "prctl has no safe name for letting siblings read this process")]

use crate::area::Area;
use crate::offers::Ticket;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::hash::{BuildHasher as _, RandomState};
use std::io::IoSliceMut;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Words of a rank's state, on a line that nothing else uses.
const PID: usize = 32;
const SPACE: usize = 33;
const PLACE: usize = 34;
const NUMBER: usize = 35;
/// Bytes of the number.
const NUMBER_LEN: usize = 16;

/// The other rank's memory could not be read in one copy; what was to be filled holds anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel does not let this process read the other's memory")]
pub struct Unreadable;

/// This rank's side of it: what it says of itself, and reading from others.
#[derive(Debug)]
pub struct Single {
    states: Vec<Area>,
    offers: Vec<Area>,
    me: u32,
    number: Box<[u64; 2]>,
    /// The process that started the ranks, 0 when not known: its descendants may read this one.
    ancestor: AtomicU32,
    /// This process's namespace of process ids; 0 when it cannot be told.
    space: OnceLock<u64>,
    offered: OnceLock<bool>,
}

impl Single {
    pub(crate) fn new(states: Vec<Area>, offers: Vec<Area>, me: u32) -> Self {
        let random = || RandomState::new().hash_one(me);
        let number = Box::new([random(), random()]);
        let ancestor = AtomicU32::new(0);
        Self { states, offers, me, number, ancestor, space: OnceLock::new(), offered: OnceLock::new() }
    }

    fn word(&self, local: u32, index: usize) -> Option<&AtomicU64> {
        self.states.get(local as usize)?.word64(8 * index)
    }

    /// Says which process started all ranks of the node. Where Yama restricts who may read a process, its
    /// descendants then may read this one, from the first offer on.
    pub fn descends_from(&self, pid: u32) {
        self.ancestor.store(pid, Ordering::Relaxed);
    }

    fn space(&self) -> u64 {
        *self.space.get_or_init(|| std::fs::metadata("/proc/self/ns/pid").map_or(0, |m| m.ino()))
    }

    /// Lets the others of the node read this process's memory where the kernel allows it; whether they may try.
    pub fn offer(&self) -> bool {
        *self.offered.get_or_init(|| self.announce().is_some())
    }

    fn announce(&self) -> Option<()> {
        let space = Some(self.space()).filter(|&s| s != 0)?;
        let ancestor = self.ancestor.load(Ordering::Relaxed);
        if ancestor != 0 {
            // Where there is no Yama this fails, and nothing needs it.
            // SAFETY: takes a number and touches no memory.
            let _ =
                unsafe { nix::libc::prctl(nix::libc::PR_SET_PTRACER, nix::libc::c_ulong::from(ancestor)) };
        }
        let store = |index, value| self.word(self.me, index).map(|w| w.store(value, Ordering::Release));
        store(PLACE, self.number.as_ptr().expose_provenance() as u64)?;
        store(NUMBER, self.number[0])?;
        store(NUMBER + 1, self.number[1])?;
        store(SPACE, space)?;
        store(PID, u64::from(std::process::id()))
    }

    /// Copies what the process of `local` has at `address`. It must have offered that memory, and whether it still
    /// stands by that ([`Single::stands`], or in another way) is to be asked afterwards.
    ///
    /// # Errors
    /// [`Unreadable`]: not all could be read, or that process is not this rank.
    pub fn read(&self, local: u32, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let word = |index| self.word(local, index).map_or(0, |w| w.load(Ordering::Acquire));
        let pid = i32::try_from(word(PID)).ok().filter(|&p| p > 0).ok_or(Unreadable)?;
        let place = usize::try_from(word(PLACE)).map_err(|_| Unreadable)?;
        let address = usize::try_from(address).map_err(|_| Unreadable)?;
        if word(SPACE) != self.space() || self.space() == 0 {
            return Err(Unreadable);
        }
        let want = [word(NUMBER), word(NUMBER + 1)];
        let mut number = [0; NUMBER_LEN];
        let len = into.len();
        let theirs = [RemoteIoVec { base: place, len: NUMBER_LEN }, RemoteIoVec { base: address, len }];
        let ours = &mut [IoSliceMut::new(&mut number), IoSliceMut::new(into)];
        let n = process_vm_readv(Pid::from_raw(pid), ours, &theirs).map_err(|_| Unreadable)?;
        let same = number[..8] == want[0].to_ne_bytes() && number[8..] == want[1].to_ne_bytes();
        if n == NUMBER_LEN + len && same { Ok(()) } else { Err(Unreadable) }
    }

    /// Whether an offer of `local` stands: asked after copying, what was copied is what was offered.
    #[must_use]
    pub fn stands(&self, local: u32, ticket: Ticket) -> bool {
        fence(Ordering::SeqCst);
        let word = self.offers.get(local as usize).and_then(|o| o.word64(8 * ticket.place()));
        word.is_some_and(|w| w.load(Ordering::Acquire) == ticket.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offers::Offers;
    use crate::segment::{Segment, create};

    fn two() -> (Segment, Segment) {
        let file = create(&[0, 1]).unwrap();
        let attach = |me| Segment::attach(file.try_clone().unwrap(), me, 2).unwrap();
        (attach(0), attach(1))
    }

    fn at(bytes: &[u8]) -> u64 {
        bytes.as_ptr().expose_provenance() as u64
    }

    #[test]
    fn what_is_offered_is_read_and_what_cannot_be_is_an_error() {
        let (a, b) = two();
        let data: Vec<u8> = (0..100_000u32).map(|i| (i * 7) as u8).collect();
        let mut got = vec![0; data.len()];
        assert_eq!(a.single().read(1, at(&data), &mut got), Err(Unreadable), "it has not said who it is");
        assert!(b.single().offer());
        assert_eq!(a.single().read(1, at(&data), &mut got), Ok(()));
        assert!(got == data);
        for address in [0, 8, u64::MAX - 3, 1 << 60] {
            assert_eq!(a.single().read(1, address, &mut got), Err(Unreadable), "{address:x}");
        }
        assert_eq!(a.single().read(7, at(&data), &mut got), Err(Unreadable), "no such rank");
    }

    #[test]
    fn another_process_and_another_namespace_are_noticed() {
        let (a, b) = two();
        assert!(b.single().offer());
        let data = [5; 64];
        let state = a.area(a.layout().state(1));
        let word = |index: usize| state.word64(8 * index).unwrap();
        for (index, forged) in [
            (SPACE, word(SPACE).load(Ordering::Relaxed) + 1),
            (NUMBER, 1),
            (PLACE, at(&data)),
            (PID, 0),
            (PID, 1 << 40),
            (PID, u64::from(std::os::unix::process::parent_id())),
        ] {
            let right = word(index).swap(forged, Ordering::Relaxed);
            assert_eq!(a.single().read(1, at(&data), &mut [0; 64]), Err(Unreadable), "{index} {forged}");
            word(index).store(right, Ordering::Relaxed);
        }
        let mut got = [0; 64];
        assert_eq!((a.single().read(1, at(&data), &mut got), got), (Ok(()), data));
    }

    #[test]
    fn a_withdrawn_offer_does_not_stand_and_no_later_one_is_taken_for_it() {
        let (a, b) = two();
        let mut offers = Offers::new(&b);
        let stands = |o| a.single().stands(1, o);
        let first = offers.make(64).unwrap().ticket;
        assert!(stands(first) && !a.single().stands(0, first));
        offers.withdraw(first);
        let second = offers.make(64).unwrap().ticket;
        assert!(!stands(first) && stands(second));
        offers.withdraw(first);
        assert!(stands(second), "a stale withdrawal touches no other");
        let more: Vec<_> = std::iter::from_fn(|| Some(offers.make(128)?.ticket)).take(1000).collect();
        assert_eq!(more.len(), usize::from(crate::Layout::OFFERS) - 1, "all that can stand do");
        drop(offers);
        assert!(!stands(second) && !more.iter().any(|&o| stands(o)));
    }
}
