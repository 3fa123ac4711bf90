//! The edits that switch the `mmp` feature of ext2, ext3 and ext4 on and off and set its interval, without e2fsprogs.
//!
//! Protects: everything is read, verified and planned before the first write; what is not understood, not in order or
//! damaged is refused with nothing written. Cut after any write, the filesystem can be mounted as it is, or `e2fsck -fy`
//! repairs it without losing a file. The feature goes on with the last write and off with the first ([`order`]).
//! Does not protect: that nobody else writes meanwhile is for the caller to see to (exclusive open, a claim where there
//! is an MMP block). It is noticed where it shows, which is all that can be done without protection.
//!
//! Pure but for [`Bytes`]: no clock, no device, no host name. All work and memory is bounded by what is read: one block
//! of descriptors at a time until a group with a free block is found, one bitmap, and the copies of the superblock.
//!
//! | module | what |
//! |---|---|
//! | `features` | which feature flags are known |
//! | `geometry` | where groups, descriptors, copies and metadata stand |
//! | `volume` | a filesystem that was found in order |
//! | `descriptor` | a group descriptor and its checksum |
//! | `site` | a group's bitmap and descriptor, taken and given back |
//! | `choose` | which block becomes the MMP block |
//! | `superblock` | the superblock as it will be, and its copies |
//! | `order` | the order of the writes, and why it is safe |
//! | `plan` | a plan, and carrying it out |

mod choose;
mod descriptor;
mod error;
mod features;
mod geometry;
mod numbers;
pub mod order;
mod plan;
mod site;
mod superblock;
mod volume;

use std::fmt;
use std::path::Path;

pub use error::Ext4Error;
pub use order::{disable, enable, set_interval};
pub use plan::{Edit, Plan};

use crate::error::Error;
use crate::format::{DeviceName, NodeName};

/// What the edits need of a device: bytes from the disk and to the disk, no cache of this host's between.
pub trait Bytes {
    /// How long the device is, in bytes.
    fn size_bytes(&self) -> u64;

    /// Fills `into` from `offset_bytes`, any offset and any length.
    ///
    /// # Errors
    /// [`Error::Short`] if the device ends before; [`Error::Io`] if it cannot be read.
    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error>;

    /// Writes `bytes` at `offset_bytes`, by one write where the device's sectors allow it; it is on stable storage when
    /// this returns.
    ///
    /// # Errors
    /// [`Error::Io`]: what stands there then is unknown.
    fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error>;
}

/// What the MMP block and the superblock are to say.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// `s_mmp_update_interval`, in seconds: 1 to 300.
    pub interval_s: u16,
    /// `mmp_nodename`.
    pub node: NodeName,
    /// `mmp_bdevname`.
    pub device: DeviceName,
    /// `mmp_time`, in seconds since 1970.
    pub time_s: u64,
}

/// What an edit writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The MMP block.
    MmpBlock,
    /// The block bitmap of the MMP block's group.
    BlockBitmap,
    /// The block of group descriptors that counts.
    GroupDescriptors,
    /// A copy of that block in another group.
    BackupDescriptors,
    /// A copy of the superblock in another group.
    BackupSuperblock,
    /// The superblock that counts.
    Superblock,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::MmpBlock => "the MMP block",
            Part::BlockBitmap => "a block bitmap",
            Part::GroupDescriptors => "the group descriptors",
            Part::BackupDescriptors => "a copy of the group descriptors",
            Part::BackupSuperblock => "a copy of the superblock",
            Part::Superblock => "the superblock",
        })
    }
}

/// What there is to do.
#[derive(Clone, Debug)]
pub enum Planned {
    /// Nothing: it is so already.
    Already {
        /// The update interval that was found, in seconds (5 where the superblock says 0); 0 if MMP is off.
        interval_s: u16,
    },
    /// This.
    Do(Plan),
}

/// An error about the filesystem on `path`.
fn fail(path: &Path, source: Ext4Error) -> Error {
    Error::Ext4 { path: path.to_owned(), source }
}
