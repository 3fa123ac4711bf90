//! One group's block bitmap and descriptor: read, verified, and changed together.
//!
//! Protects: a bitmap is believed only if its checksum fits and as many of its bits are free as its descriptor says; a
//! group that never had one (`EXT4_BG_BLOCK_UNINIT`) is given the one that the kernel would make. Does not protect: a
//! bit that is wrong in a bitmap without checksum, with another one wrong in its favour.
//!
//! Source: Linux `fs/ext4/balloc.c` (`ext4_init_block_bitmap`), e2fsprogs `lib/ext2fs/rw_bitmaps.c`.

use std::ops::Range;

use super::descriptor::Descriptor;
use super::volume::{Table, Volume};
use super::{Bytes, Ext4Error};
use crate::error::Error;

/// A group's bitmap and descriptor, before and after.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// Which group.
    pub(super) group: u32,
    /// The block of descriptors in which the group's stands, as it was read.
    pub(super) table: Table,
    /// Where the bitmap stands, a block number.
    pub(super) bitmap_block: u64,
    /// The bitmap's block as it was read: of a group without one, whatever stands there.
    pub(super) on_disk: Vec<u8>,
    /// As it will be.
    pub(super) bitmap: Vec<u8>,
    /// As it will be.
    pub(super) descriptor: Descriptor,
}

impl Site {
    /// Reads and verifies the bitmap of a group that `table` describes, and the descriptors in that.
    ///
    /// # Errors
    /// [`Error::Ext4`] if bitmap and descriptor cannot be right.
    pub(super) fn read(
        volume: &Volume,
        bytes: &mut dyn Bytes,
        table: &Table,
        group: u32,
    ) -> Result<Site, Error> {
        verify_table(volume, table)?;
        let descriptor = table.descriptor(group);
        let bitmap_block = descriptor.block_bitmap();
        let on_disk = volume.read_block(bytes, bitmap_block)?;
        let uninitialised = descriptor.is_uninitialised(volume.checksum);
        let bitmap = if uninitialised { initial(volume, &descriptor, group) } else { on_disk.clone() };
        if !uninitialised
            && let Some((stored, computed)) =
                descriptor.bitmap_checksums(volume.checksum, counting(volume, &bitmap))
            && stored != computed
        {
            let offset_bytes = volume.geometry.offset_bytes(table.block) + table.at(group) as u64;
            return Err(volume.fail(Ext4Error::BitmapChecksum { group, offset_bytes, stored, computed }));
        }
        let free = free_bits(&bitmap, volume.geometry.clusters_of(group));
        if free != u64::from(descriptor.free_clusters()) {
            let said = descriptor.free_clusters();
            let what = format!("its descriptor says {said} free, and its bitmap has {free}");
            return Err(volume.damaged_group(group, what));
        }
        Ok(Site { group, table: table.clone(), bitmap_block, on_disk, bitmap, descriptor })
    }

    /// The first free cluster, as a bit of the bitmap.
    pub(super) fn first_free(&self, volume: &Volume) -> Option<u64> {
        (0..volume.geometry.clusters_of(self.group)).find(|&bit| !self.is_used(bit))
    }

    /// Whether a cluster of the group is used.
    pub(super) fn is_used(&self, bit: u64) -> bool {
        let (byte, mask) = place(bit);
        self.bitmap[byte] & mask != 0
    }

    /// Whether the bitmap's bytes may be believed only after this change: the group had none.
    pub(super) fn is_first_use(&self, volume: &Volume) -> bool {
        self.table.descriptor(self.group).is_uninitialised(volume.checksum)
    }

    /// Whether a cluster holds metadata of the group itself, or of one of those described beside it: such a one is never
    /// free, and never an MMP block.
    pub(super) fn is_metadata(&self, volume: &Volume, bit: u64) -> bool {
        let geometry = &volume.geometry;
        let start = geometry.block_of(self.group, bit);
        let cluster = start..start + geometry.cluster_blocks;
        // Of the groups that share the block of descriptors: with flex_bg their metadata stands together.
        let mut owned = self.table.groups(geometry).flat_map(|group| {
            let descriptor = self.table.descriptor(group);
            named(volume, &descriptor)
        });
        overlap(&geometry.base_metadata(self.group), &cluster) || owned.any(|part| overlap(&part, &cluster))
    }

    /// Marks a free cluster as used.
    pub(super) fn take(&mut self, volume: &Volume, bit: u64) {
        let (byte, mask) = place(bit);
        self.bitmap[byte] |= mask;
        self.settle(volume, self.descriptor.free_clusters() - 1);
    }

    /// Marks a used cluster as free.
    pub(super) fn give_back(&mut self, volume: &Volume, bit: u64) {
        let (byte, mask) = place(bit);
        self.bitmap[byte] &= !mask;
        self.settle(volume, self.descriptor.free_clusters() + 1);
    }

    /// The block of descriptors as it will be.
    pub(super) fn table_after(&self) -> Vec<u8> {
        self.table.with(self.group, &self.descriptor)
    }

    /// Makes the descriptor fit the bitmap.
    fn settle(&mut self, volume: &Volume, free: u32) {
        self.descriptor.set_free_clusters(free);
        self.descriptor.set_initialised();
        let counting = counting(volume, &self.bitmap);
        if let Some((_, computed)) = self.descriptor.bitmap_checksums(volume.checksum, counting) {
            self.descriptor.set_bitmap_checksum(computed);
        }
        self.descriptor.seal(volume.checksum);
    }
}

/// Verifies every descriptor beside the group's: their block is written as a whole, here and over copies that e2fsck
/// would mend them from. Without checksums it is the places that tell.
fn verify_table(volume: &Volume, table: &Table) -> Result<(), Error> {
    let geometry = &volume.geometry;
    let mut places: Vec<(Range<u64>, u32)> = Vec::new();
    for group in table.groups(geometry) {
        let descriptor = verified(volume, table, group)?;
        for (name, place) in
            ["block bitmap", "inode bitmap", "inode table"].into_iter().zip(named(volume, &descriptor))
        {
            if !geometry.may_be_metadata(place.start) || place.end > geometry.blocks_count {
                let what = format!("its {name} cannot stand in block {}", place.start);
                return Err(volume.damaged_group(group, what));
            }
            if geometry.meets_base_metadata(&place) {
                let what = format!(
                    "its {name} would stand in block {}, on a superblock or descriptors",
                    place.start
                );
                return Err(volume.damaged_group(group, what));
            }
            places.push((place, group));
        }
    }
    places.sort_unstable_by_key(|(place, _)| place.start);
    match places.windows(2).find(|pair| overlap(&pair[0].0, &pair[1].0)) {
        Some([(_, group), (place, other)]) => {
            let what =
                format!("block {} would be metadata of it and, another time, of group {other}", place.start);
            Err(volume.damaged_group(*group, what))
        }
        _ => Ok(()),
    }
}

/// A group's descriptor, if its checksum fits.
fn verified(volume: &Volume, table: &Table, group: u32) -> Result<Descriptor, Error> {
    let descriptor = table.descriptor(group);
    match descriptor.checksums(volume.checksum) {
        Some((stored, computed)) if stored != computed => {
            let offset_bytes = volume.geometry.offset_bytes(table.block) + table.at(group) as u64;
            Err(volume.fail(Ext4Error::DescriptorChecksum { group, offset_bytes, stored, computed }))
        }
        _ => Ok(descriptor),
    }
}

/// The bitmap of a group that never had one: its own metadata is used, and so is what is beyond its end.
fn initial(volume: &Volume, descriptor: &Descriptor, group: u32) -> Vec<u8> {
    let geometry = &volume.geometry;
    let mut bitmap = vec![0; volume.superblock.block_bytes as usize];
    let blocks = geometry.blocks_of(group);
    for part in named(volume, descriptor).into_iter().chain([geometry.base_metadata(group)]) {
        let (start, end) = (part.start.max(blocks.start), part.end.min(blocks.end));
        if start < end {
            let first = (start - blocks.start) / geometry.cluster_blocks;
            let last = (end - 1 - blocks.start) / geometry.cluster_blocks;
            (first..=last).for_each(|bit| set(&mut bitmap, bit));
        }
    }
    (geometry.clusters_of(group)..bitmap.len() as u64 * 8).for_each(|bit| set(&mut bitmap, bit));
    bitmap
}

/// What a descriptor names: two bitmaps and an inode table.
fn named(volume: &Volume, descriptor: &Descriptor) -> [Range<u64>; 3] {
    let span = |start: u64, blocks: u64| start..start.saturating_add(blocks);
    [
        span(descriptor.block_bitmap(), 1),
        span(descriptor.inode_bitmap(), 1),
        span(descriptor.inode_table(), volume.geometry.inode_table_blocks()),
    ]
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start.max(other.start) < one.end.min(other.end)
}

/// The bytes of a bitmap that its checksum covers.
fn counting<'a>(volume: &Volume, bitmap: &'a [u8]) -> &'a [u8] {
    let bytes = usize::try_from(volume.geometry.clusters_per_group / 8).expect("at most a block");
    &bitmap[..bytes]
}

/// How many of the first `count` bits are free.
fn free_bits(bitmap: &[u8], count: u64) -> u64 {
    let (whole, rest) = place(count);
    let used: u64 = bitmap[..whole].iter().map(|byte| u64::from(byte.count_ones())).sum();
    let partial = bitmap.get(whole).map_or(0, |byte| (byte & (rest - 1)).count_ones());
    count - used - u64::from(partial)
}

fn set(bitmap: &mut [u8], bit: u64) {
    let (byte, mask) = place(bit);
    bitmap[byte] |= mask;
}

/// The byte of a bit, and the bit in it. A bitmap has at most 2^19 bits.
fn place(bit: u64) -> (usize, u8) {
    (usize::try_from(bit / 8).expect("at most a block"), 1 << (bit % 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_bits_are_counted_up_to_the_end_of_the_group() {
        let bitmap = [0b0000_0001, 0b1111_0000, 0];
        assert_eq!(
            [0, 1, 8, 12, 13, 16, 24].map(|count| free_bits(&bitmap, count)),
            [0, 0, 7, 11, 11, 11, 19]
        );
    }

    #[test]
    fn ranges_overlap_when_they_share_a_block() {
        for (one, other, shared) in
            [(0..2, 1..3, true), (0..2, 2..3, false), (5..6, 0..10, true), (3..3, 0..10, false)]
        {
            assert_eq!((overlap(&one, &other), overlap(&other, &one)), (shared, shared), "{one:?} {other:?}");
        }
    }
}
