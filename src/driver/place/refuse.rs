//! What is refused before anything is claimed: a device without protection, or with more than one, and a slot that is another's.
//!
//! Protects: all hosts that use a device go by the same block. Does not protect from a host that is told of another area.

use std::path::Path;

use super::{AreaView, OWN_SLOT, SlotView, native};
use crate::error::Error;
use crate::format::Image;
use crate::format::SuperblockError;
use crate::format::area::{AreaPlace, Hex};
use crate::io::Device;
use crate::protocol::timing::CheckInterval;
use crate::sys::content;

/// So far it is looked for an area that was left behind, where there is none.
const GLANCE_BYTES: u64 = 64 << 20;
/// How often a slot is looked at that nobody should beat any more.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// The area that somebody was told of: without it nothing goes on.
pub(super) fn find_area(device: &Device) -> Result<AreaView, Error> {
    if let Some(area) = AreaView::find(device)? {
        return Ok(area);
    }
    let path = device.path().to_owned();
    Err(match glance(device) {
        Some(left) => Error::Unsupported { path, what: left.left_behind() },
        None => Error::Unprotected { path, what: "there is no area".to_owned() },
    })
}

/// A tail area that can be claimed stands on it.
pub(super) fn has_tail(device: &Device) -> Result<bool, Error> {
    let tail = AreaView::find(device)?.filter(|found| found.header.place == AreaPlace::Tail);
    Ok(tail.is_some_and(|found| found.unusable.is_none()))
}

/// An area that was left behind, if one is found at a glance.
fn glance(device: &Device) -> Option<AreaView> {
    AreaView::search(device, GLANCE_BYTES).ok()?.found
}

/// A filesystem was grown over the area, so no host claims anything there any more; and nobody held it then, or he has noticed.
fn is_given_up(area: &AreaView) -> Result<bool, Error> {
    if area.content_reaches_in()?.is_none() {
        return Ok(false);
    }
    let at = area.layout.slot_offset_bytes(OWN_SLOT).unwrap_or_default();
    let mut before: Image = [0; _];
    area.device.read_at(at, &mut before)?;
    if !area.read_slot(OWN_SLOT)?.is_live_or_unclean() {
        return Ok(true);
    }
    // Nobody will release it: who held it was stopped, or will have been by then.
    let until = crate::clock::mono() + CheckInterval::Area(area.header.interval_ms).wait() * 2;
    while crate::clock::mono() < until {
        crate::clock::sleep(LOOK);
        let mut now: Image = [0; _];
        area.device.read_at(at, &mut now)?;
        if now != before {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same of a device: true if its area is given up.
///
/// # Errors
/// As [`AreaView::find`].
pub(crate) fn check_given_up(device: &Device) -> Result<bool, Error> {
    AreaView::find(device)?.map_or(Ok(false), |area| is_given_up(&area))
}

/// There is nothing of ext4's MMP, as far as its superblock goes.
pub(crate) fn has_no_mmp(error: &Error) -> bool {
    match error {
        Error::Superblock { source, .. } => {
            !source.is_damage() && !matches!(source, SuperblockError::ChecksumType { .. })
        }
        Error::Short { .. } => true,
        _ => false,
    }
}

/// Whoever is not told of the area goes by the filesystem's own MMP: what is protected twice is not protected.
pub(super) fn check_no_mmp(asked: &Path, device: &Device) -> Result<(), Error> {
    match native(asked, device, None) {
        Ok(_) => {
            let what = "its filesystem has MMP of its own, and that is what every host goes by; name the device alone".to_owned();
            Err(Error::Unsupported { path: asked.to_owned(), what })
        }
        Err(error) if has_no_mmp(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The same, of an area behind what stands on it.
pub(super) fn check_no_tail(asked: &Path, device: &Device) -> Result<(), Error> {
    match AreaView::find(device)? {
        None => match AreaView::search(device, GLANCE_BYTES)?.found {
            None => Ok(()),
            Some(left) => Err(Error::Unsupported { path: asked.to_owned(), what: left.left_behind() }),
        },
        Some(found) if found.header.place == AreaPlace::Tail && is_given_up(&found)? => Ok(()),
        Some(found) if found.header.place == AreaPlace::Tail => {
            let what = "an area stands behind what it holds, and that is what every host goes by that is not told otherwise; name the \
                        device alone, or take that area away (`mmp area destroy`)"
                .to_owned();
            Err(Error::Unsupported { path: asked.to_owned(), what })
        }
        _ => Ok(()),
    }
}

/// Neither an MMP block nor an area. `error` says what is wrong with the first; what is worse than its absence stays.
pub(super) fn unprotected(device: &Device, error: Error) -> Error {
    if let Some(left) = glance(device) {
        return Error::Unsupported { path: device.path().to_owned(), what: left.left_behind() };
    }
    let Error::Superblock { source: SuperblockError::NoSuperblock { .. }, path } = error else {
        return error;
    };
    let standing = content::filesystems(device).unwrap_or_default();
    let kind = standing.first().map_or("neither an ext4 with MMP", |standing| standing.kind);
    let what = match standing.is_empty() {
        true => format!("{kind} nor an area stands there"),
        false => format!("its {kind} has no MMP of its own, and no area stands in its last block"),
    };
    Error::Unprotected { path, what }
}

/// A slot is one target's: two devices under one slot would keep each other out, and one device under two slots is not protected.
pub(super) fn check_target(asked: &Path, device: &Device, by: &Path, slot: &SlotView) -> Result<(), Error> {
    let Ok(Some((name, wanted))) = slot.identity() else { return Ok(()) };
    let standing = content::filesystems(device)?;
    if wanted == [0; 16] || standing.iter().any(|standing| standing.uuid == wanted) {
        return Ok(());
    }
    let found = match standing.first() {
        Some(standing) => format!("this is {}", Hex(standing.uuid)),
        None => "no filesystem stands here that tells its own".to_owned(),
    };
    let what = format!("slot \"{name}\" of {} guards the UUID {}, and {found}", by.display(), Hex(wanted));
    Err(Error::Unsupported { path: asked.to_owned(), what })
}
