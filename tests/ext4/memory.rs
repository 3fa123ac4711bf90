//! A device in memory that keeps what was written, write by write.

use std::path::Path;

use mmpguard::Error;
use mmpguard::ext4::Bytes;

/// The bytes, and each write as it came.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    pub(crate) writes: Vec<(u64, Vec<u8>)>,
}

impl Memory {
    pub(crate) fn new(bytes: Vec<u8>) -> Memory {
        Memory { bytes, writes: Vec::new() }
    }

    fn span(&self, offset_bytes: u64, length: usize) -> Result<std::ops::Range<usize>, Error> {
        let start = usize::try_from(offset_bytes).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        range.filter(|range| range.end <= self.bytes.len()).ok_or_else(|| Error::Short {
            path: Path::new("memory").to_owned(),
            what: format!("{length} bytes at {offset_bytes}"),
        })
    }
}

impl Bytes for Memory {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        let span = self.span(offset_bytes, into.len())?;
        into.copy_from_slice(&self.bytes[span]);
        Ok(())
    }

    fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error> {
        let span = self.span(offset_bytes, bytes.len())?;
        self.bytes[span].copy_from_slice(bytes);
        self.writes.push((offset_bytes, bytes.to_owned()));
        Ok(())
    }
}
