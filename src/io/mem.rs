//! A block in memory, for tests and for simulations: several stores may see the same bytes, as hosts see one disk.
//!
//! Protects: it keeps [`BlockFile`](super::BlockFile)'s contract (read before write, open before write, the bytes
//! behind the struct written as they were last read). Does not protect: it never fails and takes no time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ReadAt;
use super::store::{BlockStore, Durability};
use crate::error::Error;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};
use crate::format::{Image, MMP_STRUCT_BYTES};

/// What it is called in messages.
const NAME: &str = "memory";

/// A whole disk image that several stores see.
pub type SharedImage = Arc<Mutex<Vec<u8>>>;

/// A whole disk image that is read, and that nobody writes meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct MemImage<'a>(pub &'a [u8]);

impl ReadAt for MemImage<'_> {
    fn path(&self) -> &Path {
        Path::new(NAME)
    }

    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        let at = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
        let found = self.0.get(at..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(found.ok_or_else(|| short("what is read", self.0.len()))?);
        Ok(())
    }

    fn pause(&self, _: Duration) {}
}

/// The MMP block of a disk image in memory.
#[derive(Debug)]
pub struct MemStore {
    image: SharedImage,
    at: usize,
    /// The block as it was last read; empty before the first read.
    block: Vec<u8>,
    block_bytes: usize,
    open: bool,
}

impl MemStore {
    /// The block of `block_bytes` bytes at `offset_bytes` of an image of its own.
    ///
    /// # Errors
    /// As [`over`](MemStore::over).
    pub fn new(image: Vec<u8>, offset_bytes: u64, block_bytes: u32) -> Result<MemStore, Error> {
        MemStore::over(Arc::new(Mutex::new(image)), offset_bytes, block_bytes)
    }

    /// The block of `block_bytes` bytes at `offset_bytes` of an image that others see, too.
    ///
    /// # Errors
    /// [`Error::Short`] if it lies beyond the end; [`Error::Unsupported`] if it cannot hold the struct.
    pub fn over(image: SharedImage, offset_bytes: u64, block_bytes: u32) -> Result<MemStore, Error> {
        let block_bytes = block_bytes as usize;
        if block_bytes < MMP_STRUCT_BYTES {
            let what = format!("its filesystem has blocks of {block_bytes} bytes");
            return Err(Error::Unsupported { path: path(), what });
        }
        let len = lock(&image).len();
        let at = usize::try_from(offset_bytes).ok();
        let Some(at) = at.filter(|at| at.checked_add(block_bytes).is_some_and(|end| end <= len)) else {
            return Err(short("the MMP block", len));
        };
        Ok(MemStore { image, at, block: Vec::with_capacity(block_bytes), block_bytes, open: false })
    }

    /// Another store over the same block of the same image: what another host would have.
    #[must_use]
    pub fn another(&self) -> MemStore {
        MemStore {
            image: Arc::clone(&self.image),
            at: self.at,
            block: Vec::with_capacity(self.block_bytes),
            block_bytes: self.block_bytes,
            open: false,
        }
    }

    /// The image, to look at or to change behind the store's back.
    #[must_use]
    pub fn shared(&self) -> SharedImage {
        Arc::clone(&self.image)
    }
}

impl BlockStore for MemStore {
    fn read(&mut self) -> Result<&Image, Error> {
        let image = lock(&self.image);
        let Some(bytes) = image.get(self.at..self.at + self.block_bytes) else {
            return Err(short("the MMP block", image.len()));
        };
        self.block.clear();
        self.block.extend_from_slice(bytes);
        Ok(self.block.first_chunk().expect("a block is never smaller than the struct"))
    }

    fn write(&mut self, new: &Image, _: Durability) -> Result<(), Error> {
        assert!(!self.block.is_empty(), "a block must be read before it is written");
        if !self.open {
            let source = std::io::Error::other("it was not opened for writing");
            return Err(Error::io("write the MMP block", &path(), source));
        }
        self.block[..MMP_STRUCT_BYTES].copy_from_slice(new);
        let mut image = lock(&self.image);
        let len = image.len();
        let Some(bytes) = image.get_mut(self.at..self.at + self.block_bytes) else {
            return Err(short("the MMP block", len));
        };
        bytes.copy_from_slice(&self.block);
        Ok(())
    }

    fn read_superblock(&mut self) -> Result<[u8; SUPERBLOCK_BYTES], Error> {
        let image = lock(&self.image);
        usize::try_from(SUPERBLOCK_OFFSET_BYTES)
            .ok()
            .and_then(|at| image.get(at..)?.first_chunk())
            .copied()
            .ok_or_else(|| short("the superblock", image.len()))
    }

    fn open_for_writing(&mut self) -> Result<(), Error> {
        self.open = true;
        Ok(())
    }

    fn close(&mut self) {
        self.open = false;
    }
}

/// A test that panicked while it held the lock left whole bytes all the same.
fn lock(image: &SharedImage) -> MutexGuard<'_, Vec<u8>> {
    image.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path() -> PathBuf {
    Path::new(NAME).to_owned()
}

fn short(what: &str, len: usize) -> Error {
    Error::Short { path: path(), what: format!("{what} ends beyond its {len} bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> MemStore {
        MemStore::new(vec![9; 16_384], 4096, 4096).expect("fits")
    }

    #[test]
    fn stores_over_one_image_see_each_other() {
        let mut one = store();
        let mut two = one.another();
        one.read().expect("reads");
        one.open_for_writing().expect("opens");
        one.write(&[1; 1024], Durability::Beat).expect("writes");
        assert_eq!(two.read().expect("reads"), &[1; 1024]);
        let shared = one.shared();
        lock(&shared)[4096] = 2;
        assert_eq!(two.read().expect("reads")[0], 2);
        assert_eq!(one.read().expect("reads")[0], 2);
        let mut elsewhere = MemStore::over(shared, 8192, 1024).expect("fits");
        assert_eq!(elsewhere.read().expect("reads"), &[9; 1024]);
        assert_eq!(elsewhere.read_superblock().expect("reads"), [9; 1024]);
    }

    #[test]
    fn an_image_is_read_at_any_place_within() {
        let image = MemImage(&[1, 2, 3]);
        let mut into = [0; 2];
        image.read_at(1, &mut into).expect("reads");
        assert_eq!((into, image.size_bytes()), ([2, 3], 3));
        image.read_at(3, &mut []).expect("reads nothing");
        for at in [2, 4, u64::MAX] {
            assert!(matches!(image.read_at(at, &mut into), Err(Error::Short { .. })), "{at}");
        }
    }

    #[test]
    fn only_the_struct_changes() {
        let mut store = store();
        store.read().expect("reads");
        store.open_for_writing().expect("opens");
        store.write(&[1; 1024], Durability::Durable).expect("writes");
        let image = store.shared();
        let image = lock(&image);
        assert!(image.iter().enumerate().all(|(at, &byte)| (byte == 1) == (4096..5120).contains(&at)));
    }

    #[test]
    fn it_keeps_the_contract() {
        let mut store = store();
        store.read().expect("reads");
        assert!(store.write(&[1; 1024], Durability::Beat).is_err(), "not open");
        store.open_for_writing().expect("opens");
        store.close();
        assert!(store.write(&[1; 1024], Durability::Beat).is_err(), "closed");
        lock(&store.shared()).truncate(4096);
        assert!(matches!(store.read(), Err(Error::Short { .. })));
        assert!(matches!(MemStore::new(vec![0; 4096], 4096, 1024), Err(Error::Short { .. })));
        assert!(matches!(MemStore::new(vec![0; 4096], u64::MAX, 1024), Err(Error::Short { .. })));
        assert!(matches!(MemStore::new(vec![0; 4096], 0, 512), Err(Error::Unsupported { .. })));
    }

    #[test]
    #[should_panic(expected = "must be read before it is written")]
    fn a_write_without_any_read_panics() {
        let mut store = store();
        store.open_for_writing().expect("opens");
        let _ = store.write(&[1; 1024], Durability::Beat);
    }
}
