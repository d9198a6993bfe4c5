//! What the kernel knows of this process (proc(5)).
//!
//! Knows: files below /proc. Must not know: who wants the numbers.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs;

/// What is known; a system without /proc, or a chroot, leaves all of it out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessState {
    /// Processor time in seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory in use, in bytes.
    pub resident: Option<u64>,
    /// Address space, in bytes.
    pub address_space: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open files.
    pub open_files: Option<usize>,
}

/// Reads it. Blocks for as long as the kernel takes to list the open files.
pub fn state() -> ProcessState {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
    };
    // It counts in KiB, by the name of kB.
    let bytes = |name: &str| number(name).map(|kib| kib << 10);
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    ProcessState {
        cpu_seconds: usage.map(|usage| seconds(usage.user_time()) + seconds(usage.system_time())),
        resident: bytes("VmRSS"),
        address_space: bytes("VmSize"),
        threads: number("Threads"),
        // One of them is the folder itself.
        open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1)),
    }
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of two centuries fit")]
fn seconds(time: TimeVal) -> f64 {
    time.num_microseconds() as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_this_process() {
        let ProcessState { cpu_seconds, resident, address_space, threads, open_files } = state();
        assert!(cpu_seconds.is_some_and(|seconds| (0.0..100_000.0).contains(&seconds)));
        assert!(resident.zip(address_space).is_some_and(|(used, all)| (1 << 20..all).contains(&used)));
        assert!(threads.is_some_and(|threads| threads >= 1) && open_files.is_some_and(|files| files >= 3));
    }
}
