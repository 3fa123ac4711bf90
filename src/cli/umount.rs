//! `mmp umount`: umount(8), and then until the guard has let go.

use std::process::{Command, ExitCode};

use super::args::Umount;
use super::guard::{self, RUNBOOK};
use super::{exit, output, render};
use crate::clock;
use crate::registry::{Phase, Record, Registry, Slot};

/// How often the guard's record is looked at.
const PERIOD: std::time::Duration = std::time::Duration::from_millis(50);

pub(super) fn run(arguments: &Umount) -> ExitCode {
    let registry = Registry::host();
    let found = guard::find(&registry, &arguments.what);
    let what = render::shown(&arguments.what);
    if let Some((_, record)) = &found
        && let Some(lost) = &record.lost
        && !arguments.although_lost
    {
        let earlier = guard::earlier_loss(&record.device, lost);
        output::complain(&format!(
            "{what}: not unmounted: {earlier}\n  {RUNBOOK}\n  once the device is cut off: `mmp umount --although-lost {what}`"
        ));
        return ExitCode::from(exit::LOST);
    }
    // By directory, if that is known: a device may be mounted in several places, and this is the guarded one.
    let target = match &found {
        Some((_, Record { dir: Some(dir), .. })) => dir.clone(),
        _ => arguments.what.clone(),
    };
    let mut command = Command::new("umount");
    if arguments.lazy {
        command.arg("-l");
    }
    match command.arg(&target).status() {
        Ok(status) if status.success() => {}
        Ok(_) => return ExitCode::from(exit::IO), // it said why
        Err(error) => {
            output::complain(&format!("cannot run umount(8): {error}"));
            return ExitCode::from(exit::IO);
        }
    }
    match found {
        None => {
            if !arguments.quiet {
                output::complain(&format!("{what}: unmounted; it was not guarded"));
            }
            ExitCode::from(exit::DONE)
        }
        Some((slot, record)) if record.lost.is_some() => {
            slot.clear();
            ExitCode::from(exit::DONE)
        }
        Some((slot, record)) => wait(arguments, &slot, &record),
    }
}

fn wait(arguments: &Umount, slot: &Slot, guarded: &Record) -> ExitCode {
    let what = render::shown(&guarded.device);
    let until = clock::mono() + arguments.wait;
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
            Some(_) if !slot.is_locked() => {
                slot.clear();
                output::complain(&format!(
                    "{what}: unmounted, but its guard had died: the kernel marked it clean, or the next host waits"
                ));
                return ExitCode::from(exit::DONE);
            }
            Some(record) if clock::mono() >= until => {
                let why = match (record.phase, record.notes.last()) {
                    (Phase::Releasing, Some(note)) => note.clone(),
                    _ => "something on this host still uses it (an open file of a lazily unmounted filesystem, another \
                          mount namespace)"
                        .to_owned(),
                };
                output::complain(&format!(
                    "{what}: unmounted here, and still guarded: {why}; it is released when that ends"
                ));
                return ExitCode::from(exit::IN_USE);
            }
            Some(_) => clock::sleep(PERIOD),
        }
    }
}
