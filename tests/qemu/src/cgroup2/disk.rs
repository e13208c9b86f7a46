//! A disk, as faults of disks and caches that can be taken back need one: NVMe and ext4 are part of the guest's kernel.

use std::path::Path;
use std::process::Command;

use tailbeam_qemu::{Judge, mounted_from};

use crate::places::{DISK, within};

const DEVICE: &str = "/dev/nvme0n1";

/// Makes a file system and mounts it.
pub(crate) fn made(judge: &mut Judge) {
    let there = within(10_000, || Path::new(DEVICE).exists());
    let made = Command::new("/bin/busybox").args(["mke2fs", DEVICE]).output();
    let made = made.map(|output| output.status.success());
    judge.that("the guest has a disk", there && made.is_ok_and(|made| made), DEVICE);
    mounted_from(DEVICE, "ext4", DISK);
}
