//! Opening a device or an image file, and being sure that it is still the one that was inspected.
//!
//! Protects: the kind is known before anything is opened (opening a fifo would wait for ever, opening a tape would
//! rewind it); what a path names may change between two opens, and a changed one is refused. Does not protect: an
//! image file that was removed and made again under the same inode number looks the same.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::ioctl;
use crate::error::Error;

/// Which node a path names, by the numbers that stay the same when the name changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A block device.
    Block {
        /// Its driver's number.
        major: u32,
        /// Its number at that driver.
        minor: u32,
    },
    /// A regular file: an image.
    File {
        /// The number of the filesystem it lies on (`st_dev`).
        device: u64,
        /// Its inode number there.
        inode: u64,
    },
}

impl DeviceKind {
    /// The block device with the number `rdev`, as `st_rdev` and `LOOP_GET_STATUS64` give it.
    pub(crate) fn block(rdev: u64) -> Self {
        DeviceKind::Block { major: libc::major(rdev), minor: libc::minor(rdev) }
    }

    /// Reads `MAJOR:MINOR`, as mountinfo and the `dev` files of sysfs have it.
    pub(crate) fn parse_block(text: &[u8]) -> Option<Self> {
        let (major, minor) = std::str::from_utf8(text).ok()?.trim_end().split_once(':')?;
        Some(DeviceKind::Block { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// Finds out what `path` is: its real path and its kind. Opens nothing, so it cannot disturb a device.
///
/// # Errors
/// [`Error::Io`] if the path leads nowhere, [`Error::WrongKind`] if it is neither a block device nor a regular file.
pub(crate) fn find(path: &Path) -> Result<(PathBuf, DeviceKind), Error> {
    let fail = |source| Error::io("find it", path, source);
    let real = fs::canonicalize(path).map_err(fail)?;
    let metadata = fs::metadata(&real).map_err(fail)?;
    let kind = kind_of(&metadata).map_err(|what| Error::WrongKind { path: path.to_owned(), what })?;
    Ok((real, kind))
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// How to open a device again.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// As the user gave it: for messages.
    pub(super) shown: PathBuf,
    /// The real node, no symbolic link.
    pub(super) real: PathBuf,
    pub(super) kind: DeviceKind,
}

impl Node {
    /// As [`find`].
    pub(super) fn find(path: &Path) -> Result<Node, Error> {
        let (real, kind) = find(path)?;
        Ok(Node { shown: path.to_owned(), real, kind })
    }

    /// Opens it, if it still is the node that was found.
    ///
    /// # Errors
    /// As [`BlockStore::open_for_writing`](super::BlockStore::open_for_writing) for writing; for reading [`Error::Io`].
    pub(super) fn open(&self, access: Access, direct: bool) -> Result<File, Error> {
        let file = self.open_file(access, direct).map_err(|source| self.explain(access, source))?;
        let metadata = file.metadata().map_err(|source| self.fail("look at it", source))?;
        if kind_of(&metadata) != Ok(self.kind) {
            let source = io::Error::other("this name belongs to another device or file than before");
            return Err(self.fail("open it again", source));
        }
        // A write-protected block device opens for writing all the same; only its writes fail.
        if access == Access::Write
            && matches!(self.kind, DeviceKind::Block { .. })
            && ioctl::is_read_only(&file)
                .map_err(|source| self.fail("ask for its write protection", source))?
        {
            return Err(Error::ReadOnly { path: self.shown.clone() });
        }
        Ok(file)
    }

    /// Tries whether it opens for direct reading; says no more than that.
    pub(super) fn opens_direct(&self) -> bool {
        self.open_file(Access::Read, true).is_ok()
    }

    /// An I/O error about it.
    pub(super) fn fail(&self, op: &'static str, source: impl Into<io::Error>) -> Error {
        Error::io(op, &self.shown, source)
    }

    fn open_file(&self, access: Access, direct: bool) -> io::Result<File> {
        // O_NONBLOCK and O_NOCTTY: whatever took the name's place, opening it neither waits nor changes anything.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | if direct { libc::O_DIRECT } else { 0 };
        // The standard library adds O_CLOEXEC and repeats an interrupted open.
        OpenOptions::new().read(true).write(access == Access::Write).custom_flags(flags).open(&self.real)
    }

    fn explain(&self, access: Access, source: io::Error) -> Error {
        if access == Access::Read {
            return self.fail("open it for reading", source);
        }
        match source.raw_os_error() {
            Some(libc::EROFS) => Error::ReadOnly { path: self.shown.clone() },
            Some(libc::EBUSY | libc::EPERM)
                if matches!(self.kind, DeviceKind::Block { .. }) && kernel_refuses_mounted_writes() =>
            {
                let what = "it is mounted here, and this kernel lets nobody else write to a mounted device; \
                            boot it with bdev_allow_write_mounted=1";
                Error::Unsupported { path: self.shown.clone(), what: what.to_owned() }
            }
            _ => self.fail("open it for writing", source),
        }
    }
}

/// What a node is, or which wrong thing.
fn kind_of(metadata: &Metadata) -> Result<DeviceKind, &'static str> {
    let kind = metadata.file_type();
    if kind.is_block_device() {
        Ok(DeviceKind::block(metadata.rdev()))
    } else if kind.is_file() {
        Ok(DeviceKind::File { device: metadata.dev(), inode: metadata.ino() })
    } else if kind.is_dir() {
        Err("a directory")
    } else if kind.is_fifo() {
        Err("a fifo")
    } else if kind.is_socket() {
        Err("a socket")
    } else if kind.is_char_device() {
        Err("a character device")
    } else {
        Err("something unknown")
    }
}

/// Whether this kernel refuses to open a mounted block device for writing (`bdev_allow_write_mounted`, Linux 6.8).
/// The kernel shows that nowhere but on its command line and in its build configuration.
pub(crate) fn kernel_refuses_mounted_writes() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let config = fs::read_to_string(format!("/boot/config-{release}"))
        .or_else(|_| fs::read_to_string(format!("/lib/modules/{release}/config")))
        .unwrap_or_default();
    refuses_mounted_writes(&fs::read_to_string("/proc/cmdline").unwrap_or_default(), &config)
}

/// As [`kernel_refuses_mounted_writes`], from the texts. The last word on the command line counts, as for the kernel;
/// without one the build's; without that, it allows them.
fn refuses_mounted_writes(command_line: &str, config: &str) -> bool {
    command_line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("bdev_allow_write_mounted="))
        .filter_map(kernel_bool)
        .next_back()
        .map_or_else(
            || config.lines().any(|line| line == "# CONFIG_BLK_DEV_WRITE_MOUNTED is not set"),
            |allowed| !allowed,
        )
}

/// `kstrtobool` of the kernel: the first letter decides, or the second of "on" and "off".
fn kernel_bool(text: &str) -> Option<bool> {
    let mut letters = text.bytes().map(|byte| byte.to_ascii_lowercase());
    match (letters.next()?, letters.next()) {
        (b'y' | b't' | b'1', _) | (b'o', Some(b'n')) => Some(true),
        (b'n' | b'f' | b'0', _) | (b'o', Some(b'f')) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_kind(path: &Path) -> &'static str {
        match Node::find(path).expect_err("is no device") {
            Error::WrongKind { what, .. } => what,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_no_device_is_refused_unopened() {
        let dir = tempfile::tempdir().expect("makes a directory");
        assert_eq!(wrong_kind(dir.path()), "a directory");
        assert_eq!(wrong_kind(Path::new("/dev/null")), "a character device");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("makes a fifo");
        assert_eq!(wrong_kind(&fifo), "a fifo");
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
        assert_eq!(wrong_kind(&socket), "a socket");
        let error = Node::find(&dir.path().join("missing")).expect_err("is missing").to_string();
        assert!(error.contains("missing: cannot find it: No such file"), "{error}");
    }

    #[test]
    fn a_link_leads_to_the_real_node_and_keeps_its_name_for_messages() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let (image, link) = (dir.path().join("image"), dir.path().join("link"));
        fs::write(&image, "x").expect("writes");
        std::os::unix::fs::symlink(&image, &link).expect("links");
        let node = Node::find(&link).expect("is a file");
        assert_eq!(node.shown, link);
        assert_eq!(node.real, fs::canonicalize(&image).expect("exists"));
    }

    #[test]
    fn a_replaced_node_is_refused_whatever_took_its_place() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let (image, other) = (dir.path().join("image"), dir.path().join("other"));
        fs::write(&image, "x").expect("writes");
        let node = Node::find(&image).expect("is a file");
        node.open(Access::Read, false).expect("opens");
        fs::write(&other, "x").expect("writes");
        fs::rename(&other, &image).expect("renames");
        let error = node.open(Access::Read, false).expect_err("is another").to_string();
        assert!(error.contains("cannot open it again: this name belongs to another"), "{error}");
        fs::remove_file(&image).expect("removes");
        nix::unistd::mkfifo(&image, nix::sys::stat::Mode::S_IRUSR).expect("makes a fifo");
        let error = node.open(Access::Read, false).expect_err("is a fifo").to_string();
        assert!(error.contains("cannot open it again"), "{error}");
    }

    #[test]
    fn whether_mounted_devices_may_be_written_is_the_last_word_said() {
        let unset = "CONFIG_BLOCK=y\n# CONFIG_BLK_DEV_WRITE_MOUNTED is not set\n";
        let set = "CONFIG_BLK_DEV_WRITE_MOUNTED=y\n";
        assert!(refuses_mounted_writes("quiet", unset));
        assert!(!refuses_mounted_writes("quiet", set));
        assert!(!refuses_mounted_writes("", ""));
        assert!(refuses_mounted_writes("quiet bdev_allow_write_mounted=0\n", set));
        assert!(!refuses_mounted_writes("bdev_allow_write_mounted=off bdev_allow_write_mounted=on", unset));
        assert!(refuses_mounted_writes("bdev_allow_write_mounted=nonsense", unset));
    }

    #[test]
    fn a_busy_mounted_device_is_explained_only_where_the_kernel_is_the_reason() {
        let node = Node {
            shown: "/dev/sdz".into(),
            real: "/dev/sdz".into(),
            kind: DeviceKind::Block { major: 8, minor: 16 },
        };
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let explained = matches!(node.explain(Access::Write, busy()), Error::Unsupported { .. });
        assert_eq!(explained, kernel_refuses_mounted_writes());
        assert!(matches!(node.explain(Access::Read, busy()), Error::Io { .. }));
        let protected = io::Error::from_raw_os_error(libc::EROFS);
        assert!(matches!(node.explain(Access::Write, protected), Error::ReadOnly { .. }));
    }
}
