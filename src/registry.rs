//! What this host guards: one record, one lock and one socket a device, below `/run/mmp`.
//!
//! Protects: one guard a device (`flock` on a file that the guard's processes share, and that the kernel gives up when
//! the last of them is gone); a record is read whole or not at all (written beside it and renamed). Does not protect
//! anything on a device: a record says what was known when it was written, and the lock whether its guard lives.
//!
//! A record outlives a guard that lost its device: the next mount on this host says why.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::{self, Mono};
use crate::events::EventKind;
use crate::protocol::Mode;
use crate::sys::TargetKind;
use crate::sys::fence::ClimbReport;

/// Where it is, unless `MMP_RUNTIME_DIR` says otherwise.
pub const DIRECTORY: &str = "/run/mmp";
/// The variable that moves it.
pub const DIRECTORY_VARIABLE: &str = "MMP_RUNTIME_DIR";
/// The version of a record.
pub const SCHEMA: u32 = 1;

/// The version of what a keeper hands to a daemon: the task, and the words of the memory that they share.
pub const HANDING: u32 = 1;

/// A lock that is taken is tried again: `is_locked` has it for a moment.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// What is known of one guarded device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The boot it was written in: a record of an earlier one says nothing.
    pub boot_id: String,
    /// The device, without symbolic links.
    pub device: PathBuf,
    /// Its number.
    pub major: u32,
    /// Its number.
    pub minor: u32,
    /// Where it was mounted.
    pub dir: Option<PathBuf>,
    /// The filesystem's type.
    pub filesystem: String,
    /// How far it is.
    pub phase: Phase,
    /// Who beats.
    pub mode: Mode,
    /// The kernel's filesystem is read-only.
    pub read_only: bool,
    /// The names in the block, escaped.
    pub node: String,
    /// The names in the block, escaped.
    pub block_device: String,
    /// What is done on a loss.
    pub on_loss: String,
    /// What that takes does not cut the device off, and was allowed to.
    pub incomplete_fence: bool,
    /// The process that guards.
    pub driver_pid: i32,
    /// The process that fences.
    pub keeper_pid: i32,
    /// When it was written, in nanoseconds of `CLOCK_BOOTTIME`.
    pub written_ns: u64,
    /// Since when it is guarded, in seconds since 1970.
    pub since_s: u64,
    /// The end of the lease, in nanoseconds of `CLOCK_BOOTTIME`; none if nothing is protected.
    pub lease_end_ns: Option<u64>,
    /// The last beat, ours or the kernel's as we saw it, on the same clock.
    pub last_beat_ns: u64,
    /// Beats of ours, and of the kernel's that were seen.
    pub beats: u64,
    /// The worst that a look was late.
    pub worst_lateness_ns: u64,
    /// How far the kernel had counted, and when that was seen, in nanoseconds of `CLOCK_BOOTTIME`.
    pub kernel_counted: Option<(u64, u32)>,
    /// So often we beat in a silent kernel's stead.
    pub bridged: u64,
    /// What is worth knowing, one text each ("who": why a bridge began).
    pub notes: Vec<String>,
    /// The number of this acquisition; none where an ext4's own MMP block protects.
    #[serde(default)]
    pub generation: Option<u64>,
    /// The slot of an area elsewhere that guards it.
    #[serde(default)]
    pub guarded_by: Option<PathBuf>,
    /// What is used together with it, and held as well.
    #[serde(default)]
    pub with: Vec<PathBuf>,
    /// It belongs into the daemon.
    #[serde(default)]
    pub resident: bool,
    /// How often it is beaten, or looked at, in nanoseconds.
    #[serde(default)]
    pub interval_ns: Option<u64>,
    /// So many beats were late by more than half of that within the last minute.
    #[serde(default)]
    pub late_lately: u64,
    /// So many events were told of each kind.
    #[serde(default)]
    pub events: BTreeMap<EventKind, u64>,
    /// So many were lost on their way to the log, the journal or a hook.
    #[serde(default)]
    pub events_dropped: u64,
    /// Why it was lost.
    pub lost: Option<Lost>,
}

/// How far a guard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It claims, or the kernel mounts.
    Beginning,
    /// It protects.
    Guarding,
    /// Unmounted; the clean mark is on its way.
    Releasing,
    /// Protection ended while it was in use.
    Lost,
}

/// How protection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Why, in a sentence.
    pub reason: String,
    /// When, in seconds since 1970.
    pub at_s: u64,
    /// What the fence did.
    pub fence: Option<ClimbReport>,
}

impl Lost {
    /// What the fence came to.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.fence {
            None => "nothing was mounted".to_owned(),
            Some(report) if report.done => {
                format!("it was cut off by \"{}\"", report.by.as_deref().unwrap_or("?"))
            }
            Some(report) if report.incomplete => {
                format!("what was allowed to be no fence ran ({report}): this host may still write to it")
            }
            Some(report) => {
                format!("it COULD NOT BE CUT OFF ({report}): this host may still write to it")
            }
        }
    }
}

impl Record {
    /// Written in this boot, so that its times and processes mean something.
    #[must_use]
    pub fn is_of_this_boot(&self) -> bool {
        self.schema == SCHEMA && self.boot_id == boot_id()
    }

    /// It tells of something that a later guard which comes to nothing must not wipe out: a loss, or a mount that nobody
    /// guards any more.
    #[must_use]
    pub fn outlives_a_failure(&self) -> bool {
        self.is_of_this_boot() && matches!(self.phase, Phase::Guarding | Phase::Releasing | Phase::Lost)
    }

    /// One of its processes is there, judged by number and name.
    fn has_processes(&self) -> bool {
        let is_there = |(pid, name): (i32, &CStr)| {
            let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            comm.trim_ascii_end() == name.to_bytes()
        };
        let (keeper, driver) = crate::keeper::mounts::NAMES;
        is_there((self.keeper_pid, keeper)) || is_there((self.driver_pid, driver))
    }

    /// It was lost, and what its fence came to is known.
    pub fn tell_loss(&mut self, lost: &Lost) {
        self.phase = Phase::Lost;
        self.mode = Mode::Over;
        self.lease_end_ns = None;
        self.lost = Some(lost.clone());
    }

    /// What is left of its lease.
    #[must_use]
    pub fn lease_left(&self) -> std::time::Duration {
        self.lease_end_ns.map(|end| Mono(end).since(clock::mono())).unwrap_or_default()
    }
}

/// This boot's identity.
#[must_use]
pub fn boot_id() -> String {
    crate::sys::identity::boot_id().unwrap_or_default()
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Registry(PathBuf);

impl Registry {
    /// This host's.
    #[must_use]
    pub fn host() -> Self {
        let moved = std::env::var_os(DIRECTORY_VARIABLE).filter(|value| !value.is_empty());
        Registry(moved.map_or_else(|| DIRECTORY.into(), PathBuf::from))
    }

    /// In this directory.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Registry(directory.to_owned())
    }

    /// Makes the directory, if it is not there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o755).create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.is_safe(),
            made => made,
        }
    }

    /// Whoever may write there may have us write elsewhere.
    fn is_safe(&self) -> io::Result<()> {
        let metadata = fs::metadata(&self.0)?;
        let owner = nix::unistd::geteuid().as_raw();
        if (metadata.uid() == owner || metadata.uid() == 0) && metadata.mode() & 0o022 == 0 {
            return Ok(());
        }
        let what = "others may write into it; it has to be this user's own, with mode 0755";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// A device's place in it; none for a file.
    #[must_use]
    pub fn slot(&self, device: TargetKind) -> Option<Slot> {
        match device {
            TargetKind::Block { major, minor } => Some(Slot(self.0.join(format!("{major}-{minor}")))),
            TargetKind::File { .. } => None,
        }
    }

    /// Every record that can be read, in the order of their devices. A directory that is not there holds none.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn list(&self) -> io::Result<Vec<(Slot, Record)>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let slot = Slot(path.with_extension(""));
                if let Ok(Some(record)) = slot.read() {
                    found.push((slot, record));
                }
            }
        }
        found.sort_by_key(|(_, record)| (record.major, record.minor));
        Ok(found)
    }
}

/// One device's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(PathBuf);

impl Slot {
    /// Becomes the device's only guard; none if there is one. The lock is its descriptor's, and shared by every process
    /// that inherits it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn lock(&self) -> io::Result<Option<OwnedFd>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.0.with_extension("lock"))?;
        for _ in 0..LOCK_TRIES {
            if try_lock(&file)? {
                return Ok(Some(file.into()));
            }
            clock::sleep(LOCK_PAUSE); // somebody may only be asking
        }
        Ok(None)
    }

    /// True if a guard lives. Who may not open the lock, an ordinary user, is told by the processes of the record.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        match File::open(self.0.with_extension("lock")) {
            // Shared: whoever else asks at this moment is no guard.
            Ok(file) => matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let record = self.read().ok().flatten();
                record.is_some_and(|record| record.has_processes())
            }
            Err(_) => false,
        }
    }

    /// The record; none if there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is no record.
    pub fn read(&self) -> io::Result<Option<Record>> {
        match fs::read(self.0.with_extension("json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the record, whole.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let new = self.0.with_extension(format!("new-{}", std::process::id()));
        fs::write(&new, serde_json::to_vec_pretty(record)?)?;
        fs::rename(&new, self.0.with_extension("json"))
    }

    /// Takes record and socket away. The lock's file stays: it may be another's by now.
    pub fn clear(&self) {
        let _ = fs::remove_file(self.0.with_extension("json"));
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.keeper_socket());
        self.clear_unfinished();
    }

    /// What whoever died while he wrote it has left.
    fn clear_unfinished(&self) {
        let ours = self.0.file_name().map(|name| format!("{}.new-", name.display())).unwrap_or_default();
        let entries = self.0.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)) {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// Nothing came of a guard: its place is as it was before.
    pub fn put_back(&self, earlier: Option<&Record>) {
        self.clear();
        if let Some(earlier) = earlier {
            let _ = self.write(earlier);
        }
    }

    /// Where its guard listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.with_extension("sock")
    }

    /// Where its keeper listens for a daemon, if its driver belongs into one. A daemon of another version, that would not understand
    /// what it is given, does not find it: such a guard goes on in a process of the keeper's.
    #[must_use]
    pub fn keeper_socket(&self) -> PathBuf {
        self.0.with_extension(format!("keeper-{HANDING}"))
    }
}

/// flock(2), which lasts as long as any copy of the descriptor.
fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
