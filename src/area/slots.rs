//! Adding, removing and renaming slots.
//!
//! Protects: all of it under the lock; a slot that is removed or renamed is held first, so nobody uses it, and nobody can claim it
//! once its entry says otherwise (a claimer draws his generation there). A name stands for one slot.

use super::create::free_block;
use super::lock::{AreaLock, Asking};
use crate::clock;
use crate::driver::{Held, SlotView};
use crate::error::Error;
use crate::format::area::{EntryState, LOCK_SLOT, SlotBlock, SlotEntry, SlotName, SlotState};

/// Gives the first free slot this name and target; gives its number.
///
/// # Errors
/// [`Error::Argument`] if the name is taken, [`Error::Unsupported`] if no slot is free; as [`AreaLock::write`].
pub fn add(lock: &mut AreaLock, name: SlotName, target: [u8; 16]) -> Result<u32, Error> {
    let free = free_slot(lock, name, target)?;
    let generation = free.block.as_ref().map_or(0, |block| block.record.generation);
    let high_water = free.entry.as_ref().map_or(generation, |entry| entry.high_water.max(generation));
    let base = lock.slot_image(free.number)?;
    let header = lock.view.header;
    lock.write_slot(&base, &free_block(&header, free.number, name, target, generation))?;
    lock.write_entry(&SlotEntry {
        slot: free.number,
        state: EntryState::Used,
        high_water,
        target,
        name,
        changed_s: clock::wall().0,
        area: header.uuid,
    })?;
    Ok(free.number)
}

/// Takes the name of a slot away; it is free then. What generations it gave away stays known.
///
/// # Errors
/// [`Error::Argument`] if it is the lock, or not in use; as [`AreaLock::claim_slots`] if it is held.
pub fn remove(lock: &mut AreaLock, slot: SlotView, asking: Asking<'_>) -> Result<(), Error> {
    let number = slot.number;
    let held = hold(lock, slot, asking)?;
    let before = entry(lock, number)?;
    let empty = SlotName::new("");
    lock.write_entry(&SlotEntry {
        state: EntryState::Free,
        target: [0; 16],
        name: empty,
        changed_s: clock::wall().0,
        ..before
    })?;
    let generation = give_back(held)?.unwrap_or(before.high_water);
    let (base, header) = (lock.slot_image(number)?, lock.view.header);
    lock.write_slot(&base, &free_block(&header, number, empty, [0; 16], generation))
}

/// Gives a slot another name.
///
/// # Errors
/// As [`remove`]; [`Error::Argument`] if another slot has the name.
pub fn rename(lock: &mut AreaLock, slot: SlotView, name: SlotName, asking: Asking<'_>) -> Result<(), Error> {
    let number = slot.number;
    check_name(lock, name, number)?;
    let held = hold(lock, slot, asking)?;
    let before = entry(lock, number)?;
    lock.write_entry(&SlotEntry { name, changed_s: clock::wall().0, ..before })?;
    give_back(held)?;
    let base = lock.slot_image(number)?;
    let found = SlotBlock::decode(&base, lock.view.header.seed(), number)
        .map_err(|source| Error::Area { path: lock.view.device.path().to_owned(), source })?;
    if found.record.state != SlotState::Released {
        return Err(changed(lock, number));
    }
    let record = crate::format::area::GuardRecord { name, ..found.record };
    lock.write_slot(&base, &SlotBlock { record, ..found })
}

/// Holds it, so that nobody else does.
fn hold(lock: &AreaLock, slot: SlotView, asking: Asking<'_>) -> Result<Held, Error> {
    let shown = lock.view.device.path().display();
    if slot.number == LOCK_SLOT {
        return Err(Error::Argument(format!("{shown}: slot 0 is the lock, and stays what it is")));
    }
    if matches!(slot.identity(), Ok(None)) {
        return Err(Error::Argument(format!("{shown}: slot {} is not in use", slot.number)));
    }
    let number = slot.number;
    lock.claim_slots(vec![slot], asking)?.pop().ok_or_else(|| changed(lock, number))
}

fn give_back(mut held: Held) -> Result<Option<u64>, Error> {
    let generation = held.generation();
    held.release().map(|_| generation)
}

/// A slot's entry as it stands; a claim has just written it.
fn entry(lock: &AreaLock, number: u32) -> Result<SlotEntry, Error> {
    let path = || lock.view.device.path().to_owned();
    lock.view.read_slot(number)?.entry.map_err(|source| Error::Area { path: path(), source })
}

fn free_slot(lock: &AreaLock, name: SlotName, target: [u8; 16]) -> Result<SlotView, Error> {
    let (mut free, mut taken, mut guarding) = (None, None, None);
    lock.view.each_slot(|slot| {
        if has_name(&slot, name) {
            taken = Some(slot.number);
        }
        // One device under two slots is not protected.
        if target != [0; 16] && matches!(slot.identity(), Ok(Some((_, guarded))) if guarded == target) {
            guarding = Some(slot.number);
        }
        let is_free = matches!(slot.identity(), Ok(None)) && !slot.needs_repair();
        if free.is_none() && slot.number != LOCK_SLOT && is_free {
            free = Some(slot);
        }
    })?;
    refuse_taken(lock, name, taken)?;
    if let Some(number) = guarding {
        let shown = lock.view.device.path().display();
        let what = format!(
            "{shown}: slot {number} guards that UUID already; two slots for one thing would protect nothing"
        );
        return Err(Error::Argument(what));
    }
    free.ok_or_else(|| {
        let what = format!("all of its {} slots are in use, or damaged", lock.view.header.slots - 1);
        Error::Unsupported { path: lock.view.device.path().to_owned(), what }
    })
}

/// No other slot has the name.
fn check_name(lock: &AreaLock, name: SlotName, except: u32) -> Result<(), Error> {
    let mut taken = None;
    lock.view.each_slot(|slot| {
        if slot.number != except && has_name(&slot, name) {
            taken = Some(slot.number);
        }
    })?;
    refuse_taken(lock, name, taken)
}

/// By its block or by its entry.
fn has_name(slot: &SlotView, name: SlotName) -> bool {
    let by_entry =
        slot.entry.as_ref().is_ok_and(|entry| entry.state == EntryState::Used && entry.name == name);
    by_entry || matches!(slot.identity(), Ok(Some((called, _))) if called == name)
}

fn refuse_taken(lock: &AreaLock, name: SlotName, taken: Option<u32>) -> Result<(), Error> {
    match taken {
        None => Ok(()),
        Some(number) => Err(Error::Argument(format!(
            "{}: slot {number} is called \"{name}\" already",
            lock.view.device.path().display()
        ))),
    }
}

fn changed(lock: &AreaLock, number: u32) -> Error {
    let what = format!("slot {number} was changed by somebody else while it was ours; see `mmp area repair`");
    Error::Unsupported { path: lock.view.device.path().to_owned(), what }
}
