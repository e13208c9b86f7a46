//! How much memory and disk a run may still take.

use std::fs;
use std::path::Path;

use crate::Unavailable;

/// Memory that this process may still take, bytes: MemAvailable, or what the tightest cgroup v2 limit
/// above it leaves when that is less. Costs some file reads.
///
/// # Errors
/// [`Unavailable`] when /proc/meminfo has no MemAvailable line.
pub fn memory_bytes() -> Result<u64, Unavailable> {
    memory_under(Path::new("/"))
}

fn memory_under(root: &Path) -> Result<u64, Unavailable> {
    let missing = |cause: String| Unavailable {
        source: "/proc/meminfo",
        cause,
        remedy: "mount /proc".to_owned(),
    };
    let text = fs::read_to_string(root.join("proc/meminfo")).map_err(|e| missing(e.to_string()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let host = kib.ok_or_else(|| missing("it has no MemAvailable line".to_owned()))? * 1_024;
    Ok(cgroup_left(root).map_or(host, |left| left.min(host)))
}

/// The least that any cgroup from our own up to the root leaves; `None` without a limit.
fn cgroup_left(root: &Path) -> Option<u64> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = root.join("sys/fs/cgroup");
    let number = |path: &Path, name: &str| -> Option<u64> {
        fs::read_to_string(path.join(name)).ok()?.trim().parse().ok()
    };
    let path = mount.join(own);
    path.ancestors()
        .take_while(|path| path.starts_with(&mount))
        .filter_map(|path| {
            let limit = number(path, "memory.max")?;
            Some(limit.saturating_sub(number(path, "memory.current").unwrap_or(0)))
        })
        .min()
}

/// Bytes that this user may still write to the file system of `path`.
///
/// # Errors
/// [`Unavailable`] when statvfs(3) fails.
pub fn disk_bytes(path: &Path) -> Result<u64, Unavailable> {
    let stat = rustix::fs::statvfs(path).map_err(|error| Unavailable {
        source: "statvfs",
        cause: error.to_string(),
        remedy: "name a directory that exists".to_owned(),
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_counts() {
        assert!(memory_bytes().unwrap() > 0 && disk_bytes(Path::new("/")).is_ok());
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(memory_under(root.path()).is_err());
        put("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   1000 kB\n");
        assert_eq!(memory_under(root.path()).unwrap(), 1_024_000);
        put("proc/self/cgroup", "0::/a/b\n");
        put("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(memory_under(root.path()).unwrap(), 1_024_000);
        put("sys/fs/cgroup/a/memory.max", "5000\n");
        put("sys/fs/cgroup/a/memory.current", "1500\n");
        assert_eq!(memory_under(root.path()).unwrap(), 3_500);
    }
}
