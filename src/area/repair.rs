//! Repairing an area: a header that does not decode or was left behind, and slots whose two blocks do not say the same.
//!
//! Protects: all of it under the lock, but the lock's own block if that has lost its magic, since nobody can claim it then. A slot that
//! looks held is left alone; a damaged slot block has to stand still for two waits first, as for a claim. A header is searched for only by who was told to, and only one is believed that stands where an area of
//! that many slots would be, on a target of the present size.

use super::create::free_block;
use super::lock::{AreaLock, Asking};
use crate::clock;
use crate::driver::{AreaView, SlotView};
use crate::error::Error;
use crate::format::Image;
use crate::format::area::record::GENERATIONS_A_SECOND;
use crate::format::area::{
    AreaLayout, EntryState, HeaderRole, LOCK_NAME, LOCK_SLOT, Repair, SLOTS_MAX, SLOTS_MIN, SlotBlock,
    SlotEntry, SlotName, whole_block,
};
use crate::io::{BlockWriter, Device};
use crate::protocol::timing::CheckInterval;

/// How often a signal is asked for while nothing but time passes.
const STEP: std::time::Duration = std::time::Duration::from_millis(100);

/// What a repair came to.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Repaired {
    /// The header that was written anew.
    pub header: Option<Repair>,
    /// Slots whose blocks agree again.
    pub slots: Vec<u32>,
    /// Slots that need it, and look held: their holders have to stop first.
    pub held: Vec<u32>,
    /// How many slots had their generations raised.
    pub raised: u32,
}

/// Repairs what needs it. `raise`: the target was taken back to an earlier state (a snapshot's): every slot goes on with generations
/// that no holder can have had since.
///
/// # Errors
/// As [`AreaLock::take`].
pub fn repair(view: &AreaView, raise: bool, asking: Asking<'_>) -> Result<Repaired, Error> {
    let mut repaired = Repaired::default();
    if restore_lock(view, asking)? {
        repaired.slots.push(LOCK_SLOT);
    }
    let mut lock = AreaLock::take(view, asking)?;
    if let Some(needed) = lock.view.repair {
        lock.repair_header(needed.role)?;
        repaired.header = Some(needed);
    }
    let mut wrong = Vec::new();
    let mut all = Vec::new();
    lock.view.each_slot(|slot| {
        if slot.needs_repair() {
            wrong.push(slot);
        } else if raise && !slot.is_live_or_unclean() {
            all.push(slot);
        } else if raise && slot.number != LOCK_SLOT {
            repaired.held.push(slot.number);
        }
    })?;
    wait_for_damaged(&lock, &mut wrong, asking)?;
    for slot in wrong {
        // It took two waits: somebody may have claimed it, or repaired it himself.
        let slot = lock.view.read_slot(slot.number)?;
        match slot.block {
            _ if !slot.needs_repair() => {}
            Ok(_) if slot.is_live_or_unclean() => repaired.held.push(slot.number),
            _ => {
                mend(&mut lock, &slot)?;
                repaired.slots.push(slot.number);
            }
        }
    }
    for slot in all {
        let slot = lock.view.read_slot(slot.number)?;
        if slot.is_live_or_unclean() && slot.number != LOCK_SLOT {
            repaired.held.push(slot.number);
        } else if let Ok(entry) = slot.entry {
            let high_water = entry.high_water.max(floor());
            lock.write_entry(&SlotEntry { high_water, changed_s: clock::wall().0, ..entry })?;
            repaired.raised += 1;
        }
    }
    lock.release()?;
    Ok(repaired)
}

/// Looks for the header of an area from which the one it is found from was lost: a tail area's first block, or the copy of any other.
/// Only for who was told to repair it.
///
/// # Errors
/// [`Error::Unprotected`] if there is none; [`Error::Io`].
pub fn find_lost_header(device: &Device, slots: Option<u32>) -> Result<AreaView, Error> {
    let range =
        slots.map_or(SLOTS_MIN..=SLOTS_MAX, |slots| slots.saturating_add(1)..=slots.saturating_add(1));
    for slots in range {
        let (tail, front) = (AreaLayout::tail(device.size_bytes(), slots), AreaLayout::new(0, slots));
        let Ok(tail) = tail else { break };
        let places = [
            (HeaderRole::Header, tail.header_offset_bytes()),
            (HeaderRole::Copy, front.map_or(0, |front| front.copy_offset_bytes())),
        ];
        for (role, at) in places {
            if let Some(view) = AreaView::at(device, role, at)?
                && view.header.slots == slots
                && view.unusable.is_none()
            {
                return Ok(view);
            }
        }
    }
    let what = "there is no header of an area where one could be".to_owned();
    Err(Error::Unprotected { path: device.path().to_owned(), what })
}

/// A damaged block that stands still for two waits is nobody's.
fn wait_for_damaged(lock: &AreaLock, wrong: &mut Vec<SlotView>, asking: Asking<'_>) -> Result<(), Error> {
    let damaged: Vec<u32> = wrong.iter().filter(|slot| slot.block.is_err()).map(|slot| slot.number).collect();
    if damaged.is_empty() {
        return Ok(());
    }
    let before = damaged.iter().map(|&slot| lock.slot_image(slot)).collect::<Result<Vec<_>, _>>()?;
    two_waits(&lock.view, asking)?;
    for (&number, before) in damaged.iter().zip(before) {
        if lock.slot_image(number)? != before {
            wrong.retain(|slot| slot.number != number);
        }
    }
    Ok(())
}

fn two_waits(view: &AreaView, asking: Asking<'_>) -> Result<(), Error> {
    let until = clock::mono() + CheckInterval::Area(view.header.interval_ms).wait() * 2;
    while clock::mono() < until {
        if (asking.observe)(view.device.path(), None).is_break() {
            return Err(Error::Interrupted);
        }
        clock::sleep(STEP.min(until.since(clock::mono())));
    }
    Ok(())
}

/// Writes the lock's block anew, by its entry, if it has lost its magic and stands still for two waits. True if that was needed.
///
/// Without a lock: whoever else repairs writes the same. The mark has the last generation that was given away, so if it lands late,
/// over somebody who has claimed since, he beats over it, and nobody else believes it.
fn restore_lock(view: &AreaView, asking: Asking<'_>) -> Result<bool, Error> {
    view.check_usable()?;
    view.device.check_writable()?;
    let slot = view.read_slot(LOCK_SLOT)?;
    let (true, Ok(entry)) = (slot.needs_repair() && slot.block.is_err(), slot.entry) else {
        return Ok(false);
    };
    let at = view.layout.slot_offset_bytes(LOCK_SLOT).unwrap_or_default();
    let (mut before, mut after): (Image, Image) = ([0; _], [0; _]);
    view.device.read_at(at, &mut before)?;
    two_waits(view, asking)?;
    view.device.read_at(at, &mut after)?;
    if before != after {
        return Ok(false);
    }
    let mut image: Image = [0; _];
    let block = free_block(&view.header, LOCK_SLOT, entry.name, entry.target, entry.high_water);
    block.encode_into(&mut image, view.header.seed());
    BlockWriter::open(&view.device)?.write(at, &whole_block(&image))?;
    Ok(true)
}

/// Makes both blocks of a slot say the same: what the slot block says; if that is damaged, what the entry says; if that is, too, the slot
/// is free. Where the slot block told no generation, a late write may have set back what the entry tells, so the time counts, as in a
/// claim.
fn mend(lock: &mut AreaLock, slot: &SlotView) -> Result<(), Error> {
    let header = lock.view.header;
    let number = slot.number;
    let known = slot.entry.as_ref().map_or(floor(), |entry| entry.high_water);
    let (generation, name, target) = match (&slot.block, &slot.entry) {
        (Ok(SlotBlock { record, .. }), _) => (record.generation, record.name, record.target),
        (Err(_), Ok(entry)) if entry.state == EntryState::Used => (floor(), entry.name, entry.target),
        (Err(_), _) if number == LOCK_SLOT => (floor(), SlotName::new(LOCK_NAME), [0; 16]),
        (Err(_), _) => (floor(), SlotName::new(""), [0; 16]),
    };
    let high_water = known.max(generation);
    let state = if name.is_empty() { EntryState::Free } else { EntryState::Used };
    let (changed_s, area) = (clock::wall().0, header.uuid);
    lock.write_entry(&SlotEntry { slot: number, state, high_water, target, name, changed_s, area })?;
    if slot.block.is_err() {
        return lock.write_slot(&[0; _], &free_block(&header, number, name, target, high_water));
    }
    Ok(())
}

/// Generations from here on are of this second or later.
fn floor() -> u64 {
    clock::wall().0.saturating_mul(GENERATIONS_A_SECOND)
}
