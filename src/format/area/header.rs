//! The header of an area, block 0, and its copy, the last block.
//!
//! ```text
//! 0x000  magic              [16]  "mmpguard area", CR, LF, 0x1A
//! 0x010  incompat           u32   an unknown bit: refuse everything
//! 0x014  ro_compat          u32   an unknown bit: read, but write nothing
//! 0x018  compat             u32   unknown bits: ignore, keep
//! 0x01C  block_bytes        u32   4096
//! 0x020  uuid               [16]
//! 0x030  offset_bytes       u64   where block 0 stands on the target
//! 0x038  target_bytes       u64   size of the target
//! 0x040  slots              u32   2 to 65,537, slot 0 among them
//! 0x044  interval_ms        u32   100 to 10,000
//! 0x048  created_s          u64   seconds since 1970
//! 0x050  revision           u64   one more with every rewrite
//! 0x058  role               u16   0 header, 1 copy
//! 0x05A  place              u16   1 tail, 2 whole, 3 file
//! 0x05C  zero               u32
//! 0x060  label              [64]
//! 0x0A0  content_end_bytes  u64   tail: where what stands before it ends
//! 0x0A8  content            [16]  what blkid called that
//! 0x0B8  zero               up to 0x3FC
//! 0x3FC  checksum           u32   crc32c over 0..0x3FC from 0xFFFFFFFF
//! ```

use byteorder::{ByteOrder, LittleEndian};

use super::error::{AreaBlock, AreaDamage, AreaError, Want};
use super::layout::{AreaLayout, last_block_offset_bytes};
use super::{AREA_BLOCK_BYTES, SLOTS_MAX, SLOTS_MIN, array_at, seal, u16_at, u32_at, u64_at, verify};
use crate::format::{ChecksumSeed, Image, Name};

/// What a header begins with. The end of it shows a copy that was made as text.
pub const AREA_MAGIC: [u8; 16] = *b"mmpguard area\r\n\x1a";
/// The shortest interval between two beats, in milliseconds.
pub const INTERVAL_MIN_MS: u32 = 100;
/// The longest interval between two beats, in milliseconds.
pub const INTERVAL_MAX_MS: u32 = 10_000;

/// What the checksum of header and copy starts from: their UUID is not believed before.
const SEED: ChecksumSeed = ChecksumSeed(u32::MAX);
/// The only `block_bytes`.
const BLOCK_LENGTH_BYTES: u32 = 4096;
const _: () = assert!(BLOCK_LENGTH_BYTES as usize == AREA_BLOCK_BYTES);
/// The `incompat` bits this version knows.
const INCOMPAT_KNOWN: u32 = 0;
/// The `ro_compat` bits this version knows.
const RO_COMPAT_KNOWN: u32 = 0;

const INCOMPAT: usize = 0x010;
const RO_COMPAT: usize = 0x014;
const COMPAT: usize = 0x018;
const BLOCK_BYTES: usize = 0x01C;
const UUID: usize = 0x020;
const OFFSET_BYTES: usize = 0x030;
const TARGET_BYTES: usize = 0x038;
const SLOTS: usize = 0x040;
const INTERVAL_MS: usize = 0x044;
const CREATED_S: usize = 0x048;
const REVISION: usize = 0x050;
pub(super) const ROLE: usize = 0x058;
const PLACE: usize = 0x05A;
const LABEL: usize = 0x060;
const CONTENT_END_BYTES: usize = 0x0A0;
const CONTENT: usize = 0x0A8;

/// Which of the two headers a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderRole {
    /// Block 0.
    Header,
    /// The last block.
    Copy,
}

impl HeaderRole {
    pub(super) const fn value(self) -> u16 {
        match self {
            HeaderRole::Header => 0,
            HeaderRole::Copy => 1,
        }
    }

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            HeaderRole::Header => "header",
            HeaderRole::Copy => "copy of the header",
        }
    }

    pub(super) const fn block(self) -> AreaBlock {
        match self {
            HeaderRole::Header => AreaBlock::Header,
            HeaderRole::Copy => AreaBlock::Copy,
        }
    }
}

/// Where an area stands on its target, and how it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AreaPlace {
    /// Behind what stands on the device: found from the last whole block, which is the copy of the header.
    Tail,
    /// A partition, LV or LUN of its own: found from block 0.
    Whole,
    /// A file: found from block 0.
    File,
}

impl AreaPlace {
    const fn value(self) -> u16 {
        match self {
            AreaPlace::Tail => 1,
            AreaPlace::Whole => 2,
            AreaPlace::File => 3,
        }
    }
}

/// The fields of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaHeader {
    /// 0x010 `incompat`; none of its bits is known yet.
    pub incompat: u32,
    /// 0x014 `ro_compat`; none of its bits is known yet.
    pub ro_compat: u32,
    /// 0x018 `compat`; none of its bits is known yet.
    pub compat: u32,
    /// 0x020 `uuid`: whose slots and entries these are; gives the seed of their checksums.
    pub uuid: [u8; 16],
    /// 0x030 `offset_bytes`: where block 0 stands on the target.
    pub offset_bytes: u64,
    /// 0x038 `target_bytes`: how long the target was when this was written.
    pub target_bytes: u64,
    /// 0x040 `slots`: how many there are, the lock among them.
    pub slots: u32,
    /// 0x044 `interval_ms`: how often a holder beats, in milliseconds.
    pub interval_ms: u32,
    /// 0x048 `created_s`: seconds since 1970; the first generation follows from it.
    pub created_s: u64,
    /// 0x050 `revision`: one more with every rewrite; the greater of two is the newer.
    pub revision: u64,
    /// 0x058 `role`.
    pub role: HeaderRole,
    /// 0x05A `place`.
    pub place: AreaPlace,
    /// 0x060 `label`: what the administrator calls the area.
    pub label: Name<64>,
    /// 0x0A0 `content_end_bytes`: where what stands before a tail area ends, as proved at its creation; else 0.
    pub content_end_bytes: u64,
    /// 0x0A8 `content`: what blkid called that, such as "xfs"; for people only.
    pub content: Name<16>,
}

impl AreaHeader {
    /// Decodes `bytes`, found where the one with `role` stands, and checks what can be checked without the target.
    ///
    /// # Errors
    /// [`AreaError::Damaged`] or [`AreaError::Unsupported`].
    pub fn decode(bytes: &Image, role: HeaderRole) -> Result<Self, AreaError> {
        let block = role.block();
        let magic: [u8; 16] = array_at(bytes, 0);
        if magic != AREA_MAGIC {
            let found = Name::from_field(magic);
            return Err(AreaDamage::Magic { block, offset: 0, found }.into());
        }
        verify(block, bytes, SEED)?;
        let unsupported = |field: &'static str, offset: usize, found: u32, knows: &'static str| {
            AreaError::Unsupported { block, field, offset, found: found.into(), knows }
        };
        let incompat = u32_at(bytes, INCOMPAT);
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(unsupported("incompat", INCOMPAT, incompat, "no bit of it"));
        }
        let block_bytes = u32_at(bytes, BLOCK_BYTES);
        if block_bytes != BLOCK_LENGTH_BYTES {
            return Err(unsupported("block_bytes", BLOCK_BYTES, block_bytes, "0x1000"));
        }
        let place = match u16_at(bytes, PLACE) {
            1 => AreaPlace::Tail,
            2 => AreaPlace::Whole,
            3 => AreaPlace::File,
            other => return Err(unsupported("place", PLACE, other.into(), "1 to 3")),
        };
        if u16_at(bytes, ROLE) != role.value() {
            let (found, want) = (u16_at(bytes, ROLE).into(), Want::Exactly(role.value().into()));
            return Err(AreaDamage::Field { block, field: "role", offset: ROLE, found, want }.into());
        }
        let header = Self::fields(bytes, role, place);
        header.check()?;
        Ok(header)
    }

    fn fields(bytes: &Image, role: HeaderRole, place: AreaPlace) -> Self {
        AreaHeader {
            incompat: u32_at(bytes, INCOMPAT),
            ro_compat: u32_at(bytes, RO_COMPAT),
            compat: u32_at(bytes, COMPAT),
            uuid: array_at(bytes, UUID),
            offset_bytes: u64_at(bytes, OFFSET_BYTES),
            target_bytes: u64_at(bytes, TARGET_BYTES),
            slots: u32_at(bytes, SLOTS),
            interval_ms: u32_at(bytes, INTERVAL_MS),
            created_s: u64_at(bytes, CREATED_S),
            revision: u64_at(bytes, REVISION),
            role,
            place,
            label: Name::from_field(array_at(bytes, LABEL)),
            content_end_bytes: u64_at(bytes, CONTENT_END_BYTES),
            content: Name::from_field(array_at(bytes, CONTENT)),
        }
    }

    /// Writes fields, magic and checksum into `bytes`; leaves what has no field as it was. What [`AreaHeader::check`] refuses is
    /// written, but does not decode.
    pub fn encode_into(&self, bytes: &mut Image) {
        bytes[..AREA_MAGIC.len()].copy_from_slice(&AREA_MAGIC);
        LittleEndian::write_u32(&mut bytes[INCOMPAT..], self.incompat);
        LittleEndian::write_u32(&mut bytes[RO_COMPAT..], self.ro_compat);
        LittleEndian::write_u32(&mut bytes[COMPAT..], self.compat);
        LittleEndian::write_u32(&mut bytes[BLOCK_BYTES..], BLOCK_LENGTH_BYTES);
        bytes[UUID..OFFSET_BYTES].copy_from_slice(&self.uuid);
        LittleEndian::write_u64(&mut bytes[OFFSET_BYTES..], self.offset_bytes);
        LittleEndian::write_u64(&mut bytes[TARGET_BYTES..], self.target_bytes);
        LittleEndian::write_u32(&mut bytes[SLOTS..], self.slots);
        LittleEndian::write_u32(&mut bytes[INTERVAL_MS..], self.interval_ms);
        LittleEndian::write_u64(&mut bytes[CREATED_S..], self.created_s);
        LittleEndian::write_u64(&mut bytes[REVISION..], self.revision);
        LittleEndian::write_u16(&mut bytes[ROLE..], self.role.value());
        LittleEndian::write_u16(&mut bytes[PLACE..], self.place.value());
        bytes[LABEL..CONTENT_END_BYTES].copy_from_slice(self.label.field());
        LittleEndian::write_u64(&mut bytes[CONTENT_END_BYTES..], self.content_end_bytes);
        bytes[CONTENT..CONTENT + 16].copy_from_slice(self.content.field());
        reseal(bytes);
    }

    /// Checks that the fields go together, and says where everything stands then.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn check(&self) -> Result<AreaLayout, AreaDamage> {
        let wrong = |field: &'static str, offset: usize, found: u64, want: Want| {
            Err(AreaDamage::Field { block: self.role.block(), field, offset, found, want })
        };
        if !(SLOTS_MIN..=SLOTS_MAX).contains(&self.slots) {
            return wrong("slots", SLOTS, self.slots.into(), Want::Such("2 to 65537"));
        }
        if !(INTERVAL_MIN_MS..=INTERVAL_MAX_MS).contains(&self.interval_ms) {
            return wrong("interval_ms", INTERVAL_MS, self.interval_ms.into(), Want::Such("100 to 10000"));
        }
        let Ok(layout) = AreaLayout::new(self.offset_bytes, self.slots) else {
            let want = Want::Such("a multiple of 4096 from which the area ends below 2^63");
            return wrong("offset_bytes", OFFSET_BYTES, self.offset_bytes, want);
        };
        if layout.end_bytes() > self.target_bytes {
            let want = Want::Such("at least what the area's end needs");
            return wrong("target_bytes", TARGET_BYTES, self.target_bytes, want);
        }
        let (want_offset, content_max) = match self.place {
            // The area fits, so the target has a last block, and the area is not longer than what ends there.
            AreaPlace::Tail => match last_block_offset_bytes(self.target_bytes) {
                Some(last) => (last - (layout.total_bytes() - AREA_BLOCK_BYTES as u64), self.offset_bytes),
                None => (0, 0),
            },
            AreaPlace::Whole | AreaPlace::File => (0, 0),
        };
        if self.offset_bytes != want_offset {
            return wrong("offset_bytes", OFFSET_BYTES, self.offset_bytes, Want::Exactly(want_offset));
        }
        if self.content_end_bytes > content_max {
            let want = Want::Such("at most offset_bytes");
            return wrong("content_end_bytes", CONTENT_END_BYTES, self.content_end_bytes, want);
        }
        Ok(layout)
    }

    /// Checks that this header stands where it says, on a target as long as it says: it was found at byte `found_bytes` of a target
    /// of `target_bytes`.
    ///
    /// # Errors
    /// [`AreaError::Moved`] if not, [`AreaError::Damaged`] if [`AreaHeader::check`] fails.
    pub fn check_position(&self, found_bytes: u64, target_bytes: u64) -> Result<(), AreaError> {
        let layout = self.check()?;
        let block = self.role.block();
        if target_bytes != self.target_bytes {
            let (stored, found) = (self.target_bytes, target_bytes);
            return Err(AreaError::Moved {
                block,
                field: "target_bytes",
                offset: TARGET_BYTES,
                stored,
                found,
            });
        }
        let (stands, before) = match self.role {
            HeaderRole::Header => (layout.header_offset_bytes(), 0),
            HeaderRole::Copy => (layout.copy_offset_bytes(), layout.total_bytes() - AREA_BLOCK_BYTES as u64),
        };
        if found_bytes != stands {
            let found = found_bytes.saturating_sub(before);
            return Err(AreaError::Moved {
                block,
                field: "offset_bytes",
                offset: OFFSET_BYTES,
                stored: self.offset_bytes,
                found,
            });
        }
        Ok(())
    }

    /// Checks that this version may write into the area; without it nothing may be claimed.
    ///
    /// # Errors
    /// [`AreaError::Unsupported`] if `ro_compat` has an unknown bit.
    pub fn check_writable(&self) -> Result<(), AreaError> {
        match self.ro_compat & !RO_COMPAT_KNOWN {
            0 => Ok(()),
            _ => Err(AreaError::Unsupported {
                block: self.role.block(),
                field: "ro_compat",
                offset: RO_COMPAT,
                found: self.ro_compat.into(),
                knows: "no bit of it: it may be read only",
            }),
        }
    }

    /// What the checksums of the area's slot blocks and entry blocks start from.
    #[must_use]
    pub fn seed(&self) -> ChecksumSeed {
        ChecksumSeed::from_uuid(&self.uuid)
    }
}

/// Writes the checksum of a header or its copy.
pub(super) fn reseal(bytes: &mut Image) {
    seal(bytes, SEED);
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
