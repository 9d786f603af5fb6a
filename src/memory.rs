//! How much memory this process may still take, so that what is far too large is refused in words: an allocation that
//! fails ends the program.

/// Bytes that are left, by the smallest of the limits that this system tells: what it has free, the process's own limit of
/// addresses, and that of its container. `None` where it tells none.
pub fn left() -> Option<u64> {
    let limits = [system(), addresses(), container()];
    limits.into_iter().flatten().min()
}

/// What Linux thinks can be had without swapping.
fn system() -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// `ulimit -v`, less what is mapped.
#[cfg(unix)]
fn addresses() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let mapped = kib(&std::fs::read_to_string("/proc/self/status").ok()?, "VmSize:")?;
    Some(limit.saturating_sub(mapped))
}

#[cfg(not(unix))]
fn addresses() -> Option<u64> {
    None
}

/// The limit of a container (cgroup v2), less what it has taken and could not give back.
fn container() -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok();
    // `max` where there is no limit.
    let limit: u64 = read("max")?.trim().parse().ok()?;
    let taken: u64 = read("current")?.trim().parse().ok()?;
    let cached = read("stat")?;
    let cached = cached.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
    Some(limit.saturating_sub(taken.saturating_sub(cached.unwrap_or(0))))
}

/// The bytes of a line that counts in kB.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system_are_read() {
        let text = "MemTotal:       24619124 kB\nMemAvailable:   23015604 kB\nHugePages_Total:       0\n";
        assert_eq!(kib(text, "MemAvailable:"), Some(23_015_604 * 1024));
        assert_eq!(kib(text, "HugePages_Total:"), None);
        assert_eq!(kib(text, "SwapFree:"), None);
        #[cfg(target_os = "linux")]
        assert!(left().is_some_and(|bytes| bytes > 1 << 20));
    }
}
