//! How much memory there is for models in this process: what the machine has available, or a limit that is nearer.

use std::fmt::{self, Display};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Memory that can still be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    /// Bytes, without the sixteenth of them that is left for what no estimate counts.
    pub bytes: u64,
    /// What bounds them.
    pub bound: Bound,
}

/// What bounds the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// What the machine has.
    Machine,
    /// A limit on the control group, as containers have it.
    Group,
    /// A limit on the address space (`ulimit -v`).
    AddressSpace,
}

impl Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Bound::Machine => "the machine",
            Bound::Group => "the control group of this process",
            Bound::AddressSpace => "the limit on address space (`ulimit -v`)",
        })
    }
}

impl Available {
    /// What there is now; nothing where the system does not say.
    pub fn now() -> Option<Available> {
        Available::below(Path::new("/"))
    }

    /// The same with the system's files below `root`.
    fn below(root: &Path) -> Option<Available> {
        let machine = kibibytes(&read_to_string(root.join("proc/meminfo")).ok()?, "MemAvailable:")?;
        let bounds = [
            (Bound::Machine, Some(machine)),
            (Bound::Group, group(root)),
            (Bound::AddressSpace, address_space(root)),
        ];
        let known = bounds.into_iter().filter_map(|(bound, bytes)| Some(Available { bytes: bytes?, bound }));
        let least = known.min_by_key(|available| available.bytes)?;
        Some(Available { bytes: least.bytes - least.bytes / 16, ..least })
    }
}

/// `bytes` in a unit that suits them.
pub fn in_words(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.1} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}

/// The number behind a name, which is in KiB.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// What the control group and those that it is in leave, in either version.
fn group(root: &Path) -> Option<u64> {
    let groups = read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounted = root.join("sys/fs/cgroup");
    let left = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers {
            "" => left_in(&mounted, path, ["memory.max", "memory.current", "inactive_file"]),
            _ if controllers.split(',').any(|name| name == "memory") => left_in(
                &mounted.join("memory"),
                path,
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
            ),
            _ => None,
        }
    });
    left.min()
}

/// The least that a group and those above it leave: the limit without what is used. Files that were read and can be
/// forgotten do not count as used.
fn left_in(mounted: &Path, path: &str, [limit, usage, inactive]: [&str; 3]) -> Option<u64> {
    let number = |file: PathBuf| read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let inside = mounted.join(path.trim_start_matches('/'));
    let groups = inside.ancestors().take_while(|group| group.starts_with(mounted));
    groups
        .filter_map(|group| {
            // Without a limit it says `max`, or in version 1 a number that nothing reaches.
            let limit = number(group.join(limit)).filter(|&limit| limit < 1 << 60)?;
            let stat = read_to_string(group.join("memory.stat")).unwrap_or_default();
            let mut words = stat.lines().filter_map(|line| line.split_once(' '));
            let inactive =
                words.find(|(name, _)| *name == inactive).and_then(|(_, bytes)| bytes.parse().ok());
            let used = number(group.join(usage)).unwrap_or(0).saturating_sub(inactive.unwrap_or(0));
            Some(limit.saturating_sub(used))
        })
        .min()
}

/// Address space that threads take for their stacks and heaps, mostly without using it.
const THREADS_BYTES: u64 = 256 << 20;

fn address_space(root: &Path) -> Option<u64> {
    let limits = read_to_string(root.join("proc/self/limits")).ok()?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    let taken = kibibytes(&read_to_string(root.join("proc/self/status")).ok()?, "VmSize:")?;
    Some(limit.saturating_sub(taken + THREADS_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn system(files: &[(&str, &str)]) -> Option<Available> {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("it has a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        Available::below(root.path())
    }

    const MACHINE: (&str, &str) =
        ("proc/meminfo", "MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable:     500 kB\n");

    #[test]
    fn the_nearest_bound_counts() {
        let is = |bytes: u64, bound| Some(Available { bytes: bytes - bytes / 16, bound });
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MACHINE]), is(500 << 10, Bound::Machine));
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let stat = ("sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 300\nactive_file 9\n");
        let v2 = |own, above, current| {
            system(&[
                MACHINE,
                group,
                ("sys/fs/cgroup/a/b/memory.max", own),
                ("sys/fs/cgroup/a/memory.max", above),
                ("sys/fs/cgroup/a/memory.current", current),
                stat,
            ])
        };
        assert_eq!(v2("max\n", "max\n", "1000"), is(500 << 10, Bound::Machine));
        assert_eq!(
            v2("max\n", "10000\n", "1000\n"),
            is(9_300, Bound::Group),
            "without what can be forgotten"
        );
        assert_eq!(v2("400\n", "10000\n", "1000\n"), is(400, Bound::Group));
        assert_eq!(v2("max\n", "100\n", "1000\n"), is(0, Bound::Group));
        let v1 = |limit| {
            system(&[
                MACHINE,
                ("proc/self/cgroup", "5:cpu,memory:/x\n0::/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "700\n"),
                ("sys/fs/cgroup/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 100\n"),
            ])
        };
        assert_eq!(
            v1("2000\n"),
            is(1400, Bound::Group),
            "of the group that is mounted, where the own is not seen"
        );
        assert_eq!(v1("9223372036854771712\n"), is(500 << 10, Bound::Machine));
        let limits = |limit: &str| {
            let line = format!("Max address space         {limit}            unlimited            bytes\n");
            system(&[MACHINE, ("proc/self/limits", &line), ("proc/self/status", "VmSize:\t    2 kB\n")])
        };
        assert_eq!(limits("unlimited"), is(500 << 10, Bound::Machine));
        let limit = THREADS_BYTES + 4096;
        assert_eq!(limits(&limit.to_string()), is(2048, Bound::AddressSpace));
        assert_eq!(limits("4096"), is(0, Bound::AddressSpace));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(Available::now().is_some_and(|available| available.bytes > 1 << 20));
    }

    #[test]
    fn sizes_are_in_a_unit_that_suits_them() {
        assert_eq!([in_words(3 << 19), in_words(354 << 30)], ["1.5 MiB", "354.0 GiB"]);
    }
}
