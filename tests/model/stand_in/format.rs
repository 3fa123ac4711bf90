//! The library's own `format`, but for two things: an image prints its fields, not its 1024 bytes, since a fingerprint is
//! taken of every guard after every step; and what the time is worth as a generation is said by the model (`ours::slot`). Which bytes
//! there are, and what they mean, the library says.

use std::fmt;
use std::ops::{Deref, DerefMut};

pub(crate) use mmpguard::format::*;

pub(crate) mod area {
    pub(crate) use mmpguard::format::area::*;

    /// The library's own, with a floor that is a generation itself.
    pub(crate) fn next_generation(
        slot: Option<u64>,
        high_water: Option<u64>,
        floor: u64,
    ) -> Result<u64, GenerationError> {
        mmpguard::format::area::next_generation(slot, high_water, 0).map(|next| next.max(floor))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Image(pub(crate) [u8; MMP_STRUCT_BYTES]);

impl Deref for Image {
    type Target = [u8; MMP_STRUCT_BYTES];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Image {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl fmt::Debug for Image {
    /// All that differs between the images of a model: the wall clock stands, and the padding is empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MmpBlock { seq, node, check_interval_s, .. } = MmpBlock::fields(self);
        write!(f, "Image {{ seq: {seq}, node: {node:?}, c: {check_interval_s} ")?;
        if let Some((state, generation, torn)) = crate::ours::slot::printed(self) {
            write!(f, "state: {state}, generation: {generation}, torn: {torn} ")?;
        }
        f.write_str("}")
    }
}
