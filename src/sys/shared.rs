//! Words of memory that several processes of one guard share.
//!
//! A memfd mapped shared: after a fork parent and child see the same words, and nothing else of each other's
//! memory. The pages live in the kernel's memory, not in a file, so no device can make an access wait.
//! It protects nothing by itself: what a word means, and who may change it how, is `driver::cell`'s.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A fixed number of 64-bit words, zero at first, shared with every process forked while this lives. Clones are
/// the same words.
#[derive(Clone, Debug)]
pub struct SharedWords {
    map: Arc<MmapRaw>,
    /// For a process that is not forked off this one.
    file: Arc<File>,
    count: usize,
}

impl SharedWords {
    /// Makes `count` words.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    ///
    /// # Panics
    /// If `count` is zero: there is nothing to share then.
    pub fn new(count: usize) -> io::Result<Self> {
        assert!(count > 0, "a shared mapping of no words");
        let file = File::from(memfd_create(c"mmp-cells", MFdFlags::MFD_CLOEXEC)?);
        file.set_len((count * size_of::<AtomicU64>()) as u64)?;
        Self::map(file, count)
    }

    /// Maps the words that another process made, from the descriptor it passed on.
    ///
    /// # Errors
    /// When it is no memory of at least `count` words, or the kernel refuses.
    pub fn of_descriptor(descriptor: OwnedFd, count: usize) -> io::Result<Self> {
        let file = File::from(descriptor);
        if file.metadata()?.len() < (count * size_of::<AtomicU64>()) as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::map(file, count)
    }

    fn map(file: File, count: usize) -> io::Result<Self> {
        let map = memmap2::MmapOptions::new().len(count * size_of::<AtomicU64>()).map_raw(&file)?;
        Ok(SharedWords { map: Arc::new(map), file: Arc::new(file), count })
    }

    /// The descriptor of the memory, close-on-exec: for passing it on.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Word number `index`.
    ///
    /// # Panics
    /// If there are not that many.
    #[must_use]
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "word {index} of {}", self.count);
        let words = self.map.as_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping is `count` words long, page-aligned, lives as long as `self`, is never remapped or
        // truncated (nobody but us has its descriptor), and is touched through atomics alone, here and in other processes.
        unsafe { &*words.add(index) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[test]
    fn words_start_at_zero_are_apart_and_clones_share_them() {
        let words = SharedWords::new(3).unwrap();
        let other = words.clone();
        words.word(1).store(7, SeqCst);
        assert_eq!([0, 1, 2].map(|i| other.word(i).load(SeqCst)), [0, 7, 0]);
    }

    #[test]
    fn words_are_found_again_by_their_descriptor() {
        let words = SharedWords::new(2).unwrap();
        let passed_on = words.descriptor().try_clone_to_owned().unwrap();
        let other = SharedWords::of_descriptor(passed_on.try_clone().unwrap(), 2).unwrap();
        words.word(1).store(9, SeqCst);
        assert_eq!(other.word(1).load(SeqCst), 9);
        assert!(SharedWords::of_descriptor(passed_on, 3).is_err());
    }

    #[test]
    #[should_panic(expected = "word 1 of 1")]
    fn a_word_beyond_the_end_is_refused() {
        let _ = SharedWords::new(1).unwrap().word(1);
    }
}
