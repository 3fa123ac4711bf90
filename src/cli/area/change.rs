//! Changes under the lock.

use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Mutex;

use super::super::interrupt::Interrupt;
use super::super::output;
use super::super::progress::{self, Progress};
use super::args::{Add, Change, Locking, Move, Remove, Rename, Repair};
use crate::area::{self, AreaLock, Asking};
use crate::driver::{AreaView, Selector};
use crate::error::Error;
use crate::format::area::SlotName;
use crate::io::Device;
use crate::protocol::Event;
use crate::sys::content;

pub(super) fn add(arguments: &Add) -> Result<(), Error> {
    let target = match (&arguments.device, arguments.uuid) {
        (Some(device), _) => uuid_on(device)?,
        (None, Some(uuid)) => uuid.0,
        (None, None) => [0; 16],
    };
    let number = add_slot(&arguments.change.target, &arguments.change.locking, arguments.name, target)?;
    say(&arguments.change, &format!("slot {number} is \"{}\" now", arguments.name));
    Ok(())
}

/// Adds a slot; gives its number.
pub(super) fn add_slot(
    target: &Path,
    locking: &Locking,
    name: SlotName,
    uuid: [u8; 16],
) -> Result<u32, Error> {
    let view = found(target)?;
    changing(locking, |asking| {
        let mut lock = AreaLock::take(&view, asking)?;
        let result = area::add(&mut lock, name, uuid);
        release(lock, result)
    })
}

pub(super) fn remove(arguments: &Remove) -> Result<(), Error> {
    // Also in an area that has to be moved, and has too many slots for that.
    let view = area::find_moved(&Device::inspect(&arguments.change.target)?, None)?;
    let selector = Selector::parse(arguments.slot.as_bytes())?;
    view.slot(&selector)?;
    changing(&arguments.change.locking, |asking| {
        let mut lock = match view.unusable {
            None => AreaLock::take(&view, asking)?,
            Some(_) => AreaLock::take_moved(&view, asking)?,
        };
        let slot = lock.view.slot(&selector);
        let result = slot.and_then(|slot| area::remove(&mut lock, slot, asking));
        release(lock, result)
    })?;
    say(&arguments.change, &format!("slot {selector} is free"));
    Ok(())
}

pub(super) fn rename(arguments: &Rename) -> Result<(), Error> {
    let view = found(&arguments.change.target)?;
    let selector = Selector::parse(arguments.slot.as_bytes())?;
    view.slot(&selector)?;
    changing(&arguments.change.locking, |asking| {
        let mut lock = AreaLock::take(&view, asking)?;
        let slot = lock.view.slot(&selector);
        let result = slot.and_then(|slot| area::rename(&mut lock, slot, arguments.name, asking));
        release(lock, result)
    })?;
    say(&arguments.change, &format!("slot {selector} is \"{}\" now", arguments.name));
    Ok(())
}

pub(super) fn relocate(arguments: &Move) -> Result<(), Error> {
    let device = Device::inspect(&arguments.change.target)?;
    let view = area::find_moved(&device, arguments.was)?;
    let moved = changing(&arguments.change.locking, |asking| area::relocate(&view, asking))?;
    say(
        &arguments.change,
        if moved { "the area is where it belongs now" } else { "the area is where it belongs" },
    );
    Ok(())
}

pub(super) fn destroy(arguments: &Change) -> Result<(), Error> {
    let view = area::find_moved(&Device::inspect(&arguments.target)?, None)?;
    changing(&arguments.locking, |asking| area::destroy(&view, asking))?;
    say(arguments, "there is no area any more");
    Ok(())
}

pub(super) fn repair(arguments: &Repair) -> Result<(), Error> {
    let device = Device::inspect(&arguments.change.target)?;
    let view = match AreaView::find(&device) {
        Ok(Some(view)) => view,
        Ok(None) => area::find_lost_header(&device, arguments.slots)?,
        Err(Error::Area { source, .. }) if source.is_damage() => {
            area::find_lost_header(&device, arguments.slots)?
        }
        Err(error) => return Err(error),
    };
    let repaired =
        changing(&arguments.change.locking, |asking| area::repair(&view, arguments.rolled_back, asking))?;
    let numbers = |slots: &[u32]| slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(header) = repaired.header {
        say(&arguments.change, &format!("the {} was written anew", header.role.name()));
    }
    if !repaired.slots.is_empty() {
        say(&arguments.change, &format!("repaired: slots {}", numbers(&repaired.slots)));
    }
    if arguments.rolled_back {
        say(&arguments.change, &format!("generations raised: {} slots", repaired.raised));
    }
    if !repaired.held.is_empty() {
        let what = format!(
            "these slots are in use, or their holders died: {}; stop whoever holds them, or claim and release them once, and try again",
            numbers(&repaired.held)
        );
        return Err(Error::Unsupported { path: arguments.change.target.clone(), what });
    }
    if repaired.header.is_none() && repaired.slots.is_empty() && !arguments.rolled_back {
        say(&arguments.change, "nothing needed a repair");
    }
    Ok(())
}

/// The area on a device; there has to be one.
pub(super) fn found(target: &Path) -> Result<AreaView, Error> {
    AreaView::find(&Device::inspect(target)?)?.ok_or_else(|| {
        let what = "there is no area; `mmp area create` makes one".to_owned();
        Error::Unprotected { path: target.to_owned(), what }
    })
}

/// The UUID of the filesystem on a device.
pub(super) fn uuid_on(device: &Path) -> Result<[u8; 16], Error> {
    let standing = content::filesystems(&Device::inspect(device)?)?;
    standing.first().map(|standing| standing.uuid).ok_or_else(|| {
        let what = "no filesystem with a UUID stands on it; give one with --uuid, or none".to_owned();
        Error::Unsupported { path: device.to_owned(), what }
    })
}

/// Runs a change, with its progress told, until it is interrupted.
pub(in crate::cli) fn changing<T>(
    locking: &Locking,
    change: impl FnOnce(Asking<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let interrupt = Interrupt::listen()?;
    let progress = Mutex::new(Progress::new(locking.quiet));
    let observe = |slot: &Path, event: Option<&Event>| {
        if let Ok(mut progress) = progress.lock() {
            match event {
                Some(event) => progress.show(&progress::told(event).about(slot)),
                None => progress.tick(),
            }
        }
        if interrupt.came() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let asking =
        Asking { node: locking.node.as_deref(), wait: locking.wait.unwrap_or_default(), observe: &observe };
    let result = change(asking);
    if let Ok(mut progress) = progress.lock() {
        progress.clear();
    }
    result
}

/// The lock is given back whatever came of the change; what went wrong first is told.
fn release<T>(lock: AreaLock, result: Result<T, Error>) -> Result<T, Error> {
    let released = lock.release();
    let value = result?;
    released.map(|()| value)
}

fn say(change: &Change, what: &str) {
    output::tell(&change.target, change.locking.quiet, what);
}
