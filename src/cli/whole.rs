//! A filesystem on several devices can be used through each of them: protection of one alone is none.
//!
//! Protects: all of its devices are named, or a slot that guards the whole of it. Does not tell which slot guards what.

use std::path::Path;

use crate::driver::SlotAddress;
use crate::error::Error;
use crate::io::Device;
use crate::sys::content::{self, Standing};

/// Refuses a part of a filesystem, where no slot was named that may stand for the rest.
pub(super) fn check<'a>(named: impl Iterator<Item = &'a Path> + Clone) -> Result<(), Error> {
    // A slot in the tail of a device is that device's own.
    let address = |path: &Path| SlotAddress::parse(path).ok();
    // What cannot be understood is refused later, by whoever has to understand it.
    let standing = |path: &Path| {
        Device::inspect(path).and_then(|device| content::filesystems(&device)).unwrap_or_default()
    };
    let target =
        |path: &'a Path| (path, address(path).map_or_else(|| path.to_owned(), |address| address.target));
    let all: Vec<(&Path, Vec<Standing>)> =
        named.clone().map(target).map(|(path, target)| (path, standing(&target))).collect();
    let is_control = |path: &Path, found: &[Standing]| {
        found.is_empty() && address(path).is_some_and(|address| address.slot.is_some())
    };
    if all.iter().any(|(path, found)| is_control(path, found)) {
        return Ok(());
    }
    for (path, found) in &all {
        let Some(part) = found.iter().find(|found| found.devices > 1) else { continue };
        let of_it = |(_, found): &&(&Path, Vec<Standing>)| found.iter().any(|found| found.uuid == part.uuid);
        if (all.iter().filter(of_it).count() as u64) < part.devices {
            let what = format!(
                "its {} stands on {} devices, and can be used through each of them: name the others, too (`mount` takes them by --with \
                 DEV), or a slot of an area elsewhere that guards all of it (--area TARGET:SLOT)",
                part.kind, part.devices
            );
            return Err(Error::Unsupported { path: (*path).to_owned(), what });
        }
    }
    Ok(())
}
