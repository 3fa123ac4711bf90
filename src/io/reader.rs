//! A device that is open for a few reads in a row, and closed again.
//!
//! Protects: as [`Device::read_at`], but what is read by one of these comes from one and the same node, whatever becomes of its name. It
//! is for one look: whoever keeps it open keeps the kernel's page cache of the node alive. Block devices, and files that other hosts may
//! write, are read from the disk. An image file on a local filesystem is read through the page cache, which all who use that file on this
//! host share: it shows what a direct read shows, at a twentieth of the cost. Does not protect: the bytes of two reads
//! may be of two instants.

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};

use super::node::Access;
use super::transfer::{read_span, read_span_by};
use super::{Arena, Device, ReadAt};
use crate::error::Error;

/// Enough for what a look at most devices reads at once, with the sectors at both ends.
const BUFFER_BYTES: usize = 16 << 10;

/// The aligned memory of a [`Reader`], for one after the other.
#[derive(Debug)]
pub struct ReadBuffer(RefCell<Arena>);

impl ReadBuffer {
    /// Maps it.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no memory.
    pub fn new() -> Result<Self, Error> {
        Arena::new(BUFFER_BYTES).map(|arena| ReadBuffer(RefCell::new(arena)))
    }
}

/// A device or image file, open for reading.
#[derive(Debug)]
pub struct Reader<'a> {
    device: Device,
    file: File,
    buffer: &'a ReadBuffer,
}

impl<'a> Reader<'a> {
    /// Finds out what `path` is, as [`Device::inspect`] does, and keeps it open.
    ///
    /// # Errors
    /// As [`Device::inspect`].
    pub fn open(path: &Path, buffer: &'a ReadBuffer) -> Result<Self, Error> {
        let (device, file) = Device::inspect_by(path, |node, file, shared| {
            shared && (become_direct(file) || node.opens_direct())
        })?;
        // Where the filesystem wants to be told when the file is opened, it is opened once more.
        let reopens = device.is_direct() && !become_direct(&file);
        let file = if reopens { device.node().open(Access::Read, true)? } else { file };
        if !device.is_direct() {
            // A little is read here and there: nothing around it is needed. Without that it is merely slower.
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        }
        Ok(Reader { device, file, buffer })
    }

    /// What it is, and how it is read here: an image file on a local filesystem is not direct.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl ReadAt for Reader<'_> {
    fn path(&self) -> &Path {
        self.device.path()
    }

    fn size_bytes(&self) -> u64 {
        self.device.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        let sector_bytes = self.device.sector_bytes();
        let mut arena = self.buffer.0.borrow_mut();
        let fits = into.len() + 2 * sector_bytes as usize <= arena.bytes().len();
        let whole = match fits {
            true => read_span_by(&self.file, sector_bytes, offset_bytes, into, arena.bytes_mut()),
            false => read_span(&self.file, sector_bytes, offset_bytes, into),
        };
        match whole {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.device.short(&format!("{} bytes", into.len()), offset_bytes)),
            Err(source) => Err(self.device.node().fail("read it", source)),
        }
    }
}

/// Makes the descriptor read past the page cache from now on; false if it cannot.
fn become_direct(file: &File) -> bool {
    let flags = fcntl(file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags.is_ok_and(|flags| {
        flags.contains(OFlag::O_DIRECT) || fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_DIRECT)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_reads_any_span_from_the_node_that_was_opened() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
        let image = dir.path().join("disk.img");
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251).to_le_bytes()[0]).collect();
        fs::write(&image, &bytes).expect("writes");
        let buffer = ReadBuffer::new().expect("maps");
        let reader = Reader::open(&image, &buffer).expect("opens");
        fs::remove_file(&image).expect("removes");
        for (at, len) in [(0, 100_000), (1024, 1024), (99_999, 1), (511, 3), (16_383, 20_000), (4096, 16_384)]
        {
            let mut into = vec![0; len];
            reader.read_at(at as u64, &mut into).expect("reads");
            assert_eq!(into, bytes[at..at + len], "{at} {len}");
        }
        assert!(matches!(reader.read_at(99_999, &mut [0; 2]), Err(Error::Short { .. })));
        assert!(reader.read_at(u64::MAX - 1, &mut [0; 2]).is_err());
        assert_eq!((reader.size_bytes(), ReadAt::path(&&reader)), (100_000, image.as_path()));
    }

    /// Whatever a direct writer wrote is seen by the next read.
    #[test]
    fn a_local_file_is_read_through_the_page_cache_and_shows_what_is_on_the_disk() {
        use crate::io::{BlockFile, BlockStore as _, Durability};
        let dir = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
        let image = dir.path().join("disk.img");
        fs::write(&image, [7; 16_384]).expect("writes");
        let device = Device::inspect(&image).expect("inspects");
        let mut store = BlockFile::new(&device, 4096, 4096).expect("is within");
        store.read().expect("reads");
        store.open_for_writing().expect("opens");
        let buffer = ReadBuffer::new().expect("maps");
        for round in 0..100 {
            store.write(&[round; 1024], Durability::Beat).expect("writes");
            let reader = Reader::open(&image, &buffer).expect("opens");
            let mut into = [0; 1024];
            reader.read_at(4096, &mut into).expect("reads");
            assert_eq!(into, [round; 1024]);
            let flags = OFlag::from_bits_retain(fcntl(&reader.file, FcntlArg::F_GETFL).expect("tells"));
            assert_eq!(flags & OFlag::O_ACCMODE, OFlag::O_RDONLY);
            assert!(!flags.contains(OFlag::O_DIRECT) && !reader.device().is_direct());
        }
    }

    #[test]
    fn a_descriptor_becomes_direct_where_the_file_allows_it() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
        let image = dir.path().join("disk.img");
        fs::write(&image, [7; 8192]).expect("writes");
        let device = Device::inspect(&image).expect("inspects");
        let file = File::open(&image).expect("opens");
        assert_eq!(become_direct(&file), device.is_direct());
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).expect("tells"));
        assert_eq!(flags.contains(OFlag::O_DIRECT), device.is_direct());
        assert_eq!(become_direct(&file), device.is_direct(), "it is already");
    }
}
