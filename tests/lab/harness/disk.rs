//! The shared disk: a file that every machine opens with O_DIRECT, read from outside beside them.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mmpguard::Place;
use mmpguard::io::Arena;
use nix::libc::O_DIRECT;

use super::block::{RawBlock, Sampler};
use super::lab::tool_path;
use super::{Doing, Outcome, Span};

/// What direct I/O is aligned to, and what a snapshot compares.
const BLOCK: usize = 4096;

/// One disk.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) serial: String,
    pub(crate) bytes: u64,
}

/// The whole disk at one moment, by a sum of each block.
pub(crate) struct Snapshot(Vec<u32>);

impl Disk {
    pub(super) fn create(path: &Path, serial: &str, mebibytes: u64) -> Outcome<Disk> {
        let bytes = mebibytes << 20;
        let file = File::create_new(path).doing("a disk")?;
        file.set_len(bytes).doing("a disk")?;
        Ok(Disk { path: path.to_owned(), serial: serial.to_owned(), bytes })
    }

    /// Its name in the machines.
    pub(crate) fn node(&self) -> String {
        format!("/dev/lab/{}", self.serial)
    }

    /// Runs a program of this machine on the file, as nobody uses it: mkfs, e2fsck. Fails unless it ends with 0.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> Outcome<String> {
        let (code, said) = self.tool_says(program, arguments)?;
        if code == 0 { Ok(said) } else { Err(format!("{program} {arguments:?}: exit status {code}: {said}")) }
    }

    /// The same, whatever it ends with.
    pub(crate) fn tool_says(&self, program: &str, arguments: &[&str]) -> Outcome<(i32, String)> {
        let done = Command::new(program)
            .args(arguments)
            .arg(&self.path)
            .env("PATH", tool_path())
            .output()
            .doing(program)?;
        let said =
            [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok((done.status.code().unwrap_or(-1), said))
    }

    /// An ext4 with MMP and an interval of a second.
    pub(crate) fn make_ext4(&self) -> Outcome<()> {
        self.tool("mkfs.ext4", &["-q", "-F", "-b", "4096", "-O", "mmp", "-E", "mmp_update_interval=1"])
            .map(drop)
    }

    /// An XFS that leaves room behind it.
    pub(crate) fn make_xfs(&self) -> Outcome<()> {
        let mebibytes = (self.bytes >> 20) - 16;
        self.tool("mkfs.xfs", &["-q", "-f", "-d", &format!("size={mebibytes}m")]).map(drop)
    }

    /// The same, and a tail area in that room.
    pub(crate) fn make_xfs_with_area(&self) -> Outcome<()> {
        self.make_xfs()?;
        self.tool(env!("CARGO_BIN_EXE_mmp"), &["enable", "--quiet", "--fresh"]).map(drop)
    }

    /// What belongs to its protection alone: an ext4's MMP block, or its tail area.
    pub(crate) fn protection(&self) -> Outcome<Span> {
        let place = Place::find(&self.path, None).doing("looking for the protection")?;
        Ok(match place.slot() {
            Some((area, _)) => {
                Span { offset: area.header.offset_bytes, bytes: self.bytes - area.header.offset_bytes }
            }
            None => Span { offset: place.offset_bytes(), bytes: place.block_bytes().into() },
        })
    }

    /// The MMP block, to be read beside every machine.
    pub(crate) fn block(&self) -> RawBlock {
        RawBlock::find(&self.path)
    }

    /// Records each change of the MMP block from now on.
    pub(crate) fn sampler(&self) -> Sampler {
        Sampler::start(&self.path, Duration::from_millis(20))
    }

    /// Every block of it, now.
    pub(crate) fn snapshot(&self) -> Outcome<Snapshot> {
        // Past the page cache, which knows nothing of what the machines write.
        let file = File::options().read(true).custom_flags(O_DIRECT).open(&self.path).doing("the disk")?;
        let mut piece = Arena::new(1 << 20).doing("a buffer")?;
        let mut sums = Vec::new();
        for number in 0..self.bytes >> 20 {
            file.read_exact_at(piece.bytes_mut(), number << 20).doing("reading the disk")?;
            sums.extend(piece.bytes().chunks(BLOCK).map(crc32c::crc32c));
        }
        Ok(Snapshot(sums))
    }
}

impl Snapshot {
    /// The numbers of the blocks of 4096 bytes that are not what they were, those of `except` left out.
    pub(crate) fn changed(&self, later: &Snapshot, except: &[Span]) -> Vec<u64> {
        let skipped =
            |block: u64| except.iter().any(|span| span.overlaps(block * BLOCK as u64, BLOCK as u64));
        let pairs = self.0.iter().zip(&later.0).zip(0_u64..);
        pairs.filter(|((a, b), block)| a != b && !skipped(*block)).map(|(_, block)| block).collect()
    }
}
