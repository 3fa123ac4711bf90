//! `mmp_struct`, 1024 bytes, little-endian (Linux `fs/ext4/ext4.h`).
//!
//! ```text
//! 0x000  mmp_magic           u32   0x004D4D50
//! 0x004  mmp_seq             u32
//! 0x008  mmp_time            u64   seconds since 1970
//! 0x010  mmp_nodename        [64]  up to the first NUL, or all of it
//! 0x050  mmp_bdevname        [32]  up to the first NUL, or all of it
//! 0x070  mmp_check_interval  u16   seconds
//! 0x072  mmp_pad1            u16
//! 0x074  mmp_pad2            [226] u32
//! 0x3FC  mmp_checksum        u32   crc32c over 0..0x3FC, only with metadata_csum
//! ```
//!
//! Encoding changes the named fields in place: what stands in the padding stays, as with the kernel. What follows the
//! NUL of a name is not empty either: the kernel writes `loop0` over a longer name and leaves its end standing, and
//! e2fsprogs does so with host names.

use byteorder::{ByteOrder, LittleEndian};

use super::{ChecksumSeed, DeviceName, Image, NodeName};

/// `EXT4_MMP_MAGIC`, "MMP" in ASCII.
pub const MMP_MAGIC: u32 = 0x004D_4D50;

const MAGIC: usize = 0x000;
const SEQ: usize = 0x004;
const TIME: usize = 0x008;
const NODENAME: std::ops::Range<usize> = 0x010..0x050;
const BDEVNAME: std::ops::Range<usize> = 0x050..0x070;
const CHECK_INTERVAL: usize = 0x070;
const CHECKSUM: usize = 0x3FC;

/// The fields of one `mmp_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmpBlock {
    /// `mmp_seq`; what the values mean stands in `protocol::sequence`.
    pub seq: u32,
    /// `mmp_time`: seconds since 1970 by the writer's clock.
    pub time_s: u64,
    /// `mmp_nodename`.
    pub node: NodeName,
    /// `mmp_bdevname`.
    pub device: DeviceName,
    /// `mmp_check_interval`, in seconds.
    pub check_interval_s: u16,
}

/// Why bytes are no `mmp_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "damage")]
pub enum BlockDamage {
    /// The magic number is another.
    #[error("bad magic {found:#010x} at its byte 0 (want {MMP_MAGIC:#010x})")]
    Magic {
        /// What stands there.
        found: u32,
    },
    /// The checksum does not fit the bytes.
    #[error("bad checksum {stored:#010x} at its byte 0x3fc (its bytes give {computed:#010x})")]
    Checksum {
        /// What stands there.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
}

impl MmpBlock {
    /// Decodes `bytes`, and checks them against `seed` if the filesystem has metadata checksums.
    ///
    /// # Errors
    /// [`BlockDamage`] if the magic or the checksum is wrong. Every sequence and every name decodes.
    pub fn decode(bytes: &Image, seed: Option<ChecksumSeed>) -> Result<Self, BlockDamage> {
        let found = LittleEndian::read_u32(&bytes[MAGIC..]);
        if found != MMP_MAGIC {
            return Err(BlockDamage::Magic { found });
        }
        if let Some(seed) = seed {
            let stored = LittleEndian::read_u32(&bytes[CHECKSUM..]);
            let computed = seed.checksum(&bytes[..CHECKSUM]);
            if stored != computed {
                return Err(BlockDamage::Checksum { stored, computed });
            }
        }
        Ok(Self::fields(bytes))
    }

    /// Reads the fields of `bytes` without any check: for showing what a damaged block seems to say.
    #[must_use]
    pub fn fields(bytes: &Image) -> Self {
        let mut node = [0; 64];
        node.copy_from_slice(&bytes[NODENAME]);
        let mut device = [0; 32];
        device.copy_from_slice(&bytes[BDEVNAME]);
        MmpBlock {
            seq: LittleEndian::read_u32(&bytes[SEQ..]),
            time_s: LittleEndian::read_u64(&bytes[TIME..]),
            node: NodeName::from_field(node),
            device: DeviceName::from_field(device),
            check_interval_s: LittleEndian::read_u16(&bytes[CHECK_INTERVAL..]),
        }
    }

    /// Writes the fields and the magic into `bytes`, and the checksum if there is a `seed`; leaves the padding
    /// (and, without a seed, the checksum field) as it was.
    pub fn encode_into(&self, bytes: &mut Image, seed: Option<ChecksumSeed>) {
        LittleEndian::write_u32(&mut bytes[MAGIC..], MMP_MAGIC);
        LittleEndian::write_u32(&mut bytes[SEQ..], self.seq);
        LittleEndian::write_u64(&mut bytes[TIME..], self.time_s);
        bytes[NODENAME].copy_from_slice(self.node.field());
        bytes[BDEVNAME].copy_from_slice(self.device.field());
        LittleEndian::write_u16(&mut bytes[CHECK_INTERVAL..], self.check_interval_s);
        if let Some(seed) = seed {
            let checksum = seed.checksum(&bytes[..CHECKSUM]);
            LittleEndian::write_u32(&mut bytes[CHECKSUM..], checksum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::MMP_STRUCT_BYTES;

    fn block() -> MmpBlock {
        MmpBlock {
            seq: 0x1234_5678,
            time_s: 0x0102_0304_0506_0708,
            node: NodeName::new("alpha"),
            device: DeviceName::new("sdb1"),
            check_interval_s: 5,
        }
    }

    #[test]
    fn fields_stand_at_their_offsets() {
        let mut bytes = [0; MMP_STRUCT_BYTES];
        block().encode_into(&mut bytes, None);
        assert_eq!(&bytes[..4], b"PMM\0");
        assert_eq!(&bytes[4..8], &[0x78, 0x56, 0x34, 0x12]);
        assert_eq!(&bytes[8..16], &[8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(&bytes[0x10..0x16], b"alpha\0");
        assert_eq!(&bytes[0x50..0x55], b"sdb1\0");
        assert_eq!(&bytes[0x70..0x72], &[5, 0]);
        assert!(bytes[0x72..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn padding_survives_and_a_changed_byte_is_found() {
        let seed = Some(ChecksumSeed(0xdead_beef));
        let mut bytes = [0xa5; MMP_STRUCT_BYTES];
        block().encode_into(&mut bytes, seed);
        assert!(bytes[0x72..0x3FC].iter().all(|&byte| byte == 0xa5));
        assert_eq!(MmpBlock::decode(&bytes, seed), Ok(block()));
        bytes[0x200] ^= 1;
        assert!(matches!(MmpBlock::decode(&bytes, seed), Err(BlockDamage::Checksum { .. })));
        assert_eq!(MmpBlock::decode(&bytes, None), Ok(block()));
        bytes[0] ^= 1;
        assert!(matches!(MmpBlock::decode(&bytes, None), Err(BlockDamage::Magic { .. })));
    }
}
