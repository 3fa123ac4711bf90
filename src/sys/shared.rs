//! Words of memory that several processes of one `mmp run` share.
//!
//! A memfd mapped shared: after a fork parent and child see the same words, and nothing else of each other's
//! memory. The pages live in the kernel's memory, not in a file, so no device can make an access wait.
//! It protects nothing by itself: what a word means, and who may change it how, is `driver::cell`'s.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A fixed number of 64-bit words, zero at first, shared with every process forked while this lives. Clones are
/// the same words.
#[derive(Clone, Debug)]
pub struct SharedWords {
    map: Arc<MmapRaw>,
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
        let bytes = count * size_of::<AtomicU64>();
        file.set_len(bytes as u64)?;
        // The mapping keeps the memory; the descriptor is closed here, so that no child has to.
        let map = memmap2::MmapOptions::new().len(bytes).map_raw(&file)?;
        Ok(SharedWords { map: Arc::new(map), count })
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
        // truncated (its descriptor is gone), and is touched through atomics alone, here and in other processes.
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
    #[should_panic(expected = "word 1 of 1")]
    fn a_word_beyond_the_end_is_refused() {
        let _ = SharedWords::new(1).unwrap().word(1);
    }
}
