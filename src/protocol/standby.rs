//! Watching ahead: a host that means to take over watches the block before anybody asks it to, and a later claim counts that time.
//!
//! # Why it is safe
//! A claim may use a device when the holder's block stood still from the *end* of one look to the *start* of another for as long as
//! step 2 asks. Whose looks these are makes no difference, as long as they are of this host, by its clock, of this block. So a [`Credit`]
//! is worth what a watch of the claim's own would be worth that began at [`Credit::since`]:
//! - it counts for the very bytes that were watched; the claim's first look, made after it was asked for, has to show the same 1024;
//! - only a *live* sequence earns it. What is live was written once, so what stands again has stood all the time. A clean mark may be
//!   written twice, and needs no watch, or one for other reasons; e2fsck's is never proved dead by one;
//! - it counts only while looks followed each other closely: a longer hole, a look that failed, or one that showed anything else begins
//!   it anew, and a hole before the claim's first look voids it. A write that lands twice (its path failed over) may cover a newer beat,
//!   and only a look in between tells. With holes that short a standby sees what a claim would see;
//! - it brings the slowest of its looks along: a claim watches for so much longer as I/O was seen to take.
//!
//! What follows is as before: the claim stands and is watched for a wait, rivals are found, and nothing is shortened of that. A first
//! look that shows anything else voids the credit for good, also if its bytes should come back. The argument in full is S13 of
//! `docs/safety.md`.
//!
//! It does not protect anything by itself, writes nothing, and is worth nothing to a kernel that does its own waiting.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sequence::Sequence;
use super::timing;
use crate::clock::Mono;
use crate::format::{Image, MmpBlock};

/// What a standby has seen so far.
#[derive(Clone, Debug)]
pub struct Standby {
    interval: Duration,
    seen: Option<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    image: Image,
    /// End of the first look that showed it.
    since: Mono,
    /// Start of the last one.
    last: Mono,
    /// How long the slowest of them took.
    slowest: Duration,
}

/// Time that was watched before a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    bytes: Vec<u8>,
    since_ns: u64,
    last_ns: u64,
    slowest_ns: u64,
}

impl Standby {
    /// Of a block whose holder beats every `interval` or oftener.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Standby { interval, seen: None }
    }

    /// When the next look is due after one that began at `began`.
    #[must_use]
    pub fn next_look(&self, began: Mono) -> Mono {
        began + timing::look_period(self.interval)
    }

    /// A look began at `began`, ended at `ended`, and showed `image`.
    pub fn looked(&mut self, began: Mono, ended: Mono, image: &Image) {
        let hole = timing::standby_hole(self.interval);
        let took = ended.since(began);
        let goes_on = |seen: &Seen| {
            let same = seen.image == *image || broken!(CreditForOtherBytes);
            let closely = began.since(seen.last) <= hole || broken!(CreditOverAHole);
            same && closely
        };
        match &mut self.seen {
            Some(seen) if goes_on(seen) => (seen.last, seen.slowest) = (began, seen.slowest.max(took)),
            seen => *seen = Some(Seen { image: *image, since: ended, last: began, slowest: took }),
        }
    }

    /// A look failed: whatever happened in that time was not seen.
    pub fn failed(&mut self) {
        self.seen = None;
    }

    /// The bytes last seen, and for how long they have stood.
    #[must_use]
    pub fn quiet(&self) -> Option<(&Image, Duration)> {
        self.seen.as_ref().map(|seen| (&seen.image, seen.last.since(seen.since)))
    }

    /// What a claim may count, if it begins now.
    #[must_use]
    pub fn credit(&self) -> Option<Credit> {
        let seen = self.seen.as_ref()?;
        let live = matches!(Sequence::from(MmpBlock::fields(&seen.image).seq), Sequence::Live(_));
        let slowest_ns = u64::try_from(seen.slowest.as_nanos()).unwrap_or(u64::MAX);
        live.then(|| Credit {
            bytes: seen.image.to_vec(),
            since_ns: seen.since.0,
            last_ns: seen.last.0,
            slowest_ns,
        })
    }
}

impl Credit {
    /// Since when `image` has stood, as a look finds that began at `began`. None if it shows something else, or if the standby had not
    /// looked for longer than `hole`.
    pub(super) fn since(&self, image: &Image, began: Mono, hole: Duration) -> Option<Mono> {
        let same = self.bytes == image[..] || broken!(CreditForOtherBytes);
        let closely = began.since(Mono(self.last_ns)) <= hole || broken!(CreditOverAHole);
        (same && closely && self.last_ns <= began.0).then_some(Mono(self.since_ns))
    }

    /// How long the slowest of its looks took.
    pub(super) fn slowest(&self) -> Duration {
        Duration::from_nanos(self.slowest_ns)
    }
}
