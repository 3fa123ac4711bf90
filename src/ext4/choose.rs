//! Which block becomes the MMP block: the first free one (with bigalloc the first of a free cluster) of the first group
//! that has one, as tune2fs(8) takes it. It lies low on the device, behind the metadata that flex_bg gathers there.
//!
//! A group whose bitmap was never written is taken only if no other has a free block: its bitmap would have to be made,
//! for no use. Protects: nothing is taken that is metadata, whatever a bitmap says. Does not protect: groups before the
//! chosen one are not verified, since nothing of them is used.

use super::Bytes;
use super::Ext4Error;
use super::site::Site;
use super::volume::{Table, Volume};
use crate::error::Error;

/// A group with the cluster that was chosen in it, still free.
pub(super) fn free_cluster(volume: &Volume, bytes: &mut dyn Bytes) -> Result<(Site, u64), Error> {
    let mut unwritten: Option<(Table, u32)> = None;
    for index in 0..volume.geometry.descriptor_blocks() {
        let table = volume.read_table(bytes, index)?;
        for group in table.groups(&volume.geometry) {
            let descriptor = table.descriptor(group);
            if descriptor.free_clusters() == 0 {
                continue;
            }
            if !descriptor.is_uninitialised(volume.checksum) {
                return first_of(volume, bytes, &table, group);
            }
            if unwritten.is_none() {
                unwritten = Some((table.clone(), group));
            }
        }
    }
    match unwritten {
        Some((table, group)) => first_of(volume, bytes, &table, group),
        None => Err(volume.fail(Ext4Error::NoSpace)),
    }
}

fn first_of(volume: &Volume, bytes: &mut dyn Bytes, table: &Table, group: u32) -> Result<(Site, u64), Error> {
    let site = Site::read(volume, bytes, table, group)?;
    let Some(bit) = site.first_free(volume) else {
        return Err(volume.damaged_group(group, "its descriptor counts free blocks, and its bitmap has none"));
    };
    let block = volume.geometry.block_of(group, bit);
    if site.is_metadata(volume, bit) || !volume.geometry.may_be_metadata(block) {
        return Err(
            volume.damaged_group(group, format!("block {block} is metadata, and its bitmap says free"))
        );
    }
    Ok((site, bit))
}
