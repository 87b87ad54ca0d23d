//! CPU limits and losses of the control group this process is in, versions 1 and 2. A group inside a container whose
//! path is not visible is looked for at the mount's root. Which CPUs a group allows is in the affinity mask, which
//! the kernel keeps within the group's (`cpuset(7)`).

use super::text;
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
        let v2 = self.look("", |dir| Some(parse_v2(&text(&dir.join("cpu.max"))?)));
        let v1 = self.look("cpu", |dir| {
            let quota = text(&dir.join("cpu.cfs_quota_us"))?;
            // No limit, and no period to be read.
            let limit = Some(quota.trim()).filter(|q| !q.starts_with('-'));
            Some(limit.and_then(|limit| milli(limit, text(&dir.join("cpu.cfs_period_us"))?.trim())))
        });
        [v2, v1].into_iter().filter_map(|found| found.into_iter().flatten().min()).min()
    }

    /// What `read` finds in the directories of our group and its ancestors, innermost first: in the mount that has
    /// something. `controller` is empty for version 2.
    fn look<T>(&self, controller: &str, read: impl Fn(&Path) -> Option<T>) -> Vec<T> {
        let Some((mounts, path)) = self.places(controller) else { return Vec::new() };
        let all = |mount: PathBuf| -> Vec<T> { upwards(&mount, path).filter_map(|d| read(&d)).collect() };
        mounts.into_iter().map(all).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// As [`Groups::look`], the innermost alone.
    fn innermost<T>(&self, controller: &str, read: impl Fn(&Path) -> Option<T>) -> Option<T> {
        let (mounts, path) = self.places(controller)?;
        mounts.iter().find_map(|mount| upwards(mount, path).find_map(|dir| read(&dir)))
    }

    /// Where the hierarchy of a controller may be mounted, and our group in it.
    fn places(&self, controller: &str) -> Option<([PathBuf; 2], &str)> {
        let base = self.root.join("sys/fs/cgroup");
        self.lines.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let ours = controllers.split(',').any(|c| c == controller);
            let mounts = || match controller {
                "" => [base.join("unified"), base.clone()],
                one => [base.join(one), base.join(controllers)],
            };
            ours.then(|| (mounts(), path.trim_start_matches('/')))
        })
    }
}

/// A directory below `mount` and all above it, up to `mount`; none outside of it.
fn upwards<'a>(mount: &'a Path, path: &str) -> impl Iterator<Item = PathBuf> + use<'a> {
    let first = Some(mount.join(path)).filter(|_| !path.split('/').any(|part| part == ".."));
    let first = first.unwrap_or_else(|| mount.to_owned());
    std::iter::successors(Some(first), move |dir| {
        dir.parent().filter(|above| above.starts_with(mount)).map(Path::to_owned)
    })
}

/// How often the kernel ended something in this group for want of memory; 0 when that cannot be read.
pub(crate) fn oom_kills(root: &Path) -> u64 {
    let groups = Groups::read(root);
    let files = [("", "memory.events"), ("memory", "memory.oom_control")];
    let count = |(controller, file): (&str, &str)| {
        let text = groups.innermost(controller, |dir| text(&dir.join(file)))?;
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
