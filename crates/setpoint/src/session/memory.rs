//! The memory of this machine: how much there is for a run.

use std::path::Path;

use crate::failure::{Failure, Outcome};

/// Returns the bytes that this process may still take: what the system has left, within the limits set for the process and for its
/// control groups. `None` if the system does not tell.
pub fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let left = available_in(&read("/proc/meminfo"));
    let taken = field(&read("/proc/self/status"), "VmSize:").map_or(0, |kilobytes| 1024 * kilobytes);
    let of_process =
        field(&read("/proc/self/limits"), "Max address space").map(|most| most.saturating_sub(taken) as f64);
    let groups = read("/proc/self/cgroup");
    let of_groups = limits(&groups, Path::new("/sys/fs/cgroup"));
    left.into_iter().chain(of_process).chain(of_groups).reduce(f64::min).map(|bytes| bytes as u64)
}

/// Returns the greatest resident memory of this process so far, bytes, if the system tells; the memory of a GPU is not in it.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Returns an amount of memory or disk in the unit that suits it: `0.3 MiB`, `512 MiB`, `1.50 GiB`.
pub fn size(bytes: f64) -> String {
    let mib = bytes / f64::from(1u32 << 20);
    match mib {
        _ if mib >= 1024.0 => format!("{:.2} GiB", mib / 1024.0),
        _ if mib >= 10.0 => format!("{mib:.0} MiB"),
        _ => format!("{mib:.1} MiB"),
    }
}

/// Fails if the memory left is less than `bytes`. `what` begins the sentence and `remedy` ends it.
///
/// # Errors
/// One sentence with both amounts.
pub fn require(bytes: u128, what: &str, remedy: &str) -> Outcome {
    match available() {
        Some(left) if u128::from(left) < bytes => Err(Failure::usage(
            what,
            format!("needs {bytes} bytes ({}) of memory, and {left} are available; {remedy}", size(bytes as f64)),
        )),
        _ => Ok(()),
    }
}

/// The available bytes of a `/proc/meminfo`.
fn available_in(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// Returns the bytes left of each limit that a process's control groups set on its memory. `groups`: its `/proc/self/cgroup`.
fn limits<'a>(groups: &'a str, root: &'a Path) -> impl Iterator<Item = f64> + 'a {
    let number = |folder: &Path, name: &str| -> Option<f64> {
        std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<f64>().ok()
    };
    // `0::/a/b` in the second version, `4:memory:/a/b` in the first.
    let hierarchies = groups.lines().filter_map(move |line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers {
            "" => Some((root.to_owned(), path, ("memory.max", "memory.current"))),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                Some((root.join("memory"), path, ("memory.limit_in_bytes", "memory.usage_in_bytes")))
            }
            _ => None,
        }
    });
    hierarchies.flat_map(move |(base, path, (limit, used))| {
        // Every group around this one may have a limit. Inside a container the path may lead nowhere, and the base is its own group.
        let groups: Vec<_> =
            Path::new(path.trim_start_matches('/')).ancestors().map(|group| base.join(group)).collect();
        groups.into_iter().filter_map(move |group| {
            let limit = number(&group, limit)?;
            let used = number(&group, used).unwrap_or(0.0);
            // Pages of files count as used and are given up when memory is short.
            let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
            let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<f64>().ok());
            Some((limit - used + files.unwrap_or(0.0)).max(0.0))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:       16384 kB\nMemFree:          100 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(available_in(text), Some(2048.0 * 1024.0));
        assert_eq!(available_in("MemTotal: 1 kB\n"), None);
        if Path::new("/proc/meminfo").exists() {
            assert!(available().is_some_and(|bytes| bytes > 0));
        }
    }

    #[test]
    fn sizes_are_in_the_unit_that_suits_them() {
        let mib = f64::from(1u32 << 20);
        let shown = [0.0, 0.3, 9.9, 10.2, 512.0, 1023.0, 1024.0, 81_920.0].map(|count| size(count * mib));
        assert_eq!(shown, ["0.0 MiB", "0.3 MiB", "9.9 MiB", "10 MiB", "512 MiB", "1023 MiB", "1.00 GiB", "80.00 GiB"]);
    }

    #[test]
    fn the_limits_of_control_groups_count_less_what_is_used() {
        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, files: &[(&str, &str)]| {
            let folder = root.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        };
        let left = |groups: &str| limits(groups, root.path()).collect::<Vec<_>>();
        // The second version, with a limit on the group around and none on the group itself.
        write(
            "a",
            &[("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", "anon 1\ninactive_file 200\n")],
        );
        write("a/b", &[("memory.max", "max\n"), ("memory.current", "600\n")]);
        assert_eq!(left("0::/a/b\n"), [500.0]);
        // The first version, and a group that is used beyond its limit.
        write("memory/c", &[("memory.limit_in_bytes", "1000"), ("memory.usage_in_bytes", "1200")]);
        assert_eq!(left("3:cpu,cpuacct:/c\n4:memory:/c\n"), [0.0]);
        // The path of the host is not there inside a container.
        write("memory", &[("memory.limit_in_bytes", "5000"), ("memory.usage_in_bytes", "1000")]);
        assert_eq!(left("4:memory:/docker/123\n"), [4000.0]);
        assert!(left("").is_empty());
    }
}
