//! What there is to be looked at, and looking at one of them.
//!
//! Protects: nothing but block devices and regular files is opened, whatever a path leads to by then; whatever may hang (finding a path,
//! listing a directory, reading) happens in the look, which has a limit. Does not go below the directories that are named.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::look::look;
use super::row::{Row, State};
use crate::error::Error;
use crate::io::{Device, ReadBuffer, Reader};
use crate::sys::TargetKind;
use crate::sys::lun::{self, BlockDevice, Lun};

/// Something to be looked at.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    path: PathBuf,
    /// A device of the host's list: what it was then.
    listed: Option<BlockDevice>,
    /// A directory is listed, and not a row.
    listing: bool,
    /// What the look at it has found out, also if it hangs afterwards.
    known: Arc<OnceLock<Known>>,
}

/// What a device is, apart from what stands on it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    node: TargetKind,
    size_bytes: u64,
    lun: Lun,
    leads: bool,
}

/// What was seen by one path.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    /// One, or that of an area and its slots.
    pub(super) rows: Vec<Row>,
    /// What it is; none if that could not be found out.
    pub(super) lun: Option<Lun>,
    /// It is what to call the others by.
    pub(super) leads: bool,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Seen {
    /// A directory, with what may be devices in it.
    Directory(Vec<PathBuf>),
    /// Anything else.
    One(Box<Sighting>),
}

impl Subject {
    pub(super) fn of_host(device: BlockDevice) -> Self {
        Subject { listed: Some(device.clone()), ..Subject::inside(device.path) }
    }

    pub(super) fn named(path: &Path) -> Self {
        Subject { listing: true, ..Subject::inside(path.to_owned()) }
    }

    /// Of a directory.
    pub(super) fn inside(path: PathBuf) -> Self {
        Subject { path, listed: None, listing: false, known: Arc::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Nothing was heard of it.
    pub(super) fn silent(&self, state: State, reason: &str) -> Seen {
        let mut row = Row::bare(self.path.clone(), state);
        row.reason = Some(reason.to_owned());
        self.complete(row)
    }

    /// What the look has found out; none if it has not come that far.
    pub(super) fn known(&self) -> Option<&Known> {
        self.known.get()
    }

    /// It was found out by an earlier look, which still hangs. The host's list is newer, and may have another device by that name.
    pub(super) fn is_known(&self, known: Known) {
        if self.listed.as_ref().is_none_or(|listed| listed.node == known.node) {
            let _ = self.known.set(known);
        }
    }

    /// With what is known of it.
    fn complete(&self, mut row: Row) -> Seen {
        let known = self.known().cloned().or_else(|| self.listed.as_ref().map(Known::by_sysfs));
        if let Some(Known { node, size_bytes, .. }) = &known {
            (row.nodes, row.size_bytes) = (vec![*node], Some(*size_bytes));
        }
        let leads = known.as_ref().is_some_and(|known| known.leads);
        Seen::One(Box::new(Sighting { rows: vec![row], lun: known.map(|known| known.lun), leads }))
    }
}

impl Known {
    /// Asks a driver what a loop device shows, which may hang.
    fn by_asking(device: &Device) -> Self {
        let (node, size_bytes) = (device.kind(), device.size_bytes());
        Known { node, size_bytes, lun: lun::lun(node), leads: lun::is_multipath(node) }
    }

    fn by_sysfs(device: &BlockDevice) -> Self {
        let BlockDevice { node, size_bytes, .. } = *device;
        Known { node, size_bytes, lun: lun::lun_by_sysfs(node), leads: lun::is_multipath(node) }
    }
}

impl Seen {
    /// None of a directory in a directory.
    pub(super) fn into_sighting(self) -> Option<Sighting> {
        match self {
            Seen::One(sighting) => Some(*sighting),
            Seen::Directory(_) => None,
        }
    }
}

impl Sighting {
    /// It could not be looked at.
    pub(super) fn failed(&self) -> bool {
        !self.rows[0].state.was_seen()
    }
}

/// Looks at one.
pub(super) fn see(subject: &Subject, buffer: &mut Option<ReadBuffer>) -> Seen {
    match seen(subject, buffer) {
        Ok(seen) => seen,
        Err(error) => {
            let mut row = Row::bare(subject.path.clone(), State::Unreadable);
            row.fail(&error);
            subject.complete(row)
        }
    }
}

fn seen(subject: &Subject, buffer: &mut Option<ReadBuffer>) -> Result<Seen, Error> {
    let buffer = match buffer {
        Some(buffer) => buffer,
        none => none.insert(ReadBuffer::new()?),
    };
    let reader = match Reader::open(&subject.path, buffer) {
        Ok(reader) => reader,
        // The reader has found that out without opening anything.
        Err(Error::WrongKind { .. }) if subject.path.is_dir() => {
            let entries = if subject.listing { entries(&subject.path)? } else { Vec::new() };
            return Ok(Seen::Directory(entries));
        }
        Err(error) => return Err(error),
    };
    let node = reader.device().kind();
    if let Some(listed) = subject.listed.as_ref().filter(|listed| listed.node != node) {
        let source = std::io::Error::other("its name belongs to another device than a moment ago");
        return Err(Error::io("find it again", &listed.path, source));
    }
    let known = subject.known.get_or_init(|| Known::by_asking(reader.device()));
    let mut rows = look(&&reader);
    for row in &mut rows {
        row.nodes = vec![node];
    }
    Ok(Seen::One(Box::new(Sighting { rows, lun: Some(known.lun.clone()), leads: known.leads })))
}

/// What stands in a directory, by name. One that vanishes meanwhile gets its row when it is looked at.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |source| Error::io("list the directory", directory, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
