//! What both guests share: process 1 mounts, judges, and powers off.

use std::fs;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

/// Counts what held and what did not.
#[derive(Debug, Default)]
pub struct Judge {
    held: u32,
    broken: u32,
}

impl Judge {
    /// A claim, whether it holds, and what was seen.
    pub fn that(&mut self, claim: &str, holds: bool, seen: &str) {
        let (mark, count) =
            if holds { ("held  ", &mut self.held) } else { ("BROKEN", &mut self.broken) };
        *count += 1;
        println!("{mark} {claim}: {seen}");
    }

    /// Prints the line that `.ci/qemu` reads, and ends the guest.
    pub fn power_off(self) -> ! {
        println!("judged: {} held, {} broken", self.held, self.broken);
        reboot(RebootCommand::PowerOff).expect("process 1 may power off");
        unreachable!("the guest is off")
    }
}

/// Mounts a file system without a device.
pub fn mounted(kind: &str, at: &str) {
    mounted_from(kind, kind, at);
}

/// Mounts a file system.
pub fn mounted_from(source: &str, kind: &str, at: &str) {
    fs::create_dir_all(at).expect("the initramfs is writable");
    mount(source, at, kind, MountFlags::empty(), None).expect("process 1 may mount");
}

/// The case that the kernel's command line names; needs /proc.
pub fn case() -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut words = line.split_whitespace();
    words.find_map(|word| word.strip_prefix("tailbeam.case=")).map(str::to_owned)
}
