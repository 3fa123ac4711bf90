//! `mmp enable`: the MMP of an ext2/3/4 itself, an area behind anything else, or a slot of an area elsewhere.

use std::process::ExitCode;

use super::super::native;
use super::args::{Enable, area_interval_ms};
use super::change::{add_slot, found, uuid_on};
use super::{make, output, render, told, wanted};
use crate::area::Plan;
use crate::driver::{AreaView, Place, Selector, SlotAddress, check_given_up};
use crate::error::Error;
use crate::format::SuperblockError;
use crate::format::area::{SlotName, slot_name};
use crate::io::Device;
use crate::protocol::timing::DEFAULT_INTERVAL;
use crate::sys::content;

pub(in crate::cli) fn run(arguments: &Enable) -> ExitCode {
    let result = match &arguments.area {
        Some(area) => by_slot(arguments, area),
        None => behind(arguments),
    };
    output::changed(&arguments.device, arguments.locking.quiet, result)
}

/// An area behind what stands on the device.
fn behind(arguments: &Enable) -> Result<String, Error> {
    let path = &arguments.device;
    match Place::find(path, None) {
        Ok(place) if place.slot().is_some() => {
            return Ok("it is protected already, by the area behind what stands there".to_owned());
        }
        Ok(_) => return own(arguments),
        Err(Error::Superblock { source: SuperblockError::NotEnabled, .. }) => return own(arguments),
        Err(Error::Unprotected { .. } | Error::Short { .. }) => {}
        Err(error) => return Err(error),
    }
    let interval_ms =
        area_interval_ms(arguments.interval.unwrap_or(DEFAULT_INTERVAL)).map_err(Error::Argument)?;
    let plan = Plan::new(&Device::inspect(path)?, &wanted(&arguments.made, interval_ms))?;
    let view = make(&plan, arguments.locking.quiet)?;
    Ok(format!("protected: {}; use it with `mmp mount` or `mmp run` alone from now on", told(&view)))
}

/// The MMP of the filesystem itself.
fn own(arguments: &Enable) -> Result<String, Error> {
    let made = &arguments.made;
    if made.end.is_some() || made.blank || made.fresh || !made.label.to_string().is_empty() {
        return Err(Error::Argument(format!(
            "{0}: its filesystem has MMP of its own, which kernels know, too; --label, --end, --fresh and --blank are for areas (`mmp area create {0}`)",
            render::shown(&arguments.device)
        )));
    }
    native::enable(&arguments.device, arguments.interval, &arguments.locking)
}

/// A slot of an area elsewhere.
fn by_slot(arguments: &Enable, area: &std::path::Path) -> Result<String, Error> {
    if arguments.interval.is_some() {
        return Err(Error::Argument(
            "the interval of a slot is that of its area; leave --interval out".to_owned(),
        ));
    }
    let address = SlotAddress::parse(area)?;
    let device = Device::inspect(&arguments.device)?;
    match Place::find(&arguments.device, None) {
        Err(
            Error::Unprotected { .. }
            | Error::Short { .. }
            | Error::Superblock {
                source: SuperblockError::NotEnabled | SuperblockError::JournalDevice, ..
            },
        ) => {}
        // An area that a filesystem was grown over is given up: the slot is what protects from now on.
        Err(Error::Unsupported { .. }) if check_given_up(&device)? => {}
        Err(error) => return Err(error),
        Ok(place) => {
            let own =
                if place.slot().is_some() { "the area behind what stands there" } else { "its own MMP" };
            let what = format!(
                "it is protected already, by {own}; two protections of one device would protect nothing"
            );
            return Err(Error::Unsupported { path: arguments.device.clone(), what });
        }
    }
    let uuid = match content::filesystems(&device)?.is_empty() {
        true => [0; 16],
        false => uuid_on(&arguments.device)?,
    };
    let name = match address.slot {
        Some(Selector::Name(name)) => name,
        Some(Selector::Number(_)) => {
            return Err(Error::Argument("the slot is added, and needs a name, not a number".to_owned()));
        }
        None if uuid == [0; 16] => {
            return Err(Error::Argument(
                "no filesystem stands on it to call the slot after; name it, as TARGET:SLOT".into(),
            ));
        }
        None => {
            slot_name(render::uuid(&uuid).as_bytes()).map_err(|error| Error::Argument(error.to_string()))?
        }
    };
    let view = found(&address.target)?;
    let target = render::shown(&address.target);
    let number = match guarding(&view, name, uuid)? {
        Some(number) => number,
        None => add_slot(&address.target, &arguments.locking, name, uuid)?,
    };
    Ok(format!(
        "guarded by slot {number} of {target}; use it with --area {target}:{name} from now on, on every host"
    ))
}

/// The slot that guards it already, if it is called that.
fn guarding(view: &AreaView, name: SlotName, uuid: [u8; 16]) -> Result<Option<u32>, Error> {
    let (mut same, mut other) = (None, None);
    view.each_slot(|slot| {
        if let Ok(Some((called, target))) = slot.identity() {
            if called == name && target == uuid {
                same = Some(slot.number);
            } else if target == uuid && uuid != [0; 16] {
                other = Some((slot.number, called));
            }
        }
    })?;
    match (same, other) {
        (Some(number), _) => Ok(Some(number)),
        (None, Some((number, called))) => Err(Error::Unsupported {
            path: view.device.path().to_owned(),
            what: format!(
                "slot {number} (\"{called}\") guards it already; two slots for one device would protect nothing"
            ),
        }),
        (None, None) => Ok(None),
    }
}
