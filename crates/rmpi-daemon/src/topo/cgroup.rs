//! CPU limits of the control group this process is in, versions 1 and 2: the quota and the cpuset. A group
//! inside a container whose path is not visible is looked for at the mount's root.

use super::text;
use rmpi_types::CpuSet;
use std::path::{Path, PathBuf};

/// The groups this process is in.
pub(crate) struct Groups<'a> {
    root: &'a Path,
    /// `/proc/self/cgroup`.
    lines: String,
}

impl<'a> Groups<'a> {
    /// Reads which they are, in the tree under `root`.
    pub(crate) fn read(root: &'a Path) -> Self {
        Self { root, lines: text(&root.join("proc/self/cgroup")).unwrap_or_default() }
    }

    /// Quota of the tightest group on the way to the root, in thousandths of a CPU.
    pub(crate) fn quota_milli(&self) -> Option<u32> {
        let v2 = self.directories("").into_iter().filter_map(|d| parse_v2(&text(&d.join("cpu.max"))?)).min();
        let v1 = self.directories("cpu").into_iter().filter_map(|d| {
            let quota = text(&d.join("cpu.cfs_quota_us"))?;
            // No limit, and no period to be read.
            let quota = Some(quota.trim()).filter(|q| !q.starts_with('-'))?;
            milli(quota, text(&d.join("cpu.cfs_period_us"))?.trim())
        });
        v2.into_iter().chain(v1.min()).min()
    }

    /// CPUs of the innermost group that says.
    pub(crate) fn cpuset(&self) -> Option<CpuSet> {
        let v1 = self.directories("cpuset").into_iter().map(|d| d.join("cpuset.effective_cpus"));
        let list = |f: PathBuf| CpuSet::parse_list(&text(&f)?);
        let v2 = || self.directories("").into_iter().map(|d| d.join("cpuset.cpus.effective")).find_map(list);
        v1.into_iter().find_map(list).or_else(v2).filter(|s| !s.is_empty())
    }
}

/// How often the kernel ended something in this group for want of memory; 0 when that cannot be read.
pub(crate) fn oom_kills(root: &Path) -> u64 {
    let groups = Groups::read(root);
    let files = [("", "memory.events"), ("memory", "memory.oom_control")];
    let count = |(controller, file): (&str, &str)| {
        let text = text(&groups.directories(controller).first()?.join(file))?;
        text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse::<u64>().ok()
    };
    files.into_iter().find_map(count).unwrap_or(0)
}

fn parse_v2(text: &str) -> Option<u32> {
    let (quota, period) = text.trim().split_once(' ')?;
    milli(quota, period)
}

fn milli(quota: &str, period: &str) -> Option<u32> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    u32::try_from((quota * 1000).checked_div(period)?).ok().map(|m| m.max(1))
}

impl Groups<'_> {
    /// Directories of our group and its ancestors, innermost first. `controller` is empty for version 2.
    fn directories(&self, controller: &str) -> Vec<PathBuf> {
        let line = self.lines.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let ours = controllers.split(',').any(|c| c == controller);
            ours.then(|| (controllers.to_owned(), path.trim_start_matches('/').to_owned()))
        });
        let Some((controllers, path)) = line else { return Vec::new() };
        let base = self.root.join("sys/fs/cgroup");
        let mounts = if controller.is_empty() {
            [base.clone(), base.join("unified")]
        } else {
            [base.join(controllers), base.join(controller)]
        };
        let Some(mount) = mounts.into_iter().rfind(|m| m.is_dir()) else { return Vec::new() };
        let mut found = Vec::new();
        let mut dir = mount.join(&path);
        while dir.starts_with(&mount) {
            if dir.is_dir() {
                found.push(dir.clone());
            }
            if !dir.pop() {
                break;
            }
        }
        found
    }
}
