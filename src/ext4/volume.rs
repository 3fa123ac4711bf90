//! A filesystem as it was found: its superblock, checked, and what is read by way of it.
//!
//! Protects: nothing below here sees a superblock that does not decode, has features that are not treated, or was not
//! left in order. Does not protect: what was read is of that moment; [`super::Plan::carry_out`] compares again.

use std::path::{Path, PathBuf};

use byteorder::{ByteOrder, LittleEndian};

use super::descriptor::{Descriptor, DescriptorChecksum};
use super::features::{self, RO_COMPAT_GDT_CSUM, RO_COMPAT_ORPHAN_PRESENT};
use super::geometry::Geometry;
use super::{Bytes, Ext4Error, fail};
use crate::error::Error;
use crate::format::Superblock;
use crate::format::fields::superblock as field;
use crate::format::superblock::{
    INCOMPAT_MMP, INCOMPAT_RECOVER, STATE_VALID, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES,
};

/// `EXT4_ERROR_FS` in `s_state`: errors were found.
const STATE_ERROR: u16 = 0x0002;
/// `EXT4_ORPHAN_FS` and `EXT4_FC_REPLAY` in `s_state`: the kernel was at work on it.
const STATE_AT_WORK: u16 = 0x0004 | 0x0020;

/// The bytes of a superblock.
pub(super) type SuperblockBytes = [u8; SUPERBLOCK_BYTES];

/// Reads the superblock and decodes it. Says nothing yet about whether it can be changed.
pub(super) fn read_superblock(
    path: &Path,
    bytes: &mut dyn Bytes,
) -> Result<(SuperblockBytes, Superblock), Error> {
    let mut found = [0; SUPERBLOCK_BYTES];
    bytes.read_at(SUPERBLOCK_OFFSET_BYTES, &mut found)?;
    let superblock =
        Superblock::decode(&found).map_err(|source| Error::Superblock { path: path.to_owned(), source })?;
    Ok((found, superblock))
}

/// Whether the feature is on.
pub(super) fn has_mmp(superblock: &Superblock) -> bool {
    superblock.feature_incompat & INCOMPAT_MMP != 0
}

/// A filesystem that may be changed.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    /// Whose messages they are.
    pub(super) path: PathBuf,
    /// The superblock as it was read.
    pub(super) bytes: SuperblockBytes,
    /// What it says.
    pub(super) superblock: Superblock,
    /// What follows from it.
    pub(super) geometry: Geometry,
    /// What descriptors and bitmaps are checked with.
    pub(super) checksum: DescriptorChecksum,
}

impl Volume {
    /// Checks whether the filesystem with this superblock may be changed, on a device of `size_bytes`.
    ///
    /// # Errors
    /// [`Error::Ext4`] with the reason; [`Error::Short`] if the device ends before the filesystem.
    pub(super) fn check(
        path: &Path,
        (bytes, superblock): (SuperblockBytes, Superblock),
        size_bytes: u64,
    ) -> Result<Volume, Error> {
        if let Some(features) = features::untreated(&superblock) {
            return Err(fail(path, Ext4Error::Features { features }));
        }
        let geometry = Geometry::of(&bytes, &superblock).map_err(|source| fail(path, source))?;
        let end_bytes = geometry.offset_bytes(geometry.blocks_count);
        if end_bytes > size_bytes {
            let what = format!(
                "the filesystem's {end_bytes} bytes end beyond its {size_bytes}; it was cut or mistaken"
            );
            return Err(Error::Short { path: path.to_owned(), what });
        }
        in_order(&bytes, &superblock).map_err(|source| fail(path, source))?;
        let checksum = match superblock.checksum_seed {
            Some(seed) => DescriptorChecksum::Crc32c(seed),
            None if superblock.feature_ro_compat & RO_COMPAT_GDT_CSUM != 0 => {
                DescriptorChecksum::Crc16(superblock.uuid)
            }
            None => DescriptorChecksum::None,
        };
        Ok(Volume { path: path.to_owned(), bytes, superblock, geometry, checksum })
    }

    /// An error about it.
    pub(super) fn fail(&self, source: Ext4Error) -> Error {
        fail(&self.path, source)
    }

    /// An error about one of its groups.
    pub(super) fn damaged_group(&self, group: u32, what: impl Into<String>) -> Error {
        self.fail(Ext4Error::Group { group, what: what.into() })
    }

    /// Reads one block.
    pub(super) fn read_block(&self, bytes: &mut dyn Bytes, block: u64) -> Result<Vec<u8>, Error> {
        let mut found = vec![0; self.superblock.block_bytes as usize];
        bytes.read_at(self.geometry.offset_bytes(block), &mut found)?;
        Ok(found)
    }

    /// Reads the block of descriptors number `index`.
    pub(super) fn read_table(&self, bytes: &mut dyn Bytes, index: u32) -> Result<Table, Error> {
        let block = self.geometry.descriptor_block(index).map_err(|source| self.fail(source))?;
        let found = self.read_block(bytes, block)?;
        Ok(Table { index, block, bytes: found, descriptor_bytes: self.geometry.descriptor_bytes })
    }
}

/// A block of group descriptors.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Which one.
    pub(super) index: u32,
    /// Where the one that counts stands, a block number.
    pub(super) block: u64,
    /// As it was read.
    pub(super) bytes: Vec<u8>,
    descriptor_bytes: usize,
}

impl Table {
    /// The groups it describes.
    pub(super) fn groups(&self, geometry: &Geometry) -> std::ops::Range<u32> {
        let first = self.index.saturating_mul(geometry.descriptors_per_block());
        first..first.saturating_add(geometry.descriptors_per_block()).min(geometry.groups)
    }

    /// The descriptor of a group that it describes.
    pub(super) fn descriptor(&self, group: u32) -> Descriptor {
        Descriptor::new(group, &self.bytes[self.at(group)..][..self.descriptor_bytes])
    }

    /// The block with another descriptor in place of that group's.
    pub(super) fn with(&self, group: u32, descriptor: &Descriptor) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[self.at(group)..][..self.descriptor_bytes].copy_from_slice(descriptor.bytes());
        bytes
    }

    /// Where the descriptor of a group begins, in bytes from the start of the block.
    pub(super) fn at(&self, group: u32) -> usize {
        let per_block = self.bytes.len() / self.descriptor_bytes;
        group as usize % per_block * self.descriptor_bytes
    }
}

/// Whether it was left in order: nothing for the kernel or e2fsck to do first.
fn in_order(bytes: &SuperblockBytes, superblock: &Superblock) -> Result<(), Ext4Error> {
    if superblock.state & STATE_ERROR != 0 {
        return Err(Ext4Error::Errors);
    }
    let what = if superblock.feature_incompat & INCOMPAT_RECOVER != 0 {
        "its journal needs recovery"
    } else if superblock.state & STATE_VALID == 0 {
        "it is in use, or its last user did not unmount it"
    } else if superblock.state & STATE_AT_WORK != 0 {
        "the kernel was recovering it"
    } else if LittleEndian::read_u32(&bytes[field::LAST_ORPHAN..]) != 0
        || superblock.feature_ro_compat & RO_COMPAT_ORPHAN_PRESENT != 0
    {
        "files that were removed while open are still to be freed (its orphan list)"
    } else {
        return Ok(());
    };
    Err(Ext4Error::Unclean { what })
}
