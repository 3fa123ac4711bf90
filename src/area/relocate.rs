//! Moving an area whose target has another size than before, and taking one away.
//!
//! Protects: lock and every used slot are held where the area was, the only place where another host may still look for it; the new
//! place must not overlap the old one. Before the new headers are written the new one is put where the old copy was: what a host that still
//! sees the old size finds there says that the area is elsewhere, and it refuses, from then on for good. Whatever a move is broken off
//! in, there is one place that can be claimed, or none until `mmp area move` has ended it.

use super::create::{SEARCHED_BYTES, free_block, headers, unused_here};
use super::lock::{AreaLock, Asking};
use crate::clock;
use crate::driver::{AreaView, Held, SlotView};
use crate::error::Error;
use crate::format::area::{
    AreaError, AreaHeader, AreaLayout, AreaPlace, HeaderRole, LOCK_SLOT, SlotBlock, SlotState,
    last_block_offset_bytes, whole_block,
};
use crate::format::{Image, MMP_STRUCT_BYTES};
use crate::io::Device;
use crate::sys::content;

/// Looks for the area of a target that was grown: where it was with `was_bytes`, or else behind what stands there. Only for who was
/// told to move it.
///
/// # Errors
/// [`Error::Unprotected`] if there is none; [`Error::Io`].
pub fn find_moved(device: &Device, was_bytes: Option<u64>) -> Result<AreaView, Error> {
    if let Some(view) = AreaView::find(device)? {
        return Ok(view);
    }
    let found = match was_bytes {
        Some(was_bytes) => at_the_end_of(device, was_bytes)?,
        None => AreaView::search(device, SEARCHED_BYTES)?.found,
    };
    found.ok_or_else(|| {
        let what = "there is no area on it, nor one that was made for a smaller size; if that size is known, say it with --was BYTES"
            .to_owned();
        Error::Unprotected { path: device.path().to_owned(), what }
    })
}

/// Moves the area to where one of its target's present size belongs. Nothing is done if it is there.
///
/// # Errors
/// [`Error::Unsupported`] if there is no room, or the new place would overlap the old one; as [`AreaLock::take`] and
/// [`AreaLock::claim_slots`].
pub fn relocate(view: &AreaView, asking: Asking<'_>) -> Result<bool, Error> {
    let size_bytes = view.device.size_bytes();
    if view.header.target_bytes == size_bytes && view.unusable.is_none() {
        return Ok(false);
    }
    new_header(view)?;
    let exclusive = unused_here(&view.device)?;
    let mut lock = AreaLock::take_moved(view, asking)?;
    let held = hold_all(&lock, asking)?;
    // Both took waits: what stands there may have been grown, and the device, too.
    let header = match look_again(&lock.view, size_bytes) {
        Ok(header) => header,
        Err(error) => {
            release_all(held)?;
            return Err(error);
        }
    };
    wipe_left_behind(&mut lock)?;
    if header.offset_bytes == view.header.offset_bytes {
        lock.write_headers(&header)?;
        release_all(held)?;
        lock.release()?;
        return Ok(true);
    }
    copy_slots(&mut lock, &header, &held, asking)?;
    // From here on a host that still sees the old size finds, in what is the last block to it, an area that is elsewhere, and refuses;
    // as long as the new headers do not stand, a mover finds that and the old header.
    let old = lock.view.layout;
    let base = lock.header_image()?;
    let both = headers(&header, &base).map_err(|source| area_error(&view.device, source))?;
    let [_, (_, copy)] = both;
    lock.write(old.copy_offset_bytes(), &copy)?;
    for (at, image) in both {
        lock.write(at, &image)?;
    }
    lock.write(old.header_offset_bytes(), &[0; MMP_STRUCT_BYTES])?;
    // Nobody looks there any more: what we beat there ends as it is.
    drop((held, lock, exclusive));
    Ok(true)
}

/// Takes the area away, when nobody uses any of its slots.
///
/// # Errors
/// As [`AreaLock::take`] and [`AreaLock::claim_slots`].
pub fn destroy(view: &AreaView, asking: Asking<'_>) -> Result<(), Error> {
    let mut lock = AreaLock::take_moved(view, asking)?;
    let held = hold_all(&lock, asking)?;
    wipe_headers(&mut lock)?;
    drop((held, lock));
    // A generation is seeded from the time: an area that is made here next begins in a later second.
    clock::sleep(std::time::Duration::from_secs(1));
    Ok(())
}

/// A move that was broken off after its new headers stood has left the old block 0: a later one must not begin from that.
fn wipe_left_behind(lock: &mut AreaLock) -> Result<(), Error> {
    // Others begin at byte 0, and leave nothing behind.
    if lock.view.header.place != AreaPlace::Tail {
        return Ok(());
    }
    let own = lock.view.layout.header_offset_bytes();
    for at in AreaView::blocks_0(&lock.view.device, &lock.view.header.uuid, SEARCHED_BYTES)? {
        if at != own {
            lock.write(at, &[0; MMP_STRUCT_BYTES])?;
        }
    }
    Ok(())
}

/// The area of when the target had that many bytes: by its copy, or, if that tells of another place, by its block 0.
fn at_the_end_of(device: &Device, was_bytes: u64) -> Result<Option<AreaView>, Error> {
    let Some(last) = last_block_offset_bytes(was_bytes) else { return Ok(None) };
    if let Some(found) = AreaView::at(device, HeaderRole::Copy, last)? {
        return Ok(Some(found));
    }
    let mut copy: Image = [0; MMP_STRUCT_BYTES];
    device.read_at(last, &mut copy)?;
    let Ok(header) = AreaHeader::decode(&copy, HeaderRole::Copy) else { return Ok(None) };
    let Ok(layout) = AreaLayout::tail(was_bytes, header.slots) else { return Ok(None) };
    AreaView::at(device, HeaderRole::Header, layout.header_offset_bytes())
}

fn look_again(view: &AreaView, size_bytes: u64) -> Result<AreaHeader, Error> {
    if view.device.size_now_bytes()? != size_bytes {
        return Err(changed(&view.device, "it was grown again"));
    }
    new_header(view)
}

fn hold_all(lock: &AreaLock, asking: Asking<'_>) -> Result<Vec<Held>, Error> {
    let mut used: Vec<SlotView> = Vec::new();
    let mut damaged = None;
    lock.view.each_slot(|slot| match slot.identity() {
        Ok(None) => {}
        Ok(Some(_)) if slot.number == LOCK_SLOT => {}
        Ok(Some(_)) => used.push(slot),
        Err(error) => damaged = Some(error),
    })?;
    match damaged {
        Some(source) => Err(area_error(&lock.view.device, source)),
        None => lock.claim_slots(used, asking),
    }
}

fn release_all(held: Vec<Held>) -> Result<(), Error> {
    held.into_iter().try_for_each(|mut held| held.release().map(drop))
}

/// Where it belongs with the target's present size.
fn new_header(view: &AreaView) -> Result<AreaHeader, Error> {
    let refuse = |what: String| Err(Error::Unsupported { path: view.device.path().to_owned(), what });
    let (header, size_bytes) = (view.header, view.device.size_bytes());
    let layout = match header.place {
        AreaPlace::Tail => AreaLayout::tail(size_bytes, header.slots),
        AreaPlace::Whole | AreaPlace::File => AreaLayout::new(0, header.slots),
    };
    let layout = match layout {
        Ok(layout) if layout.end_bytes() <= size_bytes => layout,
        Ok(_) => return refuse(format!("it has {size_bytes} bytes by now, too few for the area")),
        Err(error) => return refuse(error.to_string()),
    };
    let (new, old) = (layout.header_offset_bytes(), view.layout.header_offset_bytes());
    if new != old && new < view.layout.end_bytes() && old < layout.end_bytes() {
        let more = view.layout.end_bytes() - new;
        return refuse(format!(
            "the area would overlap its old place: grow the target by {more} bytes more, and try again"
        ));
    }
    let mut content_end_bytes = 0;
    if header.place == AreaPlace::Tail {
        content_end_bytes = content::end_bytes(&view.device)?.unwrap_or(header.content_end_bytes);
        if content_end_bytes > new {
            return refuse(format!(
                "what stands there reaches to byte {content_end_bytes} by now, and the area would begin at byte {new}"
            ));
        }
    }
    let Some(revision) = header.revision.checked_add(1) else {
        return refuse(
            "its header has the greatest revision there is: no later one can be written".to_owned(),
        );
    };
    Ok(AreaHeader { offset_bytes: new, target_bytes: size_bytes, content_end_bytes, revision, ..header })
}

fn changed(device: &Device, what: &str) -> Error {
    Error::Unsupported { path: device.path().to_owned(), what: format!("{what} meanwhile; try again") }
}

fn area_error(device: &Device, source: AreaError) -> Error {
    Error::Area { path: device.path().to_owned(), source }
}

/// Every block as it stands, but those that we hold: released, with what we drew.
fn copy_slots(
    lock: &mut AreaLock,
    header: &AreaHeader,
    held: &[Held],
    asking: Asking<'_>,
) -> Result<(), Error> {
    let layout = header.check().map_err(|damage| area_error(&lock.view.device, damage.into()))?;
    let ours: Vec<(u32, u64)> =
        held.iter().filter_map(|held| Some((held.place().slot()?.1.number, held.generation()?))).collect();
    for slot in 0..header.slots {
        if (asking.observe)(lock.view.device.path(), None).is_break() {
            return Err(Error::Interrupted);
        }
        let mut block = lock.slot_image(slot)?;
        let decoded = SlotBlock::decode(&block, header.seed(), slot);
        if let Ok(found) = decoded
            && !matches!(found.record.state, SlotState::Free | SlotState::Released)
        {
            let drawn = ours.iter().find(|(number, _)| *number == slot);
            let generation = drawn.map_or(found.record.generation, |(_, generation)| *generation);
            let (name, target) = (found.record.name, found.record.target);
            free_block(header, slot, name, target, generation).encode_into(&mut block, header.seed());
        }
        let mut entry: Image = [0; MMP_STRUCT_BYTES];
        lock.view
            .device
            .read_at(lock.view.layout.entry_offset_bytes(slot).unwrap_or_default(), &mut entry)?;
        lock.write(layout.slot_offset_bytes(slot).unwrap_or_default(), &block)?;
        lock.write(layout.entry_offset_bytes(slot).unwrap_or_default(), &entry)?;
    }
    Ok(())
}

/// Zeroes over the headers where the area was; the one from which it was found last.
fn wipe_headers(lock: &mut AreaLock) -> Result<(), Error> {
    let layout = lock.view.layout;
    let (header, copy) = (layout.header_offset_bytes(), layout.copy_offset_bytes());
    let order = if lock.view.header.place == AreaPlace::Tail { [header, copy] } else { [copy, header] };
    order.into_iter().try_for_each(|at| lock.write_blocks(at, &whole_block(&[0; MMP_STRUCT_BYTES])))
}
