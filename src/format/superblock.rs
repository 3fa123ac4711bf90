//! The ext2/3/4 superblock: the fields this project uses, with their offsets (Linux `fs/ext4/ext4.h`,
//! `struct ext4_super_block`). It stands 1024 bytes into the device and is 1024 bytes long.
//!
//! Two kinds of trouble are kept apart: [damage](SuperblockError::is_damage) (these bytes cannot be right) and what
//! is merely not for us (no filesystem of this kind, MMP not enabled, a feature we do not know how to treat).

use byteorder::{ByteOrder, LittleEndian};

use super::checksum::{ChecksumSeed, ext4_crc32c};
use super::fields::superblock as field;

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
    #[error("MMP is not enabled on this filesystem; `mmp enable` does that while it is mounted nowhere")]
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
    /// 0x168 lies outside the filesystem, or on its superblock.
    #[error(
        "the superblock is damaged: MMP block {block} is none that the filesystem can have (it begins at block {first} \
         and has {end} blocks)"
    )]
    MmpBlockOutOfRange {
        /// `s_mmp_block`.
        block: u64,
        /// `s_first_data_block`; the MMP block must lie beyond it and beyond the superblock.
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
        let found = u16_at(field::MAGIC);
        if found != EXT4_SUPER_MAGIC {
            return Err(SuperblockError::NoSuperblock { found });
        }
        // Whatever 0x4C s_rev_level says: the kernel and e2fsprogs honour feature flags in revision 0 too, so their
        // MMP is at work there.
        let [feature_compat, feature_incompat, feature_ro_compat] =
            [field::FEATURE_COMPAT, field::FEATURE_INCOMPAT, field::FEATURE_RO_COMPAT].map(u32_at);
        if feature_incompat & INCOMPAT_JOURNAL_DEV != 0 {
            return Err(SuperblockError::JournalDevice);
        }
        let checksums = feature_ro_compat & RO_COMPAT_METADATA_CSUM != 0;
        if checksums {
            verify_checksum(bytes)?;
        }
        let log = u32_at(field::LOG_BLOCK_SIZE);
        if log > MAX_LOG_BLOCK_SIZE {
            return Err(SuperblockError::BlockSize { log });
        }
        let blocks_hi =
            if feature_incompat & INCOMPAT_64BIT != 0 { u32_at(field::BLOCKS_COUNT_HI) } else { 0 };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[field::UUID..][..16]);
        let mut volume_name = [0; 16];
        volume_name.copy_from_slice(&bytes[0x78..0x88]);
        let checksum_seed = checksums.then(|| match feature_incompat & INCOMPAT_CSUM_SEED {
            0 => ChecksumSeed::from_uuid(&uuid),
            _ => ChecksumSeed(u32_at(field::CHECKSUM_SEED)),
        });
        Ok(Superblock {
            blocks_count: u64::from(u32_at(field::BLOCKS_COUNT_LO)) | u64::from(blocks_hi) << 32,
            first_data_block: u32_at(field::FIRST_DATA_BLOCK),
            block_bytes: 1024 << log,
            state: u16_at(field::STATE),
            feature_compat,
            feature_incompat,
            feature_ro_compat,
            uuid,
            volume_name: super::Name::from_field(volume_name),
            mmp_update_interval_s: u16_at(field::MMP_UPDATE_INTERVAL),
            mmp_block: LittleEndian::read_u64(&bytes[field::MMP_BLOCK..]),
            checksum_seed,
        })
    }

    /// Where the MMP block begins, in bytes from the start of the device. The whole block ends at or below
    /// `i64::MAX`, so it can be named to the system.
    ///
    /// # Errors
    /// MMP is not enabled, or the block lies outside the filesystem (the kernel and e2fsprogs refuse the same) or
    /// on the superblock, which a writer of the block would destroy.
    pub fn mmp_offset_bytes(&self) -> Result<u64, SuperblockError> {
        if self.feature_incompat & INCOMPAT_MMP == 0 {
            return Err(SuperblockError::NotEnabled);
        }
        let block_bytes = u64::from(self.block_bytes);
        let superblock_end = SUPERBLOCK_OFFSET_BYTES + SUPERBLOCK_BYTES as u64;
        // The second is the greater with bigalloc at 1 KiB blocks: the first data block is 0 there.
        let first = (u64::from(self.first_data_block) + 1).max(superblock_end.div_ceil(block_bytes));
        let end = self.blocks_count.min(i64::MAX as u64 / block_bytes);
        if (first..end).contains(&self.mmp_block) {
            Ok(self.mmp_block * block_bytes)
        } else {
            Err(SuperblockError::MmpBlockOutOfRange {
                block: self.mmp_block,
                first: self.first_data_block,
                end: self.blocks_count,
            })
        }
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
    if bytes[field::CHECKSUM_TYPE] != CHECKSUM_TYPE_CRC32C {
        return Err(SuperblockError::ChecksumType { found: bytes[field::CHECKSUM_TYPE] });
    }
    let stored = LittleEndian::read_u32(&bytes[field::CHECKSUM..]);
    let computed = ext4_crc32c(u32::MAX, &bytes[..field::CHECKSUM]);
    if stored == computed { Ok(()) } else { Err(SuperblockError::Checksum { stored, computed }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes([u8; SUPERBLOCK_BYTES]);

    impl Bytes {
        /// 1 KiB blocks, 1000 of them, MMP in block 20, no checksums.
        fn new() -> Self {
            Bytes([0; SUPERBLOCK_BYTES])
                .u32(0x04, 1000)
                .u32(0x14, 1)
                .u16(0x38, EXT4_SUPER_MAGIC)
                .u16(0x3A, STATE_VALID)
                .u32(0x4C, 1)
                .u32(0x60, INCOMPAT_MMP)
                .u16(0x166, 7)
                .u64(0x168, 20)
        }

        fn u16(mut self, at: usize, value: u16) -> Self {
            LittleEndian::write_u16(&mut self.0[at..], value);
            self
        }

        fn u32(mut self, at: usize, value: u32) -> Self {
            LittleEndian::write_u32(&mut self.0[at..], value);
            self
        }

        fn u64(mut self, at: usize, value: u64) -> Self {
            LittleEndian::write_u64(&mut self.0[at..], value);
            self
        }

        /// Adds `metadata_csum`, a UUID and the right checksum.
        fn checksummed(mut self) -> Self {
            self.0[0x68..0x78].copy_from_slice(b"0123456789abcdef");
            self.0[0x175] = CHECKSUM_TYPE_CRC32C;
            let sealed = self.u32(0x64, RO_COMPAT_METADATA_CSUM);
            let checksum = ext4_crc32c(u32::MAX, &sealed.0[..0x3FC]);
            sealed.u32(0x3FC, checksum)
        }

        fn decode(&self) -> Result<Superblock, SuperblockError> {
            Superblock::decode(&self.0)
        }

        fn offset(&self) -> Result<u64, SuperblockError> {
            self.decode().and_then(|superblock| superblock.mmp_offset_bytes())
        }
    }

    fn out_of_range(offset: &Result<u64, SuperblockError>) -> bool {
        matches!(offset, Err(SuperblockError::MmpBlockOutOfRange { .. }))
    }

    #[test]
    fn fields_stand_at_their_offsets() {
        let mut bytes = Bytes::new().u32(0x5C, 1 << 9).u32(0x64, 1 << 4);
        bytes.0[0x78..0x7C].copy_from_slice(b"data");
        let found = bytes.decode().unwrap();
        assert_eq!((found.blocks_count, found.first_data_block, found.block_bytes), (1000, 1, 1024));
        assert_eq!((found.state, found.mmp_update_interval_s, found.mmp_block), (STATE_VALID, 7, 20));
        assert_eq!(found.volume_name, super::super::Name::new("data"));
        assert_eq!((found.feature_compat, found.feature_ro_compat), (1 << 9, 1 << 4));
        assert_eq!(found.checksum_seed, None);
        assert_eq!(found.mmp_offset_bytes(), Ok(20 * 1024));
        assert_eq!(Bytes::new().u32(0x4C, 0).offset(), Ok(20 * 1024), "revision 0 has feature flags too");
    }

    #[test]
    fn what_is_no_filesystem_of_ours_is_said_apart() {
        let other = Bytes::new().u16(0x38, 1).decode();
        assert_eq!(other, Err(SuperblockError::NoSuperblock { found: 1 }));
        let journal = Bytes::new().u32(0x60, INCOMPAT_JOURNAL_DEV).decode();
        assert_eq!(journal, Err(SuperblockError::JournalDevice));
        let without = Bytes::new().u32(0x60, INCOMPAT_64BIT).offset();
        assert_eq!(without, Err(SuperblockError::NotEnabled));
        assert!([other, journal].into_iter().all(|error| !error.unwrap_err().is_damage()));
        assert!(!without.unwrap_err().is_damage());
    }

    #[test]
    fn block_sizes_are_1_kib_to_64_kib() {
        for (log, size) in (0..=6).zip([1024, 2048, 4096, 8192, 16384, 32768, 65536]) {
            assert_eq!(Bytes::new().u32(0x18, log).decode().unwrap().block_bytes, size);
        }
        for log in [7, 31, 32, u32::MAX] {
            let error = Bytes::new().u32(0x18, log).decode().unwrap_err();
            assert_eq!(error, SuperblockError::BlockSize { log });
            assert!(error.is_damage(), "{error}");
        }
    }

    #[test]
    fn the_high_half_of_the_block_count_needs_64bit() {
        let bytes = Bytes::new().u32(0x150, 3).u64(0x168, 1 << 33);
        assert_eq!(bytes.decode().unwrap().blocks_count, 1000);
        assert!(out_of_range(&bytes.offset()));
        let wide = bytes.u32(0x60, INCOMPAT_MMP | INCOMPAT_64BIT);
        assert_eq!(wide.decode().unwrap().blocks_count, (3 << 32) + 1000);
        assert_eq!(wide.offset(), Ok(1 << 43));
    }

    #[test]
    fn checksums_are_asked_for_by_metadata_csum_alone() {
        assert!(Bytes::new().u32(0x3FC, 12345).decode().is_ok());
        let seed = Bytes::new().checksummed().decode().unwrap().checksum_seed;
        assert_eq!(seed, Some(ChecksumSeed::from_uuid(b"0123456789abcdef")));
        let mut bad = Bytes::new().checksummed();
        bad.0[0x200] ^= 0x10;
        assert!(matches!(bad.decode(), Err(SuperblockError::Checksum { .. })));
        bad.0[0x175] = 2;
        assert_eq!(bad.decode(), Err(SuperblockError::ChecksumType { found: 2 }));
    }

    #[test]
    fn a_stored_seed_replaces_the_uuid() {
        let incompat = INCOMPAT_MMP | INCOMPAT_CSUM_SEED;
        let stored = Bytes::new().u32(0x60, incompat).u32(0x270, 0x1234_5678);
        assert_eq!(stored.decode().unwrap().checksum_seed, None, "metadata_csum is off");
        let seed = stored.checksummed().decode().unwrap().checksum_seed;
        assert_eq!(seed, Some(ChecksumSeed(0x1234_5678)));
    }

    #[test]
    fn the_mmp_block_lies_beyond_the_superblock_and_inside_the_filesystem() {
        let at = |block: u64| Bytes::new().u64(0x168, block).offset();
        assert!([0, 1, 1000, u64::MAX].into_iter().all(|block| out_of_range(&at(block))));
        assert_eq!((at(2), at(999)), (Ok(2048), Ok(999 * 1024)));
        let late = |block: u64| Bytes::new().u32(0x14, 30).u64(0x168, block).offset();
        assert!(out_of_range(&late(30)) && late(31) == Ok(31 * 1024), "beyond the first data block, too");
        // bigalloc at 1 KiB blocks: the first data block is 0, and block 1 is the superblock.
        let bigalloc = |block: u64| Bytes::new().u32(0x14, 0).u64(0x168, block).offset();
        assert!(out_of_range(&bigalloc(1)));
        assert_eq!(bigalloc(2), Ok(2048));
        // Larger blocks: the superblock is inside block 0.
        let large = |block: u64| Bytes::new().u32(0x14, 0).u32(0x18, 2).u64(0x168, block).offset();
        assert!(out_of_range(&large(0)));
        assert_eq!(large(1), Ok(4096));
    }

    #[test]
    fn a_block_that_no_offset_can_name_is_out_of_range() {
        let endless = Bytes::new()
            .u32(0x04, u32::MAX)
            .u32(0x14, u32::MAX)
            .u32(0x18, 6)
            .u32(0x60, INCOMPAT_MMP | INCOMPAT_64BIT)
            .u32(0x150, u32::MAX);
        let last = (i64::MAX as u64 + 1) / 65536 - 2;
        let highest = endless.u64(0x168, last);
        assert_eq!(highest.offset(), Ok(last * 65536));
        for block in [last + 1, last + 2, u64::MAX / 65536, u64::MAX - 1] {
            assert!(out_of_range(&Bytes(highest.0).u64(0x168, block).offset()), "{block}");
        }
    }

    #[test]
    fn unclean_is_told_by_the_journal_or_without_one_by_the_state() {
        let unclean = |bytes: Bytes| bytes.decode().unwrap().in_use_or_unclean();
        assert!(!unclean(Bytes::new()));
        assert!(unclean(Bytes::new().u16(0x3A, 0)));
        assert!(!unclean(Bytes::new().u32(0x5C, COMPAT_HAS_JOURNAL).u16(0x3A, 0)));
        let recovering =
            Bytes::new().u32(0x5C, COMPAT_HAS_JOURNAL).u32(0x60, INCOMPAT_MMP | INCOMPAT_RECOVER);
        assert!(unclean(recovering));
    }
}
