//! Bytes to types and back: the on-disk formats, pure functions over slices.
//!
//! Protects: nothing that comes from a disk is believed before it was checked here; decoding never panics, whatever
//! the bytes. Does not protect: what the fields *mean* is `protocol`'s business, how they are read is `io`'s.
//!
//! Source of the layouts: Linux `fs/ext4/ext4.h` (`struct ext4_super_block`, `struct mmp_struct`), e2fsprogs
//! `lib/ext2fs/ext2_fs.h`, and `mmp-format.md` beside this crate.

pub mod area;
pub mod block;
pub mod checksum;
pub mod content;
pub mod damage;
pub mod fields;
pub mod name;
pub mod superblock;

pub use block::{BlockDamage, MmpBlock};
pub use checksum::ChecksumSeed;
pub use content::{ContentError, Standing};
pub use damage::Damage;
pub use name::Name;
pub use superblock::{Superblock, SuperblockError};

/// Length of `mmp_struct` on the disk, in bytes.
pub const MMP_STRUCT_BYTES: usize = 1024;

/// The bytes of one `mmp_struct` as they stand on the disk.
pub type Image = [u8; MMP_STRUCT_BYTES];

/// `mmp_nodename`: who holds the device.
pub type NodeName = Name<64>;

/// `mmp_bdevname`: under which device name the holder knows it.
pub type DeviceName = Name<32>;
