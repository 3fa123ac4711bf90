//! Where a filesystem ends on its device: ext2/3/4, XFS and btrfs, by their superblocks.
//!
//! Protects: an area behind a filesystem must not lie in the space of that filesystem, so its end is taken from the superblock
//! itself, after its checksum where it has one that is known here, and with checked arithmetic. A superblock whose magic is
//! right and whose rest cannot be is an error, never "nothing there". Does not protect: a superblock is what the filesystem wrote last.
//! ext4 and XFS put a new size into their journal first: XFS was seen to leave the old one in its superblock for more than six
//! seconds after it had been grown, and past a sync, and after a crash it stays until the journal is replayed. In that time the filesystem
//! ends beyond what stands here; btrfs writes its size with the superblock. Whoever relies on an end looks again later. Copies of a superblock
//! at other places are not looked at.
//!
//! All of it stands in the first [`HEAD_BYTES`] of the device.

mod btrfs;
mod ext;
mod signature;
mod xfs;

use std::fmt;

use super::{Name, SuperblockError};

pub use ext::kind as ext_kind;
pub use signature::signature;

/// How many bytes from the beginning of a device say all that is asked here: the last to come is the superblock of btrfs, 4 KiB
/// long, 64 KiB into the device.
pub const HEAD_BYTES: usize = (64 << 10) + 4096;

/// The label of a filesystem: 12 bytes on XFS, 16 on ext2/3/4, 256 on btrfs. Shown escaped.
pub type Label = Name<256>;

/// A filesystem that stands on a device, as its superblock says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Standing {
    /// Its name as mount(8) has it: "ext2", "ext3", "ext4", "xfs" or "btrfs".
    pub kind: &'static str,
    /// Its UUID, in the order of the disk: `s_uuid`, `sb_uuid`, `fsid`.
    pub uuid: [u8; 16],
    /// Its label, as hostile as all that stands on a disk.
    pub label: Label,
    /// The first byte of this device that the filesystem does not use, at most `i64::MAX`. It may lie behind the end of the
    /// device: one that was made smaller, or is one of several.
    pub end_bytes: u64,
    /// How many devices the filesystem has: `num_devices` of btrfs, else 1. The journal or the real-time section of
    /// ext4 and XFS on a device of its own does not count.
    pub devices: u64,
}

impl Standing {
    /// The UUID as tools write it.
    #[must_use]
    pub fn uuid_text(&self) -> String {
        uuid_text(&self.uuid)
    }
}

/// A UUID as tools write it, with its dashes.
#[must_use]
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(*uuid));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.uuid_text())?;
        if self.label.is_empty() { Ok(()) } else { write!(f, " \"{}\"", self.label) }
    }
}

/// The families of filesystems that are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ext2, ext3, ext4.
    Ext,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::Ext => "ext2/3/4",
            Family::Xfs => "XFS",
            Family::Btrfs => "btrfs",
        }
    }

    /// Where its superblock begins, in bytes from the beginning of the device.
    #[must_use]
    pub fn offset_bytes(self) -> u64 {
        match self {
            Family::Ext => super::superblock::SUPERBLOCK_OFFSET_BYTES,
            Family::Xfs => 0,
            Family::Btrfs => btrfs::OFFSET_BYTES as u64,
        }
    }

    fn checker(self) -> &'static str {
        match self {
            Family::Ext => "e2fsck -n",
            Family::Xfs => "xfs_repair -n",
            Family::Btrfs => "btrfs check --readonly",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} superblock at byte {}", self.name(), self.offset_bytes())
    }
}

/// Why a superblock that stands there does not say where its filesystem ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// One of ext2/3/4 cannot be used.
    #[error("{source} ({}; if nothing of it is wanted any more, wipefs(8) removes it)", Family::Ext)]
    Ext {
        /// What is wrong.
        source: SuperblockError,
    },
    /// The checksum does not fit.
    #[error(
        "the {family} is damaged: bad checksum {stored:#010x} (its bytes give {computed:#010x}); {}", advice(*.family)
    )]
    Checksum {
        /// Whose.
        family: Family,
        /// What stands there.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A field has a value that it cannot have.
    #[error("the {family} is damaged: {field} cannot be {found}; {}", advice(*.family))]
    Impossible {
        /// Whose.
        family: Family,
        /// The field's name in the kernel.
        field: &'static str,
        /// What stands there.
        found: u64,
    },
    /// The device ends within the superblock.
    #[error("the {family} is damaged: the device ends within it; {}", advice(*.family))]
    Cut {
        /// Whose.
        family: Family,
    },
    /// It says that it is being made, or that this was never finished.
    #[error(
        "the {family} says that it is still being made; wait for that, or if it was given up, wipefs(8) removes it"
    )]
    Unfinished {
        /// Whose.
        family: Family,
    },
    /// A later format: where it ends cannot be told.
    #[error(
        "the {family} has {field} {found:#x}, which this version of mmp does not know: it cannot tell where the filesystem \
         ends; a later version may, or use an area on a device of its own"
    )]
    Unknown {
        /// Whose.
        family: Family,
        /// The field's name in the kernel.
        field: &'static str,
        /// What stands there, of flags those that are not known.
        found: u64,
    },
}

/// What to do about a damaged one.
fn advice(family: Family) -> String {
    format!("if nothing of it is wanted any more, wipefs(8) removes it, else see `{}`", family.checker())
}

impl ContentError {
    /// True if the bytes cannot be right; false for what is merely not known here, or no filesystem.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Ext { source } => source.is_damage(),
            Self::Checksum { .. } | Self::Impossible { .. } | Self::Cut { .. } | Self::Unfinished { .. } => {
                true
            }
            Self::Unknown { .. } => false,
        }
    }
}

/// All filesystems that stand on a device, by its first [`HEAD_BYTES`] (or all it has, if it has fewer). Several may: making one does not
/// always remove another.
///
/// # Errors
/// [`ContentError`] for the first superblock that has the right magic and is otherwise not to be believed. One that is
/// believed does not make up for it: which of them is in use cannot be told.
pub fn standing(head: &[u8]) -> Result<Vec<Standing>, ContentError> {
    [xfs::standing, ext::standing, btrfs::standing]
        .into_iter()
        .filter_map(|read| read(head).transpose())
        .collect()
}

/// Where `count` blocks end, if a device can have that many.
fn end_bytes(family: Family, field: &'static str, count: u64, block_bytes: u64) -> Result<u64, ContentError> {
    count
        .checked_mul(block_bytes)
        .filter(|&end| i64::try_from(end).is_ok() && end > 0)
        .ok_or(ContentError::Impossible { family, field, found: count })
}

/// Whether `bytes` is a power of two in the range.
fn is_block_size(bytes: u32, from: u32, to: u32) -> bool {
    bytes.is_power_of_two() && (from..=to).contains(&bytes)
}

/// The first bytes of `field`, as a label.
fn label(field: &[u8]) -> Label {
    let mut whole = [0; 256];
    let len = field.len().min(whole.len());
    whole[..len].copy_from_slice(&field[..len]);
    Label::from_field(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stands_on_zeroes_however_few() {
        for len in [0, 1, 3, 4, 511, 512, 1023, 1080, 2047, 2048, 65_535, 65_600, 65_607, HEAD_BYTES] {
            assert_eq!(standing(&vec![0; len]), Ok(Vec::new()), "{len}");
        }
    }

    #[test]
    fn several_stand_side_by_side_and_one_that_is_damaged_spoils_all() {
        let mut head = btrfs::tests::made();
        let ext = ext::tests::made();
        head[1024..2048].copy_from_slice(&ext[1024..2048]);
        let found = standing(&head).unwrap();
        assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), ["ext2", "btrfs"]);
        head[65_536 + 0x90] ^= 1;
        assert!(matches!(standing(&head), Err(ContentError::Checksum { family: Family::Btrfs, .. })));
    }

    #[test]
    fn what_stands_is_shown_escaped() {
        let mut one = standing(&xfs::tests::made(5)).unwrap().remove(0);
        assert_eq!(one.to_string(), "xfs 30313233-3435-3637-3839-616263646566 \"data\"");
        one.label = Label::new("\x1b[2J");
        assert!(one.to_string().ends_with("\"\\x1b[2J\""));
        one.label = Label::new("");
        assert!(one.to_string().ends_with("6566"));
    }

    #[test]
    fn an_end_beyond_what_the_system_can_name_is_damage() {
        let end = |count, bytes| end_bytes(Family::Xfs, "sb_dblocks", count, bytes);
        assert_eq!(end(i64::MAX as u64, 1), Ok(i64::MAX as u64));
        for (count, bytes) in [(0, 4096), (1 << 51, 4096), (u64::MAX, 2), (u64::MAX, u64::MAX)] {
            assert!(end(count, bytes).is_err_and(|error| error.is_damage()), "{count} {bytes}");
        }
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        let family = Family::Btrfs;
        let text = ContentError::Impossible { family, field: "num_devices", found: 0 }.to_string();
        assert_eq!(
            text,
            "the btrfs superblock at byte 65536 is damaged: num_devices cannot be 0; if nothing of it is wanted any more, \
             wipefs(8) removes it, else see `btrfs check --readonly`"
        );
        assert!(!ContentError::Unknown { family, field: "csum_type", found: 4 }.is_damage());
        assert!(!ContentError::Ext { source: SuperblockError::JournalDevice }.is_damage());
    }
}
