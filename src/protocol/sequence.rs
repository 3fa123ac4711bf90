//! What the values of `mmp_seq` mean, and which one comes next (Linux `fs/ext4/ext4.h`, `EXT4_MMP_SEQ_*`).
//!
//! A peer compares sequences for equality only, so any change tells it that somebody lives. The difference between
//! *one more* and *far away* is for us: a holder counts by one, a claimer jumps. That is how a holder knows a
//! claimer from another holder (`hold`), and why every write of a claim is a jump, its middle beat too.

use serde::Serialize;

/// The largest live value, `EXT4_MMP_SEQ_MAX`.
pub const SEQ_MAX: u32 = 0xE24D_4D4F;
/// `EXT4_MMP_SEQ_FSCK`: e2fsck is at work.
pub const SEQ_FSCK: u32 = 0xE24D_4D50;
/// `EXT4_MMP_SEQ_CLEAN`: nobody uses the device.
pub const SEQ_CLEAN: u32 = 0xFF4D_4D50;

/// How far a holder may have counted between two of our looks and still be known as counting.
pub const COUNTING_REACH: u32 = 16;

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "sequence", content = "value")]
pub enum Sequence {
    /// Somebody beats or claims. 0 is live too: the kernel's random start may be 0.
    Live(u32),
    /// Nobody uses the device.
    Clean,
    /// e2fsck is at work, or died at it.
    Fsck,
    /// No meaning: refuse.
    Unknown(u32),
}

impl From<u32> for Sequence {
    fn from(seq: u32) -> Self {
        match seq {
            SEQ_CLEAN => Sequence::Clean,
            SEQ_FSCK => Sequence::Fsck,
            0..=SEQ_MAX => Sequence::Live(seq),
            _ => Sequence::Unknown(seq),
        }
    }
}

/// The beat after `seq`: one more, from the largest back to 1 (as `kmmpd`).
#[must_use]
pub const fn next(seq: u32) -> u32 {
    if seq >= SEQ_MAX { 1 } else { seq + 1 }
}

/// A live value that is not near `far_from`: further than anybody counts.
#[must_use]
pub fn jump(rng: &mut fastrand::Rng, far_from: u32) -> u32 {
    loop {
        let seq = rng.u32(1..=SEQ_MAX);
        let near = |a: u32, b: u32| a.abs_diff(b) <= 4 * COUNTING_REACH;
        let wrapped =
            seq.min(far_from) <= 4 * COUNTING_REACH && seq.max(far_from) >= SEQ_MAX - 4 * COUNTING_REACH;
        if !near(seq, far_from) && !wrapped {
            return seq;
        }
    }
}

/// How many beats lead from `from` to `to`, if both are live and it is at most `reach`.
#[must_use]
pub fn steps(from: u32, to: u32, reach: u32) -> Option<u32> {
    let (Sequence::Live(from), Sequence::Live(to)) = (from.into(), to.into()) else { return None };
    let (from, to, span) = (u64::from(from), u64::from(to), u64::from(SEQ_MAX));
    // Past the largest the count goes on at 1, so 0 is never reached by counting.
    let steps = if to >= from { to - from } else { to + span - from };
    u32::try_from(steps).ok().filter(|&steps| steps <= reach)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_one_meaning() {
        assert_eq!(Sequence::from(0), Sequence::Live(0));
        assert_eq!(Sequence::from(1), Sequence::Live(1));
        assert_eq!(Sequence::from(SEQ_MAX), Sequence::Live(SEQ_MAX));
        assert_eq!(Sequence::from(SEQ_FSCK), Sequence::Fsck);
        assert_eq!(Sequence::from(SEQ_FSCK + 1), Sequence::Unknown(SEQ_FSCK + 1));
        assert_eq!(Sequence::from(SEQ_CLEAN - 1), Sequence::Unknown(SEQ_CLEAN - 1));
        assert_eq!(Sequence::from(SEQ_CLEAN), Sequence::Clean);
        assert_eq!(Sequence::from(u32::MAX), Sequence::Unknown(u32::MAX));
    }

    #[test]
    fn counting_wraps_to_one() {
        assert_eq!(next(0), 1);
        assert_eq!(next(SEQ_MAX - 1), SEQ_MAX);
        assert_eq!(next(SEQ_MAX), 1);
        assert_eq!(steps(SEQ_MAX, 1, 16), Some(1));
        assert_eq!(steps(SEQ_MAX - 1, 2, 16), Some(3));
        assert_eq!(steps(7, 7, 16), Some(0));
        assert_eq!(steps(7, 6, 16), None);
        assert_eq!(steps(7, 24, 16), None);
        assert_eq!(steps(7, SEQ_CLEAN, 16), None);
    }

    #[test]
    fn a_jump_is_never_a_count() {
        let mut rng = fastrand::Rng::with_seed(1);
        for from in [0, 1, 77, SEQ_MAX, SEQ_CLEAN] {
            for _ in 0..1000 {
                let to = jump(&mut rng, from);
                assert!(matches!(Sequence::from(to), Sequence::Live(1..)));
                assert_eq!(steps(from, to, COUNTING_REACH), None);
                assert_eq!(steps(to, from, COUNTING_REACH), None);
            }
        }
    }
}
