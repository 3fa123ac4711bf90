//! `mmp umount`: umount(8), and then until the guard has let go.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::args::Umount;
use super::guard::{self, Holders, RUNBOOK, target_of};
use super::{exit, output, render};
use crate::clock;
use crate::format::name::escape;
use crate::registry::{Phase, Record, Registry, Slot};

/// How often the guard's record is looked at.
const PERIOD: Duration = Duration::from_millis(50);
/// A release that takes longer than this is explained.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// A busy filesystem is tried so often, so far apart.
const BUSY_TRIES: u32 = 4;
const BUSY_PAUSE: Duration = Duration::from_millis(150);

pub(super) fn run(arguments: &Umount) -> ExitCode {
    let registry = Registry::host();
    let found = guard::find(&registry, &arguments.what);
    let what = render::shown(&arguments.what);
    if let Some((_, record)) = &found
        && let Some(why) = guard::why_not(record)
        && !arguments.although_lost
    {
        output::complain(&format!(
            "{what}: not unmounted: {why}\n  {RUNBOOK}\n  once the device is cut off: `mmp umount --although-lost {what}`"
        ));
        return ExitCode::from(exit::LOST);
    }
    // By directory: a device may be mounted in several places, and this is the guarded one, wherever it was moved to.
    let target = match &found {
        Some((_, record)) if guard::mounted_at(&arguments.what).is_none() => guard::where_mounted(record),
        _ => None,
    };
    let target = target.unwrap_or_else(|| arguments.what.clone());
    let holders = found.as_ref().map(|(_, record)| Holders::before_the_unmount(target_of(record)));
    if let Some((slot, record)) = &found
        && record.lost.is_some()
        && guard::where_mounted(record).is_none()
    {
        forget(slot);
        output::complain(&format!("{what}: it was lost, and is not mounted any more; forgotten"));
        return ExitCode::from(exit::DONE);
    }
    if let Err(why) = unmount(&target, arguments.lazy) {
        output::complain(&why);
        return ExitCode::from(exit::IO);
    }
    match found {
        None => {
            if !arguments.quiet {
                output::complain(&format!("{what}: unmounted; it was not guarded"));
            }
            ExitCode::from(exit::DONE)
        }
        Some((slot, record)) if record.lost.is_some() => {
            forget(&slot);
            ExitCode::from(exit::DONE)
        }
        Some((slot, record)) => wait(arguments, &slot, &record, holders.as_ref()),
    }
}

/// Takes a record away whose guard is gone; a new guard's stays.
fn forget(slot: &Slot) {
    if let Ok(Some(_lock)) = slot.lock() {
        slot.clear();
    }
}

/// umount(8). A filesystem that is busy is tried again for a moment: whoever looks through all processes of this host, as
/// the release of another device does, has a hand on it in passing.
fn unmount(target: &Path, lazy: bool) -> Result<(), String> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut command = Command::new("umount");
        // Not by a helper: that of a guarded mount is this.
        command.arg("-i").env("LC_ALL", "C"); // what it says is read
        if lazy {
            command.arg("-l");
        }
        let ended = command.arg(target).output().map_err(|error| format!("cannot run umount(8): {error}"))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        if tries >= BUSY_TRIES || !said.contains("busy") {
            return Err(escape(said.as_bytes()));
        }
        clock::sleep(BUSY_PAUSE);
    }
}

fn wait(arguments: &Umount, slot: &Slot, guarded: &Record, holders: Option<&Holders>) -> ExitCode {
    let what = render::shown(&guarded.device);
    let begin = clock::mono();
    let until = begin + arguments.wait;
    let mut told = arguments.quiet;
    loop {
        let record = slot.read().ok().flatten();
        match record {
            None => {
                if !arguments.quiet {
                    output::complain(&format!("{what}: unmounted and released"));
                }
                return ExitCode::from(exit::DONE);
            }
            Some(Record { lost: Some(lost), .. }) => {
                output::complain(&format!("{}\n  {RUNBOOK}", guard::earlier_loss(&guarded.device, &lost)));
                return ExitCode::from(exit::LOST);
            }
            // Looked at once more: a guard takes its record away before it ends.
            Some(_) if !slot.is_locked() && matches!(slot.read(), Ok(Some(_))) => {
                forget(slot);
                output::complain(&format!(
                    "{what}: unmounted, but its guard had died: the kernel marked it clean, or the next host waits"
                ));
                return ExitCode::from(exit::DONE);
            }
            Some(record) if clock::mono() >= until => {
                output::complain(&format!(
                    "{what}: unmounted here, and still guarded: {}; it is released when that ends",
                    held_by(&record, holders)
                ));
                return ExitCode::from(exit::IN_USE);
            }
            Some(record) => {
                if clock::mono().since(begin) >= TELL_AFTER && !std::mem::replace(&mut told, true) {
                    output::complain(&format!(
                        "{what}: waiting for its release: {}",
                        held_by(&record, holders)
                    ));
                }
                clock::sleep(PERIOD);
            }
        }
    }
}

/// What keeps it from being released, as far as it can be found out.
fn held_by(record: &Record, holders: Option<&Holders>) -> String {
    let mut found = holders.map(Holders::now).unwrap_or_default();
    if let (Phase::Releasing, Some(note)) = (record.phase, record.notes.last()) {
        found.push(note.clone());
    }
    if found.is_empty() {
        found.push(
            "something on this host still uses it (a directory of a lazily unmounted filesystem that a process is in, \
             a mount namespace without processes), or its unmount still writes"
                .to_owned(),
        );
    }
    found.join(", ")
}
