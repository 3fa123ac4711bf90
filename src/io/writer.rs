//! Writing blocks of an area that no beat writes: when it is made, moved, and when its slots are added and taken away.
//!
//! Protects: whole blocks of 4096 bytes by requests of their own, durably. Does not protect: whether they may be written is the
//! caller's business, who holds the lock or makes the area.

use std::fs::File;

use super::Device;
use super::arena::Arena;
use super::node::Access;
use super::transfer::write_durably;
use crate::error::Error;
use crate::format::area::AREA_BLOCK_BYTES;

/// The most that is written by one request.
const PIECE_BYTES: usize = 1 << 20;
const OP: &str = "write the area's blocks";

/// A descriptor for writing blocks. Dropping it closes it.
#[derive(Debug)]
pub struct BlockWriter {
    device: Device,
    file: File,
    arena: Arena,
    dsync: bool,
}

impl BlockWriter {
    /// Opens the device for writing.
    ///
    /// # Errors
    /// As [`BlockStore::open_for_writing`](super::BlockStore::open_for_writing); [`Error::Unsupported`] if its sectors are larger
    /// than a block.
    pub fn open(device: &Device) -> Result<BlockWriter, Error> {
        let access = device.access();
        let aligned = (AREA_BLOCK_BYTES as u64).is_multiple_of(u64::from(access.sector_bytes.max(1)));
        if access.shared && !aligned {
            let what = format!(
                "it is written in sectors of {} bytes, and an area has blocks of {AREA_BLOCK_BYTES}",
                access.sector_bytes
            );
            return Err(Error::Unsupported { path: device.path().to_owned(), what });
        }
        let file = device.node().open(Access::Write, access.direct && aligned)?;
        Ok(BlockWriter { device: device.clone(), file, arena: Arena::new(PIECE_BYTES)?, dsync: true })
    }

    /// Writes whole blocks, durably.
    ///
    /// # Errors
    /// [`Error::Io`]: what stands there then is unknown.
    ///
    /// # Panics
    /// If offset or length are no multiples of a block.
    pub fn write(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error> {
        let block = AREA_BLOCK_BYTES;
        assert!(
            offset_bytes.is_multiple_of(block as u64) && bytes.len().is_multiple_of(block),
            "whole blocks"
        );
        let mut at = offset_bytes;
        for piece in bytes.chunks(PIECE_BYTES) {
            let buffer = &mut self.arena.bytes_mut()[..piece.len()];
            buffer.copy_from_slice(piece);
            write_durably(&self.file, &self.arena.bytes()[..piece.len()], at, &mut self.dsync)
                .map_err(|source| self.device.node().fail(OP, source))?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_written_where_they_belong_and_nothing_else() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let path = dir.path().join("disk.img");
        let length = 3 * PIECE_BYTES + 4096;
        std::fs::write(&path, vec![7; length]).expect("writes");
        let device = Device::inspect(&path).expect("is a file");
        let mut writer = BlockWriter::open(&device).expect("opens");
        let bytes = vec![9; 2 * PIECE_BYTES + 4096];
        writer.write(4096, &bytes).expect("writes");
        let found = std::fs::read(&path).expect("reads");
        assert!(found[..4096].iter().chain(&found[4096 + bytes.len()..]).all(|&byte| byte == 7));
        assert!(found[4096..4096 + bytes.len()] == bytes);
    }
}
