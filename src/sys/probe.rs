//! Which filesystem a device holds, by the few magic numbers that decide how it can be fenced.
//!
//! Protects: nothing is written, and the device is closed at once, so that no stale page cache outlives the look. Does not
//! protect: this is no blkid. Where several signatures stand (a filesystem made over another), the first of XFS, ext
//! and btrfs is told; whoever knows better says so.
//!
//! Sources: Linux `fs/xfs/libxfs/xfs_format.h`, `fs/ext4/ext4.h`, `fs/btrfs/ctree.h`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::format::content::ext_kind;

const EXT: usize = 1024;
const BTRFS_MAGIC_AT: u64 = (64 << 10) + 64;

/// The filesystem's name as mount(8) has it; `None` if it is none of those known here.
///
/// # Errors
/// What the system says when the device is opened or read.
pub fn filesystem(device: &Path) -> io::Result<Option<&'static str>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(device)?;
    let mut head = [0; 2048];
    let read = read_up_to(&file, &mut head, 0)?;
    if head[..read].starts_with(b"XFSB") {
        return Ok(Some("xfs"));
    }
    if let Some(name) = ext(&head[..read]) {
        return Ok(Some(name));
    }
    let mut magic = [0; 8];
    let read = read_up_to(&file, &mut magic, BTRFS_MAGIC_AT)?;
    Ok((&magic[..read] == b"_BHRfS_M").then_some("btrfs"))
}

/// ext2, ext3 or ext4, told apart as blkid does.
fn ext(head: &[u8]) -> Option<&'static str> {
    let superblock = head.get(EXT..EXT + 1024)?;
    if superblock[0x38..0x3A] != [0x53, 0xEF] {
        return None;
    }
    let word = |at: usize| u32::from_le_bytes(superblock[at..at + 4].try_into().expect("is four bytes"));
    Some(ext_kind(word(0x5C), word(0x60), word(0x64)))
}

fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(put: &[(usize, &[u8])], bytes: usize) -> Option<&'static str> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut image = vec![0; bytes];
        for (at, with) in put {
            image[*at..*at + with.len()].copy_from_slice(with);
        }
        std::fs::write(file.path(), image).unwrap();
        filesystem(file.path()).unwrap()
    }

    #[test]
    fn filesystems_are_told_by_their_magic() {
        let magic: (usize, &[u8]) = (EXT + 0x38, &[0x53, 0xEF]);
        assert_eq!(probed(&[(0, b"XFSB")], 4096), Some("xfs"));
        assert_eq!(probed(&[magic], 4096), Some("ext2"));
        assert_eq!(probed(&[magic, (EXT + 0x5C, &[4])], 4096), Some("ext3"));
        assert_eq!(probed(&[magic, (EXT + 0x5C, &[4]), (EXT + 0x60, &[0x42])], 4096), Some("ext4"));
        assert_eq!(probed(&[magic, (EXT + 0x64, &[8])], 4096), Some("ext4"));
        assert_eq!(probed(&[(65600, b"_BHRfS_M")], 128 << 10), Some("btrfs"));
    }

    #[test]
    fn what_is_short_or_unknown_is_no_filesystem() {
        for bytes in [0, 3, 1080, 2047, 4096, 65600, 65607, 70000] {
            assert_eq!(probed(&[], bytes), None, "{bytes}");
        }
        assert_eq!(probed(&[(EXT + 0x38, &[0x53])], 4096), None);
        assert!(filesystem(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn the_demo_image_is_ext4() {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("testimages/demo.img");
        assert_eq!(filesystem(&image).unwrap(), Some("ext4"));
    }
}
