//! The rung `shutdown`: the filesystem's own shutdown ioctl, without flushing its log.
//!
//! Protects: on XFS nothing is written afterwards. Does not protect on ext4, where the kernel's kmmpd writes a clean mark
//! and the block device's cache keeps dirty metadata that is flushed later: there it makes applications fail, no more, and
//! after a cut only. btrfs has no such ioctl.
//!
//! A descriptor on the mount would block its unmount, so the mount is looked for when the rung runs, in the helper: opening
//! it may hang. What is found must be the device's own by its number, as another filesystem may be mounted over it.
//!
//! Source: Linux `fs/xfs/libxfs/xfs_fs.h` (`XFS_IOC_GOINGDOWN`), `fs/ext4/ext4.h` (`EXT4_IOC_SHUTDOWN`),
//! `include/uapi/linux/f2fs.h` (`F2FS_IOC_SHUTDOWN`): one number, and 2 is "without log" for all of them.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::climb::{Effect, Ended, Rung};
use super::helper::Answer;
use super::{Ready, run_helper};
use crate::clock::Mono;
use crate::sys::mountinfo;
use crate::sys::target::TargetKind;

const WITHOUT_LOG: u32 = 2;
const MOUNTS: &str = "/proc/self/mountinfo";

mod raw {
    #![allow(missing_docs)]
    // The request code says that it reads; the kernel takes the flags from there.
    nix::ioctl_write_ptr_bad!(shutdown, nix::request_code_read!(b'X', 125, size_of::<u32>()), u32);
}

/// Whether the filesystem has the ioctl, and what it is good for there.
pub(super) fn prepare(device: TargetKind, filesystem: &str) -> Result<Ready, String> {
    if !matches!(device, TargetKind::Block { .. }) {
        return Err("an image file is mounted through a loop device, which is what to name".to_owned());
    }
    let lacks = match filesystem {
        "xfs" => None,
        "ext4" | "ext3" => {
            Some(format!("{filesystem} writes metadata and a clean mark after it; it helps after a cut only"))
        }
        "f2fs" => Some("what f2fs writes after it is not proved; it helps after a cut only".to_owned()),
        "" => return Err("which filesystem it is, is not known".to_owned()),
        other => return Err(format!("{other} has no shutdown ioctl that is known here")),
    };
    let description = format!("shuts {filesystem} down without flushing its log, where it is mounted");
    let rung = Shutdown { device, stills: stills(filesystem) };
    Ok(Ready { rung: Box::new(rung), description, cut: false, lacks })
}

/// Whether nothing is written any more after it.
pub(super) fn stills(filesystem: &str) -> bool {
    filesystem == "xfs"
}

/// Shuts down what is mounted of the device. May hang.
pub(super) fn shut_down(device: TargetKind) -> Answer {
    let TargetKind::Block { major, minor } = device else { return Err("is no block device".to_owned()) };
    let number = libc::makedev(major, minor);
    let table = std::fs::read(MOUNTS).map_err(|error| format!("{MOUNTS} cannot be read: {error}"))?;
    let mut why = None;
    for mount in mountinfo::parse(&table).into_iter().filter(|mount| mount.device == device) {
        match open(&mount.dir, number) {
            Ok(Some(root)) => {
                let flags = WITHOUT_LOG;
                // SAFETY: the descriptor is open and the kernel reads one u32, which outlives the call.
                unsafe { raw::shutdown(root.as_raw_fd(), &raw const flags) }
                    .map_err(|error| format!("{}: cannot be shut down: {error}", mount.dir.display()))?;
                return Ok(format!("{} is shut down", mount.dir.display()));
            }
            Ok(None) => why = Some(format!("{} is covered by another mount", mount.dir.display())),
            Err(error) => why = Some(format!("{}: {error}", mount.dir.display())),
        }
    }
    Err(why.unwrap_or_else(|| "it is mounted nowhere that this process sees".to_owned()))
}

struct Shutdown {
    device: TargetKind,
    stills: bool,
}

impl Rung for Shutdown {
    fn effect(&self) -> Effect {
        if self.stills { Effect::Stills } else { Effect::HelpsAfterCut }
    }

    fn run(&mut self, until: Mono) -> Ended {
        let device = self.device;
        run_helper(&[], until, false, || shut_down(device))
    }
}

/// Opens the root of a mount; `None` if another filesystem is found there.
fn open(dir: &Path, number: u64) -> std::io::Result<Option<File>> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let root = OpenOptions::new().read(true).custom_flags(flags).open(dir)?;
    Ok((root.metadata()?.dev() == number).then_some(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: TargetKind = TargetKind::Block { major: 4095, minor: 1_048_575 };

    #[test]
    fn filesystems_differ_in_what_it_is_good_for() {
        let effect = |filesystem| {
            prepare(DEVICE, filesystem).map(|ready| (ready.rung.effect(), ready.lacks.is_none()))
        };
        assert_eq!(effect("xfs"), Ok((Effect::Stills, true)));
        for other in ["ext4", "ext3", "f2fs"] {
            assert_eq!(effect(other), Ok((Effect::HelpsAfterCut, false)), "{other}");
        }
        assert!(effect("btrfs").unwrap_err().contains("btrfs has no shutdown ioctl"));
        assert!(effect("").unwrap_err().contains("not known"));
        assert!(prepare(TargetKind::File { device: 1, inode: 1 }, "xfs").is_err());
    }

    #[test]
    fn what_is_not_mounted_is_told() {
        assert_eq!(shut_down(DEVICE), Err("it is mounted nowhere that this process sees".to_owned()));
    }

    #[test]
    fn the_request_is_the_headers() {
        assert_eq!(nix::request_code_read!(b'X', 125, size_of::<u32>()), 0x8004_587D);
    }

    #[test]
    fn another_filesystem_at_the_place_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let number = std::fs::metadata(dir.path()).unwrap().dev();
        assert!(open(dir.path(), number).unwrap().is_some());
        assert!(open(dir.path(), number + 1).unwrap().is_none());
        assert!(open(Path::new("/dev/null"), number).is_err());
    }
}
