//! ext2/3/4: `s_blocks_count` blocks, counted from the beginning of the device.
//!
//! Protects and does not protect: see [`super`]. Without `metadata_csum` the superblock has no checksum, and 16 bits of magic with
//! a few numbers that fit are all there is.
//!
//! Source: Linux `fs/ext4/ext4.h` (`struct ext4_super_block`), `fs/ext4/super.c` (what a mount refuses).

use byteorder::{ByteOrder, LittleEndian};

use super::{ContentError, Family, Standing, end_bytes, label};
use crate::format::superblock::{
    COMPAT_HAS_JOURNAL, INCOMPAT_RECOVER, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES,
};
use crate::format::{Superblock, SuperblockError};

const OFFSET: usize = 1024;
const _: () = assert!(OFFSET as u64 == SUPERBLOCK_OFFSET_BYTES);
/// `EXT3_FEATURE_INCOMPAT_SUPP`: filetype, recovery, meta groups.
const EXT3_INCOMPAT: u32 = 0x2 | INCOMPAT_RECOVER | 0x10;
/// `EXT3_FEATURE_RO_COMPAT_SUPP`: sparse superblocks, large files, directory trees.
const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;

/// The name of an ext filesystem with these features, told as blkid(8) does.
#[must_use]
pub fn kind(compat: u32, incompat: u32, ro_compat: u32) -> &'static str {
    if incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0 {
        "ext4"
    } else if compat & COMPAT_HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    }
}

pub(super) fn standing(head: &[u8]) -> Result<Option<Standing>, ContentError> {
    let Some(rest) = head.get(OFFSET..) else { return Ok(None) };
    let Some(bytes) = rest.first_chunk::<SUPERBLOCK_BYTES>() else {
        let magic = rest.get(0x38..0x3A).is_some_and(|magic| magic == [0x53, 0xEF]);
        return if magic { Err(ContentError::Cut { family: Family::Ext }) } else { Ok(None) };
    };
    let superblock = match Superblock::decode(bytes) {
        Err(SuperblockError::NoSuperblock { .. }) => return Ok(None),
        decoded => decoded.map_err(|source| ContentError::Ext { source })?,
    };
    // None of them can be 0, and the kernel mounts no such filesystem.
    for (field, at) in [("s_inodes_count", 0x00), ("s_blocks_per_group", 0x20), ("s_inodes_per_group", 0x28)]
    {
        if LittleEndian::read_u32(&bytes[at..]) == 0 {
            return Err(ContentError::Impossible { family: Family::Ext, field, found: 0 });
        }
    }
    let (field, count) = ("s_blocks_count", superblock.blocks_count);
    if count <= u64::from(superblock.first_data_block) {
        return Err(ContentError::Impossible { family: Family::Ext, field, found: count });
    }
    Ok(Some(Standing {
        kind: kind(superblock.feature_compat, superblock.feature_incompat, superblock.feature_ro_compat),
        uuid: superblock.uuid,
        label: label(superblock.volume_name.field()),
        end_bytes: end_bytes(Family::Ext, field, count, u64::from(superblock.block_bytes))?,
        devices: 1,
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::superblock::INCOMPAT_64BIT;

    /// An ext2 of 1000 blocks of 1 KiB.
    pub(in crate::format::content) fn made() -> Vec<u8> {
        let mut head = vec![0; 2048];
        for (at, value) in [(0x00, 16), (0x04, 1000), (0x14, 1), (0x20, 8192), (0x28, 16), (0x4C, 1)] {
            put(&mut head, at, value);
        }
        head[OFFSET + 0x38..][..2].copy_from_slice(&[0x53, 0xEF]);
        head[OFFSET + 0x68..][..16].copy_from_slice(b"0123456789abcdef");
        head[OFFSET + 0x78..][..4].copy_from_slice(b"data");
        head
    }

    fn put(head: &mut [u8], at: usize, value: u32) {
        LittleEndian::write_u32(&mut head[OFFSET + at..], value);
    }

    fn changed(changes: &[(usize, u32)]) -> Result<Option<Standing>, ContentError> {
        let mut head = made();
        for &(at, value) in changes {
            put(&mut head, at, value);
        }
        standing(&head)
    }

    #[test]
    fn its_blocks_are_its_end() {
        let found = changed(&[]).unwrap().unwrap();
        assert_eq!((found.kind, found.end_bytes, found.devices), ("ext2", 1000 << 10, 1));
        assert_eq!((&found.uuid, found.label), (b"0123456789abcdef", label(b"data")));
        let end = |changes: &[_]| changed(changes).unwrap().unwrap().end_bytes;
        assert_eq!(end(&[(0x18, 2), (0x14, 0)]), 1000 << 12);
        assert_eq!(end(&[(0x60, INCOMPAT_64BIT), (0x150, 1)]), ((1 << 32) + 1000) << 10);
        assert_eq!(end(&[(0x150, 1)]), 1000 << 10, "without 64bit there is no high half");
    }

    #[test]
    fn kinds_are_told_by_features() {
        let kind = |changes: &[_]| changed(changes).unwrap().unwrap().kind;
        assert_eq!(kind(&[(0x5C, 4)]), "ext3");
        assert_eq!(kind(&[(0x5C, 4), (0x60, 0x42)]), "ext4");
        assert_eq!(kind(&[(0x64, 8)]), "ext4");
    }

    #[test]
    fn numbers_that_cannot_be_are_damage() {
        for changes in [
            &[(0x04, 0)][..],
            &[(0x04, 1)],
            &[(0x14, u32::MAX)],
            &[(0x00, 0)],
            &[(0x20, 0)],
            &[(0x28, 0)],
            &[(0x18, 7)],
            &[(0x18, u32::MAX)],
            &[(0x18, 6), (0x60, INCOMPAT_64BIT), (0x150, u32::MAX)],
        ] {
            assert!(changed(changes).is_err_and(|error| error.is_damage()), "{changes:?}");
        }
    }

    #[test]
    fn a_bad_checksum_and_a_journal_are_told() {
        let mut head = made();
        put(&mut head, 0x64, 0x400);
        head[OFFSET + 0x175] = 1;
        assert!(matches!(
            standing(&head),
            Err(ContentError::Ext { source: SuperblockError::Checksum { .. } })
        ));
        let journal = ContentError::Ext { source: SuperblockError::JournalDevice };
        assert_eq!(changed(&[(0x60, 8)]), Err(journal));
        assert_eq!(standing(&made()[..1500]), Err(ContentError::Cut { family: Family::Ext }));
        head[OFFSET + 0x38] = 0;
        assert_eq!(standing(&head), Ok(None));
    }
}
