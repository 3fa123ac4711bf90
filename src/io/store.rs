//! What the driver needs of a place where an MMP block lives.
//!
//! Protects: one interface for a device and for memory, so that what is tested over memory is what runs on a device.
//! Does not protect: it has no opinion on what the bytes mean.

use crate::error::Error;
use crate::format::Image;
use crate::format::superblock::SUPERBLOCK_BYTES;

/// What must be true of a write when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The device has taken it, so that every other host sees it. It may be lost if the device loses power, and then
    /// it says less than was true. A buffered file knows no such thing: there it is [`Durable`](Durability::Durable).
    Beat,
    /// It is on stable storage: a claim or a clean mark must never be taken back by a power cut.
    Durable,
}

/// What the driver needs of a place where an MMP block lives.
pub trait BlockStore: Send {
    /// Reads the whole filesystem block that holds the struct; the result is its first 1024 bytes, the struct.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or read, or is no longer the same node; [`Error::Short`] if it ends early.
    fn read(&mut self) -> Result<&Image, Error>;

    /// Writes `image` over the struct in the block as it was last read: the bytes behind the struct are preserved.
    ///
    /// # Errors
    /// [`Error::Io`] if it is not open for writing, if the last read failed (what stands behind the struct is
    /// unknown then), or if the write failed or was short: what stands on the disk is then unknown.
    ///
    /// # Panics
    /// If there was no [`read`](BlockStore::read) at all before it: nothing is written that was not looked at.
    fn write(&mut self, image: &Image, durability: Durability) -> Result<(), Error>;

    /// Reads the superblock afresh from the disk; of an area the header that counts, block 0 or its copy.
    ///
    /// # Errors
    /// As [`read`](BlockStore::read). In an area [`Error::Unsupported`] if its target has another size than the area was made for.
    fn read_superblock(&mut self) -> Result<[u8; SUPERBLOCK_BYTES], Error>;

    /// Reads the entry of a slot afresh from the disk.
    ///
    /// # Errors
    /// As [`read`](BlockStore::read); [`Error::Argument`] where there are no entries.
    fn read_entry(&mut self) -> Result<Image, Error> {
        Err(no_entry())
    }

    /// Writes `image` over the entry of a slot, durably.
    ///
    /// # Errors
    /// As [`write`](BlockStore::write); [`Error::Argument`] where there are no entries.
    fn write_entry(&mut self, image: &Image) -> Result<(), Error> {
        let _ = image;
        Err(no_entry())
    }

    /// Opens for writing and keeps the descriptor until [`close`](BlockStore::close); does nothing if it is open
    /// already. Before this nothing is opened for writing.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] on a write-protected device; [`Error::Unsupported`] if this kernel refuses writes to a
    /// mounted device; [`Error::Io`] if it cannot be opened otherwise or is no longer the same node.
    fn open_for_writing(&mut self) -> Result<(), Error>;

    /// Closes the kept descriptor, if there is one.
    fn close(&mut self);
}

impl BlockStore for Box<dyn BlockStore> {
    fn read(&mut self) -> Result<&Image, Error> {
        (**self).read()
    }

    fn write(&mut self, image: &Image, durability: Durability) -> Result<(), Error> {
        (**self).write(image, durability)
    }

    fn read_superblock(&mut self) -> Result<[u8; SUPERBLOCK_BYTES], Error> {
        (**self).read_superblock()
    }

    fn read_entry(&mut self) -> Result<Image, Error> {
        (**self).read_entry()
    }

    fn write_entry(&mut self, image: &Image) -> Result<(), Error> {
        (**self).write_entry(image)
    }

    fn open_for_writing(&mut self) -> Result<(), Error> {
        (**self).open_for_writing()
    }

    fn close(&mut self) {
        (**self).close();
    }
}

fn no_entry() -> Error {
    Error::Argument("only a slot of an area has an entry".to_owned())
}
