//! What a guard leaves for the one that takes its place: how far the kernel had counted, what it was about to write
//! itself, and who beat.
//!
//! Protects: a word is written before the write it tells of begins, so what stands in the block after a death is either
//! in here or somebody else's. Does not protect anything by itself: the lease cell beside it says whether there is
//! anything to go on with.

use std::sync::atomic::Ordering::SeqCst;

use crate::clock::Mono;
use crate::protocol::{Adoption, Left};
use crate::sys::shared::SharedWords;

/// So many words, from the first one on that is given.
pub const TRACE_WORDS: usize = 6;

const KERNEL_SEQ: usize = 0;
const KERNEL_AT: usize = 1;
const SUBMITTED_SEQ: usize = 2;
const BEATING: usize = 3;
/// 0 where there is none.
const GENERATION: usize = 4;
/// 0 where there is none.
const THREAD: usize = 5;
/// Marks a sequence as known: every 32-bit value is one.
const KNOWN: u64 = 1 << 32;

/// The words of one guard. Clones are the same.
#[derive(Clone, Debug)]
pub struct Trace {
    words: SharedWords,
    first: usize,
}

impl Trace {
    /// The words from `first` on.
    ///
    /// # Panics
    /// If there are not that many.
    #[must_use]
    pub fn in_words(words: SharedWords, first: usize) -> Self {
        let _ = words.word(first + TRACE_WORDS - 1);
        Trace { words, first }
    }

    /// The calling thread is the one that reads and writes.
    pub(super) fn by_this_thread(&self) {
        self.put(THREAD, u64::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0));
    }

    /// The thread that reads and writes; none if there was none yet.
    #[must_use]
    pub fn thread(&self) -> Option<i32> {
        i32::try_from(self.get(THREAD)).ok().filter(|&thread| thread > 0)
    }

    /// About to write this.
    pub(super) fn submit(&self, seq: u32) {
        self.put(SUBMITTED_SEQ, KNOWN | u64::from(seq));
    }

    /// As it is now.
    pub(super) fn note(&self, beating: bool, kernel: Option<(Mono, u32)>, generation: Option<u64>) {
        if let Some(generation) = generation {
            self.put(GENERATION, generation);
        }
        self.put(BEATING, u64::from(beating));
        if let Some((at, seq)) = kernel {
            self.put(KERNEL_SEQ, KNOWN | u64::from(seq));
            self.put(KERNEL_AT, at.0);
        }
    }

    /// How far the kernel was seen to have counted, and when.
    #[must_use]
    pub fn kernel_counted(&self) -> Option<(Mono, u32)> {
        Some((Mono(self.get(KERNEL_AT)), self.known(KERNEL_SEQ)?))
    }

    /// What there is to go on with under a lease that ends then.
    #[must_use]
    pub fn left(&self, lease_end: Mono) -> Adoption {
        let left = Left {
            lease_end,
            kernel_seq: self.known(KERNEL_SEQ),
            submitted_seq: self.known(SUBMITTED_SEQ),
            beating: self.get(BEATING) == 1,
            generation: Some(self.get(GENERATION)).filter(|&generation| generation != 0),
        };
        Adoption { counted: self.kernel_counted(), left: Some(left) }
    }

    fn known(&self, index: usize) -> Option<u32> {
        let word = self.get(index);
        (word & KNOWN != 0).then_some((word & u64::from(u32::MAX)).try_into().unwrap_or(0))
    }

    fn get(&self, index: usize) -> u64 {
        self.words.word(self.first + index).load(SeqCst)
    }

    fn put(&self, index: usize, value: u64) {
        self.words.word(self.first + index).store(value, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_again_and_nothing_else() {
        let words = SharedWords::new(1 + TRACE_WORDS).unwrap();
        let (trace, other) = (Trace::in_words(words.clone(), 1), Trace::in_words(words.clone(), 1));
        let nothing = Left {
            lease_end: Mono(5),
            kernel_seq: None,
            submitted_seq: None,
            beating: false,
            generation: None,
        };
        assert_eq!(other.left(Mono(5)), Adoption { counted: None, left: Some(nothing) });
        trace.note(false, Some((Mono(7), 0)), None);
        trace.submit(u32::MAX);
        let left = Left { kernel_seq: Some(0), submitted_seq: Some(u32::MAX), ..nothing };
        assert_eq!(other.left(Mono(5)), Adoption { counted: Some((Mono(7), 0)), left: Some(left) });
        trace.note(true, None, Some(u64::MAX));
        let left = Left { beating: true, generation: Some(u64::MAX), ..left };
        assert_eq!(other.left(Mono(5)).left, Some(left), "what is not said again stays");
        assert_eq!(words.word(0).load(SeqCst), 0);
    }
}
