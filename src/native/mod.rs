//! ext4's own MMP switched on and off, and its interval changed: [`ext4`](crate::ext4) says which bytes, this says when they may be written.
//!
//! Protects, besides what the order of the writes does:
//! - *This host*: nothing is written while anything here uses the device; the kernel's exclusive claim is held meanwhile.
//! - *Other hosts*, where MMP is on: the block is claimed and held as for a mount, two waits after a crash, and each write begins while the
//!   lease has a quarter left. Whoever else claims meanwhile sees us beat; whoever read the superblock before finds, once MMP is off,
//!   no MMP block where it says one is, and fails.
//! - When MMP is off nobody looks at the block any more, and no beat of ours follows. Before each of the writes that give the block back the
//!   superblock is compared: whoever mounts the filesystem changes that first, and then the block stays marked as used, which e2fsck(8) mends.
//!
//! Does not protect: where MMP is off, nobody can be seen who uses the filesystem elsewhere, but by what he leaves in the superblock: a journal
//! that needs recovery, a filesystem that is not marked as valid. Without them a read-only mount, and a mount that begins in the
//! instant of the change, go unseen. An administrator enables MMP before the second host is attached, and disables it after
//! it was detached.

use std::path::Path;
use std::time::Duration;

use crate::area::{self, Asking};
use crate::clock;
use crate::driver::{Held, Options, Place, watch_place};
use crate::error::Error;
use crate::ext4::{self, Ext4Error, Part, Plan, Planned, Wanted};
use crate::format::{DeviceName, NodeName};
use crate::io::{Device, DeviceKind, Editor};
use crate::protocol::{Loss, timing};
use crate::sys::content::{self, Found};
use crate::sys::{ExclusiveHold, Target, identity, users};

/// The guarding thread is waited for so long before what follows is given up.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Whoever uses the device on this host is waited for so long: udev looks at what a writer has closed.
const UDEV_PATIENCE: Duration = Duration::from_secs(2);
const UDEV_PERIOD: Duration = Duration::from_millis(100);

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as wanted before; nothing was written. The update interval in seconds, if MMP is on.
    Already(Option<u16>),
    /// It was done. The update interval in seconds, if MMP is on.
    Done(Option<u16>),
}

/// Switches MMP on.
///
/// # Errors
/// [`Error::UsedHere`], [`Error::ReadOnly`]; [`Error::Ext4`] with what is in the way and what to do; [`Error::Io`]. Nothing is changed unless
/// it says so.
pub fn enable(path: &Path, interval_s: u16, node: Option<&str>) -> Result<Outcome, Error> {
    let device = Device::inspect(path)?;
    let node = node.map_or_else(identity::node_name, ToOwned::to_owned);
    let wanted = Wanted {
        interval_s,
        node: NodeName::new(&node),
        device: DeviceName::new(&device.kernel_name()),
        time_s: clock::wall().0,
    };
    // What can be refused is refused before anything is opened for writing.
    let planned = ext4::enable(path, &mut Editor::open_to_plan(&device)?, &wanted);
    if let Ok(Planned::Already { interval_s }) = planned {
        return Ok(Outcome::Already(Some(interval_s)));
    }
    check_unused_here(&device)?;
    if let Planned::Do(plan) = planned? {
        check_sectors(&device, plan.block_bytes())?;
    }
    check_alone(&device)?;
    device.check_writable()?;
    let exclusive = unused_here(&device)?;
    // What a program that has just ended left in the page cache would be written over ours.
    device.flush()?;
    let mut editor = Editor::open(&device)?;
    if let Planned::Do(plan) = ext4::enable(path, &mut editor, &wanted)? {
        let mut begun = false;
        let result = plan.carry_out(&mut editor, &mut |_| {
            begun = true;
            Ok(())
        });
        result.map_err(|error| match begun && !is_untouched(&error) {
            true => unfinished(path, "MMP was to be switched on", &error),
            false => error,
        })?;
    }
    editor.finish()?;
    drop(exclusive);
    verify_on(path)?;
    Ok(Outcome::Done(Some(interval_s)))
}

/// Switches MMP off, and gives its block back.
///
/// # Errors
/// As [`Options::acquire`] and [`enable`]; [`Error::Lost`] if the claim was lost on the way.
pub fn disable(path: &Path, asking: Asking<'_>) -> Result<Outcome, Error> {
    let device = Device::inspect(path)?;
    let planned = ext4::disable(path, &mut Editor::open_to_plan(&device)?);
    if let Planned::Already { .. } = or_in_use(path, planned, asking)? {
        return Ok(Outcome::Already(None));
    }
    let mut claimed = Claimed::claim(path, asking)?;
    match ext4::disable(path, &mut claimed.editor)? {
        Planned::Do(plan) => claimed.switch_off(&plan)?,
        Planned::Already { .. } => return claimed.give_back(Outcome::Already(None)),
    }
    device.drop_cache()?;
    Ok(Outcome::Done(None))
}

/// Changes the update interval in the superblock.
///
/// # Errors
/// As [`disable`].
pub fn set_interval(path: &Path, interval_s: u16, asking: Asking<'_>) -> Result<Outcome, Error> {
    let device = Device::inspect(path)?;
    let planned = ext4::set_interval(path, &mut Editor::open_to_plan(&device)?, interval_s);
    if let Planned::Already { interval_s } = or_in_use(path, planned, asking)? {
        return Ok(Outcome::Already(Some(interval_s)));
    }
    let mut claimed = Claimed::claim(path, asking)?;
    match ext4::set_interval(path, &mut claimed.editor, interval_s)? {
        Planned::Do(plan) => {
            claimed.write(&plan)?;
            claimed.give_back(Outcome::Done(Some(interval_s)))
        }
        Planned::Already { interval_s } => claimed.give_back(Outcome::Already(Some(interval_s))),
    }
}

/// What is refused as not left in order may be in use elsewhere: that looks the same, and is found by watching alone.
fn or_in_use(path: &Path, planned: Result<Planned, Error>, asking: Asking<'_>) -> Result<Planned, Error> {
    if let Err(Error::Ext4 { source: Ext4Error::Unclean { .. } | Ext4Error::Errors, .. }) = &planned {
        let place = Place::find(path, asking.node)?;
        check_unused_here(place.device())?;
        watch_place(place, |event| (asking.observe)(path, event))?;
    }
    planned
}

/// A filesystem whose MMP block we hold, and that nothing on this host uses.
struct Claimed {
    held: Held,
    editor: Editor,
    exclusive: Option<ExclusiveHold>,
    /// Something was written, or the block was given back: it is not given back again.
    done: bool,
}

impl Claimed {
    fn claim(path: &Path, asking: Asking<'_>) -> Result<Self, Error> {
        let place = Place::find(path, asking.node)?;
        let device = place.device().clone();
        let options = Options::of_place(place).wait(asking.wait);
        let mut held = options.acquire_with(|event| (asking.observe)(path, event))?;
        match unused_here(&device).and_then(|exclusive| Ok((exclusive, Editor::open(&device)?))) {
            Ok((exclusive, editor)) => Ok(Claimed { held, editor, exclusive: Some(exclusive), done: false }),
            Err(error) => {
                // Nothing was done; if it cannot be given back it stands as after a crash, and is watched out.
                let _ = while_used(|| held.release());
                Err(error)
            }
        }
    }

    /// Carries out what leaves MMP on.
    fn write(&mut self, plan: &Plan) -> Result<(), Error> {
        let Claimed { held, editor, .. } = self;
        plan.carry_out(editor, &mut |_| check_held(held))
    }

    /// Carries out what switches MMP off. Ours is the last block that anybody looks at; once the superblock is written no beat of ours may
    /// follow, since the block becomes anybody's.
    fn switch_off(mut self, plan: &Plan) -> Result<(), Error> {
        let path = self.held.place().asked().to_owned();
        let Claimed { held, editor, done, .. } = &mut self;
        let (mut switched_off, mut stopped) = (false, false);
        let result = plan.carry_out(editor, &mut |edit| {
            if !switched_off {
                check_held(held)?;
                *done = edit.part == Part::Superblock;
                switched_off = *done;
                return Ok(());
            }
            match stopped || held.stop(STOP_PATIENCE) {
                true => stopped = true,
                false => return Err(Error::io("end the beats in it", &path, std::io::ErrorKind::TimedOut)),
            }
            Ok(())
        });
        match (result, switched_off) {
            (Err(error), true) if is_untouched(&error) => {
                *done = false;
                Err(error)
            }
            (Err(error), true) => Err(unfinished(&path, "MMP was to be switched off", &error)),
            (result, _) => result,
        }
    }

    fn give_back(mut self, outcome: Outcome) -> Result<Outcome, Error> {
        self.done = true;
        // The release looks for users, and takes the kernel's claim for itself.
        self.exclusive = None;
        while_used(|| self.held.release())?;
        Ok(outcome)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.done {
            self.exclusive = None;
            // If it cannot be given back it stands as after a crash, and is watched out.
            let _ = while_used(|| self.held.release());
        }
    }
}

/// Before a write: the lease lasts for as long as one may take.
fn check_held(held: &Held) -> Result<(), Error> {
    let status = held.status();
    if status.held && status.lease_left > reserve() {
        return Ok(());
    }
    Err(Error::Lost { path: held.place().asked().to_owned(), loss: Loss::LeaseExpired })
}

/// How long a write may take; of the shortest lease there is, and so of every one.
fn reserve() -> Duration {
    timing::write_reserve(timing::MIN_CHECK_INTERVAL_S)
}

/// The kernel's claim on a device that nothing here uses. After a writer has closed it, udev looks at it for a moment.
fn unused_here(device: &Device) -> Result<ExclusiveHold, Error> {
    while_used(|| area::unused_here(device))
}

/// Refuses what this host uses, before it is watched for others.
fn check_unused_here(device: &Device) -> Result<(), Error> {
    let found = users::users_before_claim(&Target::from(device), &[])?;
    if found.is_empty() { Ok(()) } else { Err(area::used_here(device, &found)) }
}

/// One half of a mirror shows the filesystem of the whole, and must not be changed alone.
fn check_alone(device: &Device) -> Result<(), Error> {
    match content::identify(device)? {
        Found::Filesystem(_) => Ok(()),
        Found::Unsuitable { what, .. } | Found::Other { kind: what, .. } => {
            let what = format!(
                "it holds {what}, beside the superblock of an ext2/3/4; name the device that the filesystem is used on"
            );
            Err(Error::Unsupported { path: device.path().to_owned(), what })
        }
        Found::Blank => {
            let what = "blkid(8) finds nothing on it; run `e2fsck -fn` on it".to_owned();
            Err(Error::Unsupported { path: device.path().to_owned(), what })
        }
    }
}

/// A block of the filesystem has to be whole sectors: a beat would rewrite what shares its sector.
fn check_sectors(device: &Device, block_bytes: u32) -> Result<(), Error> {
    if matches!(device.kind(), DeviceKind::File { .. }) || block_bytes.is_multiple_of(device.sector_bytes()) {
        return Ok(());
    }
    let what = format!(
        "its filesystem has blocks of {block_bytes} bytes, but the device is written in sectors of {} bytes: beats in an MMP block would \
         overwrite what shares the sector; guard it by a slot elsewhere (`mmp enable --area`)",
        device.sector_bytes()
    );
    Err(Error::Unsupported { path: device.path().to_owned(), what })
}

/// Asks again for a while, as long as somebody uses the device here.
fn while_used<T>(mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let until = clock::mono() + UDEV_PATIENCE;
    loop {
        match ask() {
            Err(Error::UsedHere { .. }) if clock::mono() < until => clock::sleep(UDEV_PERIOD),
            answer => return answer,
        }
    }
}

/// The filesystem was not as it was planned for, and nothing was written.
fn is_untouched(error: &Error) -> bool {
    matches!(error, Error::Ext4 { source: Ext4Error::Changed { written: 0, .. }, .. })
}

/// Some of it was written.
fn unfinished(path: &Path, how: &str, error: &Error) -> Error {
    let what = format!(
        "{how}, and something was left undone ({}); `e2fsck -f {}` mends it",
        error.without_path(),
        path.display()
    );
    Error::io("finish it", path, std::io::Error::other(what))
}

/// It can be found now, and decodes.
fn verify_on(path: &Path) -> Result<(), Error> {
    let place = Place::find(path, None)?;
    let image = place.read_block()?;
    match place.medium().decode(&image) {
        Ok(_) => Ok(()),
        Err(damage) => Err(Error::Damaged { path: path.to_owned(), damage }),
    }
}
