//! A slot block: an `mmp_struct`, with a guard record in what that calls padding.
//!
//! ```text
//! 0x000  mmp_struct           its fields, up to 0x072; the checksum is always there
//! 0x080  magic          u32   0x31445247, "GRD1"
//! 0x084  version        u16   1
//! 0x086  state          u16   0 free, 1 released, 2 claiming, 3 holding
//! 0x088  generation     u64   one more with every acquisition
//! 0x090  slot           u32   its number
//! 0x094  interval_ms    u32   the area's, as the writer knew it
//! 0x098  boot_id        [16]  the writer's
//! 0x0A8  target         [16]  UUID of what is protected
//! 0x0B8  zero           u64
//! 0x0C0  name           [64]  the slot's
//! 0x100  zero           up to 0x3FC
//! 0x3FC  mmp_checksum   u32   crc32c over 0..0x3FC from crc32c(0xFFFFFFFF, the area's uuid)
//! ```
//!
//! All of it but the checksum stands in the first 512 bytes, so a torn write leaves either all fields old or all new.

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

use super::error::{AreaBlock, AreaDamage, AreaError, Want};
use super::header::{INTERVAL_MAX_MS, INTERVAL_MIN_MS};
use super::{SlotName, array_at, u16_at, u32_at, u64_at, verify_name};
use crate::format::{ChecksumSeed, Image, MmpBlock, Name};

/// What a guard record begins with, "GRD1" in ASCII.
pub const RECORD_MAGIC: u32 = 0x3144_5247;
/// The only version of the record.
pub const RECORD_VERSION: u16 = 1;

const MAGIC: usize = 0x080;
const VERSION: usize = 0x084;
const STATE: usize = 0x086;
const GENERATION: usize = 0x088;
const SLOT: usize = 0x090;
const INTERVAL_MS: usize = 0x094;
const BOOT_ID: usize = 0x098;
const TARGET: usize = 0x0A8;
const TARGET_END: usize = 0x0B8;
const NAME: usize = 0x0C0;
const NAME_END: usize = 0x100;

/// A generation that is seeded from the time is that many times the seconds since 1970.
pub const GENERATIONS_A_SECOND: u64 = 1 << 16;
/// `EXT4_MMP_SEQ_CLEAN`; what it means otherwise stands in `protocol::sequence`.
const SEQ_CLEAN: u32 = 0xFF4D_4D50;
/// `EXT4_MMP_SEQ_MAX`.
const SEQ_MAX: u32 = 0xE24D_4D4F;

/// Who does what with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Not used, or not yet since it was added.
    Free,
    /// Its last holder released it.
    Released,
    /// Somebody wants it, and waits to see whether another does.
    Claiming,
    /// Somebody has it.
    Holding,
}

impl SlotState {
    const fn value(self) -> u16 {
        match self {
            SlotState::Free => 0,
            SlotState::Released => 1,
            SlotState::Claiming => 2,
            SlotState::Holding => 3,
        }
    }

    const fn from_value(value: u16) -> Option<Self> {
        match value {
            0 => Some(SlotState::Free),
            1 => Some(SlotState::Released),
            2 => Some(SlotState::Claiming),
            3 => Some(SlotState::Holding),
            _ => None,
        }
    }

    /// True if `seq` may stand beside this state: the clean mark where nobody is at work, a live one (not 0) where somebody is.
    #[must_use]
    pub const fn goes_with(self, seq: u32) -> bool {
        match self {
            SlotState::Free | SlotState::Released => seq == SEQ_CLEAN,
            SlotState::Claiming | SlotState::Holding => seq != 0 && seq <= SEQ_MAX,
        }
    }
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SlotState::Free => "free",
            SlotState::Released => "released",
            SlotState::Claiming => "claiming",
            SlotState::Holding => "holding",
        })
    }
}

/// What a slot block says beyond its `mmp_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardRecord {
    /// 0x086 `state`.
    pub state: SlotState,
    /// 0x088 `generation`: of the holder or claimer, else of the last one; 0 if there was none.
    pub generation: u64,
    /// 0x090 `slot`: its number.
    pub slot: u32,
    /// 0x094 `interval_ms`: how often the writer beats, in milliseconds.
    pub interval_ms: u32,
    /// 0x098 `boot_id` of the writer's host; tells a host from itself after a reboot.
    pub boot_id: [u8; 16],
    /// 0x0A8 `target`: the UUID of what is protected; zeroes if that is not said.
    pub target: [u8; 16],
    /// 0x0C0 `name` of the slot; empty only in a slot that is not used.
    pub name: SlotName,
}

/// A whole slot block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotBlock {
    /// Its `mmp_struct`.
    pub block: MmpBlock,
    /// Its guard record.
    pub record: GuardRecord,
}

impl SlotBlock {
    /// Decodes the block of `slot`, of the area whose UUID gives `seed`.
    ///
    /// # Errors
    /// [`AreaError::Damaged`] or [`AreaError::Unsupported`].
    pub fn decode(bytes: &Image, seed: ChecksumSeed, slot: u32) -> Result<Self, AreaError> {
        let block = MmpBlock::decode(bytes, Some(seed)).map_err(|wrong| AreaDamage::Struct { wrong })?;
        let record = GuardRecord::decode(bytes, slot)?;
        let (seq, state) = (block.seq, record.state);
        match state.goes_with(seq) {
            true => Ok(SlotBlock { block, record }),
            false => Err(AreaDamage::Contradiction { seq, state }.into()),
        }
    }

    /// Writes fields, magics and checksum into `bytes`; leaves what has no field as it was.
    pub fn encode_into(&self, bytes: &mut Image, seed: ChecksumSeed) {
        self.record.encode_into(bytes);
        self.block.encode_into(bytes, Some(seed));
    }
}

impl GuardRecord {
    /// Decodes the record in a block whose checksum was found right, of `slot`. Whether the sequence goes with the state is
    /// for [`SlotBlock::decode`].
    ///
    /// # Errors
    /// [`AreaError::Damaged`] or [`AreaError::Unsupported`].
    pub fn decode(bytes: &Image, slot: u32) -> Result<Self, AreaError> {
        const BLOCK: AreaBlock = AreaBlock::Slot;
        if u32_at(bytes, MAGIC) != RECORD_MAGIC {
            let mut found = [0; 16];
            found[..4].copy_from_slice(&bytes[MAGIC..VERSION]);
            let found = Name::from_field(found);
            return Err(AreaDamage::Magic { block: BLOCK, offset: MAGIC, found }.into());
        }
        let unsupported = |field: &'static str, offset: usize, knows: &'static str| {
            let found = u16_at(bytes, offset).into();
            AreaError::Unsupported { block: BLOCK, field, offset, found, knows }
        };
        if u16_at(bytes, VERSION) != RECORD_VERSION {
            return Err(unsupported("version", VERSION, "1"));
        }
        let state = SlotState::from_value(u16_at(bytes, STATE));
        let record = GuardRecord {
            state: state.ok_or_else(|| unsupported("state", STATE, "0 to 3"))?,
            generation: u64_at(bytes, GENERATION),
            slot: u32_at(bytes, SLOT),
            interval_ms: u32_at(bytes, INTERVAL_MS),
            boot_id: array_at(bytes, BOOT_ID),
            target: array_at(bytes, TARGET),
            name: SlotName::from_field(array_at(bytes, NAME)),
        };
        let wrong = |field: &'static str, offset: usize, found: u32, want: Want| AreaDamage::Field {
            block: BLOCK,
            field,
            offset,
            found: found.into(),
            want,
        };
        if record.slot != slot {
            return Err(wrong("slot", SLOT, record.slot, Want::Exactly(slot.into())).into());
        }
        if !(INTERVAL_MIN_MS..=INTERVAL_MAX_MS).contains(&record.interval_ms) {
            let want = Want::Such("100 to 10000");
            return Err(wrong("interval_ms", INTERVAL_MS, record.interval_ms, want).into());
        }
        verify_name(BLOCK, NAME, slot, record.name, record.state == SlotState::Free)?;
        Ok(record)
    }

    /// Writes the record's fields and its magic into `bytes`; the checksum is [`MmpBlock::encode_into`]'s, which has to follow.
    pub fn encode_into(&self, bytes: &mut Image) {
        LittleEndian::write_u32(&mut bytes[MAGIC..], RECORD_MAGIC);
        LittleEndian::write_u16(&mut bytes[VERSION..], RECORD_VERSION);
        LittleEndian::write_u16(&mut bytes[STATE..], self.state.value());
        LittleEndian::write_u64(&mut bytes[GENERATION..], self.generation);
        LittleEndian::write_u32(&mut bytes[SLOT..], self.slot);
        LittleEndian::write_u32(&mut bytes[INTERVAL_MS..], self.interval_ms);
        bytes[BOOT_ID..TARGET].copy_from_slice(&self.boot_id);
        bytes[TARGET..TARGET_END].copy_from_slice(&self.target);
        bytes[NAME..NAME_END].copy_from_slice(self.name.field());
    }
}

/// The `mmp_check_interval` that stands beside an interval of `interval_ms`: five of them, in whole seconds, at least 1. For other
/// readers of the block; the wait follows from the milliseconds.
#[must_use]
pub fn check_interval_s(interval_ms: u32) -> u16 {
    let seconds = (u64::from(interval_ms) * 5).div_ceil(1000).max(1);
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

/// Why there is no next generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "wrong")]
pub enum GenerationError {
    /// Slot block and entry block are both damaged.
    #[error("slot block and entry block are both damaged: nothing says which generations were given away")]
    Unknown,
    /// There are no greater numbers.
    #[error("the generations of this slot are used up, or a clock is wrong")]
    UsedUp,
}

/// The generation of an acquisition: one more than the greater of the slot block's and the entry block's `high_water`, and at least
/// `floor_s` seconds in units of 2^-16, so that a slot's first one is seeded from time. `floor_s` is the area's `created_s`; where the slot
/// block is damaged, the present time, because a late write may have set the entry back.
///
/// # Errors
/// [`GenerationError::Unknown`] if neither is known (`None`: damaged); [`GenerationError::UsedUp`] past `u64::MAX`.
pub fn next_generation(
    slot: Option<u64>,
    high_water: Option<u64>,
    floor_s: u64,
) -> Result<u64, GenerationError> {
    // None is less than any number.
    let last = slot.max(high_water).ok_or(GenerationError::Unknown)?;
    let floor = floor_s.checked_mul(GENERATIONS_A_SECOND).ok_or(GenerationError::UsedUp)?;
    Ok(last.checked_add(1).ok_or(GenerationError::UsedUp)?.max(floor))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
