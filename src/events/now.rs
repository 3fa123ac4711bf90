//! Telling without a thread: for a keeper, after it has fenced.
//!
//! Protects: called by who has nothing else to do any more; nothing in it waits, and a hook runs below a process of its own. Does not
//! count what is lost: its process ends.

use std::path::Path;

use super::{EventRecord, Settings, hooks, journal, log};
use crate::sys::realtime::Protection;
use crate::sys::spawn::{Descriptors, Place, fork_process};

/// From where, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Direct<'a> {
    /// The log is below it.
    pub directory: &'a Path,
    /// The hooks.
    pub settings: &'a Settings,
    /// What a hook must not have of this process.
    pub protection: &'a Protection,
}

/// Writes `records` to the log and the journal, in order, and then starts their hooks. The calling process has one thread.
pub fn tell_now(direct: &Direct<'_>, records: &[EventRecord]) {
    for record in records {
        let _ = log::append(direct.directory, record);
        let _ = journal::send(record);
    }
    let wanted =
        records.iter().flat_map(|record| direct.settings.wanted(record.kind).map(move |hook| (hook, record)));
    for (hook, record) in wanted.take(hooks::AT_ONCE) {
        let _ = fork_process(hooks::NAME, Place::OwnSession, Descriptors::Only(&[]), || {
            direct.protection.undo_in_child();
            let _ = hooks::supervise(hook, record);
            0
        });
    }
}
