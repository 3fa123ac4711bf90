//! The library's own `protocol::sequence`, but for the random jump: each host counts in a region of its own, and a jump leads
//! [`JUMP`] further in it. So a jump is never near to anything, as in the library, and no two writes ever look alike, which
//! random numbers of 32 bits promise almost; the model checks nothing about the numbers themselves.

pub use super::numbers::{COUNTING_REACH, SEQ_CLEAN, SEQ_FSCK, SEQ_MAX, Sequence, next, steps};
use crate::random::{self, Rng};

/// Further than anybody counts, or remembers his own beats.
pub const JUMP: u32 = 2000;

pub fn jump(_: &mut Rng, _far_from: u32) -> u32 {
    random::latest() + JUMP
}
