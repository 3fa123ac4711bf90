//! An entry block: who a slot is, and the greatest generation it gave away. Written seldom.
//!
//! ```text
//! 0x000  magic       [8]   "MMPSLOT", NUL
//! 0x008  slot        u32   its number
//! 0x00C  state       u16   0 free, 1 used
//! 0x00E  zero        u16
//! 0x010  high_water  u64   the greatest generation given away
//! 0x018  target      [16]  UUID of what is protected
//! 0x028  name        [64]
//! 0x068  changed_s   u64   seconds since 1970
//! 0x070  area        [16]  the area's UUID
//! 0x080  zero        up to 0x3FC
//! 0x3FC  checksum    u32   crc32c over 0..0x3FC from crc32c(0xFFFFFFFF, the area's uuid)
//! ```

use byteorder::{ByteOrder, LittleEndian};

use super::error::{AreaBlock, AreaDamage, AreaError, Hex, Want};
use super::{LOCK_SLOT, SlotName, array_at, seal, u16_at, u32_at, u64_at, verify, verify_name};
use crate::format::{ChecksumSeed, Image, Name};

/// What an entry begins with.
pub const ENTRY_MAGIC: [u8; 8] = *b"MMPSLOT\0";

const SLOT: usize = 0x008;
const STATE: usize = 0x00C;
const HIGH_WATER: usize = 0x010;
const TARGET: usize = 0x018;
const NAME: usize = 0x028;
const CHANGED_S: usize = 0x068;
const AREA: usize = 0x070;
const AREA_END: usize = 0x080;

/// Whether a slot is somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// Nobody's: it can be added.
    Free,
    /// It was added, and has a name.
    Used,
}

impl EntryState {
    const fn value(self) -> u16 {
        match self {
            EntryState::Free => 0,
            EntryState::Used => 1,
        }
    }
}

/// The fields of an entry block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotEntry {
    /// 0x008 `slot`: its number.
    pub slot: u32,
    /// 0x00C `state`; slot 0 is always used.
    pub state: EntryState,
    /// 0x010 `high_water`: the greatest generation that may have been given away; 0 if none was. Stays when the slot is removed.
    pub high_water: u64,
    /// 0x018 `target`: the UUID of what is protected; zeroes if that is not said.
    pub target: [u8; 16],
    /// 0x028 `name`; empty only in a free one.
    pub name: SlotName,
    /// 0x068 `changed_s`: when this was written, in seconds since 1970 by the writer's clock.
    pub changed_s: u64,
    /// 0x070 `area`: the area's UUID.
    pub area: [u8; 16],
}

impl SlotEntry {
    /// Decodes the entry of `slot` in the area with the UUID `area`.
    ///
    /// # Errors
    /// [`AreaError::Damaged`] or [`AreaError::Unsupported`].
    pub fn decode(bytes: &Image, area: &[u8; 16], slot: u32) -> Result<Self, AreaError> {
        const BLOCK: AreaBlock = AreaBlock::Entry;
        if !bytes.starts_with(&ENTRY_MAGIC) {
            let mut found = [0; 16];
            found[..8].copy_from_slice(&bytes[..SLOT]);
            let found = Name::from_field(found);
            return Err(AreaDamage::Magic { block: BLOCK, offset: 0, found }.into());
        }
        verify(BLOCK, bytes, ChecksumSeed::from_uuid(area))?;
        let state = match u16_at(bytes, STATE) {
            0 => EntryState::Free,
            1 => EntryState::Used,
            other => {
                let (field, offset, found) = ("state", STATE, other.into());
                return Err(AreaError::Unsupported { block: BLOCK, field, offset, found, knows: "0 and 1" });
            }
        };
        let entry = SlotEntry {
            slot: u32_at(bytes, SLOT),
            state,
            high_water: u64_at(bytes, HIGH_WATER),
            target: array_at(bytes, TARGET),
            name: SlotName::from_field(array_at(bytes, NAME)),
            changed_s: u64_at(bytes, CHANGED_S),
            area: array_at(bytes, AREA),
        };
        entry.check(area, slot)?;
        Ok(entry)
    }

    fn check(&self, area: &[u8; 16], slot: u32) -> Result<(), AreaDamage> {
        const BLOCK: AreaBlock = AreaBlock::Entry;
        if self.area != *area {
            let (found, want) = (Hex(self.area), Hex(*area));
            return Err(AreaDamage::Uuid { block: BLOCK, field: "area", offset: AREA, found, want });
        }
        if self.slot != slot {
            let (found, want) = (self.slot.into(), Want::Exactly(slot.into()));
            return Err(AreaDamage::Field { block: BLOCK, field: "slot", offset: SLOT, found, want });
        }
        if slot == LOCK_SLOT && self.state == EntryState::Free {
            let (found, want) = (0, Want::Such("1: slot 0 is always used"));
            return Err(AreaDamage::Field { block: BLOCK, field: "state", offset: STATE, found, want });
        }
        verify_name(BLOCK, NAME, slot, self.name, self.state == EntryState::Free)
    }

    /// Writes fields, magic and checksum into `bytes`; leaves what has no field as it was.
    pub fn encode_into(&self, bytes: &mut Image) {
        bytes[..SLOT].copy_from_slice(&ENTRY_MAGIC);
        LittleEndian::write_u32(&mut bytes[SLOT..], self.slot);
        LittleEndian::write_u16(&mut bytes[STATE..], self.state.value());
        LittleEndian::write_u64(&mut bytes[HIGH_WATER..], self.high_water);
        bytes[TARGET..NAME].copy_from_slice(&self.target);
        bytes[NAME..CHANGED_S].copy_from_slice(self.name.field());
        LittleEndian::write_u64(&mut bytes[CHANGED_S..], self.changed_s);
        bytes[AREA..AREA_END].copy_from_slice(&self.area);
        seal(bytes, ChecksumSeed::from_uuid(&self.area));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::MMP_STRUCT_BYTES;
    use crate::format::area::{SlotNameError, slot_name};

    const UUID: [u8; 16] = *b"0123456789abcdef";

    fn entry() -> SlotEntry {
        SlotEntry {
            slot: 3,
            state: EntryState::Used,
            high_water: 0x0102_0304_0506_0708,
            target: *b"TARGETTARGETTARG",
            name: slot_name(b"data").unwrap(),
            changed_s: 1_700_000_000,
            area: UUID,
        }
    }

    fn image(entry: &SlotEntry) -> Image {
        let mut bytes = [0; MMP_STRUCT_BYTES];
        entry.encode_into(&mut bytes);
        bytes
    }

    fn error(entry: &SlotEntry) -> AreaError {
        SlotEntry::decode(&image(entry), &UUID, 3).unwrap_err()
    }

    #[test]
    fn fields_stand_at_their_offsets() {
        let bytes = image(&entry());
        assert_eq!(&bytes[..0x18], b"MMPSLOT\0\x03\0\0\0\x01\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01");
        assert_eq!((&bytes[0x18..0x28], &bytes[0x28..0x2D]), (&b"TARGETTARGETTARG"[..], &b"data\0"[..]));
        assert_eq!((u64_at(&bytes, 0x68), &bytes[0x70..0x80]), (1_700_000_000, &UUID[..]));
        assert!(bytes[0x80..0x3FC].iter().all(|&byte| byte == 0));
        assert_eq!(SlotEntry::decode(&bytes, &UUID, 3), Ok(entry()));
    }

    #[test]
    fn what_has_no_field_survives() {
        let mut bytes = [0xa5; MMP_STRUCT_BYTES];
        entry().encode_into(&mut bytes);
        assert!(bytes[0x0E..0x10].iter().chain(&bytes[0x80..0x3FC]).all(|&byte| byte == 0xa5));
        assert_eq!(SlotEntry::decode(&bytes, &UUID, 3), Ok(entry()));
    }

    #[test]
    fn an_entry_of_another_area_or_slot_is_damage() {
        let bytes = image(&entry());
        let foreign = SlotEntry::decode(&bytes, b"fedcba9876543210", 3).unwrap_err();
        assert!(matches!(foreign, AreaError::Damaged { damage: AreaDamage::Checksum { .. } }), "{foreign}");
        let mut bound = bytes;
        bound[AREA] ^= 1;
        seal(&mut bound, ChecksumSeed::from_uuid(&UUID));
        let foreign = SlotEntry::decode(&bound, &UUID, 3).unwrap_err();
        assert!(matches!(foreign, AreaError::Damaged { damage: AreaDamage::Uuid { .. } }), "{foreign}");
        let elsewhere = SlotEntry::decode(&bytes, &UUID, 2).unwrap_err();
        let text = "the area is damaged: entry block: slot is 3 at its byte 0x8 (want 2)";
        assert_eq!(elsewhere.to_string(), text);
        let blank = SlotEntry::decode(&[0; MMP_STRUCT_BYTES], &UUID, 3).unwrap_err();
        assert!(blank.is_damage() && blank.is_absent());
    }

    #[test]
    fn names_are_checked_where_there_has_to_be_one() {
        let named = |state, name| SlotEntry { state, name: SlotName::new(name), ..entry() };
        let free = named(EntryState::Free, "");
        assert_eq!(SlotEntry::decode(&image(&free), &UUID, 3), Ok(free));
        for (state, name, want) in [
            (EntryState::Used, "", SlotNameError::Empty),
            (EntryState::Used, "12", SlotNameError::DigitsOnly),
            (EntryState::Free, "12", SlotNameError::DigitsOnly),
        ] {
            match error(&named(state, name)) {
                AreaError::Damaged { damage: AreaDamage::Name { why, .. } } => assert_eq!(why, want),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_lock_is_always_used() {
        let lock = SlotEntry { slot: 0, name: SlotName::new("lock"), ..entry() };
        assert_eq!(SlotEntry::decode(&image(&lock), &UUID, 0), Ok(lock));
        let free = SlotEntry { state: EntryState::Free, ..lock };
        let text = "entry block: state is 0 at its byte 0xc (want 1: slot 0 is always used)";
        assert!(SlotEntry::decode(&image(&free), &UUID, 0).unwrap_err().to_string().ends_with(text));
        let named = SlotEntry { name: SlotName::new("other"), ..lock };
        assert!(
            SlotEntry::decode(&image(&named), &UUID, 0)
                .unwrap_err()
                .to_string()
                .contains("is called \"lock\"")
        );
    }

    #[test]
    fn a_later_state_is_unsupported() {
        let mut bytes = image(&entry());
        bytes[STATE] = 2;
        seal(&mut bytes, ChecksumSeed::from_uuid(&UUID));
        let later = SlotEntry::decode(&bytes, &UUID, 3).unwrap_err();
        assert!(matches!(later, AreaError::Unsupported { field: "state", .. }), "{later}");
    }
}
