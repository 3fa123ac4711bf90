//! Files that tell who wrote them, and whether they are whole: the writer and its checker.
//!
//! A file's first line names host, session and number; what follows comes from those alone; its last four bytes are a
//! CRC32C of all before. So any mixture of two writers, or a piece of something else, is seen.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mmpguard::clock;
use serde::{Deserialize, Serialize};

/// Small enough that a slow machine writes several a second, large enough to take blocks of its own.
const BYTES: usize = 24 * 1024;

/// What stands in a directory of stamped files.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Found {
    /// `HOST SESSION NUMBER` of every whole file.
    pub(crate) good: Vec<String>,
    /// Names of files that are not whole, or say something else than their names, or cannot be read.
    pub(crate) bad: Vec<String>,
}

/// Writes one file after the other, each made durable, and prints `HOST SESSION NUMBER` of each when it is.
pub(super) fn write(directory: &str, host: &str, session: &str, pause_ms: &str) -> Result<(), String> {
    let pause = Duration::from_millis(pause_ms.parse().map_err(|_| format!("{pause_ms} is no number"))?);
    let folder = File::open(directory).map_err(|error| format!("{directory}: {error}"))?;
    for number in 0_u64.. {
        let stamp = format!("{host} {session} {number}");
        let path = path_of(Path::new(directory), &stamp);
        let written = write_one(&path, &stamp).and_then(|()| folder.sync_all());
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{stamp}");
        clock::sleep(pause);
    }
    Ok(())
}

/// Prints a [`Found`] as JSON.
pub(super) fn verify(directory: &str) -> Result<(), String> {
    println!("{}", serde_json::to_string(&found_in(directory)?).expect("is plain"));
    Ok(())
}

/// Makes one stamped file, durable but for its name.
pub(crate) fn write_one(path: &Path, stamp: &str) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&content(stamp))?;
    file.sync_all()
}

/// The name of a stamp's file.
pub(crate) fn path_of(directory: &Path, stamp: &str) -> PathBuf {
    directory.join(stamp.replace(' ', "-"))
}

/// Reads every file of a directory.
pub(crate) fn found_in(directory: &str) -> Result<Found, String> {
    let mut found = Found::default();
    let entries = fs::read_dir(directory).map_err(|error| format!("{directory}: {error}"))?;
    for entry in entries {
        let Ok(entry) = entry else {
            found.bad.push("(an entry that cannot be read)".to_owned());
            continue;
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "lost+found" {
            continue;
        }
        let mut bytes = Vec::new();
        let read = File::open(entry.path()).and_then(|mut file| file.read_to_end(&mut bytes));
        let stamp = name.replace('-', " ");
        if read.is_ok() && bytes == content(&stamp) { found.good.push(stamp) } else { found.bad.push(name) }
    }
    Ok(found)
}

/// The whole file of a stamp.
fn content(stamp: &str) -> Vec<u8> {
    let mut bytes = format!("{stamp}\n").into_bytes();
    let mut state = u64::from(crc32c::crc32c(stamp.as_bytes())) | 1 << 32;
    while bytes.len() < BYTES - 4 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.push((state >> 56) as u8);
    }
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}
