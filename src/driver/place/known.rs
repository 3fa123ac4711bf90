//! Where a slot was found, for who goes on with a guard of it when its target does not look as it did.
//!
//! Protects: a guard whose driver is replaced while its LUN was grown under it (the array does that at any time) is not lost for that.
//! Does not say that the slot is still the guard's: its block does, by boot and generation.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AreaView, Place, with_target};
use crate::error::Error;
use crate::format::area::HeaderRole;
use crate::io::Device;

/// Where a slot was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSlot {
    target: PathBuf,
    header_offset_bytes: u64,
    slot: u32,
}

impl Place {
    /// Where a slot was found before, for who goes on with a guard of it: its target may have been grown since, and then it is found
    /// by nobody else. Whether the slot is still the guard's its block tells.
    ///
    /// # Errors
    /// As [`Place::of_slot`]; [`Error::Unprotected`] if no area stands there any more.
    pub(crate) fn known(asked: &Path, known: &KnownSlot, guarded: Option<&Path>) -> Result<Self, Error> {
        let target = Device::inspect(&known.target)?;
        let Some(area) = AreaView::at(&target, HeaderRole::Header, known.header_offset_bytes)? else {
            let what = "its area does not stand any more where it stood".to_owned();
            return Err(Error::Unprotected { path: known.target.clone(), what });
        };
        let slot = area.read_slot(known.slot)?;
        let guarded = guarded.map(Device::inspect).transpose()?;
        let place = Place::of_moved_slot(asked, &area, slot, None)?;
        Ok(Place { guarded: guarded.map(with_target), ..place })
    }

    /// Where its slot stands, for whoever goes on; none natively.
    pub(crate) fn known_slot(&self) -> Option<KnownSlot> {
        let (area, slot) = self.slot()?;
        Some(KnownSlot {
            target: area.device.canonical().to_owned(),
            header_offset_bytes: area.layout.header_offset_bytes(),
            slot: slot.number,
        })
    }
}
