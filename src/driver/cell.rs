//! The lease cell: one shared word that says until when the protection lasts.
//!
//! The driver prolongs it after every acknowledged write; the keeper, another process, takes it away when its end
//! has passed. Both can be stalled between any two instructions, for any time, so neither may act on what it read
//! a moment ago. The word therefore changes by compare-exchange only, and it holds the *end* of the lease, never a
//! span or a flag:
//!
//! - *The driver stalls* between its look at the clock and [`LeaseCell::extend`]. If the keeper took the cell
//!   meanwhile, the compare-exchange fails and the driver knows that it lost; it has no way to take that back. If
//!   the keeper has not run either, the extension succeeds, but it carries an end counted from the start of a look
//!   at the device, so a late extension is not a longer one: the keeper finds the new end passed too.
//! - *The keeper stalls* between its look at the clock and [`LeaseCell::expire`]. A driver that extended meanwhile
//!   changed the word, the keeper's compare-exchange fails and it judges the new end. Nobody is fenced on a stale
//!   value, and no extension survives an expiry.
//! - *Both orders are the only ones*: the word decides which came first, and both sides learn of it.
//!
//! Lost is final. An unarmed cell (the claim still runs) never expires, because nothing is protected yet: the
//! keeper starts a command under an armed cell only. A released one (the clean mark is on the disk) never does either.
//!
//! It does not protect against a process of ours that scribbles over shared memory, nor does it fence.

use std::io;
use std::sync::atomic::Ordering::SeqCst;

use crate::clock::Mono;
use crate::sys::shared::SharedWords;

const LOST: u64 = 0;
const UNARMED: u64 = u64::MAX;
const RELEASED: u64 = u64::MAX - 1;

/// The end of a lease, shared between driver, keeper and front. Clones are the same cell.
#[derive(Clone, Debug)]
pub struct LeaseCell {
    words: SharedWords,
    index: usize,
}

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellState {
    /// No lease yet: nothing is protected, nothing expires.
    Unarmed,
    /// Held until then, unless extended. Whether that has passed is for the reader's clock to say.
    Until(Mono),
    /// Given back: the clean mark is on the disk. Final.
    Released,
    /// Gone, for good.
    Lost,
}

/// The cell no longer holds what the caller left in it: the lease is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease was declared lost")]
pub struct CellLost;

impl LeaseCell {
    /// An unarmed cell of its own, shared with the processes forked from here on.
    ///
    /// # Errors
    /// When the kernel refuses the shared memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self::in_words(SharedWords::new(1)?, 0))
    }

    /// Makes word `index` an unarmed cell.
    ///
    /// # Panics
    /// If there is no such word.
    #[must_use]
    pub fn in_words(words: SharedWords, index: usize) -> Self {
        words.word(index).store(UNARMED, SeqCst);
        LeaseCell { words, index }
    }

    /// Word `index` as it stands: the cell that another process made.
    ///
    /// # Panics
    /// If there is no such word.
    #[must_use]
    pub fn found_in_words(words: SharedWords, index: usize) -> Self {
        let _ = words.word(index);
        LeaseCell { words, index }
    }

    /// Starts the first lease. Once only.
    ///
    /// # Errors
    /// [`CellLost`] if the cell is not unarmed any more.
    ///
    /// # Panics
    /// If `end` is no point in time that a lease can end at (zero, or [`Mono::FAR`]).
    pub fn arm(&self, end: Mono) -> Result<(), CellLost> {
        self.exchange(UNARMED, word_of(end))
    }

    /// Moves the end from `from`, as the caller left it, to `to`. `to` may be earlier; then the caller has to wake
    /// the keeper, which otherwise hears of it within [`crate::keeper::LOOK_INTERVAL`].
    ///
    /// # Errors
    /// [`CellLost`] if the cell does not hold `from`: whatever happened, the caller is no holder any more.
    ///
    /// # Panics
    /// As [`LeaseCell::arm`].
    pub fn extend(&self, from: Mono, to: Mono) -> Result<(), CellLost> {
        self.exchange(word_of(from), word_of(to))
    }

    /// Takes the lease back, from `from` to unarmed: nothing is protected for now (the device is handed over to a kernel
    /// that has yet to mount it).
    ///
    /// # Errors
    /// [`CellLost`] as [`LeaseCell::extend`].
    ///
    /// # Panics
    /// As [`LeaseCell::arm`].
    pub fn disarm(&self, from: Mono) -> Result<(), CellLost> {
        self.exchange(word_of(from), UNARMED)
    }

    /// Declares the lease lost, whatever the cell held, except after a release, which stands.
    pub fn lose(&self) {
        self.finish(LOST);
    }

    /// Says that the clean mark is on the disk: from here on nothing expires. A lost cell stays lost.
    ///
    /// # Errors
    /// [`CellLost`] if the lease was lost before.
    pub fn release(&self) -> Result<(), CellLost> {
        if self.finish(RELEASED) == RELEASED { Ok(()) } else { Err(CellLost) }
    }

    /// What the cell says at this moment.
    #[must_use]
    pub fn state(&self) -> CellState {
        match self.words.word(self.index).load(SeqCst) {
            LOST => CellState::Lost,
            UNARMED => CellState::Unarmed,
            RELEASED => CellState::Released,
            end => CellState::Until(Mono(end)),
        }
    }

    /// Takes the cell away if its end is not after `now`. Says whether the lease is lost now, by this call or an
    /// earlier one; an extension that came first is respected.
    #[must_use]
    pub fn expire(&self, now: Mono) -> bool {
        loop {
            match self.state() {
                CellState::Lost => return true,
                CellState::Until(end) if end <= now => {
                    // A failure means that the driver was faster: judge what it wrote.
                    if self.exchange(end.0, LOST).is_ok() {
                        return true;
                    }
                }
                CellState::Until(_) | CellState::Unarmed | CellState::Released => return false,
            }
        }
    }

    /// Goes to a final value unless the cell is final already; gives what it holds then.
    fn finish(&self, value: u64) -> u64 {
        let final_already = |word| (word != LOST && word != RELEASED).then_some(value);
        match self.words.word(self.index).fetch_update(SeqCst, SeqCst, final_already) {
            Ok(_) => value,
            Err(standing) => standing,
        }
    }

    fn exchange(&self, from: u64, to: u64) -> Result<(), CellLost> {
        let word = self.words.word(self.index);
        word.compare_exchange(from, to, SeqCst, SeqCst).map(drop).map_err(|_| CellLost)
    }
}

/// The word for an end, which must not be one of the marks.
fn word_of(end: Mono) -> u64 {
    assert!(end.0 != LOST && end.0 < RELEASED, "{end:?} cannot be the end of a lease");
    end.0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;

    #[test]
    fn a_lease_is_armed_extended_and_expires_once() {
        let cell = LeaseCell::new().unwrap();
        assert_eq!(cell.state(), CellState::Unarmed);
        assert!(!cell.expire(Mono(u64::MAX)), "nothing to lose yet");
        cell.arm(Mono(10)).unwrap();
        assert_eq!(cell.arm(Mono(20)), Err(CellLost), "armed once only");
        assert!(!cell.expire(Mono(9)));
        cell.extend(Mono(10), Mono(30)).unwrap();
        assert!(!cell.expire(Mono(29)));
        assert!(cell.expire(Mono(30)), "the end itself is too late");
        assert_eq!(cell.state(), CellState::Lost);
        assert_eq!(cell.extend(Mono(30), Mono(40)), Err(CellLost));
        assert_eq!(cell.release(), Err(CellLost));
        assert!(cell.expire(Mono(1)), "lost is final");
    }

    #[test]
    fn a_lease_that_was_taken_back_can_be_armed_again_and_a_lost_one_cannot() {
        let cell = LeaseCell::new().unwrap();
        cell.arm(Mono(10)).unwrap();
        assert_eq!(cell.disarm(Mono(9)), Err(CellLost));
        cell.disarm(Mono(10)).unwrap();
        assert!(!cell.expire(Mono(u64::MAX - 5)), "nothing to lose");
        cell.arm(Mono(20)).unwrap();
        assert!(cell.expire(Mono(20)));
        assert_eq!(cell.disarm(Mono(20)), Err(CellLost));
    }

    #[test]
    fn a_release_is_final_and_an_extension_needs_the_value_left_behind() {
        let cell = LeaseCell::new().unwrap();
        cell.arm(Mono(10)).unwrap();
        assert_eq!(cell.extend(Mono(11), Mono(40)), Err(CellLost));
        cell.release().unwrap();
        cell.lose();
        assert_eq!(cell.state(), CellState::Released);
        assert!(!cell.expire(Mono(u64::MAX)));
        assert_eq!(cell.extend(Mono(10), Mono(40)), Err(CellLost));
    }

    #[test]
    #[should_panic(expected = "cannot be the end of a lease")]
    fn a_mark_is_no_end() {
        let _ = LeaseCell::new().unwrap().arm(Mono::FAR);
    }

    /// One thread extends as fast as it can, another takes the cell at whatever end it finds: what was told to have been
    /// extended is never taken at an earlier end, and after the loss nothing is extended.
    #[test]
    fn an_extension_and_an_expiry_never_both_win() {
        for _ in 0..200 {
            let cell = LeaseCell::new().unwrap();
            cell.arm(Mono(1)).unwrap();
            let (last, lost) = (AtomicU64::new(1), AtomicBool::new(false));
            let taken = std::thread::scope(|scope| {
                scope.spawn(|| {
                    for end in 1.. {
                        // Read before the attempt: if the loss was told already, the attempt must fail.
                        let late = lost.load(SeqCst);
                        if cell.extend(Mono(end), Mono(end + 1)).is_err() {
                            return;
                        }
                        assert!(!late, "extended after the loss");
                        last.store(end + 1, SeqCst);
                    }
                });
                loop {
                    match cell.state() {
                        CellState::Until(end) if end < Mono(100) => std::hint::spin_loop(),
                        CellState::Until(end) if !cell.expire(end) => {}
                        state => {
                            lost.store(true, SeqCst);
                            break state;
                        }
                    }
                }
            });
            assert_eq!(cell.state(), CellState::Lost);
            assert_eq!(taken, CellState::Until(Mono(last.load(SeqCst))));
        }
    }
}
