//! In which order the edits are written, and why a crash between any two of them loses nothing.
//!
//! The superblock is one write of the 1024 bytes (two sectors of 512, or part of one of 4096), never piece by piece. What
//! is assumed: a sector is written whole or not at all, and a write that returned stays.
//!
//! # Enabling
//! 1. **The MMP block**, clean. It is a free block: nothing refers to it.
//! 2. **The block bitmap**, with its bit. In a group that never had a bitmap, it does not count yet.
//! 3. **The descriptors**: one less is free, the bitmap's checksum, and that there is a bitmap. One sector changes.
//! 4. **The copies** of the descriptors and of the superblock; of the descriptors' only that group's. They tell of MMP before the one that counts does: who
//!    restores a copy after a crash gets an MMP block that is taken and clean, not a filesystem without protection.
//! 5. **The superblock**, which switches it on. Before it nobody knows of the block, and a block that is marked as used
//!    without use is all that a crash leaves; after it everything it refers to is on the disk.
//!
//! Between 2 and 3 bitmap and descriptor differ, by one free block and (metadata_csum) by the checksum: two blocks cannot
//! be written at once. The kernel mounts that and, when it looks at that group, takes no block from it and flags an error;
//! `e2fsck -fy` mends it. The other order has the same gap, and would believe a bitmap that was never written.
//!
//! # Disabling
//! 1. **The superblock**: off, and one more is free. First, not last: under a feature that is still on, a block that is
//!    already marked as free would be given to a file after a crash, and beaten over by every kernel that mounts it. A
//!    crash here leaves a block that is used for nothing.
//! 2. **The MMP block**, zeroes: who read the superblock before (1) must not find it clean, and finds no MMP block at all.
//! 3. **The copies of the superblock**, before the block is free: a copy that is restored must not name a block that a
//!    file has by then.
//! 4. **The block bitmap**, then **the descriptors**, as above, and **the copies of these**.
//!
//! From (1) on nothing keeps another host from mounting it, and it would read bitmaps that are still to be written. So the
//! superblock, which a mount changes first, is compared before each write, and the rest is left undone if it changed.
//!
//! # Setting the interval
//! The copies of the superblock, then the superblock. Any state between is one that has the old interval.
//!
//! # A superblock that tears
//! With metadata_csum its checksum is in the second sector, what it covers in the first. Between the two no superblock is
//! valid, after anybody's write, the kernel's too; `e2fsck` then takes a copy: when enabling it says *on*, when disabling
//! *on*, too, and nothing was freed yet. A filesystem of one group has no copy.

use std::path::Path;
use std::sync::Arc;

use super::plan::Draft;
use super::site::Site;
use super::volume::{SuperblockBytes, Volume, has_mmp, read_superblock};
use super::{Bytes, Ext4Error, Part, Planned, Wanted, choose, fail, superblock};
use crate::error::Error;
use crate::format::superblock::{SUPERBLOCK_OFFSET_BYTES, SuperblockError};
use crate::format::{Image, MMP_STRUCT_BYTES, MmpBlock};
use crate::protocol::sequence::SEQ_CLEAN;
use crate::protocol::timing::{MAX_CHECK_INTERVAL_S, taker_check_interval_s, update_interval_s};

/// So often an MMP block is read before it counts as damaged.
const MMP_BLOCK_LOOKS: u32 = 5;

/// Plans to switch MMP on. Writes nothing.
///
/// # Errors
/// [`Error::Ext4`] with the reason; [`Error::Superblock`] if there is no superblock that decodes; [`Error::Short`] if the
/// device ends before the filesystem; what `bytes` says.
pub fn enable(path: &Path, bytes: &mut dyn Bytes, wanted: &Wanted) -> Result<Planned, Error> {
    check_interval(path, wanted.interval_s)?;
    let found = read_superblock(path, bytes)?;
    if has_mmp(&found.1) {
        return Ok(Planned::Already { interval_s: update_interval_s(found.1.mmp_update_interval_s) });
    }
    let volume = Volume::check(path, found, bytes.size_bytes())?;
    let (mut site, bit) = choose::free_cluster(&volume, bytes)?;
    site.take(&volume, bit);
    let block = volume.geometry.block_of(site.group, bit);
    let sizes = (volume.geometry.blocks_count, volume.geometry.cluster_blocks);
    let Some(after) = superblock::enabled(&volume.bytes, block, wanted.interval_s, sizes) else {
        return Err(miscounted(&volume));
    };
    let mut draft = Draft::new(&volume);
    draft.write(Part::MmpBlock, volume.geometry.offset_bytes(block), mmp_block(&volume, wanted), None);
    write_site(&mut draft, &volume, &site);
    write_descriptor_copies(&mut draft, &volume, bytes, &site)?;
    write_superblock_copies(&mut draft, &volume, &after)?;
    write_superblock(&mut draft, &volume, &after);
    draft.finish(block, wanted.interval_s, after).map(Planned::Do)
}

/// Plans to switch MMP off and to give its block back. Writes nothing.
///
/// The caller may hold the MMP block meanwhile, and beat in it up to the write of [`Part::MmpBlock`]: what stands there
/// is not compared.
///
/// # Errors
/// As [`enable`]; [`Error::Superblock`] if the MMP block's number is none that it can have; [`Error::Damaged`] if what
/// stands there is no MMP block.
pub fn disable(path: &Path, bytes: &mut dyn Bytes) -> Result<Planned, Error> {
    let found = read_superblock(path, bytes)?;
    if !has_mmp(&found.1) {
        return Ok(Planned::Already { interval_s: 0 });
    }
    let volume = Volume::check(path, found, bytes.size_bytes())?;
    check_mmp_block(&volume, bytes)?;
    let block = volume.superblock.mmp_block;
    let (mut site, bit) = used_cluster(&volume, bytes, block)?;
    site.give_back(&volume, bit);
    let sizes = (volume.geometry.blocks_count, volume.geometry.cluster_blocks);
    let Some(after) = superblock::disabled(&volume.bytes, sizes) else {
        return Err(miscounted(&volume));
    };
    let mut draft = Draft::new(&volume);
    write_superblock(&mut draft, &volume, &after);
    let zeroes = vec![0; volume.superblock.block_bytes as usize];
    draft.write(Part::MmpBlock, volume.geometry.offset_bytes(block), zeroes, None);
    write_superblock_copies(&mut draft, &volume, &after)?;
    write_site(&mut draft, &volume, &site);
    write_descriptor_copies(&mut draft, &volume, bytes, &site)?;
    draft.finish(block, 0, after).map(Planned::Do)
}

/// Plans to set the update interval. Writes nothing.
///
/// # Errors
/// As [`disable`], without [`Error::Damaged`]; [`SuperblockError::NotEnabled`] if MMP is off.
pub fn set_interval(path: &Path, bytes: &mut dyn Bytes, interval_s: u16) -> Result<Planned, Error> {
    check_interval(path, interval_s)?;
    let found = read_superblock(path, bytes)?;
    mmp_offset_bytes(path, &found.1.mmp_offset_bytes())?;
    if found.1.mmp_update_interval_s == interval_s {
        return Ok(Planned::Already { interval_s });
    }
    let volume = Volume::check(path, found, bytes.size_bytes())?;
    let after = superblock::with_interval(&volume.bytes, interval_s);
    let mut draft = Draft::new(&volume);
    write_superblock_copies(&mut draft, &volume, &after)?;
    write_superblock(&mut draft, &volume, &after);
    draft.finish(volume.superblock.mmp_block, interval_s, after).map(Planned::Do)
}

fn write_superblock(draft: &mut Draft<'_>, volume: &Volume, after: &SuperblockBytes) {
    draft.write(Part::Superblock, SUPERBLOCK_OFFSET_BYTES, after.as_slice(), Some(&volume.bytes));
}

fn write_superblock_copies(
    draft: &mut Draft<'_>,
    volume: &Volume,
    after: &SuperblockBytes,
) -> Result<(), Error> {
    for group in volume.geometry.superblock_copies().map_err(|source| volume.fail(source))? {
        let copy = superblock::copy_for(after, group);
        let place = volume.geometry.copy_offset_bytes(group);
        let offset_bytes = place.map_err(|source| volume.fail(source))?;
        draft.write(Part::BackupSuperblock, offset_bytes, copy.as_slice(), None);
    }
    Ok(())
}

/// Bitmap, then descriptors.
fn write_site(draft: &mut Draft<'_>, volume: &Volume, site: &Site) {
    let bitmap = volume.geometry.offset_bytes(site.bitmap_block);
    draft.write(Part::BlockBitmap, bitmap, site.bitmap.as_slice(), Some(&site.on_disk));
    let table = volume.geometry.offset_bytes(site.table.block);
    draft.write(Part::GroupDescriptors, table, site.table_after(), Some(&site.table.bytes));
}

/// Of each copy only the group's own descriptor changes: what stands beside it may be what e2fsck mends the others from.
fn write_descriptor_copies(
    draft: &mut Draft<'_>,
    volume: &Volume,
    bytes: &mut dyn Bytes,
    site: &Site,
) -> Result<(), Error> {
    let copies = volume.geometry.descriptor_copies(site.table.index);
    let mut last: Arc<[u8]> = site.table_after().into();
    for block in copies.map_err(|source| volume.fail(source))? {
        let mut copy = site.table.clone();
        copy.bytes = volume.read_block(bytes, block)?;
        let after = copy.with(site.group, &site.descriptor);
        // They are alike, as a rule, and may be many.
        if after != *last {
            last = after.into();
        }
        draft.write(Part::BackupDescriptors, volume.geometry.offset_bytes(block), Arc::clone(&last), None);
    }
    Ok(())
}

/// The whole block, clean, as mke2fs(8) leaves it but for the time.
fn mmp_block(volume: &Volume, wanted: &Wanted) -> Vec<u8> {
    let mut image: Image = [0; MMP_STRUCT_BYTES];
    let block = MmpBlock {
        seq: SEQ_CLEAN,
        time_s: wanted.time_s,
        node: wanted.node,
        device: wanted.device,
        check_interval_s: taker_check_interval_s(wanted.interval_s, 0),
    };
    block.encode_into(&mut image, volume.superblock.checksum_seed);
    let mut bytes = image.to_vec();
    bytes.resize(volume.superblock.block_bytes as usize, 0);
    bytes
}

/// The group and the bit of the MMP block, which must be one that can be given back.
fn used_cluster(volume: &Volume, bytes: &mut dyn Bytes, block: u64) -> Result<(Site, u64), Error> {
    let place = volume.geometry.group_and_bit(block);
    let (group, bit) = place.expect("the MMP block lies in the filesystem: mmp_offset_bytes");
    let table = volume.read_table(bytes, group / volume.geometry.descriptors_per_block())?;
    let site = Site::read(volume, bytes, &table, group)?;
    if site.is_first_use(volume) || !site.is_used(bit) {
        return Err(volume.damaged_group(group, format!("MMP block {block} is marked as free")));
    }
    if site.is_metadata(volume, bit) {
        return Err(volume.damaged_group(group, format!("MMP block {block} is other metadata")));
    }
    Ok((site, bit))
}

/// There is an MMP block. The caller may beat in it meanwhile, and a read that meets a write may see half of each.
fn check_mmp_block(volume: &Volume, bytes: &mut dyn Bytes) -> Result<(), Error> {
    let offset_bytes = mmp_offset_bytes(&volume.path, &volume.superblock.mmp_offset_bytes())?;
    let mut looks = 1;
    loop {
        let mut image: Image = [0; MMP_STRUCT_BYTES];
        bytes.read_at(offset_bytes, &mut image)?;
        match MmpBlock::decode(&image, volume.superblock.checksum_seed) {
            Ok(_) => return Ok(()),
            Err(_) if looks < MMP_BLOCK_LOOKS => looks += 1,
            Err(damage) => return Err(Error::Damaged { path: volume.path.clone(), damage: damage.into() }),
        }
    }
}

fn mmp_offset_bytes(path: &Path, offset: &Result<u64, SuperblockError>) -> Result<u64, Error> {
    offset.clone().map_err(|source| Error::Superblock { path: path.to_owned(), source })
}

fn check_interval(path: &Path, interval_s: u16) -> Result<(), Error> {
    // `EXT4_MMP_MAX_UPDATE_INTERVAL` is the same.
    let max_s = MAX_CHECK_INTERVAL_S;
    if (1..=max_s).contains(&interval_s) {
        return Ok(());
    }
    Err(fail(path, Ext4Error::Interval { interval_s, max_s }))
}

fn miscounted(volume: &Volume) -> Error {
    volume.fail(Ext4Error::Geometry { what: "s_free_blocks_count does not fit the block groups".to_owned() })
}
