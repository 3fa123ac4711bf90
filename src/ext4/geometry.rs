//! Where block groups, their descriptors, the copies of both and each group's own metadata stand.
//!
//! Protects: every number is checked against the others before it is used, so that nothing computed from it overflows,
//! lies outside the filesystem, or makes for more work than the device is long. Does not protect: with flex_bg a group's
//! bitmaps and inode table may stand in any group, and the bitmaps alone know where.
//!
//! Source: Linux `fs/ext4/super.c` (`descriptor_loc`, `ext4_check_geometry`), `fs/ext4/balloc.c` (`ext4_bg_has_super`,
//! `ext4_bg_num_gdb`), e2fsprogs `lib/ext2fs/closefs.c`.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::Ext4Error;
use super::features::{COMPAT_SPARSE_SUPER2, INCOMPAT_META_BG, RO_COMPAT_BIGALLOC, RO_COMPAT_SPARSE_SUPER};
use super::numbers;
use crate::format::Superblock;
use crate::format::fields::superblock as field;
use crate::format::superblock::{INCOMPAT_64BIT, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};

/// The smallest group that mke2fs(8) makes, in blocks. Smaller ones would only make for more descriptors.
const BLOCKS_PER_GROUP_MIN: u64 = 256;
/// `EXT2_MAX_CLUSTERS_PER_GROUP`: a narrow descriptor counts them in 16 bits.
const CLUSTERS_PER_GROUP_MAX: u64 = (1 << 16) - 8;
/// The most copies of the superblock that a plan has: with sparse_super there are fewer than 60.
const COPIES_MAX: u32 = 16_384;
/// `EXT4_MIN_DESC_SIZE`, `EXT4_MIN_DESC_SIZE_64BIT`, `EXT4_MAX_DESC_SIZE`, in bytes.
const DESCRIPTOR_BYTES: usize = 32;
const DESCRIPTOR_64BIT_BYTES: usize = 64;
const DESCRIPTOR_BYTES_MAX: usize = 1024;

/// Which groups have a copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    Every,
    Sparse,
    Two([u32; 2]),
}

/// The layout of one filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// In bytes.
    pub(super) block_bytes: u64,
    /// How many blocks there are.
    pub(super) blocks_count: u64,
    /// How many blocks a bit of a bitmap stands for: 1 without bigalloc.
    pub(super) cluster_blocks: u64,
    /// How many bits of a bitmap count.
    pub(super) clusters_per_group: u64,
    /// How many groups there are.
    pub(super) groups: u32,
    /// In bytes.
    pub(super) descriptor_bytes: usize,
    first_data_block: u64,
    blocks_per_group: u64,
    descriptors_per_block: u32,
    /// Blocks of descriptors, and those kept free for more.
    descriptor_blocks: u32,
    reserved_blocks: u32,
    /// From this block of descriptors on they stand in their own groups; none without meta_bg.
    first_meta: Option<u32>,
    inode_table_blocks: u64,
    copies: Copies,
}

impl Geometry {
    /// Works the layout out of the bytes of a superblock that decodes.
    pub(super) fn of(bytes: &[u8; SUPERBLOCK_BYTES], superblock: &Superblock) -> Result<Self, Ext4Error> {
        let u16_at = |at: usize| LittleEndian::read_u16(&bytes[at..]);
        let u32_at = |at: usize| LittleEndian::read_u32(&bytes[at..]);
        let block_bytes = u64::from(superblock.block_bytes);
        let (cluster_blocks, clusters_per_group, blocks_per_group) = groups_of(bytes, superblock)?;
        let first_data_block = u64::from(superblock.first_data_block);
        let wanted = u64::from(block_bytes == 1024 && superblock.feature_ro_compat & RO_COMPAT_BIGALLOC == 0);
        if first_data_block != wanted {
            return wrong("s_first_data_block", first_data_block);
        }
        let blocks_count = superblock.blocks_count;
        if blocks_count <= first_data_block || blocks_count > i64::MAX as u64 / block_bytes {
            return wrong("s_blocks_count", blocks_count);
        }
        let groups = (blocks_count - first_data_block).div_ceil(blocks_per_group);
        let Ok(groups) = u32::try_from(groups) else { return wrong("the number of block groups", groups) };
        let descriptor_bytes = match superblock.feature_incompat & INCOMPAT_64BIT {
            0 => DESCRIPTOR_BYTES,
            _ => {
                let bytes = usize::from(u16_at(field::DESC_SIZE));
                let sizes = DESCRIPTOR_64BIT_BYTES..=DESCRIPTOR_BYTES_MAX;
                if !bytes.is_power_of_two() || !sizes.contains(&bytes) {
                    return wrong("s_desc_size", bytes as u64);
                }
                bytes
            }
        };
        // At most 2048, at least 1.
        let descriptors_per_block = superblock.block_bytes / u32::from(u16_of(descriptor_bytes));
        let descriptor_blocks = groups.div_ceil(descriptors_per_block);
        let reserved_blocks = u32::from(u16_at(field::RESERVED_GDT_BLOCKS));
        if u64::from(reserved_blocks) > block_bytes / 4 {
            return wrong("s_reserved_gdt_blocks", u64::from(reserved_blocks));
        }
        let meta = superblock.feature_incompat & INCOMPAT_META_BG != 0;
        let first_meta = meta.then(|| u32_at(field::FIRST_META_BG));
        // Superblock and descriptors of one group never reach into the next.
        let together = u64::from(first_meta.unwrap_or(descriptor_blocks));
        if together + 2 > blocks_per_group {
            return wrong("the number of descriptor blocks", together);
        }
        if let Some(first) = first_meta.filter(|&first| first > descriptor_blocks) {
            return wrong("s_first_meta_bg", u64::from(first));
        }
        let copies = if superblock.feature_compat & COMPAT_SPARSE_SUPER2 != 0 {
            Copies::Two([u32_at(field::BACKUP_BGS), u32_at(field::BACKUP_BGS + 4)])
        } else if superblock.feature_ro_compat & RO_COMPAT_SPARSE_SUPER != 0 {
            Copies::Sparse
        } else {
            Copies::Every
        };
        Ok(Geometry {
            block_bytes,
            blocks_count,
            cluster_blocks,
            clusters_per_group,
            groups,
            descriptor_bytes,
            first_data_block,
            blocks_per_group,
            descriptors_per_block,
            descriptor_blocks,
            reserved_blocks,
            first_meta,
            inode_table_blocks: numbers::check(bytes, superblock, groups)?,
            copies,
        })
    }

    /// Where a block begins, in bytes. The block must be one of the filesystem's.
    pub(super) fn offset_bytes(&self, block: u64) -> u64 {
        block * self.block_bytes
    }

    /// The blocks of a group.
    pub(super) fn blocks_of(&self, group: u32) -> Range<u64> {
        let first = self.first_data_block + u64::from(group) * self.blocks_per_group;
        first..(first + self.blocks_per_group).min(self.blocks_count)
    }

    /// How many clusters a group has: the last one has fewer.
    pub(super) fn clusters_of(&self, group: u32) -> u64 {
        let blocks = self.blocks_of(group);
        (blocks.end - blocks.start).div_ceil(self.cluster_blocks)
    }

    /// The group and the bit of its bitmap that stand for a block of the filesystem, if it has one.
    pub(super) fn group_and_bit(&self, block: u64) -> Option<(u32, u64)> {
        let within = block.checked_sub(self.first_data_block)?;
        let group =
            u32::try_from(within / self.blocks_per_group).ok().filter(|&group| group < self.groups)?;
        Some((group, within % self.blocks_per_group / self.cluster_blocks))
    }

    /// The first block of a cluster.
    pub(super) fn block_of(&self, group: u32, bit: u64) -> u64 {
        self.blocks_of(group).start + bit * self.cluster_blocks
    }

    /// How many descriptors a block of them has.
    pub(super) fn descriptors_per_block(&self) -> u32 {
        self.descriptors_per_block
    }

    /// How many blocks of descriptors there are.
    pub(super) fn descriptor_blocks(&self) -> u32 {
        self.descriptor_blocks
    }

    /// The block of descriptors number `index` that counts.
    pub(super) fn descriptor_block(&self, index: u32) -> Result<u64, Ext4Error> {
        match self.meta_group(index) {
            Some(group) => self.inside(group, self.base(group) + u64::from(self.has_superblock(group))),
            None => self.inside(0, self.base(0) + 1 + u64::from(index)),
        }
    }

    /// The copies of the block of descriptors number `index`, without the one that counts.
    pub(super) fn descriptor_copies(&self, index: u32) -> Result<Vec<u64>, Ext4Error> {
        let copies: Vec<(u32, u64)> = match self.meta_group(index) {
            // The second and the last group of those that it describes.
            Some(first) => {
                let last = first.saturating_add(self.descriptors_per_block - 1);
                let mut groups = vec![first.saturating_add(1), last];
                groups.retain(|&group| group > first && group <= last && group < self.groups);
                groups.dedup();
                let block = |group| (group, self.base(group) + u64::from(self.has_superblock(group)));
                groups.into_iter().map(block).collect()
            }
            // From the first of meta_bg's groups on a copy of the superblock stands alone.
            None => {
                let mut groups = self.superblock_copies()?;
                groups.retain(|group| {
                    self.first_meta.is_none_or(|first| group / self.descriptors_per_block < first)
                });
                groups.into_iter().map(|group| (group, self.base(group) + 1 + u64::from(index))).collect()
            }
        };
        copies.into_iter().map(|(group, block)| self.inside(group, block)).collect()
    }

    /// The groups that have a copy of the superblock, in their order, without the first.
    pub(super) fn superblock_copies(&self) -> Result<Vec<u32>, Ext4Error> {
        let mut groups = match self.copies {
            Copies::Every if self.groups > COPIES_MAX => {
                return Err(Ext4Error::Copies { groups: self.groups });
            }
            Copies::Every => (1..self.groups).collect(),
            Copies::Two(groups) => groups.to_vec(),
            Copies::Sparse => {
                let powers =
                    |root: u32| std::iter::successors(Some(root), move |&power| power.checked_mul(root));
                std::iter::once(1).chain([3, 5, 7].into_iter().flat_map(powers)).collect()
            }
        };
        groups.retain(|&group| group > 0 && group < self.groups);
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    /// Where the copy of the superblock in a group begins, in bytes.
    pub(super) fn copy_offset_bytes(&self, group: u32) -> Result<u64, Ext4Error> {
        self.inside(group, self.base(group)).map(|block| self.offset_bytes(block))
    }

    /// Where the superblock and the descriptors in a group stand, with what is kept free for more of them.
    pub(super) fn base_metadata(&self, group: u32) -> Range<u64> {
        let has_superblock = self.has_superblock(group);
        let index = group / self.descriptors_per_block;
        let descriptors = match self.first_meta {
            Some(first) if index >= first => {
                let place = group % self.descriptors_per_block;
                u64::from(place <= 1 || place == self.descriptors_per_block - 1)
            }
            Some(first) if has_superblock => u64::from(first),
            None if has_superblock => u64::from(self.descriptor_blocks) + u64::from(self.reserved_blocks),
            _ => 0,
        };
        let start = self.base(group);
        start..start + u64::from(has_superblock) + descriptors
    }

    /// Whether a superblock or descriptors stand in these blocks. They must be the filesystem's.
    pub(super) fn meets_base_metadata(&self, blocks: &Range<u64>) -> bool {
        let group_of = |block| self.group_and_bit(block).map_or(0, |(group, _)| group);
        // An inode table has at most 2^19 blocks, a group at least 256.
        (group_of(blocks.start)..=group_of(blocks.end.saturating_sub(1))).any(|group| {
            let kept = self.base_metadata(group);
            kept.start.max(blocks.start) < kept.end.min(blocks.end)
        })
    }

    /// How many blocks an inode table has.
    pub(super) fn inode_table_blocks(&self) -> u64 {
        self.inode_table_blocks
    }

    /// Whether a block may hold metadata that a descriptor names.
    pub(super) fn may_be_metadata(&self, block: u64) -> bool {
        let superblock_end = SUPERBLOCK_OFFSET_BYTES + SUPERBLOCK_BYTES as u64;
        block >= superblock_end.div_ceil(self.block_bytes) && block < self.blocks_count
    }

    /// Where a group's superblock stands, or would. With bigalloc at 1 KiB blocks the first group begins at block 0, and
    /// the superblock is block 1 all the same.
    fn base(&self, group: u32) -> u64 {
        match self.blocks_of(group).start {
            0 if self.block_bytes == SUPERBLOCK_OFFSET_BYTES => 1,
            start => start,
        }
    }

    fn has_superblock(&self, group: u32) -> bool {
        let power_of = |root: u32| {
            let mut rest = group;
            while rest > 1 && rest.is_multiple_of(root) {
                rest /= root;
            }
            rest == 1
        };
        group == 0
            || match self.copies {
                Copies::Every => true,
                Copies::Two(groups) => groups.contains(&group),
                Copies::Sparse => group == 1 || [3, 5, 7].into_iter().any(power_of),
            }
    }

    /// The first of the groups that a block of descriptors describes, if it stands there.
    fn meta_group(&self, index: u32) -> Option<u32> {
        let meta = self.first_meta.is_some_and(|first| index >= first);
        meta.then(|| index.saturating_mul(self.descriptors_per_block))
    }

    /// The block, if the group keeps it for the superblock and descriptors: nothing else may stand there.
    fn inside(&self, group: u32, block: u64) -> Result<u64, Ext4Error> {
        if self.may_be_metadata(block) && self.base_metadata(group).contains(&block) {
            Ok(block)
        } else {
            wrong("the place of a superblock or of group descriptors", block)
        }
    }
}

/// Blocks in a cluster, clusters in a group, blocks in a group.
fn groups_of(bytes: &[u8; SUPERBLOCK_BYTES], superblock: &Superblock) -> Result<(u64, u64, u64), Ext4Error> {
    let u32_at = |at: usize| LittleEndian::read_u32(&bytes[at..]);
    let blocks_per_group = u64::from(u32_at(field::BLOCKS_PER_GROUP));
    let (cluster_blocks, clusters_per_group) = if superblock.feature_ro_compat & RO_COMPAT_BIGALLOC == 0 {
        (1, blocks_per_group)
    } else {
        let log = u32_at(field::LOG_CLUSTER_SIZE).checked_sub(u32_at(field::LOG_BLOCK_SIZE));
        let Some(log) = log.filter(|&log| log < u32::BITS) else {
            return wrong("s_log_cluster_size", u64::from(u32_at(field::LOG_CLUSTER_SIZE)));
        };
        (1_u64 << log, u64::from(u32_at(field::CLUSTERS_PER_GROUP)))
    };
    let bits = (u64::from(superblock.block_bytes) * 8).min(CLUSTERS_PER_GROUP_MAX);
    if clusters_per_group == 0 || clusters_per_group > bits || !clusters_per_group.is_multiple_of(8) {
        return wrong("s_clusters_per_group", clusters_per_group);
    }
    if blocks_per_group < BLOCKS_PER_GROUP_MIN || blocks_per_group != clusters_per_group * cluster_blocks {
        return wrong("s_blocks_per_group", blocks_per_group);
    }
    Ok((cluster_blocks, clusters_per_group, blocks_per_group))
}

/// A number that cannot be right.
pub(super) fn wrong<T>(what: &str, found: u64) -> Result<T, Ext4Error> {
    Err(Ext4Error::Geometry { what: format!("{what} {found} is out of range") })
}

/// A size that was checked to be at most 1024.
fn u16_of(descriptor_bytes: usize) -> u16 {
    u16::try_from(descriptor_bytes).expect("is checked")
}

#[cfg(test)]
#[path = "geometry_tests.rs"]
mod tests;
