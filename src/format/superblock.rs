//! The ext2/3/4 superblock: the fields this project uses, with their offsets (Linux `fs/ext4/ext4.h`,
//! `struct ext4_super_block`). It stands 1024 bytes into the device and is 1024 bytes long.
//!
//! Two kinds of trouble are kept apart: [damage](SuperblockError::is_damage) (these bytes cannot be right) and what
//! is merely not for us (no filesystem of this kind, MMP not enabled, a feature we do not know how to treat).

use byteorder::{ByteOrder, LittleEndian};

use super::checksum::{ChecksumSeed, ext4_crc32c};

/// Where the primary superblock begins, in bytes.
pub const SUPERBLOCK_OFFSET_BYTES: u64 = 1024;
/// How long it is, in bytes.
pub const SUPERBLOCK_BYTES: usize = 1024;

/// `EXT4_SUPER_MAGIC`.
pub const EXT4_SUPER_MAGIC: u16 = 0xEF53;
/// `EXT4_FEATURE_COMPAT_HAS_JOURNAL`.
pub const COMPAT_HAS_JOURNAL: u32 = 0x0004;
/// `EXT4_FEATURE_INCOMPAT_RECOVER`: "needs_recovery".
pub const INCOMPAT_RECOVER: u32 = 0x0004;
/// `EXT4_FEATURE_INCOMPAT_JOURNAL_DEV`: an external journal, no filesystem.
pub const INCOMPAT_JOURNAL_DEV: u32 = 0x0008;
/// `EXT4_FEATURE_INCOMPAT_64BIT`.
pub const INCOMPAT_64BIT: u32 = 0x0080;
/// `EXT4_FEATURE_INCOMPAT_MMP`.
pub const INCOMPAT_MMP: u32 = 0x0100;
/// `EXT4_FEATURE_INCOMPAT_CSUM_SEED`.
pub const INCOMPAT_CSUM_SEED: u32 = 0x2000;
/// `EXT4_FEATURE_RO_COMPAT_METADATA_CSUM`.
pub const RO_COMPAT_METADATA_CSUM: u32 = 0x0400;
/// `EXT4_VALID_FS` in `s_state`: unmounted cleanly.
pub const STATE_VALID: u16 = 0x0001;

/// `EXT4_CRC32C_CHKSUM`, the only `s_checksum_type` there is.
const CHECKSUM_TYPE_CRC32C: u8 = 1;
/// `EXT2_GOOD_OLD_REV`: a revision without feature fields.
const GOOD_OLD_REV: u32 = 0;
/// 64 KiB: `EXT4_MAX_BLOCK_LOG_SIZE` - `EXT4_MIN_BLOCK_LOG_SIZE`.
const MAX_LOG_BLOCK_SIZE: u32 = 6;

/// The fields this project uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// 0x04 `s_blocks_count_lo` and, with 64bit, 0x150 `s_blocks_count_hi`.
    pub blocks_count: u64,
    /// 0x14 `s_first_data_block`: 1 with 1 KiB blocks (0 with bigalloc), else 0.
    pub first_data_block: u32,
    /// From 0x18 `s_log_block_size`, in bytes: 1 KiB to 64 KiB.
    pub block_bytes: u32,
    /// 0x3A `s_state`.
    pub state: u16,
    /// 0x5C `s_feature_compat`.
    pub feature_compat: u32,
    /// 0x60 `s_feature_incompat`.
    pub feature_incompat: u32,
    /// 0x64 `s_feature_ro_compat`.
    pub feature_ro_compat: u32,
    /// 0x68 `s_uuid`.
    pub uuid: [u8; 16],
    /// 0x78 `s_volume_name`.
    pub volume_name: super::Name<16>,
    /// 0x166 `s_mmp_update_interval`, in seconds; 0 means 5 (`timing` applies that).
    pub mmp_update_interval_s: u16,
    /// 0x168 `s_mmp_block`, a block number.
    pub mmp_block: u64,
    /// What metadata checksums start from; none without `metadata_csum`.
    pub checksum_seed: Option<ChecksumSeed>,
}

/// Why a superblock cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// 0x38 `s_magic` is another.
    #[error("no ext2/3/4 superblock found (magic {found:#06x} at byte 0x438, want 0xef53); MMP needs ext4")]
    NoSuperblock {
        /// What stands there.
        found: u16,
    },
    /// 0x60 has the journal bit: an external journal.
    #[error("is an external journal, not a filesystem; name the filesystem's own device")]
    JournalDevice,
    /// The MMP feature is off.
    #[error("MMP is not enabled on this filesystem; enable it while unmounted with `tune2fs -O mmp`")]
    NotEnabled,
    /// 0x175 `s_checksum_type` is unknown.
    #[error("unknown metadata checksum type {found} in the superblock at its byte 0x175")]
    ChecksumType {
        /// What stands there.
        found: u8,
    },
    /// 0x18 is out of range.
    #[error("the superblock is damaged: block size 2^{} at its byte 0x18 is out of range", 10 + u64::from(*.log))]
    BlockSize {
        /// `s_log_block_size`.
        log: u32,
    },
    /// 0x3FC does not fit.
    #[error(
        "the superblock is damaged: bad checksum {stored:#010x} (its bytes give {computed:#010x}); see e2fsck(8)"
    )]
    Checksum {
        /// What stands there.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// 0x168 lies outside the filesystem.
    #[error(
        "the superblock is damaged: MMP block {block} lies outside the filesystem (blocks {first} to {end})"
    )]
    MmpBlockOutOfRange {
        /// `s_mmp_block`.
        block: u64,
        /// `s_first_data_block`; the MMP block must lie beyond it.
        first: u32,
        /// `s_blocks_count`, exclusive.
        end: u64,
    },
}

impl SuperblockError {
    /// True if the bytes cannot be right; false if there is just nothing for us here.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::BlockSize { .. } | Self::Checksum { .. } | Self::MmpBlockOutOfRange { .. })
    }
}

impl Superblock {
    /// Decodes `bytes` and checks what can be checked without the device.
    ///
    /// # Errors
    /// [`SuperblockError`], but [`SuperblockError::NotEnabled`] and [`SuperblockError::MmpBlockOutOfRange`], which
    /// [`Superblock::mmp_offset_bytes`] gives.
    pub fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, SuperblockError> {
        let u16_at = |at: usize| LittleEndian::read_u16(&bytes[at..]);
        let u32_at = |at: usize| LittleEndian::read_u32(&bytes[at..]);
        let found = u16_at(0x38);
        if found != EXT4_SUPER_MAGIC {
            return Err(SuperblockError::NoSuperblock { found });
        }
        let revised = u32_at(0x4C) != GOOD_OLD_REV;
        let feature = |at: usize| if revised { u32_at(at) } else { 0 };
        let (feature_compat, feature_incompat, feature_ro_compat) =
            (feature(0x5C), feature(0x60), feature(0x64));
        if feature_incompat & INCOMPAT_JOURNAL_DEV != 0 {
            return Err(SuperblockError::JournalDevice);
        }
        let checksums = feature_ro_compat & RO_COMPAT_METADATA_CSUM != 0;
        if checksums {
            verify_checksum(bytes)?;
        }
        let log = u32_at(0x18);
        if log > MAX_LOG_BLOCK_SIZE {
            return Err(SuperblockError::BlockSize { log });
        }
        let blocks_hi = if feature_incompat & INCOMPAT_64BIT != 0 { u32_at(0x150) } else { 0 };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[0x68..0x78]);
        let mut volume_name = [0; 16];
        volume_name.copy_from_slice(&bytes[0x78..0x88]);
        let checksum_seed = checksums.then(|| match feature_incompat & INCOMPAT_CSUM_SEED {
            0 => ChecksumSeed::from_uuid(&uuid),
            _ => ChecksumSeed(u32_at(0x270)),
        });
        Ok(Superblock {
            blocks_count: u64::from(u32_at(0x04)) | u64::from(blocks_hi) << 32,
            first_data_block: u32_at(0x14),
            block_bytes: 1024 << log,
            state: u16_at(0x3A),
            feature_compat,
            feature_incompat,
            feature_ro_compat,
            uuid,
            volume_name: super::Name::from_field(volume_name),
            mmp_update_interval_s: u16_at(0x166),
            mmp_block: LittleEndian::read_u64(&bytes[0x168..]),
            checksum_seed,
        })
    }

    /// Where the MMP block begins, in bytes from the start of the device.
    ///
    /// # Errors
    /// MMP is not enabled, or the block lies outside the filesystem: the kernel refuses the same
    /// (`fs/ext4/mmp.c`, `ext4_multi_mount_protect`).
    pub fn mmp_offset_bytes(&self) -> Result<u64, SuperblockError> {
        if self.feature_incompat & INCOMPAT_MMP == 0 {
            return Err(SuperblockError::NotEnabled);
        }
        let out_of_range = SuperblockError::MmpBlockOutOfRange {
            block: self.mmp_block,
            first: self.first_data_block,
            end: self.blocks_count,
        };
        // Strictly beyond the first data block: that one holds the superblock itself.
        if self.mmp_block <= u64::from(self.first_data_block) || self.mmp_block >= self.blocks_count {
            return Err(out_of_range);
        }
        self.mmp_block.checked_mul(u64::from(self.block_bytes)).ok_or(out_of_range)
    }

    /// True if the last user did not unmount: the clean mark may lie then (errors=remount-ro and the shutdown ioctl
    /// let `kmmpd` write *clean* while dirty blocks still follow). With a journal that is `needs_recovery`; without
    /// one, the missing `EXT4_VALID_FS`.
    #[must_use]
    pub fn in_use_or_unclean(&self) -> bool {
        self.feature_incompat & INCOMPAT_RECOVER != 0
            || (self.feature_compat & COMPAT_HAS_JOURNAL == 0 && self.state & STATE_VALID == 0)
    }
}

fn verify_checksum(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<(), SuperblockError> {
    if bytes[0x175] != CHECKSUM_TYPE_CRC32C {
        return Err(SuperblockError::ChecksumType { found: bytes[0x175] });
    }
    let stored = LittleEndian::read_u32(&bytes[0x3FC..]);
    let computed = ext4_crc32c(u32::MAX, &bytes[..0x3FC]);
    if stored == computed { Ok(()) } else { Err(SuperblockError::Checksum { stored, computed }) }
}
