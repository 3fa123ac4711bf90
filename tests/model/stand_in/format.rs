//! The library's own `format`, but for one thing: an image prints its fields, not its 1024 bytes, since a fingerprint is
//! taken of every guard after every step. Which bytes there are, and what they mean, the library says.

use std::fmt;
use std::ops::{Deref, DerefMut};

pub(crate) use mmpguard::format::*;

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
        write!(f, "Image {{ seq: {seq}, node: {node:?}, c: {check_interval_s} }}")
    }
}
