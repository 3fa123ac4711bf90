//! The last looks and beats of a guard, and what its thread does at this moment: for who watches the watcher.
//!
//! Protects: the guarding thread alone writes here, into words that were there before its first look: no allocation, no lock, nothing
//! that could be waited for. A reader never sees half an entry: the time that stands in an entry is also its sequence word.
//! Does not protect: what is read here is a report, and decides nothing. Lengths are kept to one part in 32,000.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::clock::{self, Mono};

/// So many are kept: three minutes of a beat a second.
const KEPT: usize = 180;
/// Bits of a packed length, and of its mantissa.
const LENGTH_BITS: u32 = 21;
const MANTISSA_BITS: u32 = 16;
/// An entry that is being written.
const UNFINISHED: u64 = 0;

/// One look, and the beat that followed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    /// When the look began.
    pub(crate) at: Mono,
    /// How long it took.
    pub(crate) read: Duration,
    /// How long the write after it took; none where nothing was written, as when a kernel beats.
    pub(crate) write: Option<Duration>,
    /// How long after its time the look began.
    pub(crate) late: Duration,
}

impl Beat {
    /// From when it was due to when it was through.
    pub(crate) fn behind(&self) -> Duration {
        self.late + self.read + self.write.unwrap_or_default()
    }
}

/// The ring.
#[derive(Debug)]
pub(super) struct History {
    entries: Box<[Entry]>,
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    /// [`Beat::at`], or [`UNFINISHED`].
    at: AtomicU64,
    /// The three lengths.
    lengths: AtomicU64,
}

impl Default for History {
    fn default() -> Self {
        let entries = std::iter::repeat_with(Entry::default).take(KEPT).collect();
        History { entries, written: AtomicU64::new(0) }
    }
}

impl History {
    /// Adds one. By the guarding thread alone.
    fn push(&self, beat: &Beat) {
        let written = self.written.load(SeqCst);
        let entry = &self.entries[place(written)];
        entry.at.store(UNFINISHED, SeqCst);
        entry.lengths.store(pack(beat), SeqCst);
        entry.at.store(beat.at.0, SeqCst);
        self.written.store(written + 1, SeqCst);
    }

    /// Those that began after `after`, the oldest first. An entry that is being overwritten is left out.
    pub(super) fn since(&self, after: Mono) -> Vec<Beat> {
        let written = self.written.load(SeqCst);
        let first = written.saturating_sub(KEPT as u64);
        let newest_first = (first..written).rev().filter_map(|number| self.entries[place(number)].read());
        let mut beats: Vec<_> = newest_first.take_while(|beat| beat.at > after).collect();
        beats.sort_by_key(|beat| beat.at); // one that came while we read stands in the place of the oldest
        beats
    }
}

impl Entry {
    fn read(&self) -> Option<Beat> {
        let at = self.at.load(SeqCst);
        let lengths = self.lengths.load(SeqCst);
        // Times only grow: the same one twice means that nothing was written in between.
        (at != UNFINISHED && self.at.load(SeqCst) == at).then(|| unpack(Mono(at), lengths))
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % KEPT as u64).unwrap_or_default()
}

fn pack(beat: &Beat) -> u64 {
    // Zero stands for no write at all.
    let write = beat.write.map_or(0, |write| shorten(write).max(1));
    shorten(beat.read) | write << LENGTH_BITS | shorten(beat.late) << (2 * LENGTH_BITS)
}

fn unpack(at: Mono, lengths: u64) -> Beat {
    let part = |index: u32| lengths >> (index * LENGTH_BITS) & ((1 << LENGTH_BITS) - 1);
    let write = Some(part(1)).filter(|&write| write != 0).map(lengthen);
    Beat { at, read: lengthen(part(0)), write, late: lengthen(part(2)) }
}

/// Nanoseconds as mantissa and exponent.
fn shorten(length: Duration) -> u64 {
    let ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    let exponent = (u64::BITS - ns.leading_zeros()).saturating_sub(MANTISSA_BITS);
    match u64::from(exponent) {
        exponent @ 0..32 => exponent << MANTISSA_BITS | ns >> exponent,
        _ => (1 << LENGTH_BITS) - 1, // a day and a half
    }
}

fn lengthen(short: u64) -> Duration {
    let (exponent, mantissa) = (short >> MANTISSA_BITS, short & ((1 << MANTISSA_BITS) - 1));
    Duration::from_nanos(mantissa << exponent)
}

/// What the guarding thread does now: waits for its device, or for its time.
#[derive(Debug, Default)]
pub(super) struct PulseWords {
    /// When the device I/O that is under way began, in Mono nanoseconds; 0 for none.
    io_since: AtomicU64,
    /// When the thread is to run again.
    deadline: AtomicU64,
}

/// The same, as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Since when it waits for its device; none if it does not.
    pub(crate) io_since: Option<Mono>,
    /// When it was, or is, to run again. Long past, and no I/O under way: the thread is not run.
    pub(crate) deadline: Mono,
}

/// When something began and how long it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    begun: Mono,
    took: Duration,
}

impl PulseWords {
    /// Does device I/O.
    pub(super) fn timed<T>(&self, io: impl FnOnce() -> T) -> (T, Timed) {
        let begun = clock::mono();
        self.io_since.store(begun.0, SeqCst);
        let result = io();
        self.io_since.store(0, SeqCst);
        (result, Timed { begun, took: clock::mono().since(begun) })
    }

    pub(super) fn sleeping_until(&self, deadline: Mono) {
        self.deadline.store(deadline.0, SeqCst);
    }

    pub(super) fn read(&self) -> Pulse {
        let io_since = Some(self.io_since.load(SeqCst)).filter(|&since| since != 0).map(Mono);
        Pulse { io_since, deadline: Mono(self.deadline.load(SeqCst)) }
    }
}

/// The look that is under way, until what follows it is known.
#[derive(Debug, Default)]
pub(super) struct Pace {
    late: Duration,
    look: Option<Beat>,
}

impl Pace {
    /// The thread woke up so late.
    pub(super) fn woke(&mut self, late: Duration) {
        self.late = late;
    }

    pub(super) fn looked(&mut self, timed: Timed) {
        let late = std::mem::take(&mut self.late);
        self.look = Some(Beat { at: timed.begun, read: timed.took, write: None, late });
    }

    pub(super) fn wrote(&mut self, timed: Timed) {
        if let Some(look) = &mut self.look {
            look.write = Some(timed.took);
        }
    }

    /// Nothing follows any more. What was no part of holding is not kept.
    pub(super) fn settle(&mut self, holding: bool, into: &History) {
        if let Some(look) = self.look.take().filter(|_| holding) {
            into.push(&look);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(number: u64) -> Beat {
        let ns = Duration::from_nanos;
        let write = number.is_multiple_of(2).then(|| ns(number + 2));
        Beat { at: Mono(number + 1), read: ns(number + 1), write, late: ns(number + 3) }
    }

    #[test]
    fn the_last_ones_are_kept_in_order() {
        let history = History::default();
        assert!(history.since(Mono(0)).is_empty());
        for number in 0..1000 {
            history.push(&beat(number));
            let all = history.since(Mono(0));
            assert_eq!(all.len() as u64, (number + 1).min(KEPT as u64));
            assert_eq!(all.last(), Some(&beat(number)));
        }
        let kept: Vec<_> = (1000 - KEPT as u64..1000).map(beat).collect();
        assert_eq!(history.since(Mono(0)), kept);
        assert_eq!(history.since(Mono(998)), [beat(998), beat(999)]);
        assert!(history.since(Mono(1000)).is_empty());
    }

    #[test]
    fn lengths_are_kept_to_one_part_in_32000() {
        for exponent in 0..47 {
            for ns in [1_u64 << exponent, (1 << exponent) + 1, (1 << exponent) | ((1 << exponent) - 1)] {
                let kept = u64::try_from(lengthen(shorten(Duration::from_nanos(ns))).as_nanos()).unwrap();
                assert!(kept <= ns && ns - kept <= ns >> 15, "{ns} became {kept}");
            }
        }
        let longest = lengthen(shorten(Duration::MAX));
        assert!(longest > Duration::from_secs(100_000), "{longest:?}");
        let none = Beat { at: Mono(5), read: Duration::MAX, write: None, late: Duration::ZERO };
        let some = Beat { write: Some(Duration::ZERO), ..none };
        assert_eq!(unpack(Mono(5), pack(&none)).write, None);
        assert_eq!(unpack(Mono(5), pack(&some)).write, Some(Duration::from_nanos(1)));
    }

    /// The three lengths and the time of each entry belong together, however often it is read while it is written.
    #[test]
    fn nobody_sees_half_an_entry() {
        let history = std::sync::Arc::new(History::default());
        let writer = std::thread::spawn({
            let history = std::sync::Arc::clone(&history);
            move || (0..60_000).for_each(|number| history.push(&beat(number)))
        });
        let mut read = 0;
        while !writer.is_finished() || read == 0 {
            for seen in history.since(Mono(0)) {
                let number = seen.at.0 - 1;
                let kept = unpack(seen.at, pack(&beat(number)));
                assert_eq!(seen, kept, "torn");
                read += 1;
            }
        }
        writer.join().unwrap();
    }

    #[test]
    fn the_pulse_tells_a_device_that_hangs_from_a_thread_that_does_not_run() {
        let words = PulseWords::default();
        words.sleeping_until(Mono(7));
        assert_eq!(words.read(), Pulse { io_since: None, deadline: Mono(7) });
        let (inside, timed) = words.timed(|| words.read());
        assert_eq!(inside.io_since, Some(timed.begun));
        assert_eq!(words.read().io_since, None);
    }

    #[test]
    fn a_look_is_kept_with_the_write_that_followed_it() {
        let (history, mut pace) = (History::default(), Pace::default());
        let timed = |at| Timed { begun: Mono(at), took: Duration::from_nanos(at) };
        pace.looked(timed(1));
        pace.settle(false, &history); // a claim's
        pace.woke(Duration::from_nanos(9));
        pace.looked(timed(2));
        pace.wrote(timed(3));
        pace.settle(true, &history);
        pace.looked(timed(4));
        pace.settle(true, &history);
        pace.settle(true, &history);
        let ns = Duration::from_nanos;
        let first = Beat { at: Mono(2), read: ns(2), write: Some(ns(3)), late: ns(9) };
        let second = Beat { at: Mono(4), read: ns(4), write: None, late: ns(0) };
        assert_eq!(history.since(Mono(0)), [first, second]);
        assert_eq!(first.behind(), ns(14));
    }
}
