//! A group descriptor: the fields that the edits use, and its checksum under metadata_csum and under uninit_bg.
//!
//! Protects: what is not a field here keeps its bytes. Does not protect: that a count or a block number is right is seen
//! only beside the bitmap ([`super::site`]).
//!
//! Source: Linux `fs/ext4/ext4.h` (`struct ext4_group_desc`), `fs/ext4/super.c` (`ext4_group_desc_csum`),
//! `fs/ext4/bitmap.c`.

use byteorder::{ByteOrder, LittleEndian};

use crate::format::ChecksumSeed;
use crate::format::checksum::{crc16, ext4_crc32c};
use crate::format::fields::descriptor as field;

/// `EXT4_BG_BLOCK_UNINIT`: the block bitmap was never written.
const FLAG_BLOCK_UNINIT: u16 = 0x0002;
/// From this size on, in bytes, a descriptor has high halves (`EXT4_BG_BLOCK_BITMAP_CSUM_HI_END`).
const WIDE_BYTES: usize = 0x3A;

/// What a descriptor's checksum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DescriptorChecksum {
    /// There is none.
    None,
    /// uninit_bg: crc16 over UUID, number and descriptor.
    Crc16([u8; 16]),
    /// metadata_csum: the low half of a crc32c over number and descriptor; the bitmaps have checksums, too.
    Crc32c(ChecksumSeed),
}

/// One group's descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    group: u32,
    /// As many as the filesystem's descriptors have.
    bytes: Vec<u8>,
}

impl Descriptor {
    /// Takes the bytes as they stand on the disk.
    ///
    /// # Panics
    /// If they are fewer than 32.
    pub(super) fn new(group: u32, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 32, "a descriptor has 32 bytes or more");
        Descriptor { group, bytes: bytes.to_owned() }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the group's block bitmap stands, a block number.
    pub(super) fn block_bitmap(&self) -> u64 {
        self.block(field::BLOCK_BITMAP_LO, field::BLOCK_BITMAP_HI)
    }

    /// Where its inode bitmap stands.
    pub(super) fn inode_bitmap(&self) -> u64 {
        self.block(field::INODE_BITMAP_LO, field::INODE_BITMAP_HI)
    }

    /// Where its inode table begins.
    pub(super) fn inode_table(&self) -> u64 {
        self.block(field::INODE_TABLE_LO, field::INODE_TABLE_HI)
    }

    /// How many clusters of the group are free.
    pub(super) fn free_clusters(&self) -> u32 {
        u32::from(self.u16_at(field::FREE_BLOCKS_COUNT_LO))
            | u32::from(self.high_u16(field::FREE_BLOCKS_COUNT_HI)) << 16
    }

    /// Whether its block bitmap was never written. Without a checksum the flag means nothing (`ext4_has_group_desc_csum`).
    pub(super) fn is_uninitialised(&self, checksum: DescriptorChecksum) -> bool {
        checksum != DescriptorChecksum::None && self.u16_at(field::FLAGS) & FLAG_BLOCK_UNINIT != 0
    }

    /// Takes the flag away.
    pub(super) fn set_initialised(&mut self) {
        let flags = self.u16_at(field::FLAGS) & !FLAG_BLOCK_UNINIT;
        LittleEndian::write_u16(&mut self.bytes[field::FLAGS..], flags);
    }

    /// Says how many clusters are free.
    pub(super) fn set_free_clusters(&mut self, count: u32) {
        self.set_halves(field::FREE_BLOCKS_COUNT_LO, field::FREE_BLOCKS_COUNT_HI, count);
    }

    /// What stands in it as the checksum of the block bitmap, and what that should be for these bytes; nothing where
    /// bitmaps have no checksums. A narrow descriptor has room for 16 bits only.
    pub(super) fn bitmap_checksums(&self, checksum: DescriptorChecksum, bitmap: &[u8]) -> Option<(u32, u32)> {
        let DescriptorChecksum::Crc32c(seed) = checksum else { return None };
        let stored = u32::from(self.u16_at(field::BLOCK_BITMAP_CSUM_LO))
            | u32::from(self.high_u16(field::BLOCK_BITMAP_CSUM_HI)) << 16;
        let mask = if self.is_wide() { u32::MAX } else { u32::from(u16::MAX) };
        Some((stored, seed.checksum(bitmap) & mask))
    }

    /// Says what the checksum of the block bitmap is.
    pub(super) fn set_bitmap_checksum(&mut self, value: u32) {
        self.set_halves(field::BLOCK_BITMAP_CSUM_LO, field::BLOCK_BITMAP_CSUM_HI, value);
    }

    /// What stands in it as its own checksum, and what that should be; nothing where there is none.
    pub(super) fn checksums(&self, checksum: DescriptorChecksum) -> Option<(u16, u16)> {
        let number = self.group.to_le_bytes();
        let (before, after) = (&self.bytes[..field::CHECKSUM], &self.bytes[field::CHECKSUM + 2..]);
        let computed = match checksum {
            DescriptorChecksum::None => return None,
            // The field itself is left out.
            DescriptorChecksum::Crc16(uuid) => {
                let parts: [&[u8]; 4] = [&uuid, &number, before, after];
                parts.into_iter().fold(u16::MAX, crc16)
            }
            // The field itself counts as zeroes.
            DescriptorChecksum::Crc32c(seed) => {
                let parts: [&[u8]; 4] = [&number, before, &[0, 0], after];
                let whole = parts.into_iter().fold(seed.0, ext4_crc32c);
                u16::try_from(whole & u32::from(u16::MAX)).expect("is masked")
            }
        };
        Some((self.u16_at(field::CHECKSUM), computed))
    }

    /// Gives it the right checksum of its own.
    pub(super) fn seal(&mut self, checksum: DescriptorChecksum) {
        if let Some((_, computed)) = self.checksums(checksum) {
            LittleEndian::write_u16(&mut self.bytes[field::CHECKSUM..], computed);
        }
    }

    fn is_wide(&self) -> bool {
        self.bytes.len() >= WIDE_BYTES
    }

    fn u16_at(&self, at: usize) -> u16 {
        LittleEndian::read_u16(&self.bytes[at..])
    }

    fn high_u16(&self, at: usize) -> u16 {
        if self.is_wide() { self.u16_at(at) } else { 0 }
    }

    fn block(&self, low: usize, high: usize) -> u64 {
        let high = if self.is_wide() { LittleEndian::read_u32(&self.bytes[high..]) } else { 0 };
        u64::from(LittleEndian::read_u32(&self.bytes[low..])) | u64::from(high) << 32
    }

    /// Writes a number in two halves, the high one where there is room for it.
    fn set_halves(&mut self, low: usize, high: usize, value: u32) {
        let bytes = value.to_le_bytes();
        self.bytes[low..low + 2].copy_from_slice(&bytes[..2]);
        if self.is_wide() {
            self.bytes[high..high + 2].copy_from_slice(&bytes[2..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: DescriptorChecksum = DescriptorChecksum::Crc32c(ChecksumSeed(0x1234_5678));

    #[test]
    fn high_halves_are_in_wide_descriptors_only() {
        let mut bytes = [0; 64];
        bytes[0x00] = 5;
        bytes[0x20] = 1;
        bytes[0x0C] = 7;
        bytes[0x2C] = 2;
        let wide = Descriptor::new(0, &bytes);
        assert_eq!((wide.block_bitmap(), wide.free_clusters()), ((1 << 32) + 5, (2 << 16) + 7));
        let mut narrow = Descriptor::new(0, &bytes[..32]);
        assert_eq!((narrow.block_bitmap(), narrow.free_clusters()), (5, 7));
        narrow.set_free_clusters(8);
        narrow.set_bitmap_checksum(0xAAAA_BBBB);
        assert_eq!((narrow.free_clusters(), narrow.bytes().len()), (8, 32));
        assert_eq!(narrow.bitmap_checksums(SEED, &[]).map(|(stored, _)| stored), Some(0xBBBB));
        assert!(narrow.bitmap_checksums(SEED, &[1]).is_some_and(|(_, computed)| computed <= 0xFFFF));
    }

    #[test]
    fn a_sealed_descriptor_has_the_checksum_of_its_group_and_bytes() {
        for checksum in [SEED, DescriptorChecksum::Crc16(*b"0123456789abcdef")] {
            for length in [32, 64, 128] {
                let mut descriptor = Descriptor::new(3, &vec![0x5A; length]);
                descriptor.seal(checksum);
                let (stored, computed) = descriptor.checksums(checksum).expect("has one");
                assert_eq!(stored, computed);
                let other = Descriptor::new(4, descriptor.bytes());
                assert_ne!(other.checksums(checksum), Some((stored, stored)), "another group");
                for at in (0..length).filter(|at| !(0x1E..0x20).contains(at)) {
                    let mut changed = descriptor.clone();
                    changed.bytes[at] ^= 1;
                    assert_ne!(changed.checksums(checksum), Some((stored, stored)), "byte {at} of {length}");
                }
            }
        }
        let mut without = Descriptor::new(3, &[0x5A; 32]);
        without.seal(DescriptorChecksum::None);
        assert_eq!(without.bytes(), [0x5A; 32]);
    }

    #[test]
    fn the_flag_means_nothing_without_checksums() {
        let mut bytes = [0; 32];
        bytes[0x12] = 0x07;
        let mut descriptor = Descriptor::new(0, &bytes);
        assert!(descriptor.is_uninitialised(SEED) && !descriptor.is_uninitialised(DescriptorChecksum::None));
        descriptor.set_initialised();
        assert!(!descriptor.is_uninitialised(SEED));
        assert_eq!(descriptor.bytes()[0x12], 0x05, "the flags of the inode table stay");
    }
}
