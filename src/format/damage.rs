//! Why bytes are no MMP block, on either medium.

use super::area::AreaError;
use super::block::BlockDamage;

/// Why a block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(untagged)]
pub enum Damage {
    /// No `mmp_struct`.
    #[error(transparent)]
    Block(#[from] BlockDamage),
    /// No slot block of an area.
    #[error(transparent)]
    Area(#[from] AreaError),
}

impl Damage {
    /// True if the bytes look like a block of which a part is another's: torn, or damaged. False if it is no such block any more (its
    /// magic, in the first sector like all fields, is missing, which no torn write of such a block leaves), or one of a later format.
    #[must_use]
    pub fn may_be_torn(&self) -> bool {
        match self {
            Damage::Block(damage) => matches!(damage, BlockDamage::Checksum { .. }),
            Damage::Area(error) => error.is_damage() && !error.is_absent(),
        }
    }
}
