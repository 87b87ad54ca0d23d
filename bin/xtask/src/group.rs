//! The kernel's scheduling groups, which tests of spawning need out of the way.

use crate::stage::say;
use std::fs;

/// One scheduling group for all processes while this lives, where we may say so. Linux 6.18 keeps a CPU to one group for
/// seconds when a process of it spins and another one sleeps for microseconds again and again, as Open MPI's do while
/// they spawn: the hosts of the cluster tests, groups of their own, then lose sight of each other.
pub(crate) struct OneGroup;

impl OneGroup {
    const SETTING: &str = "/proc/sys/kernel/sched_autogroup_enabled";

    /// Says so; `None` when there is nothing to be done, or we may not.
    pub(crate) fn make() -> Option<Self> {
        let groups = fs::read_to_string(Self::SETTING).is_ok_and(|text| text.trim() == "1");
        match groups.then(|| fs::write(Self::SETTING, "0"))? {
            Ok(()) => Some(Self),
            Err(error) => {
                say(&format!("xtask: {} stays 1, tests of spawning may fail: {error}", Self::SETTING));
                None
            }
        }
    }
}

impl Drop for OneGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::SETTING, "1") {
            say(&format!("xtask: {} was 1 and is 0 now: {error}", Self::SETTING));
        }
    }
}
