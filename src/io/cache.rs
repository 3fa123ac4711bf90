//! The page cache of the very node that is used.
//!
//! Protects: what another host wrote is not in this host's cache, and what this host's cache still holds must be on
//! the disk before the device is given away. Does not protect: the caches of other nodes over the same disk (the
//! whole disk beside its partition, another path), and a filesystem that is still mounted.

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::node::{Access, DeviceKind, Node};
use super::transfer::read_whole;
use super::{Device, ioctl};
use crate::error::Error;

/// The operation that an [`Error::Io`] names when dirty pages could not be written: the kernel reports that once, and
/// then forgets it with the pages.
pub const FLUSH: &str = "write its page cache out";

/// How often cache and disk are compared before they are said to differ.
const CACHE_LOOKS: u32 = 3;

impl Device {
    /// Writes everything the page cache holds of it to stable storage, then drops the cache.
    ///
    /// For a device that still takes writes and is still ours: after a fence or once a lease has ended it must not be
    /// called, for it writes. Opens for reading only; dropping a block device's cache needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or its name belongs to another node by now, if anything could not be
    /// written, or if dropping is not permitted.
    pub fn flush(&self) -> Result<(), Error> {
        let node = self.node();
        let file = node.open(Access::Read, false)?;
        match node.kind {
            DeviceKind::Block { .. } => file.sync_all(),
            DeviceKind::File { .. } => file.sync_data(),
        }
        .map_err(|source| node.fail(FLUSH, source))?;
        drop_pages(node, &file)
    }

    /// Drops what the page cache holds of it, so that the next read comes from the disk: after a claim, before
    /// anything uses the device. Pages that are dirty all the same are written (a block device) or stay (a file).
    ///
    /// # Errors
    /// As [`Device::flush`].
    pub fn drop_cache(&self) -> Result<(), Error> {
        let node = self.node();
        let file = node.open(Access::Read, false)?;
        drop_pages(node, &file)
    }

    /// Reads what the page cache of this node shows, without dropping it.
    ///
    /// # Errors
    /// As [`Device::cache_agrees`].
    pub fn read_cached(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        let file = self.node().open(Access::Read, false)?;
        let whole = read_whole(&file, into, offset_bytes)
            .map_err(|source| self.node().fail("read through the page cache", source))?;
        if whole { Ok(()) } else { Err(self.short("the bytes in the page cache", offset_bytes)) }
    }

    /// Whether a reader through the page cache of this node sees what stands on the disk, in `length_bytes` bytes at
    /// `offset_bytes`. A cache that could not be dropped (something has its pages mapped) would show a mounting kernel
    /// an old MMP block. A difference counts only if it lasts: somebody may write meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`] if either cannot be read, [`Error::Short`] beyond the end.
    pub fn cache_agrees(&self, offset_bytes: u64, length_bytes: usize) -> Result<bool, Error> {
        let file = self.node().open(Access::Read, false)?;
        let (mut cached, mut on_disk) = (vec![0; length_bytes], vec![0; length_bytes]);
        for _ in 0..CACHE_LOOKS {
            let whole = read_whole(&file, &mut cached, offset_bytes)
                .map_err(|source| self.node().fail("read through the page cache", source))?;
            if !whole {
                return Err(self.short("the bytes compared with the page cache", offset_bytes));
            }
            self.read_at(offset_bytes, &mut on_disk)?;
            if cached == on_disk {
                return Ok(true);
            }
            drop_pages(self.node(), &file)?;
        }
        Ok(false)
    }
}

fn drop_pages(node: &Node, file: &std::fs::File) -> Result<(), Error> {
    match node.kind {
        DeviceKind::Block { .. } => ioctl::flush_buffers(file),
        DeviceKind::File { .. } => posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED),
    }
    .map_err(|source| node.fail("drop its page cache", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_file_keeps_its_bytes() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let image = dir.path().join("image");
        std::fs::write(&image, [7; 8192]).expect("writes");
        let device = Device::inspect(&image).expect("inspects");
        device.flush().expect("flushes");
        device.drop_cache().expect("drops");
        assert_eq!(std::fs::read(&image).expect("reads"), [7; 8192]);
    }

    #[test]
    fn another_file_under_the_name_is_refused() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let image = dir.path().join("image");
        std::fs::write(&image, [7; 8192]).expect("writes");
        let device = Device::inspect(&image).expect("inspects");
        std::fs::rename(&image, dir.path().join("moved")).expect("moves");
        std::fs::write(&image, [8; 8192]).expect("writes");
        assert!(matches!(device.flush(), Err(Error::Io { .. })));
        assert!(matches!(device.drop_cache(), Err(Error::Io { .. })));
    }
}
