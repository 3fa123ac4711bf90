//! Finding the MMP block of a device, without opening anything for writing.
//!
//! Protects: whatever is wrong with a device is said before a claim begins. Does not claim.

use std::path::Path;

use crate::error::Error;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};
use crate::format::{DeviceName, Image, MMP_STRUCT_BYTES, MmpBlock, NodeName, Superblock};
use crate::io::{BlockFile, Device, read_settled};
use crate::protocol::{Medium, Native, Owner};
use crate::sys::Target;
use crate::sys::identity;

/// Reads in a row before a superblock that does not decode is called damaged: a live kernel writes it, too.
const SUPERBLOCK_READS: u32 = 5;
/// The pause between them.
const SUPERBLOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// A device with an MMP block, and who we would be in it.
#[derive(Clone, Debug)]
pub struct Place {
    device: Device,
    target: Target,
    superblock: Superblock,
    offset_bytes: u64,
    medium: Medium,
}

impl Place {
    /// Looks at `path`: what it is, whether MMP is enabled, where the block stands. `node` replaces this host's name.
    ///
    /// # Errors
    /// [`Error`] saying which of these failed.
    pub fn find(path: &Path, node: Option<&str>) -> Result<Self, Error> {
        let device = Device::inspect(path)?;
        let superblock = read_superblock(&device)?;
        let offset_bytes = superblock
            .mmp_offset_bytes()
            .map_err(|source| Error::Superblock { path: path.to_owned(), source })?;
        let end = offset_bytes.saturating_add(superblock.block_bytes.into());
        if end > device.size_bytes() {
            let what = format!(
                "its MMP block ends at byte {end}, the device at byte {}; its filesystem is larger than it",
                device.size_bytes()
            );
            return Err(Error::Short { path: path.to_owned(), what });
        }
        let node = node.map_or_else(identity::node_name, ToOwned::to_owned);
        let owner = Owner { node: NodeName::new(&node), device: DeviceName::new(&device.kernel_name()) };
        let medium = Medium::Native(Native::new(superblock.clone(), owner));
        let target = Target::from(&device);
        Ok(Place { device, target, superblock, offset_bytes, medium })
    }

    /// Refuses a device that cannot be written, before anything is opened for writing.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], or [`Error::Io`] without the permission.
    pub fn check_writable(&self) -> Result<(), Error> {
        self.device.check_writable()
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The device as `sys` asks about it.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The superblock as it was found.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Where the MMP block begins, in bytes.
    #[must_use]
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// What blocks mean here, and our names.
    #[must_use]
    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// The block, ready to be read, and to be written once opened for it.
    ///
    /// # Errors
    /// As [`BlockFile::new`].
    pub fn store(&self) -> Result<BlockFile, Error> {
        BlockFile::new(&self.device, self.offset_bytes, self.superblock.block_bytes)
    }

    /// Reads the struct as it stands. A block that does not decode is read again a few times first: a concurrent
    /// write can tear.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read_block(&self) -> Result<Image, Error> {
        read_settled(&mut self.store()?, |image| self.medium.decode(image).is_ok())
    }
}

impl Place {
    /// The block as this host's page cache shows it: under a mount that is `kmmpd`'s own buffer, with the kernel's own names,
    /// whoever else writes the block.
    ///
    /// # Errors
    /// As [`Place::read_block`], and [`Error::Damaged`].
    pub fn read_cached_block(&self) -> Result<MmpBlock, Error> {
        let mut image: Image = [0; MMP_STRUCT_BYTES];
        self.device.read_cached(self.offset_bytes, &mut image)?;
        self.medium
            .decode(&image)
            .map_err(|damage| Error::Damaged { path: self.device.path().to_owned(), damage })
    }
}

fn read_superblock(device: &Device) -> Result<Superblock, Error> {
    if device.size_bytes() < SUPERBLOCK_OFFSET_BYTES + SUPERBLOCK_BYTES as u64 {
        let what = format!("{} bytes hold no superblock", device.size_bytes());
        return Err(Error::Short { path: device.path().to_owned(), what });
    }
    let mut bytes = [0; SUPERBLOCK_BYTES];
    let mut tries = 0;
    loop {
        device.read_at(SUPERBLOCK_OFFSET_BYTES, &mut bytes)?;
        tries += 1;
        match Superblock::decode(&bytes) {
            Ok(superblock) => return Ok(superblock),
            Err(source) if tries >= SUPERBLOCK_READS || !source.is_damage() => {
                return Err(Error::Superblock { path: device.path().to_owned(), source });
            }
            Err(_) => crate::clock::sleep(SUPERBLOCK_PAUSE),
        }
    }
}
