//! The memory that a run may take.

use std::fs;
use std::path::{Component, Path};

use tch::Device;

use crate::engine::cuda_memory;
use crate::memory;

/// Bytes that are free for a run on a device: what the system says, within the bounds of the process's control groups. `None`
/// where nobody tells.
pub fn available_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => cuda_memory(index).ok().map(|(free, _)| free),
        _ => {
            let free = memory::read_line("/proc/meminfo", "MemAvailable")?;
            let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let bound = control_groups(Path::new("/sys/fs/cgroup"), &membership);
            Some(bound.map_or(free, |bound| bound.min(free)))
        }
    }
}

/// The files by which a version of control groups tells what a group may take.
struct Version {
    /// As `/proc/self/cgroup` names it; version 2 has one hierarchy for everything, without a name.
    controller: &'static str,
    /// Below the root of all hierarchies.
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Lines of `memory.stat`: the page cache of the group and of those in it, which the system takes back before it refuses
    /// anybody memory.
    cache: [&'static str; 2],
}

const VERSIONS: [Version; 2] = [
    Version {
        controller: "",
        mount: "",
        limit: "memory.max",
        usage: "memory.current",
        cache: ["inactive_file", "active_file"],
    },
    Version {
        controller: "memory",
        mount: "memory",
        limit: "memory.limit_in_bytes",
        usage: "memory.usage_in_bytes",
        cache: ["total_inactive_file", "total_active_file"],
    },
];

/// The least that is left of what the process's control group and the groups around it may take; `None` where there is no
/// limit. `root` is where hierarchies are mounted, `membership` the text of `/proc/self/cgroup`.
fn control_groups(root: &Path, membership: &str) -> Option<u64> {
    let left = VERSIONS.iter().flat_map(|version| {
        let mount = root.join(version.mount);
        let group = version.group(membership).unwrap_or(Path::new(""));
        // A container may see its own group as the root of the mount, under a path of the host's.
        let inside = |part: Component| matches!(part, Component::Normal(_));
        let visible = group.components().all(inside) && mount.join(group).is_dir();
        let group = if visible { group } else { Path::new("") };
        group
            .ancestors()
            .filter_map(move |group| version.left(&mount.join(group)))
    });
    left.min()
}

impl Version {
    /// The process's group, relative to the mount.
    fn group<'a>(&self, membership: &'a str) -> Option<&'a Path> {
        // A line is NUMBER:CONTROLLER,CONTROLLER:/PATH.
        let path = membership.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let mut controllers = controllers.split(',');
            controllers.any(|name| name == self.controller).then_some(path)
        })?;
        Some(Path::new(path.trim_start_matches('/')))
    }

    /// What is left of a group's memory; `None` where it has no limit.
    fn left(&self, group: &Path) -> Option<u64> {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        // Version 2 says `max` where there is no limit, version 1 the largest number of whole pages.
        let limit = number(self.limit).filter(|&limit| limit < 1 << 62)?;
        let statistics = read("memory.stat").unwrap_or_default();
        let statistic = |name: &str| -> Option<u64> {
            let mut lines = statistics.lines().filter_map(|line| line.split_once(' '));
            lines.find(|&(found, _)| found == name)?.1.trim().parse().ok()
        };
        let cache = self.cache.iter().filter_map(|name| statistic(name));
        let used = cache.fold(number(self.usage)?, u64::saturating_sub);
        Some(limit.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files with their text, below a new folder.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_tightest_group_of_version_2_counts() {
        let folder = tree(&[
            ("job/memory.max", "1000\n"),
            ("job/memory.current", "700\n"),
            ("job/step/memory.max", "max\n"),
            ("job/step/memory.current", "700\n"),
            ("job/step/task/memory.max", "900\n"),
            ("job/step/task/memory.current", "400\n"),
        ]);
        let left = |membership| control_groups(folder.path(), membership);
        assert_eq!(left("0::/job/step/task\n"), Some(300));
        assert_eq!(left("0::/job\n"), Some(300));
        // Others' groups.
        assert_eq!(left("0::/\n"), None);
        assert_eq!(left("0::/other\n"), None);
    }

    #[test]
    fn page_cache_can_be_taken_back() {
        let folder = tree(&[
            ("job/memory.max", "1000\n"),
            ("job/memory.current", "950\n"),
            (
                "job/memory.stat",
                "anon 300\nfile 650\ninactive_file 400\nactive_file 200\n",
            ),
        ]);
        assert_eq!(control_groups(folder.path(), "0::/job"), Some(650));
    }

    #[test]
    fn groups_of_version_1_are_below_their_controller() {
        let folder = tree(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.usage_in_bytes", "5000\n"),
            ("memory/slurm/job/memory.limit_in_bytes", "2000\n"),
            ("memory/slurm/job/memory.usage_in_bytes", "1500\n"),
            (
                "memory/slurm/job/memory.stat",
                "inactive_file 1\nactive_file 1\ntotal_inactive_file 300\ntotal_active_file 200\n",
            ),
        ]);
        let left = |membership| control_groups(folder.path(), membership);
        assert_eq!(
            left("5:cpu,memory:/slurm/job\n1:name=systemd:/\n0::/\n"),
            Some(1000)
        );
        assert_eq!(left("5:cpu:/slurm/job\n"), None);
        assert_eq!(left("5:memory:/\n"), None);
    }

    #[test]
    fn a_container_sees_its_group_at_the_root() {
        let folder = tree(&[
            ("memory.max", "1000\n"),
            ("memory.current", "200\n"),
            ("other/memory.max", "1\n"),
            ("other/memory.current", "0\n"),
        ]);
        for membership in ["0::/docker/b2", "0::/../other", "0::/", ""] {
            assert_eq!(
                control_groups(folder.path(), membership),
                Some(800),
                "{membership}"
            );
        }
    }
}
