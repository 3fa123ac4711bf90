//! Between a claim and the first use of what it protects.
//!
//! Protects: this host's page cache shows what stands on the disk; no filesystem has been grown over its area while we waited. Whatever
//! goes wrong here, nothing has used the device yet, and it is given back clean.

use super::{Held, Place};
use crate::error::Error;
use crate::io;
use crate::protocol::Refusal;
use crate::sys::process;

/// Dropping a block device's page cache (`BLKFLSBUF`) takes `CAP_SYS_ADMIN`; without it a stale cache would be used.
/// Better to know before the claim than eleven seconds later.
pub(super) fn check_privilege(place: &Place) -> Result<(), Error> {
    let Some(device) = place.guarded() else { return Ok(()) };
    let block = matches!(device.kind(), io::DeviceKind::Block { .. });
    if block && process::may_administer() == Some(false) {
        let what = "holding a block device takes CAP_SYS_ADMIN, to drop its stale page cache; run as root"
            .to_owned();
        return Err(Error::Unsupported { path: place.asked().to_owned(), what });
    }
    Ok(())
}

/// Between *held* and the first use: what another host wrote is not in our page cache; what is in it is stale. A kernel
/// that is about to mount must not find an old MMP block there, either.
/// Whatever goes wrong here, nothing has used the device yet, so it is left clean.
pub(super) fn begin_use(mut held: Held, withdrawn: bool) -> Result<Held, Error> {
    let path = held.place.asked().to_owned();
    let trouble = if withdrawn {
        Error::Refused { path, refusal: Refusal::Withdrawn { claim_left_standing: false } }
    } else {
        match drop_cache(&held.place).and_then(|()| check_content(&held.place)) {
            Ok(()) => return Ok(held),
            Err(error) => error,
        }
    };
    match held.take_back() {
        Ok(()) => Err(trouble),
        Err(worse) => Err(worse),
    }
}

fn drop_cache(place: &Place) -> Result<(), Error> {
    let Some(device) = place.guarded() else { return Ok(()) };
    device.drop_cache()?;
    if device.kind() != place.device().kind()
        || device.cache_agrees(place.offset_bytes(), place.block_bytes() as usize)?
    {
        return Ok(());
    }
    let what = "its page cache on this host cannot be dropped (something has it mapped) and shows an old MMP block; \
                end whatever has the device open here"
        .to_owned();
    Err(Error::Unsupported { path: device.path().to_owned(), what })
}

/// Whoever had it while we waited may have grown its filesystem over the area.
pub(super) fn check_content(place: &Place) -> Result<(), Error> {
    let reaches_in = place.slot().map(|(area, _)| area.content_reaches_in()).transpose()?.flatten();
    match reaches_in {
        None => Ok(()),
        Some(what) => Err(Error::Unsupported { path: place.asked().to_owned(), what }),
    }
}
