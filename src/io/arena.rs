//! Page-aligned, locked memory for direct I/O.
//!
//! Protects: `O_DIRECT` needs aligned buffers; a beat must not wait for a page to be swapped in; and a fork beside a
//! direct read must not lead the read's bytes into the child's copy (open(2), *NOTES*, `O_DIRECT`), so a child
//! process has none of this memory. Does not protect: where the limit forbids locking, the memory is usable but may
//! be swapped; [`Arena::is_locked`] says so.

use std::path::Path;

use memmap2::{Advice, MmapMut};

use crate::error::Error;

/// Page-aligned memory of its own, zeroed, locked if the system allows it. A child after fork(2) does not have it:
/// touching it there is a fault.
#[derive(Debug)]
pub struct Arena {
    map: MmapMut,
    locked: bool,
}

impl Arena {
    /// Maps `len_bytes` bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] if `len_bytes` is 0; [`Error::Io`] if there is no memory.
    pub fn new(len_bytes: usize) -> Result<Arena, Error> {
        if len_bytes == 0 {
            return Err(Error::Argument("a buffer of 0 bytes cannot be meant".to_owned()));
        }
        let fail = |source| Error::io("map an I/O buffer", Path::new("memory"), source);
        let map = MmapMut::map_anon(len_bytes).map_err(fail)?;
        map.advise(Advice::DontFork).map_err(fail)?;
        let locked = map.lock().is_ok();
        Ok(Arena { map, locked })
    }

    /// The memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The memory, for writing.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }

    /// Whether it can never be swapped out.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_writable() {
        for len in [1, 512, 1024, 4096, 65_536, 65_537] {
            let mut arena = Arena::new(len).expect("maps");
            assert_eq!(arena.bytes().as_ptr().addr() % 4096, 0);
            assert_eq!(arena.bytes().len(), len);
            assert!(arena.bytes().iter().all(|&byte| byte == 0));
            arena.bytes_mut()[len - 1] = 7;
            assert_eq!(arena.bytes()[len - 1], 7);
        }
        assert!(matches!(Arena::new(0), Err(Error::Argument(_))));
    }

    #[test]
    fn locking_says_what_the_kernel_says() {
        let arena = Arena::new(4096).expect("maps");
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("reads");
        let at = arena.bytes().as_ptr().addr();
        let flags = smaps_flags(&smaps, at).expect("the arena is mapped");
        assert_eq!(flags.contains(&"lo"), arena.is_locked());
        assert!(flags.contains(&"dc"), "do not copy on fork: {flags:?}");
    }

    /// The `VmFlags` of the mapping that contains `at`.
    fn smaps_flags(smaps: &str, at: usize) -> Option<Vec<&str>> {
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&at);
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return Some(flags.split_whitespace().collect());
            }
        }
        None
    }
}
