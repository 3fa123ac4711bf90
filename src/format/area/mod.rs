//! MMP areas: blocks of our own, for what has no MMP block of its own (`mmp-format.md`, section "MMP areas").
//!
//! ```text
//! block 0   1 .. n         n+1 .. 2n       2n+1
//! +--------+--------------+---------------+------+    n slots, slot 0 is the lock of the header;
//! | header | slot blocks  | entry blocks  | copy |    blocks of 4096 bytes, of which the first 1024 say something
//! +--------+--------------+---------------+------+
//! ```
//!
//! Every block has a crc32c at 0x3FC. The header's starts from 0xFFFFFFFF, all others from the area's UUID, so a block
//! of another area does not decode here. Each block says which slot it is of, so one that landed at the wrong place does not
//! either. What is damaged and what is of a later version are different errors: the first may be repaired or claimed in the
//! end, the second never.
//!
//! Encoding is in place: what stands in the bytes that this version knows no field for stays as it was. Give it zeroes to make a
//! new block.

pub mod choose;
pub mod entry;
pub mod error;
pub mod header;
pub mod layout;
pub mod record;

use byteorder::{ByteOrder, LittleEndian};

use super::{ChecksumSeed, Image, MMP_STRUCT_BYTES, Name};

pub use choose::{Choice, Repair, RepairReason, choose, counterpart};
pub use entry::{EntryState, SlotEntry};
pub use error::{AreaBlock, AreaDamage, AreaError, Hex, SlotNameError, Want};
pub use header::{AREA_MAGIC, AreaHeader, AreaPlace, HeaderRole};
pub use layout::{AreaLayout, LayoutError, last_block_offset_bytes, slots_that_fit};
pub use record::{GenerationError, GuardRecord, SlotBlock, SlotState, next_generation};

/// Length of every block of an area, in bytes.
pub const AREA_BLOCK_BYTES: usize = 4096;
/// The fewest slots an area has: the lock and one for use.
pub const SLOTS_MIN: u32 = 2;
/// The most slots an area has: the lock and 65,536 for use.
pub const SLOTS_MAX: u32 = 65_537;
/// The number of the slot that locks the header.
pub const LOCK_SLOT: u32 = 0;
/// The name of the slot that locks the header.
pub const LOCK_NAME: &str = "lock";

/// The name of a slot; [`slot_name`] makes one.
pub type SlotName = Name<64>;

/// Where the checksum of every block stands; it covers what is before it.
const CHECKSUM: usize = 0x3FC;

/// Makes the name of a slot from `bytes`: 1 to 64 of them, in any encoding, without NUL, `/`, `:` and control characters,
/// and not digits alone, since a slot is asked for by its number, too.
///
/// # Errors
/// [`SlotNameError`] says what is wrong with it.
pub fn slot_name(bytes: &[u8]) -> Result<SlotName, SlotNameError> {
    let mut field = [0; 64];
    if bytes.is_empty() {
        return Err(SlotNameError::Empty);
    }
    let to = field.get_mut(..bytes.len()).ok_or(SlotNameError::TooLong { bytes: bytes.len() })?;
    let forbidden = |byte: &u8| byte.is_ascii_control() || matches!(byte, b'/' | b':');
    if let Some(at) = bytes.iter().position(forbidden) {
        return Err(SlotNameError::Forbidden { byte: bytes[at], at });
    }
    if bytes.iter().all(u8::is_ascii_digit) {
        return Err(SlotNameError::DigitsOnly);
    }
    to.copy_from_slice(bytes);
    Ok(SlotName::from_field(field))
}

/// Makes the 4096 bytes to be written from the 1024 that say something.
#[must_use]
pub fn whole_block(image: &Image) -> [u8; AREA_BLOCK_BYTES] {
    let mut block = [0; AREA_BLOCK_BYTES];
    block[..MMP_STRUCT_BYTES].copy_from_slice(image);
    block
}

/// The 1024 bytes that say something, of the 4096 that were read.
#[must_use]
pub fn image_of(block: &[u8; AREA_BLOCK_BYTES]) -> &Image {
    &block.as_chunks().0[0]
}

fn u16_at(bytes: &Image, at: usize) -> u16 {
    LittleEndian::read_u16(&bytes[at..])
}

fn u32_at(bytes: &Image, at: usize) -> u32 {
    LittleEndian::read_u32(&bytes[at..])
}

fn u64_at(bytes: &Image, at: usize) -> u64 {
    LittleEndian::read_u64(&bytes[at..])
}

fn array_at<const N: usize>(bytes: &Image, at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Writes the checksum over what stands in `bytes`.
fn seal(bytes: &mut Image, seed: ChecksumSeed) {
    let checksum = seed.checksum(&bytes[..CHECKSUM]);
    LittleEndian::write_u32(&mut bytes[CHECKSUM..], checksum);
}

fn verify(block: AreaBlock, bytes: &Image, seed: ChecksumSeed) -> Result<(), AreaDamage> {
    let stored = u32_at(bytes, CHECKSUM);
    let computed = seed.checksum(&bytes[..CHECKSUM]);
    if stored == computed { Ok(()) } else { Err(AreaDamage::Checksum { block, stored, computed }) }
}

/// Checks the name that a block gives to slot `slot`; an `unused` slot may have none.
fn verify_name(
    block: AreaBlock,
    offset: usize,
    slot: u32,
    name: SlotName,
    unused: bool,
) -> Result<(), AreaDamage> {
    if unused && name.is_empty() {
        return Ok(());
    }
    let why = match slot_name(name.bytes()) {
        Err(why) => why,
        Ok(_) if slot == LOCK_SLOT && name.bytes() != LOCK_NAME.as_bytes() => SlotNameError::NotTheLocks,
        Ok(_) => return Ok(()),
    };
    Err(AreaDamage::Name { block, offset, found: name, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_are_checked() {
        for good in ["a", "db 1", "größe", "007x", &"n".repeat(64)] {
            assert_eq!(slot_name(good.as_bytes()).unwrap().bytes(), good.as_bytes());
        }
        assert_eq!(slot_name(b"\xff\xfe").unwrap().to_string(), "\\xff\\xfe");
        assert_eq!(slot_name(b""), Err(SlotNameError::Empty));
        assert_eq!(slot_name(&[b'n'; 65]), Err(SlotNameError::TooLong { bytes: 65 }));
        assert_eq!(slot_name(b"12"), Err(SlotNameError::DigitsOnly));
        for byte in (0..0x20).chain(*b"/:\x7f") {
            assert_eq!(slot_name(&[b'a', byte]), Err(SlotNameError::Forbidden { byte, at: 1 }));
        }
    }

    #[test]
    fn a_whole_block_ends_with_zeroes() {
        let block = whole_block(&[0xa5; MMP_STRUCT_BYTES]);
        assert!(block[MMP_STRUCT_BYTES..].iter().all(|&byte| byte == 0));
        assert_eq!(image_of(&block), &[0xa5; MMP_STRUCT_BYTES]);
    }
}
