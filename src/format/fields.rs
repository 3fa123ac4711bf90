//! Where the fields stand that `ext4/` reads and changes, in bytes from the start of their structure (Linux
//! `fs/ext4/ext4.h`, `struct ext4_super_block` and `struct ext4_group_desc`). All are little-endian.
//!
//! Protects: an offset stands once, for who reads it and for who writes it. Does not protect: what the values mean.

/// Fields of the superblock.
pub mod superblock {
    /// `s_inodes_count`, u32.
    pub const INODES_COUNT: usize = 0x00;
    /// `s_blocks_count_lo`, u32.
    pub const BLOCKS_COUNT_LO: usize = 0x04;
    /// `s_r_blocks_count_lo`, u32: blocks that root may use.
    pub const R_BLOCKS_COUNT_LO: usize = 0x08;
    /// `s_free_blocks_count_lo`, u32: blocks, with bigalloc too.
    pub const FREE_BLOCKS_COUNT_LO: usize = 0x0C;
    /// `s_first_data_block`, u32.
    pub const FIRST_DATA_BLOCK: usize = 0x14;
    /// `s_log_block_size`, u32: the power of two above 1024.
    pub const LOG_BLOCK_SIZE: usize = 0x18;
    /// `s_log_cluster_size`, u32: as the block's.
    pub const LOG_CLUSTER_SIZE: usize = 0x1C;
    /// `s_blocks_per_group`, u32.
    pub const BLOCKS_PER_GROUP: usize = 0x20;
    /// `s_clusters_per_group`, u32.
    pub const CLUSTERS_PER_GROUP: usize = 0x24;
    /// `s_inodes_per_group`, u32.
    pub const INODES_PER_GROUP: usize = 0x28;
    /// `s_magic`, u16.
    pub const MAGIC: usize = 0x38;
    /// `s_state`, u16.
    pub const STATE: usize = 0x3A;
    /// `s_rev_level`, u32.
    pub const REV_LEVEL: usize = 0x4C;
    /// `s_first_ino`, u32; from revision 1 on.
    pub const FIRST_INO: usize = 0x54;
    /// `s_inode_size`, u16; from revision 1 on.
    pub const INODE_SIZE: usize = 0x58;
    /// `s_block_group_nr`, u16: which group this copy stands in.
    pub const BLOCK_GROUP_NR: usize = 0x5A;
    /// `s_feature_compat`, u32.
    pub const FEATURE_COMPAT: usize = 0x5C;
    /// `s_feature_incompat`, u32.
    pub const FEATURE_INCOMPAT: usize = 0x60;
    /// `s_feature_ro_compat`, u32.
    pub const FEATURE_RO_COMPAT: usize = 0x64;
    /// `s_uuid`, 16 bytes.
    pub const UUID: usize = 0x68;
    /// `s_reserved_gdt_blocks`, u16.
    pub const RESERVED_GDT_BLOCKS: usize = 0xCE;
    /// `s_last_orphan`, u32: the first inode of the orphan list.
    pub const LAST_ORPHAN: usize = 0xE8;
    /// `s_desc_size`, u16; with 64bit.
    pub const DESC_SIZE: usize = 0xFE;
    /// `s_first_meta_bg`, u32; with meta_bg.
    pub const FIRST_META_BG: usize = 0x104;
    /// `s_blocks_count_hi`, u32; with 64bit.
    pub const BLOCKS_COUNT_HI: usize = 0x150;
    /// `s_r_blocks_count_hi`, u32; with 64bit.
    pub const R_BLOCKS_COUNT_HI: usize = 0x154;
    /// `s_free_blocks_count_hi`, u32; with 64bit.
    pub const FREE_BLOCKS_COUNT_HI: usize = 0x158;
    /// `s_mmp_update_interval`, u16.
    pub const MMP_UPDATE_INTERVAL: usize = 0x166;
    /// `s_mmp_block`, u64.
    pub const MMP_BLOCK: usize = 0x168;
    /// `s_checksum_type`, u8; with metadata_csum.
    pub const CHECKSUM_TYPE: usize = 0x175;
    /// `s_backup_bgs`, two u32; with sparse_super2.
    pub const BACKUP_BGS: usize = 0x24C;
    /// `s_checksum_seed`, u32; with csum_seed.
    pub const CHECKSUM_SEED: usize = 0x270;
    /// `s_checksum`, u32: over all bytes before it; with metadata_csum.
    pub const CHECKSUM: usize = 0x3FC;
}

/// Fields of a group descriptor: those up to 0x20 are in every one, the high halves in one of 64 bytes or more.
pub mod descriptor {
    /// `bg_block_bitmap_lo`, u32.
    pub const BLOCK_BITMAP_LO: usize = 0x00;
    /// `bg_inode_bitmap_lo`, u32.
    pub const INODE_BITMAP_LO: usize = 0x04;
    /// `bg_inode_table_lo`, u32.
    pub const INODE_TABLE_LO: usize = 0x08;
    /// `bg_free_blocks_count_lo`, u16: clusters with bigalloc.
    pub const FREE_BLOCKS_COUNT_LO: usize = 0x0C;
    /// `bg_flags`, u16.
    pub const FLAGS: usize = 0x12;
    /// `bg_block_bitmap_csum_lo`, u16; with metadata_csum.
    pub const BLOCK_BITMAP_CSUM_LO: usize = 0x18;
    /// `bg_checksum`, u16; with metadata_csum or uninit_bg.
    pub const CHECKSUM: usize = 0x1E;
    /// `bg_block_bitmap_hi`, u32.
    pub const BLOCK_BITMAP_HI: usize = 0x20;
    /// `bg_inode_bitmap_hi`, u32.
    pub const INODE_BITMAP_HI: usize = 0x24;
    /// `bg_inode_table_hi`, u32.
    pub const INODE_TABLE_HI: usize = 0x28;
    /// `bg_free_blocks_count_hi`, u16.
    pub const FREE_BLOCKS_COUNT_HI: usize = 0x2C;
    /// `bg_block_bitmap_csum_hi`, u16.
    pub const BLOCK_BITMAP_CSUM_HI: usize = 0x38;
}
