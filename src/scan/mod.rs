//! What multiple-mount protection stands on many devices: one look at each, side by side.
//!
//! ```no_run
//! use mmpguard::scan::{Scanner, Settings};
//!
//! # fn main() -> Result<(), mmpguard::Error> {
//! let mut scanner = Scanner::new(Settings::default());
//! for row in scanner.host()?.rows {
//!     println!("{}: {:?}", row.paths[0].display(), row.state);
//! }
//! # Ok(()) }
//! ```
//!
//! Protects: nothing is opened for writing, and no descriptor is kept, which would keep a stale page cache alive; what is no block device and no
//! regular file is not opened at all; what does not answer within the limit gets a row that says so, and delays no other; two disks are
//! one row only if the kernel vouches that they are one ([`lun`]). Does not protect: one look cannot tell whether a holder
//! lives ([`Watch`] can, by several); what hangs cannot be interrupted, and a process with a thread that hangs in a device does not end
//! before that lets go, so whoever has to end runs a [`Scanner`] in a process that nobody waits for, as `mmp scan` does.
//!
//! | module | what |
//! |---|---|
//! | `row` | what is told of a device |
//! | `look` | one look: from bytes to a row, whatever they are |
//! | `subjects` | what there is to be looked at: devices of the host, paths, directories |
//! | `pool` | many looks at once, each within a limit |
//! | `merge` | several paths, one row |
//! | `watch` | what changes between two scans, and who was seen to live |

mod look;
mod merge;
mod pool;
mod row;
mod subjects;
mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::look::{SLOTS_AT_MOST, look};
use self::pool::{Answer, Pool};
pub use self::row::{Protection, Row, Slot, State};
use self::subjects::{Known, Seen, Subject};
pub use self::watch::{Change, Watch};
use crate::error::Error;
use crate::sys::lun;

/// How a scan is done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long one device may take before it counts as hung.
    pub limit: Duration,
    /// So many are looked at at once.
    pub at_once: usize,
}

impl Default for Settings {
    /// 5 s, and 16 at once.
    fn default() -> Self {
        Settings { limit: Duration::from_secs(5), at_once: 16 }
    }
}

/// What a scan came to.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// One row a LUN, and one for each used slot of an area behind that of the area.
    pub rows: Vec<Row>,
    /// How many of the paths that were named could not be looked at.
    pub failed: usize,
}

/// Scans, again and again: what hung is asked once more only when it has come back.
#[derive(Debug)]
pub struct Scanner {
    pool: Pool,
    /// What is known of those that hang.
    hung: HashMap<PathBuf, Known>,
}

impl Scanner {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Scanner { pool: Pool::new(settings.at_once, settings.limit), hung: HashMap::new() }
    }

    /// Every block device of this host that other hosts may see ([`lun::block_devices`]).
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be listed. What is wrong with one of them stands in its row.
    pub fn host(&mut self) -> Result<Scan, Error> {
        let devices = lun::block_devices()
            .map_err(|source| Error::io("list block devices in", Path::new("/sys"), source))?;
        let subjects = devices.into_iter().map(Subject::of_host).collect();
        let seen = self.seen(subjects).into_iter();
        Ok(Scan { rows: merge::rows(seen.filter_map(Seen::into_sighting).collect()), failed: 0 })
    }

    /// What these paths lead to: block devices, image files, and what stands in directories, not below them.
    pub fn paths(&mut self, paths: &[PathBuf]) -> Scan {
        let named = paths.iter().map(|path| Subject::named(path)).collect();
        let mut failed = 0;
        let mut sightings = Vec::new();
        for seen in self.seen(named) {
            match seen {
                Seen::Directory(entries) => {
                    let inside = entries.into_iter().map(Subject::inside).collect();
                    sightings.extend(self.seen(inside).into_iter().filter_map(Seen::into_sighting));
                }
                Seen::One(sighting) => {
                    failed += usize::from(sighting.failed());
                    sightings.push(*sighting);
                }
            }
        }
        Scan { rows: merge::rows(sightings), failed }
    }

    fn seen(&mut self, subjects: Vec<Subject>) -> Vec<Seen> {
        let limit = self.pool.limit();
        let answers = self.pool.each(subjects, Subject::path, subjects::see);
        let told = answers.into_iter().map(|(subject, answer)| match answer {
            Answer::Done(seen) => {
                self.hung.remove(subject.path());
                seen
            }
            Answer::Late => {
                if let Some(known) = subject.known() {
                    self.hung.insert(subject.path().to_owned(), known.clone());
                } else if let Some(known) = self.hung.get(subject.path()) {
                    subject.is_known(known.clone());
                }
                subject.silent(State::Hung, &format!("no answer within {} s", limit.as_secs_f64()))
            }
            Answer::NotAsked(why) => subject.silent(State::NotAsked, why),
            Answer::Failed => subject.silent(State::Unreadable, "the look at it failed"),
        });
        told.collect()
    }
}
