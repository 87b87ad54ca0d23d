//! What the kernel says of this process in `/proc/self/status` (`proc_pid_status(5)`), read once: making that file
//! costs it more than most others.

use rmpi_types::CpuSet;
use std::sync::OnceLock;

/// The lines that the daemon needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// CPUs it may use; `None` where they are not told.
    pub(crate) cpus: Option<CpuSet>,
    /// Signals that it ignores, bit 0 for signal 1.
    pub(crate) ignored: u64,
    /// Signals that it handles.
    pub(crate) handled: u64,
}

/// The signals that this process ignores, bit 0 for signal 1, as they were when this was first asked in it or in
/// the process it was forked off.
#[must_use]
pub fn ignored_signals() -> u64 {
    Status::get().ignored
}

impl Status {
    /// Of this process: as it was when it was first asked for.
    pub(crate) fn get() -> &'static Self {
        static READ: OnceLock<Status> = OnceLock::new();
        READ.get_or_init(|| Self::parse(&crate::topo::text("/proc/self/status".as_ref()).unwrap_or_default()))
    }

    /// What ranks get reset. Where nothing was told it is everything.
    pub(crate) fn not_default(&self) -> u64 {
        match self.ignored | self.handled {
            0 => u64::MAX,
            told => told,
        }
    }

    fn parse(text: &str) -> Self {
        let mask = |hex: &str| u64::from_str_radix(hex.trim(), 16).unwrap_or(0);
        let mut status = Self::default();
        // By hand: `lines` takes five times as long for lines as short as these.
        for line in text.as_bytes().split(|&byte| byte == b'\n') {
            // Three of some sixty matter.
            if !(line.starts_with(b"Sig") || line.starts_with(b"Cpus")) {
                continue;
            }
            match std::str::from_utf8(line).ok().and_then(|line| line.split_once(':')) {
                Some(("SigIgn", hex)) => status.ignored = mask(hex),
                Some(("SigCgt", hex)) => status.handled = mask(hex),
                Some(("Cpus_allowed_list", list)) => status.cpus = CpuSet::parse_list(list),
                Some(_) | None => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_found() {
        let text = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000440\n\
                    Cpus_allowed:\t3\nCpus_allowed_list:\t0-1\n";
        let status = Status::parse(text);
        assert_eq!(status.cpus, Some([0, 1].into_iter().collect()));
        assert_eq!((status.ignored, status.not_default()), (0x1000, 0x1440));
        assert_eq!(Status::parse("").not_default(), u64::MAX);
        // As every Rust program does, the test runner ignores SIGPIPE.
        assert_eq!(ignored_signals() >> 12 & 1, 1);
        assert!(!Status::get().cpus.as_ref().unwrap().is_empty());
    }
}
