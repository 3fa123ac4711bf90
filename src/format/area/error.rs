//! Why bytes are no block of an area, or an area is not for us.

use std::fmt;

use serde::Serialize;

use super::{SlotName, SlotState};
use crate::format::name::escape;
use crate::format::{BlockDamage, Name};

/// Which kind of block an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AreaBlock {
    /// Block 0.
    Header,
    /// The last block.
    Copy,
    /// A slot block.
    Slot,
    /// An entry block.
    Entry,
}

impl fmt::Display for AreaBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            AreaBlock::Header => "header",
            AreaBlock::Copy => "copy of the header",
            AreaBlock::Slot => "slot block",
            AreaBlock::Entry => "entry block",
        })
    }
}

/// Sixteen bytes, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub [u8; 16]);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// These bytes cannot be right. Offsets count from the beginning of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case", tag = "damage")]
pub enum AreaDamage {
    /// The block does not begin as its kind does.
    #[error("{block}: bad magic \"{found}\" at its byte {offset:#x}")]
    Magic {
        /// Of which block.
        block: AreaBlock,
        /// Where.
        offset: usize,
        /// What stands there.
        found: Name<16>,
    },
    /// The checksum does not fit the bytes, or the block is of another area.
    #[error("{block}: bad checksum {stored:#010x} at its byte 0x3fc (its bytes give {computed:#010x})")]
    Checksum {
        /// Of which block.
        block: AreaBlock,
        /// What stands there.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The `mmp_struct` of a slot block does not decode.
    #[error("slot block: {wrong}")]
    Struct {
        /// What is wrong with it.
        wrong: BlockDamage,
    },
    /// A field has a value that it cannot have.
    #[error("{block}: {field} is {found} at its byte {offset:#x} (want {want})")]
    Field {
        /// Of which block.
        block: AreaBlock,
        /// Its name in `mmp-format.md`.
        field: &'static str,
        /// Where it stands.
        offset: usize,
        /// What stands there.
        found: u64,
        /// What could.
        want: Want,
    },
    /// A UUID is another one.
    #[error("{block}: {field} is {found} at its byte {offset:#x} (want {want})")]
    Uuid {
        /// Of which block.
        block: AreaBlock,
        /// Its name in `mmp-format.md`.
        field: &'static str,
        /// Where it stands.
        offset: usize,
        /// What stands there.
        found: Hex,
        /// What should.
        want: Hex,
    },
    /// A slot has a name that none can have.
    #[error("{block}: name is \"{found}\" at its byte {offset:#x}: {why}")]
    Name {
        /// Of which block.
        block: AreaBlock,
        /// Where it stands.
        offset: usize,
        /// What stands there.
        found: SlotName,
        /// What is wrong with it.
        why: SlotNameError,
    },
    /// Sequence and state of a slot do not go together.
    #[error("slot block: mmp_seq is {seq:#010x} at its byte 0x4, but state is {state} at its byte 0x86")]
    Contradiction {
        /// `mmp_seq`.
        seq: u32,
        /// The guard record's state.
        state: SlotState,
    },
    /// Header and copy have the same revision, but not the same content.
    #[error(
        "header and its copy have the same revision, but differ at byte {offset:#x} ({header:#04x}, {copy:#04x})"
    )]
    Differ {
        /// The first byte that differs.
        offset: usize,
        /// What the header has there.
        header: u8,
        /// What the copy has there.
        copy: u8,
    },
}

/// What a field could have held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Want {
    /// This value alone.
    Exactly(u64),
    /// Any that this text describes.
    Such(&'static str),
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Want::Exactly(value) => value.fmt(f),
            Want::Such(text) => f.pad(text),
        }
    }
}

/// Why an area cannot be used. Damage may be repaired; what is of a later version, or elsewhere, must be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case", tag = "error")]
#[non_exhaustive]
pub enum AreaError {
    /// One block cannot be right.
    #[error("the area is damaged: {damage}")]
    Damaged {
        /// What is wrong with it.
        damage: AreaDamage,
    },
    /// Neither header nor copy can be right.
    #[error("no area, or both of its headers are damaged: {header}; {copy}")]
    BothDamaged {
        /// What is wrong with the header.
        header: AreaDamage,
        /// What is wrong with its copy.
        copy: AreaDamage,
    },
    /// A later version wrote this.
    #[error(
        "the area was written by a later version: {block}: {field} is {found:#x} at its byte {offset:#x} (this one knows {knows})"
    )]
    Unsupported {
        /// Of which block.
        block: AreaBlock,
        /// Its name in `mmp-format.md`.
        field: &'static str,
        /// Where it stands.
        offset: usize,
        /// What stands there.
        found: u64,
        /// What this version knows.
        knows: &'static str,
    },
    /// The area is fine, but was made for another place or size: the device was grown, copied, or is seen through another one.
    #[error(
        "{block}: {field} is {stored} at its byte {offset:#x}, but {found} is the case; the device has changed: see `mmp area move`"
    )]
    Moved {
        /// Of which block.
        block: AreaBlock,
        /// Its name in `mmp-format.md`.
        field: &'static str,
        /// Where it stands.
        offset: usize,
        /// What stands there.
        stored: u64,
        /// What was found.
        found: u64,
    },
}

impl From<AreaDamage> for AreaError {
    fn from(damage: AreaDamage) -> Self {
        AreaError::Damaged { damage }
    }
}

impl AreaError {
    /// True if bytes cannot be right; false if they are just not for us.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::BothDamaged { .. })
    }

    /// True if nothing here calls itself a block of an area: the magics are missing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        let magic = |damage: &AreaDamage| {
            matches!(
                damage,
                AreaDamage::Magic { .. } | AreaDamage::Struct { wrong: BlockDamage::Magic { .. } }
            )
        };
        match self {
            Self::Damaged { damage } => magic(damage),
            Self::BothDamaged { header, copy } => magic(header) && magic(copy),
            Self::Unsupported { .. } | Self::Moved { .. } => false,
        }
    }
}

/// What is wrong with the name of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case", tag = "wrong")]
pub enum SlotNameError {
    /// There is none.
    #[error("a slot needs a name")]
    Empty,
    /// It does not fit.
    #[error("a slot's name has at most 64 bytes, not {bytes}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// A byte that no name has.
    #[error("a slot's name has no \"{}\" in it (byte {at})", escape(&[*.byte]))]
    Forbidden {
        /// Which.
        byte: u8,
        /// Where in the name.
        at: usize,
    },
    /// Digits alone would be a slot's number.
    #[error("a slot's name is not all digits: that would be its number")]
    DigitsOnly,
    /// Slot 0 is called something else.
    #[error("slot 0 is called \"lock\"")]
    NotTheLocks,
}
