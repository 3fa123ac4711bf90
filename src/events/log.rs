//! The log: a file of JSON lines below the runtime directory, and the one before it.
//!
//! Protects: a record is one write with `O_APPEND`, so that those of several processes stand side by side and never in each other; a line
//! that was cut short by a full disk spoils no other. The file is bounded: at 1 MiB it becomes `events.jsonl.1`, and what was that is
//! gone. Does not protect from whoever may write below the runtime directory, and keeps nothing over a boot.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::EventRecord;

/// Its name.
const NAME: &str = "events.jsonl";
/// Of the one before.
const EARLIER: &str = "events.jsonl.1";
/// Whoever rotates has it.
const LOCK: &str = "events.lock";
/// It is rotated beyond that.
const BYTES_AT_MOST: u64 = 1 << 20;
/// No line is longer: what is longer is not ours.
const LINE_BYTES: usize = 1 << 16;

/// Where it is.
#[must_use]
pub fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Adds a record.
///
/// # Errors
/// When the system refuses; the record, or a part of it, may stand there all the same.
pub fn append(directory: &Path, record: &EventRecord) -> io::Result<()> {
    append_within(directory, record, BYTES_AT_MOST)
}

fn append_within(directory: &Path, record: &EventRecord, bytes_at_most: u64) -> io::Result<()> {
    let path = path(directory);
    let mut file = File::options().read(true).append(true).create(true).mode(0o644).open(&path)?;
    let mut length = file.metadata()?.len();
    if length >= bytes_at_most && rotate(directory, bytes_at_most) {
        file = File::options().read(true).append(true).create(true).mode(0o644).open(&path)?;
        length = file.metadata()?.len();
    }
    let mut line = Vec::with_capacity(1024);
    let mut last = [b'\n'];
    if length > 0 && file.read_at(&mut last, length - 1).is_ok() && last != *b"\n" {
        line.push(b'\n'); // what was cut short stays alone
    }
    serde_json::to_writer(&mut line, record)?;
    line.push(b'\n');
    match file.write(&line)? {
        written if written == line.len() => Ok(()),
        _ => Err(io::ErrorKind::StorageFull.into()),
    }
}

/// One of all that find it too long does it. Never waits.
fn rotate(directory: &Path, bytes_at_most: u64) -> bool {
    let lock =
        File::options().write(true).create(true).truncate(false).mode(0o600).open(directory.join(LOCK));
    let Ok(lock) = lock else { return false };
    if lock.try_lock().is_err() {
        return true; // it is being done: whichever file is there then is the right one
    }
    let path = path(directory);
    let is_long = fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= bytes_at_most);
    is_long && fs::rename(&path, directory.join(EARLIER)).is_ok()
}

/// Reads the log, and goes on where it has stopped, across rotations.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: BufReader<File>,
    /// Of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl Reader {
    /// From the first record that is there.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let earlier = Open::new(&directory.join(EARLIER));
        Reader { directory: directory.to_owned(), open: earlier }
    }

    /// Whatever has come since. Lines that are no records are passed over.
    ///
    /// # Errors
    /// When the system refuses; a file that is not there is none.
    pub fn read(&mut self) -> io::Result<Vec<EventRecord>> {
        let mut found = Vec::new();
        loop {
            // Whether there is another file is asked before this one is read to its end: what was written to it before is in it then.
            let next = self.next();
            if let Some(open) = &mut self.open {
                open.read_into(&mut found)?;
            }
            match next? {
                Some(next) => self.open = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// The file that comes after the open one, if there is one.
    fn next(&self) -> io::Result<Option<Open>> {
        let current = path(&self.directory);
        let Some(open) = &self.open else { return Ok(Open::new(&current)) };
        let ours = identity(&open.file.get_ref().metadata()?);
        match fs::metadata(&current) {
            Ok(metadata) if identity(&metadata) != ours => Ok(Open::new(&current)),
            _ => Ok(None),
        }
    }
}

impl Open {
    fn new(path: &Path) -> Option<Open> {
        let mut file = File::open(path).ok()?;
        file.seek(SeekFrom::Start(0)).ok()?;
        Some(Open { file: BufReader::new(file), begun: Vec::new() })
    }

    fn read_into(&mut self, found: &mut Vec<EventRecord>) -> io::Result<()> {
        while self.file.read_until(b'\n', &mut self.begun)? > 0 {
            if self.begun.last() != Some(&b'\n') && self.begun.len() < LINE_BYTES {
                continue; // the rest may come
            }
            if let Ok(record) = serde_json::from_slice(&self.begun) {
                found.push(record);
            }
            self.begun.clear();
        }
        Ok(())
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Subject, Told};

    fn record(text: &str) -> EventRecord {
        EventRecord::now(&Subject::new(Path::new("/dev/sdx"), None), &Told::alarm(text))
    }

    fn texts(records: &[EventRecord]) -> Vec<&str> {
        records.iter().map(|record| record.text.as_str()).collect()
    }

    #[test]
    fn what_was_written_is_read_once_in_order_and_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(dir.path());
        assert!(reader.read().unwrap().is_empty(), "no log is an empty one");
        append(dir.path(), &record("one")).unwrap();
        append(dir.path(), &record("two")).unwrap();
        assert_eq!(texts(&reader.read().unwrap()), ["one", "two"]);
        assert!(reader.read().unwrap().is_empty());
        append(dir.path(), &record("three")).unwrap();
        assert_eq!(texts(&reader.read().unwrap()), ["three"]);
    }

    #[test]
    fn it_is_rotated_once_and_a_follower_misses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut followed = Vec::new();
        let mut reader = Reader::new(dir.path());
        for number in 0..100 {
            append_within(dir.path(), &record(&number.to_string()), 4000).unwrap();
            if number % 7 == 0 {
                followed.extend(reader.read().unwrap());
            }
        }
        followed.extend(reader.read().unwrap());
        let all: Vec<_> = (0..100).map(|number: u32| number.to_string()).collect();
        assert_eq!(texts(&followed), all);
        let bytes = |name| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(
            bytes(NAME) < 5000 && (4000..5000).contains(&bytes(EARLIER)),
            "{} {}",
            bytes(NAME),
            bytes(EARLIER)
        );
        let late = Reader::new(dir.path()).read().unwrap();
        assert!(late.len() > 8 && texts(&late) == all[100 - late.len()..], "both files, in order");
    }

    #[test]
    fn a_line_that_was_cut_short_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), &record("one")).unwrap();
        let mut file = File::options().append(true).open(path(dir.path())).unwrap();
        file.write_all(b"{\"schema\":1,\"at\":\"20").unwrap();
        let mut reader = Reader::new(dir.path());
        assert_eq!(texts(&reader.read().unwrap()), ["one"]);
        append(dir.path(), &record("two")).unwrap();
        file.write_all(b"\xff\xfe\n[]\n\n").unwrap();
        append(dir.path(), &record("three")).unwrap();
        assert_eq!(texts(&reader.read().unwrap()), ["two", "three"]);
    }

    #[test]
    fn processes_that_write_at_once_lose_nothing_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let dir = dir.path();
                scope.spawn(move || {
                    (0..200).for_each(|number| append(dir, &record(&format!("{writer}-{number}"))).unwrap());
                });
            }
        });
        let all = Reader::new(dir.path()).read().unwrap();
        assert_eq!(all.len(), 800);
    }

    #[test]
    fn a_full_disk_is_an_error_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", path(dir.path())).unwrap();
        assert!(append(dir.path(), &record("one")).is_err());
        assert!(append(Path::new("/nowhere/at/all"), &record("one")).is_err());
    }
}
