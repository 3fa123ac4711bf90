//! Loop devices over a file or a device.
//!
//! Protects: a loop device over a device neither needs nor takes the exclusive claim, so only this search finds it.
//! What backs a loop device is asked of the driver, by identity; its name is a fallback, because it may have been
//! deleted, renamed, or mean another file in another mount namespace. Does not protect: a loop device that this
//! process may not open and whose name does not lead to its backing from here stays unseen.
//!
//! Source: Linux `include/uapi/linux/loop.h`, `drivers/block/loop.c` (`loop_get_status`).

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::sysfs::{LoopDevice, Sysfs};
use super::target::{TargetKind, identify};

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232);

nix::ioctl_read_bad!(loop_get_status64, 0x4C05, LoopInfo64);

/// True of a loop device that goes when it is closed for the last time, as mount(8) makes one for the option `loop`.
#[must_use]
pub fn goes_when_closed(device: &Path) -> bool {
    let dir = identify(device).ok().flatten().and_then(|kind| Sysfs::host().dir_of(kind));
    let flag = dir.and_then(|dir| std::fs::read(dir.join("loop/autoclear")).ok());
    flag.is_some_and(|text| text.trim_ascii() == b"1")
}

/// What the loop device is backed by; `None` if it is unbound meanwhile or cannot be told.
/// May hang (the driver asks the filesystem of the backing file): run it within `bounded`.
pub(super) fn backing_of(found: &LoopDevice) -> Option<TargetKind> {
    let Some(device) = open(found) else { return identify(&found.backing).ok().flatten() };
    let mut info = std::mem::MaybeUninit::<LoopInfo64>::zeroed();
    // SAFETY: the descriptor is open for the length of the call and the driver fills one loop_info64.
    unsafe { loop_get_status64(device.as_raw_fd(), info.as_mut_ptr()) }.ok()?;
    // SAFETY: zeroed at first, and every bit pattern of this plain C structure is valid.
    Some(backing(&unsafe { info.assume_init() }))
}

/// Opens the device for reading; `None` if that is not allowed, or the node of its name is another device's.
fn open(found: &LoopDevice) -> Option<File> {
    let device = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(Path::new("/dev").join(&found.device.name))
        .ok()?;
    let rdev = device.metadata().ok()?.rdev();
    (TargetKind::block(rdev) == found.device.kind).then_some(device)
}

/// Over a file, `lo_rdevice` is no device: 0 (seen on Linux 6.18), or the file's own `st_dev` once more (older drivers).
/// Taking that for the backing device would make every loop device over a file a user of the disk it is stored on.
fn backing(info: &LoopInfo64) -> TargetKind {
    if info.rdevice == 0 || info.rdevice == info.device {
        TargetKind::File { device: info.device, inode: info.inode }
    } else {
        TargetKind::block(info.rdevice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_on_a_disk_is_not_that_disk() {
        // SAFETY: every bit pattern of this plain C structure is valid.
        let mut info: LoopInfo64 = unsafe { std::mem::zeroed() };
        (info.device, info.rdevice, info.inode) = (libc::makedev(8, 1), libc::makedev(8, 1), 42);
        let file = TargetKind::File { device: libc::makedev(8, 1), inode: 42 };
        assert_eq!(backing(&info), file);
        info.rdevice = 0;
        assert_eq!(backing(&info), file);
        info.rdevice = libc::makedev(7, 300);
        assert_eq!(backing(&info), TargetKind::Block { major: 7, minor: 300 });
    }
}
