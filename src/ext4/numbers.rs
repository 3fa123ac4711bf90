//! Whether the numbers of a superblock that place nothing go together, as e2fsprogs and the kernel want them.
//!
//! Protects: a superblock that they reject is not written over the copies that it would be mended from; without
//! metadata_csum nothing else tells. Does not protect: a number that is wrong and possible. Copies are not compared with
//! it: the kernel changes the one that counts alone.
//!
//! Source: e2fsprogs `lib/ext2fs/openfs.c` (`ext2fs_open2`), `e2fsck/super.c` (`check_super_block`); Linux
//! `fs/ext4/super.c` (`ext4_block_group_meta_init`, `ext4_check_geometry`, `ext4_inode_info_init`,
//! `ext4_handle_clustersize`).

use byteorder::{ByteOrder, LittleEndian};

use super::Ext4Error;
use super::features::RO_COMPAT_BIGALLOC;
use super::geometry::wrong;
use crate::format::Superblock;
use crate::format::fields::superblock as field;
use crate::format::superblock::{INCOMPAT_64BIT, SUPERBLOCK_BYTES};

/// `EXT4_DYNAMIC_REV`, the last revision there is.
const REVISION_MAX: u32 = 1;
/// `EXT4_GOOD_OLD_FIRST_INO`: the inodes below are reserved.
const FIRST_INODE_MIN: u32 = 11;
/// The size of an inode in revision 0, in bytes.
const OLD_INODE_BYTES: u64 = 128;

/// Checks them, and gives how many blocks an inode table has.
///
/// # Errors
/// [`Ext4Error::Geometry`] with the first field that is out of range.
pub(super) fn check(
    bytes: &[u8; SUPERBLOCK_BYTES],
    superblock: &Superblock,
    groups: u32,
) -> Result<u64, Ext4Error> {
    let u32_at = |at: usize| LittleEndian::read_u32(&bytes[at..]);
    let revision = u32_at(field::REV_LEVEL);
    if revision > REVISION_MAX {
        return wrong("s_rev_level", u64::from(revision));
    }
    if superblock.feature_ro_compat & RO_COMPAT_BIGALLOC == 0 {
        // In revision 0 these were the fragments', which never were smaller than a block.
        for (name, at, wanted_at) in [
            ("s_log_cluster_size", field::LOG_CLUSTER_SIZE, field::LOG_BLOCK_SIZE),
            ("s_clusters_per_group", field::CLUSTERS_PER_GROUP, field::BLOCKS_PER_GROUP),
        ] {
            if u32_at(at) != u32_at(wanted_at) {
                return wrong(name, u64::from(u32_at(at)));
            }
        }
    }
    // More than half is refused by e2fsck(8) and tune2fs(8), not by the kernel.
    let reserved = reserved_blocks(bytes, superblock);
    if reserved > superblock.blocks_count / 2 {
        return wrong("s_r_blocks_count", reserved);
    }
    let (inodes, per_group) = (u32_at(field::INODES_COUNT), u32_at(field::INODES_PER_GROUP));
    let inode_table_blocks = inode_table_blocks(bytes, u64::from(superblock.block_bytes))?;
    if u64::from(per_group) * u64::from(groups) != u64::from(inodes) {
        return wrong("s_inodes_count", u64::from(inodes));
    }
    let first_inode = u32_at(field::FIRST_INO);
    if revision > 0 && !(FIRST_INODE_MIN..=inodes).contains(&first_inode) {
        return wrong("s_first_ino", u64::from(first_inode));
    }
    Ok(inode_table_blocks)
}

fn reserved_blocks(bytes: &[u8; SUPERBLOCK_BYTES], superblock: &Superblock) -> u64 {
    let low = LittleEndian::read_u32(&bytes[field::R_BLOCKS_COUNT_LO..]);
    let high = match superblock.feature_incompat & INCOMPAT_64BIT {
        0 => 0,
        _ => LittleEndian::read_u32(&bytes[field::R_BLOCKS_COUNT_HI..]),
    };
    u64::from(low) | u64::from(high) << 32
}

fn inode_table_blocks(bytes: &[u8; SUPERBLOCK_BYTES], block_bytes: u64) -> Result<u64, Ext4Error> {
    let inodes = u64::from(LittleEndian::read_u32(&bytes[field::INODES_PER_GROUP..]));
    let inode_bytes = match LittleEndian::read_u32(&bytes[field::REV_LEVEL..]) {
        0 => OLD_INODE_BYTES,
        _ => u64::from(LittleEndian::read_u16(&bytes[field::INODE_SIZE..])),
    };
    if !inode_bytes.is_power_of_two() || inode_bytes < OLD_INODE_BYTES || inode_bytes > block_bytes {
        return wrong("s_inode_size", inode_bytes);
    }
    if inodes < block_bytes / inode_bytes || inodes > block_bytes * 8 {
        return wrong("s_inodes_per_group", inodes);
    }
    Ok((inodes * inode_bytes).div_ceil(block_bytes))
}
