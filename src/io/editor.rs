//! The bytes of a whole device or image file, for the edits of `ext4`.
//!
//! Protects: what is read comes from the disk, what was written is on stable storage when the write returns, and a write
//! is one request; where it does not begin and end with a sector, the rest of the sectors is written as it stands. Does
//! not protect: whoever shares a sector, or the device; the caller has it for himself.

use std::fs::File;

use super::Device;
use super::arena::Arena;
use super::node::Access;
use super::transfer::{read_span, write_durably};
use crate::error::Error;
use crate::ext4::Bytes;

const READ: &str = "read its metadata";
const WRITE: &str = "write its metadata";

/// A descriptor for reading and writing anywhere on a device. Dropping it closes it; [`finish`](Editor::finish) also
/// sees to the page cache.
#[derive(Debug)]
pub struct Editor {
    device: Device,
    file: File,
    size_bytes: u64,
    /// What offsets and lengths are rounded out to; 1 if buffered.
    sector_bytes: u32,
    /// `RWF_DSYNC` is worth a try.
    dsync: bool,
}

impl Editor {
    /// Opens the device for reading and writing. Not exclusively: that is for the caller to do, who has looked before
    /// whether it is used.
    ///
    /// # Errors
    /// As [`BlockStore::open_for_writing`](super::BlockStore::open_for_writing).
    pub fn open(device: &Device) -> Result<Editor, Error> {
        Editor::with(device, Access::Write)
    }

    /// Opens the device for reading alone: what is planned with it cannot be carried out.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened, or is no longer the same node.
    pub fn open_to_plan(device: &Device) -> Result<Editor, Error> {
        Editor::with(device, Access::Read)
    }

    fn with(device: &Device, how: Access) -> Result<Editor, Error> {
        let access = device.access();
        let sector_bytes = access.sector_bytes.max(1);
        // A file may end inside a sector, and direct I/O could not write that end.
        let whole = device.size_bytes().is_multiple_of(sector_bytes.into());
        let direct = access.direct && (whole || access.shared);
        let file = device.node().open(how, direct)?;
        let size_bytes = device.size_of(&file)?;
        let sector_bytes = if direct { sector_bytes } else { 1 };
        Ok(Editor { device: device.clone(), file, size_bytes, sector_bytes, dsync: true })
    }

    /// Closes it, and drops what this host's page cache holds of the device: what uses it next reads the disk.
    ///
    /// # Errors
    /// As [`Device::flush`].
    pub fn finish(self) -> Result<(), Error> {
        let device = self.device;
        drop(self.file);
        device.flush()
    }
}

impl Bytes for Editor {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        let whole = read_span(&self.file, self.sector_bytes, offset_bytes, into)
            .map_err(|source| self.device.node().fail(READ, source))?;
        if whole { Ok(()) } else { Err(self.device.short(&format!("{} bytes", into.len()), offset_bytes)) }
    }

    fn write_at(&mut self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Error> {
        let sector = u64::from(self.sector_bytes);
        let start = offset_bytes - offset_bytes % sector;
        let end = offset_bytes.checked_add(bytes.len() as u64);
        let end = end.and_then(|end| end.checked_next_multiple_of(sector));
        let Some(end) = end.filter(|&end| end <= self.size_bytes) else {
            return Err(self.device.short(&format!("the {} bytes to be written", bytes.len()), offset_bytes));
        };
        let too_long =
            |_| self.device.node().fail(WRITE, std::io::Error::from_raw_os_error(nix::libc::EFBIG));
        let skip = usize::try_from(offset_bytes - start).map_err(too_long)?;
        let mut arena = Arena::new(usize::try_from(end - start).map_err(too_long)?)?;
        if arena.bytes().len() != bytes.len() {
            self.read_at(start, arena.bytes_mut())?;
        }
        arena.bytes_mut()[skip..skip + bytes.len()].copy_from_slice(bytes);
        write_durably(&self.file, arena.bytes(), start, &mut self.dsync)
            .map_err(|source| self.device.node().fail(WRITE, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn editor(length: usize) -> (tempfile::TempDir, std::path::PathBuf, Editor, Vec<u8>) {
        let dir = tempfile::tempdir().expect("makes a directory");
        let path = dir.path().join("disk.img");
        let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).expect("below 251")).collect();
        std::fs::write(&path, &bytes).expect("writes");
        let editor = Editor::open(&Device::inspect(&path).expect("is a file")).expect("opens");
        (dir, path, editor, bytes)
    }

    #[test]
    fn only_what_was_meant_changes_wherever_it_stands() {
        for sector in [1, 512, 4096] {
            let (_dir, path, mut editor, mut bytes) = editor(64 << 10);
            // The alignment of the file's own filesystem is in `direct`; a larger one is always right.
            editor.sector_bytes = editor.sector_bytes.max(sector);
            for (at, length) in [(1024, 1024), (0, 1), (4095, 2), (8192, 4096), ((64 << 10) - 512, 512)] {
                editor.write_at(at as u64, &vec![0xEE; length]).expect("writes");
                bytes[at..at + length].fill(0xEE);
                let mut found = vec![0; length + 2];
                let from = at.saturating_sub(2);
                editor.read_at(from as u64, &mut found).expect("reads");
                assert_eq!(found, bytes[from..from + length + 2]);
            }
            editor.finish().expect("finishes");
            assert!(std::fs::read(&path).expect("reads") == bytes, "sectors of {sector}");
        }
    }

    #[test]
    fn nothing_is_written_beyond_the_end() {
        let (_dir, path, mut editor, bytes) = editor(10_000);
        assert_eq!(editor.size_bytes(), 10_000);
        for at in [9_999, 10_000, u64::MAX] {
            assert!(matches!(editor.write_at(at, &[1, 2]), Err(Error::Short { .. })), "{at}");
        }
        editor.write_at(9_998, &[1, 2]).expect("is the end");
        assert_eq!(std::fs::read(&path).expect("reads")[..9_998], bytes[..9_998]);
    }

    #[test]
    fn one_to_plan_with_cannot_write() {
        let (_dir, path, _, bytes) = editor(8192);
        let mut editor = Editor::open_to_plan(&Device::inspect(&path).expect("is a file")).expect("opens");
        assert!(matches!(editor.write_at(0, &[1]), Err(Error::Io { .. })));
        assert!(std::fs::read(&path).expect("reads") == bytes);
    }
}
