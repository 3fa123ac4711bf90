//! ext4's own MMP from the command line: `mmp enable` where a filesystem can have it, `mmp disable` and `mmp set`.

pub(super) mod args;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use self::args::{Disable, Set};
use super::area::args::Locking;
use super::area::change::changing;
use super::interrupt::Interrupt;
use super::{output, render};
use crate::area;
use crate::driver::{OWN_SLOT, Place};
use crate::error::Error;
use crate::format::SuperblockError;
use crate::format::content::ext_kind;
use crate::format::superblock::INCOMPAT_MMP;
use crate::native::{self, Enabling, Outcome};
use crate::protocol::timing::DEFAULT_INTERVAL;
use crate::sys::fstab::{self, Called, FSTAB, FstabLine};

/// What the filesystem drivers called ext2 and ext3 mount nothing with.
const OLD_TYPES: [&str; 2] = ["ext2", "ext3"];

/// Switches on the MMP of the ext2/3/4 on `device`.
pub(super) fn enable(device: &Path, interval: Option<Duration>, locking: &Locking) -> Result<String, Error> {
    let interval_s = whole_seconds(interval.unwrap_or(DEFAULT_INTERVAL))?;
    // A signal ends it before the first write, and not between two.
    let interrupt = Interrupt::listen()?;
    let how = Enabling {
        interval_s,
        node: locking.node.as_deref(),
        wait: locking.wait.unwrap_or_default(),
        interrupted: &mut || interrupt.came(),
    };
    match native::enable(device, how)? {
        Outcome::Already(Some(found_s)) if interval.is_some() && found_s != interval_s => {
            let what = format!(
                "MMP is enabled already, with an update interval of {found_s} s; `mmp set --interval {interval_s}s {}` changes it",
                render::shown(device)
            );
            Err(Error::Unsupported { path: device.to_owned(), what })
        }
        Outcome::Already(_) => Ok("it is protected already: its own MMP is enabled".to_owned()),
        Outcome::Done => {
            let told = format!(
                "protected: its own MMP is enabled, with an update interval of {interval_s} s; kernels go by it, too"
            );
            // It is done, whatever becomes of the advice.
            let advice = old_lines(device).unwrap_or_default();
            Ok([vec![told], advice].concat().join("\n"))
        }
    }
}

pub(super) fn disable(arguments: &Disable) -> ExitCode {
    output::changed(&arguments.device, arguments.locking.quiet, disabled(arguments))
}

pub(super) fn set(arguments: &Set) -> ExitCode {
    output::changed(&arguments.device, arguments.locking.quiet, set_to(arguments))
}

fn disabled(arguments: &Disable) -> Result<String, Error> {
    let path = &arguments.device;
    let off = || Ok("it is not protected; nothing to do".to_owned());
    match Place::find(path, None) {
        Ok(place) => match place.slot() {
            None => {}
            Some((view, slot)) if place.guarded().is_some() && slot.number == OWN_SLOT => {
                changing(&arguments.locking, |asking| area::destroy(view, asking))?;
                return Ok("not protected any more: there is no area behind what stands on it".to_owned());
            }
            Some(_) => {
                let what = "a slot of an area is taken away with `mmp area slot remove`".to_owned();
                return Err(Error::Unsupported { path: path.clone(), what });
            }
        },
        Err(Error::Unprotected { .. } | Error::Superblock { source: SuperblockError::NotEnabled, .. }) => {
            return off();
        }
        Err(error) => return Err(error),
    }
    match changing(&arguments.locking, |asking| native::disable(path, asking))? {
        Outcome::Already(_) => off(),
        Outcome::Done => {
            Ok("not protected any more: its own MMP is disabled, and its block given back".to_owned())
        }
    }
}

fn set_to(arguments: &Set) -> Result<String, Error> {
    let path = &arguments.device;
    let interval_s = whole_seconds(arguments.interval)?;
    let place = Place::find(path, None)?;
    if place.slot().is_some() {
        let what = "the interval of an area stands for as long as the area: take it away (`mmp disable`), and make another \
                    (`mmp enable --interval`)"
            .to_owned();
        return Err(Error::Unsupported { path: path.clone(), what });
    }
    match changing(&arguments.locking, |asking| native::set_interval(path, interval_s, asking))? {
        Outcome::Already(_) => Ok(format!("the update interval is {interval_s} s already")),
        Outcome::Done => Ok(format!(
            "the update interval is {interval_s} s now; a mount that begins from now on goes by it"
        )),
    }
}

/// `s_mmp_update_interval` is a number of seconds.
fn whole_seconds(interval: Duration) -> Result<u16, Error> {
    let whole = u16::try_from(interval.as_secs()).ok().filter(|_| interval.subsec_nanos() == 0);
    whole.ok_or_else(|| {
        let shown = render::seconds(interval);
        Error::Argument(format!("--interval {shown}: an ext2/3/4's own MMP takes whole seconds, 1s to 300s"))
    })
}

/// What the administrator has to be told of a filesystem that had a type of before ext4: by that type it is not mounted any more.
fn old_lines(device: &Path) -> Result<Vec<String>, Error> {
    let place = Place::find(device, None)?;
    let Some(superblock) = place.superblock() else { return Ok(Vec::new()) };
    let was = ext_kind(
        superblock.feature_compat,
        superblock.feature_incompat & !INCOMPAT_MMP,
        superblock.feature_ro_compat,
    );
    let mut told = Vec::new();
    if OLD_TYPES.contains(&was) {
        told.push(format!(
            "  it was an {was}; `mount -t {was}` fails from now on: mount it as ext4, or without -t"
        ));
    }
    let uuid = render::uuid(&superblock.uuid);
    let label = superblock.volume_name.field();
    let end = label.iter().position(|&byte| byte == 0).unwrap_or(label.len());
    let called = Called { node: place.device().kind(), uuid: &uuid, label: &label[..end] };
    let table = std::fs::read(FSTAB).unwrap_or_default();
    for line in fstab::parse(&table) {
        if line.names(called, place.device().canonical()) && line.asks_for(&OLD_TYPES) {
            told.push(in_fstab(&line));
        }
    }
    Ok(told)
}

fn in_fstab(line: &FstabLine) -> String {
    format!(
        "  line {} of {FSTAB} mounts it on {} as {}: write ext4 there, or that mount fails",
        line.number,
        render::shown(&line.dir),
        render::shown(Path::new(&line.filesystem))
    )
}
