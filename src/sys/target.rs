//! Which device or file is asked about, and whether another path or descriptor leads to the same one.
//!
//! Protects: names are never compared where identities can be: a block device is its number, a file its filesystem
//! and inode. Does not protect: two device numbers over one disk (the paths of a multipath device, two loop devices
//! over one file) are two devices here, as they are for the kernel.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// A block device or an image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The path without symbolic links.
    pub canonical: PathBuf,
    /// Which one it is.
    pub kind: TargetKind,
}

/// The identity of a [`Target`].
pub use crate::io::DeviceKind as TargetKind;

impl Target {
    /// Finds out what `path` is. Opens nothing, so it cannot disturb a device.
    ///
    /// # Errors
    /// [`Error::Io`] if the path leads nowhere, [`Error::WrongKind`] if it is neither a block device nor a regular file.
    pub fn of(path: &Path) -> Result<Target, Error> {
        let (canonical, kind) = crate::io::find(path)?;
        Ok(Target { canonical, kind })
    }
}

impl From<&crate::io::Device> for Target {
    /// The node that was inspected: its path is not looked up again, so it cannot have come to mean another one.
    fn from(device: &crate::io::Device) -> Target {
        Target { canonical: device.canonical().to_owned(), kind: device.kind() }
    }
}

/// What `path` leads to; `None` if it is neither a block device nor a regular file. Follows symbolic links, the
/// magic ones of `/proc/PID/fd` included.
///
/// Asks for cached attributes only (`AT_STATX_DONT_SYNC`) and triggers no automount, so that a dead file server is
/// not asked. Kernels before 6.0 may ask it all the same (`nfs_weak_revalidate`), and cluster filesystems take their
/// lock regardless: callers run this within `bounded`.
pub(super) fn identify(path: &Path) -> io::Result<Option<TargetKind>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` is NUL-terminated and `found` is a writable statx buffer; both outlive the call.
    let status = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT,
            libc::STATX_TYPE | libc::STATX_INO,
            found.as_mut_ptr(),
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed at first, and every bit pattern of this plain C structure is valid.
    let found = unsafe { found.assume_init() };
    Ok(match u32::from(found.stx_mode) & libc::S_IFMT {
        libc::S_IFBLK => Some(TargetKind::Block { major: found.stx_rdev_major, minor: found.stx_rdev_minor }),
        libc::S_IFREG => Some(TargetKind::File {
            device: libc::makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_by_every_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        std::fs::write(&file, b"x").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let hard = dir.path().join("hard");
        std::fs::hard_link(&file, &hard).unwrap();
        let target = Target::of(&file).unwrap();
        assert_eq!(Target::of(&link).unwrap(), target);
        assert_eq!(Target::of(&hard).unwrap().kind, target.kind);
        assert_eq!(identify(&hard).unwrap(), Some(target.kind));
        assert_eq!(Target::from(&crate::io::Device::inspect(&link).unwrap()), target);
        assert_eq!(identify(dir.path()).unwrap(), None);
    }

    #[test]
    fn what_is_no_device_is_named() {
        let what = |path: &Path| match Target::of(path) {
            Err(Error::WrongKind { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(what(dir.path()), "a directory");
        assert_eq!(what(Path::new("/dev/null")), "a character device");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(what(&fifo), "a fifo");
        assert!(matches!(Target::of(&dir.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn device_numbers_are_read() {
        assert_eq!(TargetKind::parse_block(b"259:7\n"), Some(TargetKind::Block { major: 259, minor: 7 }));
        for bad in [&b""[..], b"7", b":", b"a:b", b"1:2:3", b"-1:2", b"99999999999:0", b"\xff:1"] {
            assert_eq!(TargetKind::parse_block(bad), None, "{bad:?}");
        }
    }
}
