//! The exclusive hold on a device that nothing else uses.
//!
//! Protects: while it lives, the kernel refuses to mount, swap on or stack anything on the block device, its
//! partitions and its whole disk included. That is the kernel's own claim (`bd_prepare_to_claim`), so it also sees
//! users that nothing lists, a lazily unmounted filesystem above all. Does not protect: a plain open and a loop
//! device over the device succeed beside it; those are looked for by `users`.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use nix::errno::Errno;

use super::target::{Target, TargetKind};
use crate::Error;

/// Keeps a device free of new users until it is dropped.
///
/// A block device is open `O_RDONLY | O_EXCL`: reading is all that the kernel asks of an exclusive opener, and closing
/// such a descriptor does not wake udev as closing a writable one would.
///
/// For a file there is no such claim, and this is only a descriptor that keeps the inode. A `flock` would be for show:
/// neither the loop driver nor mount(8), qemu or a plain writer asks for it. A write lease (`F_SETLEASE`) would do, but
/// counts our own writable descriptor of the file as a rival. What is left is the scan made while this was open.
#[derive(Debug)]
pub struct ExclusiveHold {
    file: File,
    complete: bool,
}

impl ExclusiveHold {
    /// Tries to take the hold; `None` if the kernel says that the device is claimed.
    ///
    /// `O_NONBLOCK` keeps it from waiting for a medium or for a lease on a file. It still runs the driver's open, which
    /// some drivers delay while they recover from an error (SCSI): that is no scan but a use of the device, and may
    /// take as long as one.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened for another reason, or if the path has come to mean another device.
    pub(super) fn take(target: &Target) -> Result<Option<ExclusiveHold>, Error> {
        let (exclusive, op) = match target.kind {
            TargetKind::Block { .. } => (libc::O_EXCL, "open it exclusively"),
            TargetKind::File { .. } => (0, "open it"),
        };
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(exclusive | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(&target.canonical);
        let file = match opened {
            Ok(file) => file,
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EBUSY) => return Ok(None),
                // Somebody holds a lease on the file and is being asked to give it up.
                Some(Errno::EWOULDBLOCK) => return Ok(None),
                _ => return Err(Error::io(op, &target.canonical, error)),
            },
        };
        let metadata = file.metadata().map_err(|error| Error::io(op, &target.canonical, error))?;
        let kind = if metadata.file_type().is_block_device() {
            TargetKind::block(metadata.rdev())
        } else {
            TargetKind::File { device: metadata.dev(), inode: metadata.ino() }
        };
        if kind != target.kind {
            let changed = std::io::Error::other("the path leads to another device than before");
            return Err(Error::io(op, &target.canonical, changed));
        }
        Ok(Some(ExclusiveHold { file, complete: true }))
    }

    /// Records how the search made under it ended.
    pub(super) fn searched(self, complete: bool) -> ExclusiveHold {
        ExclusiveHold { complete, ..self }
    }

    /// False if the search that found no users could not see everything: processes of other users (without root),
    /// of other PID namespaces or hidden by `hidepid`, or the mappings of one that is stuck. Mounts, swap space,
    /// and what stands on a block device were seen in any case. Worth saying once.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }
}

impl AsFd for ExclusiveHold {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, b"one").unwrap();
        let target = Target::of(&path).unwrap();
        let hold = ExclusiveHold::take(&target).unwrap();
        assert!(hold.is_some());
        let other = dir.path().join("other");
        std::fs::write(&other, b"two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(ExclusiveHold::take(&target), Err(Error::Io { .. })));
    }
}
