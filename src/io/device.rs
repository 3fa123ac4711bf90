//! A device or image file, described without keeping a descriptor.
//!
//! Protects: learning what a path is opens it once, for reading, and closes it again. Does not protect: what was
//! learnt is of that moment; a device may become write-protected or another one may take its name (each later open
//! checks both).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::direct::{FileAccess, file_access};
use super::ioctl;
use super::node::{Access, DeviceKind, Node};
use super::transfer::read_span;
use crate::error::Error;

/// A device or image file, described without keeping a descriptor.
#[derive(Clone, Debug)]
pub struct Device {
    node: Node,
    kernel_name: String,
    size_bytes: u64,
    access: FileAccess,
    read_only: bool,
}

impl Device {
    /// Finds out what `path` is: opens it once for reading and closes it again.
    ///
    /// # Errors
    /// [`Error::WrongKind`] for anything but a block device or a regular file, which is not even opened;
    /// [`Error::Io`] if it cannot be found, opened or asked; [`Error::Unsupported`] for a file on a network
    /// filesystem without direct I/O.
    pub fn inspect(path: &Path) -> Result<Device, Error> {
        Device::inspect_by(path, |node, _, _| node.opens_direct()).map(|(device, _)| device)
    }

    /// As [`Device::inspect`], with the descriptor that it was asked by, open for reading. `opens_direct` tries whether a file can be read
    /// past the page cache, and is told whether only that shows what other hosts write.
    pub(super) fn inspect_by(
        path: &Path,
        opens_direct: impl FnOnce(&Node, &File, bool) -> bool,
    ) -> Result<(Device, File), Error> {
        let node = Node::find(path)?;
        let file = node.open(Access::Read, false)?;
        let fail = |source| node.fail("ask for its size and alignment", source);
        let size_bytes = size_of(&node, &file)?;
        let (access, read_only) = match node.kind {
            DeviceKind::Block { .. } => {
                let sector_bytes = ioctl::sector_bytes(&file).map_err(fail)?;
                let access = FileAccess { sector_bytes, direct: true, shared: true };
                let read_only = ioctl::is_read_only(&file).map_err(fail)?;
                (access, read_only)
            }
            DeviceKind::File { .. } => {
                // EPERM: the file is marked immutable.
                let read_only = matches!(may_write(&node.real), Err(Errno::EROFS | Errno::EPERM));
                (file_access(&node, &file, |shared| opens_direct(&node, &file, shared))?, read_only)
            }
        };
        Ok((Device { kernel_name: kernel_name(&node), node, size_bytes, access, read_only }, file))
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.node.shown
    }

    /// The real node: no symbolic link.
    #[must_use]
    pub fn canonical(&self) -> &Path {
        &self.node.real
    }

    /// The kernel's name for a block device ("sdb1", "loop0", "dm-3"), the base name of an image file.
    #[must_use]
    pub fn kernel_name(&self) -> String {
        self.kernel_name.clone()
    }

    /// Which node it is.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        self.node.kind
    }

    /// Its size in bytes; 0 for a loop device without a file.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What offsets and lengths of direct I/O must be multiples of: a block device's logical block size, what
    /// `statx(STATX_DIOALIGN)` asks for on a file, 1 on a buffered file.
    #[must_use]
    pub fn sector_bytes(&self) -> u32 {
        self.access.sector_bytes
    }

    /// Whether it is write-protected: the device, the filesystem an image lies on, or an immutable image. Missing
    /// permission is something else: see [`check_writable`](Device::check_writable).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether it is read and written with `O_DIRECT`: every block device, and files where the filesystem allows it.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.access.direct
    }

    /// Says now, without opening it for writing, why it could not be written later: a claim should not wait first
    /// and find that out afterwards.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if it is write-protected, [`Error::Io`] if this process lacks the permission.
    pub fn check_writable(&self) -> Result<(), Error> {
        if self.read_only {
            return Err(Error::ReadOnly { path: self.node.shown.clone() });
        }
        match may_write(&self.node.real) {
            Ok(()) => Ok(()),
            Err(Errno::EROFS) => Err(Error::ReadOnly { path: self.node.shown.clone() }),
            Err(source) => Err(self.node.fail("open it for writing", source)),
        }
    }

    /// Opens it for writing, and closes it again: the kernel may refuse that for a device that is mounted
    /// (`bdev_allow_write_mounted=0`). Wakes udev once.
    ///
    /// # Errors
    /// As [`BlockStore::open_for_writing`](super::BlockStore::open_for_writing).
    pub fn check_writable_while_mounted(&self) -> Result<(), Error> {
        self.node.open(Access::Write, self.access.direct).map(drop)
    }

    /// Reads `into.len()` bytes at `offset_bytes`, any offset and any length, through a descriptor that is closed
    /// again. On a direct device it comes from the disk.
    ///
    /// # Errors
    /// [`Error::Short`] if the device ends before; [`Error::Io`] if it cannot be opened or read, or is no longer the
    /// same node.
    pub fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        let file = self.node.open(Access::Read, self.access.direct)?;
        let whole = read_span(&file, self.access.sector_bytes, offset_bytes, into)
            .map_err(|source| self.node.fail("read it", source))?;
        if whole { Ok(()) } else { Err(self.short(&format!("{} bytes", into.len()), offset_bytes)) }
    }

    /// Its size in bytes as it is now: it may have been grown since it was inspected.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or asked, or is no longer the same node.
    pub fn size_now_bytes(&self) -> Result<u64, Error> {
        size_of(&self.node, &self.node.open(Access::Read, false)?)
    }

    /// The size of the node that `file` was opened from.
    pub(super) fn size_of(&self, file: &File) -> Result<u64, Error> {
        size_of(&self.node, file)
    }

    /// How to open it again.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// How it is read and written.
    pub(super) fn access(&self) -> FileAccess {
        self.access
    }

    /// The error that says that `what` at `offset_bytes` lies beyond the end.
    pub(super) fn short(&self, what: &str, offset_bytes: u64) -> Error {
        let what = format!("{what} at byte {offset_bytes} end beyond its {} bytes", self.size_bytes);
        Error::Short { path: self.node.shown.clone(), what }
    }
}

fn size_of(node: &Node, file: &File) -> Result<u64, Error> {
    match node.kind {
        DeviceKind::Block { .. } => {
            ioctl::size_bytes(file).map_err(|source| node.fail("ask for its size and alignment", source))
        }
        DeviceKind::File { .. } => {
            file.metadata().map(|metadata| metadata.len()).map_err(|source| node.fail("look at it", source))
        }
    }
}

/// Whether this process could open it for writing, without doing so: by its effective identity, in one system call where there is one.
fn may_write(path: &Path) -> nix::Result<()> {
    faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS)
}

/// The name under which the kernel's log speaks of it.
fn kernel_name(node: &Node) -> String {
    let base = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = match node.kind {
        DeviceKind::Block { major, minor } => {
            let link: PathBuf = format!("/sys/dev/block/{major}:{minor}").into();
            // sysfs writes '!' where a name has a '/' ("cciss!c0d0").
            fs::read_link(link).ok().and_then(|target| base(&target)).map(|name| name.replace('!', "/"))
        }
        DeviceKind::File { .. } => None,
    };
    name.or_else(|| base(&node.real)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_image_file_is_described() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let image = dir.path().join("disk.img");
        fs::write(&image, vec![3; 10_000]).expect("writes");
        let device = Device::inspect(&image).expect("is a file");
        assert_eq!(device.path(), image);
        assert_eq!(device.kernel_name(), "disk.img");
        assert_eq!(device.size_bytes(), 10_000);
        assert_eq!(device.is_direct(), device.sector_bytes() > 1);
        assert!(matches!(device.kind(), DeviceKind::File { .. }));
        assert!(!device.is_read_only());
        device.check_writable().expect("is writable");
    }

    #[test]
    fn any_span_can_be_read_up_to_the_very_end() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let image = dir.path().join("disk.img");
        let bytes: Vec<u8> = (0..10_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        fs::write(&image, &bytes).expect("writes");
        let device = Device::inspect(&image).expect("is a file");
        for (at, len) in [(0, 10_000), (1024, 1024), (9_999, 1), (511, 3)] {
            let mut into = vec![0; len];
            device.read_at(at as u64, &mut into).expect("reads");
            assert_eq!(into, bytes[at..at + len]);
        }
        assert!(matches!(device.read_at(9_999, &mut [0; 2]), Err(Error::Short { .. })));
        assert!(device.read_at(u64::MAX - 1, &mut [0; 2]).is_err());
    }

    #[test]
    fn a_file_without_permission_is_not_read_only_but_refused() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let image = dir.path().join("disk.img");
        fs::write(&image, [0; 4096]).expect("writes");
        fs::set_permissions(&image, fs::Permissions::from_mode(0o400)).expect("sets");
        let device = Device::inspect(&image).expect("is readable");
        assert!(!device.is_read_only());
        // root may write whatever the mode says.
        assert_eq!(device.check_writable().is_ok(), nix::unistd::geteuid().is_root());
    }
}
