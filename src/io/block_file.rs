//! The MMP block of a native filesystem, on a device or in an image file.
//!
//! Protects: one read and one write of the whole filesystem block, from and to the disk; the bytes behind the struct
//! are written as they were last read; a look without a kept descriptor leaves none behind. Does not protect: between
//! a look and a write anybody may write; that it was soon enough is `protocol`'s business.

use std::fs::File;
use std::io;

use super::Device;
use super::arena::Arena;
use super::look::Look;
use super::node::Access;
use super::store::{BlockStore, Durability};
use super::transfer::{read_span, read_whole, write_block};
use crate::error::Error;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};
use crate::format::{Image, MMP_STRUCT_BYTES};

/// The largest block of ext4, in bytes.
const BLOCK_BYTES_MAX: u32 = 65_536;

/// The MMP block of a native filesystem on a device.
#[derive(Debug)]
pub struct BlockFile {
    device: Device,
    offset_bytes: u64,
    /// As long as the block.
    arena: Arena,
    content: Content,
    direct: bool,
    /// What to align to; 1 if buffered.
    sector_bytes: u32,
    /// `RWF_DSYNC` is worth a try.
    dsync: bool,
    /// The descriptor for writing, while it is kept.
    kept: Option<File>,
}

/// What the arena holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Nothing was ever read.
    Nothing,
    /// The block as it was last read, or written by us since.
    Block,
    /// The last read failed and may have left anything.
    Unknown,
}

impl BlockFile {
    /// The block of `block_bytes` bytes at `offset_bytes`. Opens nothing.
    ///
    /// A block in a local image file that is too small for the file's direct I/O is read and written through the
    /// page cache, which all who use that file on this host share.
    ///
    /// # Errors
    /// [`Error::Short`] if it lies beyond the end of the device; [`Error::Unsupported`] if the block is no ext4 block
    /// size or is not made of whole sectors; [`Error::Io`] if there is no memory.
    pub fn new(device: &Device, offset_bytes: u64, block_bytes: u32) -> Result<BlockFile, Error> {
        let refuse = |what| Err(Error::Unsupported { path: device.path().to_owned(), what });
        if !block_bytes.is_power_of_two()
            || (block_bytes as usize) < MMP_STRUCT_BYTES
            || block_bytes > BLOCK_BYTES_MAX
        {
            return refuse(format!(
                "its filesystem has blocks of {block_bytes} bytes; 1024 to 65536 are supported"
            ));
        }
        if offset_bytes.checked_add(block_bytes.into()).is_none_or(|end| end > device.size_bytes()) {
            return Err(device.short(&format!("the {block_bytes} bytes of the MMP block"), offset_bytes));
        }
        let access = device.access();
        let sector_bytes = access.sector_bytes.max(1);
        let aligned =
            offset_bytes.is_multiple_of(sector_bytes.into()) && block_bytes.is_multiple_of(sector_bytes);
        if access.direct && !aligned && access.shared {
            return refuse(format!(
                "its filesystem has blocks of {block_bytes} bytes and its MMP block at byte {offset_bytes}, but the \
                 device is written in sectors of {sector_bytes} bytes: what shares the sector would be overwritten"
            ));
        }
        let direct = access.direct && aligned;
        Ok(BlockFile {
            device: device.clone(),
            offset_bytes,
            arena: Arena::new(block_bytes as usize)?,
            content: Content::Nothing,
            direct,
            sector_bytes: if direct { sector_bytes } else { 1 },
            dsync: true,
            kept: None,
        })
    }

    /// Whether it is read and written with `O_DIRECT`.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether its buffer can never be swapped out.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.arena.is_locked()
    }
}

impl BlockStore for BlockFile {
    fn read(&mut self) -> Result<&Image, Error> {
        let look = Look::open(self.kept.as_ref(), &self.device, self.direct)?;
        if self.content == Content::Block {
            self.content = Content::Unknown;
        }
        let whole = read_whole(look.file(), self.arena.bytes_mut(), self.offset_bytes)
            .map_err(|source| self.device.node().fail("read the MMP block", source))?;
        if !whole {
            return Err(self.device.short("the bytes of the MMP block", self.offset_bytes));
        }
        self.content = Content::Block;
        Ok(self.arena.bytes().first_chunk().expect("a block is never smaller than the struct"))
    }

    fn write(&mut self, image: &Image, durability: Durability) -> Result<(), Error> {
        assert!(self.content != Content::Nothing, "a block must be read before it is written");
        let fail = |source| self.device.node().fail("write the MMP block", source);
        let Some(file) = &self.kept else {
            return Err(fail(io::Error::other("it was not opened for writing")));
        };
        if self.content == Content::Unknown {
            return Err(fail(io::Error::other("the last read failed: what follows the struct is unknown")));
        }
        self.arena.bytes_mut()[..MMP_STRUCT_BYTES].copy_from_slice(image);
        let bytes = self.arena.bytes();
        write_block(file, bytes, self.offset_bytes, self.direct, durability, &mut self.dsync).map_err(fail)
    }

    fn read_superblock(&mut self) -> Result<[u8; SUPERBLOCK_BYTES], Error> {
        let look = Look::open(self.kept.as_ref(), &self.device, self.direct)?;
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let whole = read_span(look.file(), self.sector_bytes, SUPERBLOCK_OFFSET_BYTES, &mut bytes)
            .map_err(|source| self.device.node().fail("read the superblock", source))?;
        if whole {
            Ok(bytes)
        } else {
            Err(self.device.short("the superblock's bytes", SUPERBLOCK_OFFSET_BYTES))
        }
    }

    fn open_for_writing(&mut self) -> Result<(), Error> {
        if self.kept.is_none() {
            self.kept = Some(self.device.node().open(Access::Write, self.direct)?);
        }
        Ok(())
    }

    fn close(&mut self) {
        self.kept = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    const LEN: usize = 512 * 1024;

    /// An image whose every byte tells its place.
    fn image() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().expect("makes a directory");
        let path = dir.path().join("disk.img");
        let bytes: Vec<u8> = (0..LEN).map(|at| u8::try_from(at * 7 % 253).expect("a byte")).collect();
        fs::write(&path, &bytes).expect("writes");
        (dir, path, bytes)
    }

    fn store(path: &Path, offset: u64, block: u32) -> BlockFile {
        BlockFile::new(&Device::inspect(path).expect("is a file"), offset, block).expect("fits")
    }

    /// The descriptors of this process on `path`, by their access mode.
    fn descriptors(path: &Path) -> Vec<i32> {
        let path = fs::canonicalize(path).expect("exists");
        let mut modes = Vec::new();
        for entry in fs::read_dir("/proc/self/fd").expect("lists").flatten() {
            if fs::read_link(entry.path()).is_ok_and(|target| target == path) {
                let number = entry.file_name().into_string().expect("a number");
                let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).expect("reads");
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("has flags");
                let flags = i32::from_str_radix(flags.trim(), 8).expect("octal");
                modes.push(flags & nix::libc::O_ACCMODE);
            }
        }
        modes
    }

    #[test]
    fn only_the_struct_changes_whatever_the_block_size() {
        for block in [1024_u32, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
            for durability in [Durability::Beat, Durability::Durable] {
                let (_dir, path, mut bytes) = image();
                let offset = 2 * u64::from(block);
                let mut store = store(&path, offset, block);
                let at = usize::try_from(offset).expect("is small");
                assert_eq!(store.read().expect("reads")[..], bytes[at..at + 1024]);
                store.open_for_writing().expect("opens");
                store.write(&[0xEE; 1024], durability).expect("writes");
                bytes[at..at + 1024].fill(0xEE);
                assert_eq!(store.read().expect("reads")[..], [0xEE; 1024]);
                assert!(fs::read(&path).expect("reads") == bytes, "block size {block}, {durability:?}");
                assert_eq!(store.read_superblock().expect("reads")[..], bytes[1024..2048]);
            }
        }
    }

    #[test]
    fn what_follows_the_struct_is_written_as_it_was_last_read() {
        let (_dir, path, _) = image();
        let mut store = store(&path, 8192, 4096);
        store.open_for_writing().expect("opens");
        store.read().expect("reads");
        let other = File::options().write(true).open(&path).expect("opens");
        other.write_all_at(b"news", 8192 + 2000).expect("writes");
        other.sync_all().expect("syncs");
        store.read().expect("reads");
        store.write(&[1; 1024], Durability::Beat).expect("writes");
        assert_eq!(fs::read(&path).expect("reads")[8192 + 2000..][..4], *b"news");
    }

    #[test]
    fn a_look_keeps_no_descriptor_and_opens_nothing_for_writing() {
        let (_dir, path, bytes) = image();
        let mut store = store(&path, 4096, 4096);
        assert!(descriptors(&path).is_empty());
        store.read().expect("reads");
        store.read_superblock().expect("reads");
        assert!(descriptors(&path).is_empty());
        let error = store.write(&[1; 1024], Durability::Durable).expect_err("is not open").to_string();
        assert!(error.contains("it was not opened for writing"), "{error}");
        store.open_for_writing().expect("opens");
        store.open_for_writing().expect("is open");
        store.read().expect("reads");
        assert_eq!(descriptors(&path), [nix::libc::O_RDWR]);
        store.close();
        store.close();
        assert!(descriptors(&path).is_empty());
        assert!(fs::read(&path).expect("reads") == bytes, "nothing was written");
    }

    #[test]
    #[should_panic(expected = "must be read before it is written")]
    fn a_write_without_any_read_panics() {
        let (_dir, path, _) = image();
        let mut store = store(&path, 4096, 4096);
        store.open_for_writing().expect("opens");
        let _ = store.write(&[1; 1024], Durability::Beat);
    }

    #[test]
    fn after_a_failed_read_nothing_is_written() {
        let (_dir, path, bytes) = image();
        let mut store = store(&path, LEN as u64 - 4096, 4096);
        store.open_for_writing().expect("opens");
        store.read().expect("reads");
        let other = File::options().write(true).open(&path).expect("opens");
        other.set_len(LEN as u64 - 1024).expect("shrinks");
        assert!(matches!(store.read(), Err(Error::Short { .. })));
        let error = store.write(&[1; 1024], Durability::Beat).expect_err("tail is unknown").to_string();
        assert!(error.contains("the last read failed"), "{error}");
        assert!(fs::read(&path).expect("reads") == bytes[..LEN - 1024]);
    }

    #[test]
    fn a_block_that_cannot_be_is_refused() {
        let (_dir, path, _) = image();
        let device = Device::inspect(&path).expect("is a file");
        let new = |offset, block| BlockFile::new(&device, offset, block).map(drop);
        new(LEN as u64 - 4096, 4096).expect("is the last block");
        assert!(matches!(new(LEN as u64 - 1024, 4096), Err(Error::Short { .. })));
        assert!(matches!(new(u64::MAX - 1023, 1024), Err(Error::Short { .. })));
        for block in [0, 512, 1025, 3072, 131_072] {
            assert!(matches!(new(4096, block), Err(Error::Unsupported { .. })), "{block}");
        }
    }

    #[test]
    fn a_file_that_took_the_name_is_neither_read_nor_written() {
        let (_dir, path, bytes) = image();
        let mut store = store(&path, 4096, 4096);
        store.read().expect("reads");
        let other = path.with_extension("other");
        fs::write(&other, &bytes).expect("writes");
        fs::rename(&other, &path).expect("renames");
        assert!(store.read().expect_err("is another").to_string().contains("belongs to another"));
        assert!(store.open_for_writing().expect_err("is another").to_string().contains("belongs to another"));
        assert!(store.read_superblock().is_err());
        assert!(fs::read(&path).expect("reads") == bytes);
    }

    #[test]
    fn a_file_in_memory_works_as_well() {
        let Ok(named) = tempfile::NamedTempFile::new_in("/dev/shm") else {
            eprintln!("skipped: no /dev/shm");
            return;
        };
        fs::write(named.path(), [5; 16_384]).expect("writes");
        let mut store = store(named.path(), 4096, 1024);
        assert!(!store.is_direct());
        assert_eq!(store.read().expect("reads")[..], [5; 1024]);
        store.open_for_writing().expect("opens");
        store.write(&[6; 1024], Durability::Durable).expect("writes");
        assert_eq!(store.read().expect("reads")[..], [6; 1024]);
        assert_eq!(fs::read(named.path()).expect("reads").iter().filter(|&&byte| byte == 6).count(), 1024);
    }
}
