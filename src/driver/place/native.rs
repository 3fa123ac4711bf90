//! Finding the MMP block of an ext4 or ldiskfs filesystem, by its superblock.
//!
//! Protects: a superblock or block that does not decode is read again before it is called damaged, since a live kernel writes them; a block
//! that would lie beyond the end of the device is none. Does not protect: what was found is of that moment; a claim reads it again.

use std::time::Duration;

use crate::error::Error;
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET_BYTES};
use crate::format::{Damage, Image, MMP_STRUCT_BYTES, MmpBlock, Superblock};
use crate::io::ReadAt;
use crate::protocol::timing::{TORN_PAUSE, TORN_REREADS};

/// Reads in a row before a superblock that does not decode is called damaged.
const SUPERBLOCK_READS: u32 = 5;
/// The pause between them.
const SUPERBLOCK_PAUSE: Duration = Duration::from_millis(10);

/// The MMP block of a filesystem, as its superblock tells of it.
#[derive(Clone, Debug)]
pub struct NativeView {
    /// The superblock.
    pub superblock: Superblock,
    /// Where the block begins, in bytes.
    pub offset_bytes: u64,
}

impl NativeView {
    /// Reads the superblock, and finds the block by it.
    ///
    /// # Errors
    /// [`Error::Superblock`] if there is none, or one without MMP or that is damaged; [`Error::Short`] if the device ends before
    /// either of the two; [`Error::Io`].
    pub fn find(device: &impl ReadAt) -> Result<Self, Error> {
        let superblock = read_superblock(device)?;
        let offset_bytes = superblock
            .mmp_offset_bytes()
            .map_err(|source| Error::Superblock { path: device.path().to_owned(), source })?;
        let end = offset_bytes.saturating_add(superblock.block_bytes.into());
        if end > device.size_bytes() {
            let what = format!(
                "its MMP block ends at byte {end}, the device at byte {}; its filesystem is larger than it",
                device.size_bytes()
            );
            return Err(Error::Short { path: device.path().to_owned(), what });
        }
        Ok(NativeView { superblock, offset_bytes })
    }

    /// Reads the block, of the device that the superblock was read from.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it does not decode, [`Error::Io`].
    pub fn read_block(&self, device: &impl ReadAt) -> Result<MmpBlock, Error> {
        let mut image: Image = [0; MMP_STRUCT_BYTES];
        let mut rereads = 0;
        loop {
            device.read_at(self.offset_bytes, &mut image)?;
            match MmpBlock::decode(&image, self.superblock.checksum_seed) {
                Ok(block) => return Ok(block),
                Err(damage) if rereads == TORN_REREADS => {
                    let damage = Damage::Block(damage);
                    return Err(Error::Damaged { path: device.path().to_owned(), damage });
                }
                Err(_) => device.pause(TORN_PAUSE),
            }
            rereads += 1;
        }
    }
}

fn read_superblock(device: &impl ReadAt) -> Result<Superblock, Error> {
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
            Err(_) => device.pause(SUPERBLOCK_PAUSE),
        }
    }
}
