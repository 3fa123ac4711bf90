//! The superblock as it will be, and the copies of it as tune2fs(8) leaves them.
//!
//! Protects: what is no field here keeps its bytes; so `s_wtime` and `s_kbytes_written`, which e2fsprogs renews, stay.
//! A copy is the whole superblock, so an old one is brought up to date. Does not protect: what a field means.
//!
//! Source: e2fsprogs `lib/ext2fs/closefs.c` (`ext2fs_flush2`, `write_backup_super`).

use byteorder::{ByteOrder, LittleEndian};

use super::volume::SuperblockBytes;
use crate::format::checksum::ext4_crc32c;
use crate::format::fields::superblock as field;
use crate::format::superblock::{
    INCOMPAT_64BIT, INCOMPAT_MMP, INCOMPAT_RECOVER, RO_COMPAT_METADATA_CSUM, STATE_VALID,
};

/// `EXT2_DYNAMIC_REV`, the revision that has feature flags; with it go `EXT2_GOOD_OLD_FIRST_INO` and
/// `EXT2_GOOD_OLD_INODE_SIZE`, which revision 0 has without saying so.
const REVISION: (u32, u32, u16) = (1, 11, 128);

/// The superblock with MMP on, in a block of its own: a free cluster less.
/// Nothing if it says that fewer are free than that, or more than it has.
pub(super) fn enabled(
    before: &SuperblockBytes,
    block: u64,
    interval_s: u16,
    (blocks_count, cluster_blocks): (u64, u64),
) -> Option<SuperblockBytes> {
    let mut bytes = *before;
    let free = Some(free_blocks(before)).filter(|&free| free < blocks_count)?;
    set_free_blocks(&mut bytes, free.checked_sub(cluster_blocks)?);
    if LittleEndian::read_u32(&bytes[field::REV_LEVEL..]) < REVISION.0 {
        LittleEndian::write_u32(&mut bytes[field::REV_LEVEL..], REVISION.0);
        LittleEndian::write_u32(&mut bytes[field::FIRST_INO..], REVISION.1);
        LittleEndian::write_u16(&mut bytes[field::INODE_SIZE..], REVISION.2);
    }
    change_incompat(&mut bytes, |flags| flags | INCOMPAT_MMP);
    Some(with_mmp_fields(bytes, block, interval_s))
}

/// The superblock with MMP off, and a free cluster more. Nothing if it says that as many blocks are free already as
/// it has.
pub(super) fn disabled(
    before: &SuperblockBytes,
    (blocks_count, cluster_blocks): (u64, u64),
) -> Option<SuperblockBytes> {
    let mut bytes = *before;
    let free = free_blocks(before).checked_add(cluster_blocks).filter(|&free| free < blocks_count)?;
    set_free_blocks(&mut bytes, free);
    change_incompat(&mut bytes, |flags| flags & !INCOMPAT_MMP);
    Some(with_mmp_fields(bytes, 0, 0))
}

/// The superblock with another interval.
pub(super) fn with_interval(before: &SuperblockBytes, interval_s: u16) -> SuperblockBytes {
    let block = LittleEndian::read_u64(&before[field::MMP_BLOCK..]);
    with_mmp_fields(*before, block, interval_s)
}

/// The copy of a superblock that stands in a group: never valid by itself, and never with a journal to recover.
pub(super) fn copy_for(superblock: &SuperblockBytes, group: u32) -> SuperblockBytes {
    let mut bytes = *superblock;
    let number = u16::try_from(group).unwrap_or(u16::MAX);
    LittleEndian::write_u16(&mut bytes[field::BLOCK_GROUP_NR..], number);
    let state = LittleEndian::read_u16(&bytes[field::STATE..]) & !STATE_VALID;
    LittleEndian::write_u16(&mut bytes[field::STATE..], state);
    change_incompat(&mut bytes, |flags| flags & !INCOMPAT_RECOVER);
    seal(&mut bytes);
    bytes
}

fn with_mmp_fields(mut bytes: SuperblockBytes, block: u64, interval_s: u16) -> SuperblockBytes {
    LittleEndian::write_u16(&mut bytes[field::MMP_UPDATE_INTERVAL..], interval_s);
    LittleEndian::write_u64(&mut bytes[field::MMP_BLOCK..], block);
    seal(&mut bytes);
    bytes
}

fn change_incompat(bytes: &mut SuperblockBytes, change: impl Fn(u32) -> u32) {
    let flags = LittleEndian::read_u32(&bytes[field::FEATURE_INCOMPAT..]);
    LittleEndian::write_u32(&mut bytes[field::FEATURE_INCOMPAT..], change(flags));
}

fn has_64bit(bytes: &SuperblockBytes) -> bool {
    LittleEndian::read_u32(&bytes[field::FEATURE_INCOMPAT..]) & INCOMPAT_64BIT != 0
}

/// `s_free_blocks_count`: blocks, with bigalloc too.
fn free_blocks(bytes: &SuperblockBytes) -> u64 {
    let high =
        if has_64bit(bytes) { LittleEndian::read_u32(&bytes[field::FREE_BLOCKS_COUNT_HI..]) } else { 0 };
    u64::from(LittleEndian::read_u32(&bytes[field::FREE_BLOCKS_COUNT_LO..])) | u64::from(high) << 32
}

fn set_free_blocks(bytes: &mut SuperblockBytes, count: u64) {
    let halves = count.to_le_bytes();
    bytes[field::FREE_BLOCKS_COUNT_LO..][..4].copy_from_slice(&halves[..4]);
    if has_64bit(bytes) {
        bytes[field::FREE_BLOCKS_COUNT_HI..][..4].copy_from_slice(&halves[4..]);
    }
}

/// Gives it the right checksum, if it has one.
fn seal(bytes: &mut SuperblockBytes) {
    if LittleEndian::read_u32(&bytes[field::FEATURE_RO_COMPAT..]) & RO_COMPAT_METADATA_CSUM != 0 {
        let checksum = ext4_crc32c(u32::MAX, &bytes[..field::CHECKSUM]);
        LittleEndian::write_u32(&mut bytes[field::CHECKSUM..], checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Superblock;

    fn superblock(incompat: u32, free: u64) -> SuperblockBytes {
        let mut bytes = [0; 1024];
        LittleEndian::write_u16(&mut bytes[field::MAGIC..], 0xEF53);
        LittleEndian::write_u32(&mut bytes[field::REV_LEVEL..], 1);
        LittleEndian::write_u32(&mut bytes[field::FEATURE_INCOMPAT..], incompat);
        set_free_blocks(&mut bytes, free);
        bytes
    }

    #[test]
    fn on_and_off_again_leaves_what_was_there() {
        let sizes = (u64::MAX, 16);
        for (incompat, free) in [(0, 500), (INCOMPAT_64BIT, 7 << 32)] {
            let before = superblock(incompat, free);
            let on = enabled(&before, 77, 9, sizes).expect("has room");
            let found = Superblock::decode(&on).expect("decodes");
            assert_eq!((found.mmp_block, found.mmp_update_interval_s), (77, 9));
            assert_eq!((found.feature_incompat, free_blocks(&on)), (incompat | INCOMPAT_MMP, free - 16));
            assert_eq!(with_interval(&on, 9), on);
            assert_eq!(disabled(&on, sizes), Some(before));
        }
        assert_eq!(enabled(&superblock(0, 15), 77, 9, sizes), None, "fewer than a cluster");
        assert_eq!(enabled(&superblock(0, 100), 77, 9, (100, 16)), None, "as many as there are");
        assert_eq!(disabled(&superblock(INCOMPAT_MMP, 90), (100, 16)), None);
    }

    #[test]
    fn revision_0_becomes_1_with_what_it_meant() {
        let mut before = superblock(0, 500);
        before[field::REV_LEVEL] = 0;
        let on = enabled(&before, 77, 9, (u64::MAX, 1)).expect("has room");
        assert_eq!((on[field::REV_LEVEL], on[field::FIRST_INO], on[field::INODE_SIZE]), (1, 11, 128));
    }

    #[test]
    fn a_copy_knows_its_group_and_is_never_valid() {
        let mut whole = superblock(INCOMPAT_RECOVER, 500);
        whole[field::STATE] = 1;
        for (group, number) in [(3, 3), (70_000, u16::MAX)] {
            let copy = copy_for(&whole, group);
            assert_eq!(LittleEndian::read_u16(&copy[field::BLOCK_GROUP_NR..]), number);
            assert_eq!((copy[field::STATE], copy[field::FEATURE_INCOMPAT]), (0, 0));
        }
    }
}
