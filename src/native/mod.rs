//! ext4's own MMP switched on and off, and its interval changed: [`crate::ext4`] says which bytes, this says when they may be written.
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
//! that needs recovery, a filesystem that is not marked as valid. Without them go unseen: a read-only mount, one that is frozen at that
//! moment (fsfreeze(8), a snapshot: the journal is empty then), and one that begins in the instant of the change, unless it shows
//! before the last write. An administrator enables MMP while no other host has the filesystem mounted, and disables it after the others
//! were detached.

use std::path::Path;
use std::time::Duration;

use crate::area::Asking;
use crate::clock;
use crate::driver::{Held, Options, Place, watch_place};
use crate::error::Error;
use crate::ext4::{self, Bytes as _, Ext4Error, Part, Plan, Planned, Wanted};
use crate::format::superblock::SUPERBLOCK_OFFSET_BYTES;
use crate::format::{DeviceName, NodeName, SuperblockError};
use crate::io::{Device, DeviceKind, Editor};
use crate::protocol::{Loss, timing};
use crate::sys::{ExclusiveHold, Target, content, identity, unused};

/// The guarding thread is waited for so long before what follows is given up.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as wanted before; nothing was written. The update interval in seconds, if MMP is on.
    Already(Option<u16>),
    /// It was done.
    Done,
}

/// How MMP is switched on.
pub struct Enabling<'a> {
    /// The update interval, in seconds.
    pub interval_s: u16,
    /// The node name to write, instead of this host's.
    pub node: Option<&'a str>,
    /// How long to wait for whoever uses the device on this host.
    pub wait: Duration,
    /// Asked while somebody on this host is waited for, and right before the first write: true gives up. From then on it goes on to the end.
    pub interrupted: &'a mut dyn FnMut() -> bool,
}

/// Switches MMP on.
///
/// # Errors
/// [`Error::UsedHere`], [`Error::ReadOnly`]; [`Error::Ext4`] with what is in the way and what to do; [`Error::Io`], [`Error::Interrupted`].
/// Nothing is changed unless it says so.
pub fn enable(path: &Path, how: Enabling<'_>) -> Result<Outcome, Error> {
    let device = Device::inspect(path)?;
    let node = how.node.map_or_else(identity::node_name, ToOwned::to_owned);
    let wanted = Wanted {
        interval_s: how.interval_s,
        node: NodeName::new(&node),
        device: DeviceName::new(&device.kernel_name()),
        time_s: clock::wall().0,
    };
    // What can be refused is refused before anything is opened for writing.
    let planned = ext4::enable(path, &mut Editor::open_to_plan(&device)?, &wanted);
    if let Ok(Planned::Already { interval_s }) = planned {
        verify_on(path)?;
        return Ok(Outcome::Already(Some(interval_s)));
    }
    let target = Target::from(&device);
    while_used(how.wait, how.interrupted, || unused::check(path, &target))?;
    if let Planned::Do(plan) = planned? {
        check_sectors(&device, plan.block_bytes())?;
    }
    content::check_alone(&device)?;
    device.check_writable()?;
    let exclusive = while_used(how.wait, how.interrupted, || unused::claim(path, &target, &[]))?;
    // What a program that has just ended left in the page cache would be written over ours.
    device.flush()?;
    let mut editor = Editor::open(&device)?;
    let plan = match ext4::enable(path, &mut editor, &wanted)? {
        Planned::Do(plan) => plan,
        Planned::Already { interval_s } => return Ok(Outcome::Already(Some(interval_s))),
    };
    let mut begun = false;
    let result = plan.carry_out(&mut editor, &mut |_| {
        if !begun && (how.interrupted)() {
            return Err(Error::Interrupted);
        }
        begun = true;
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(error) if begun => return Err(unfinished(path, "MMP was to be switched on", &error)),
        Err(error) => return Err(error),
    }
    let sound = check_undisturbed(path, &plan, &mut editor);
    let sound = sound.and_then(|()| editor.finish()).and_then(|()| verify_on(path));
    drop(exclusive);
    sound.map(|()| Outcome::Done).map_err(|error| not_verified(path, "MMP is switched on", &error))
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
        Planned::Do(plan) if plan.block_offset_bytes() != claimed.held.place().offset_bytes() => {
            // What we hold is not what would be given back.
            let source = Ext4Error::Changed { part: Part::Superblock, written: 0 };
            return Err(Error::Ext4 { path: path.to_owned(), source });
        }
        Planned::Do(plan) => claimed.switch_off(&plan)?,
        Planned::Already { .. } => return claimed.give_back(Outcome::Already(None)),
    }
    let dropped = device.drop_cache();
    dropped.map(|()| Outcome::Done).map_err(|error| not_verified(path, "MMP is switched off", &error))
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
            claimed.give_back(Outcome::Done)
        }
        Planned::Already { interval_s } => claimed.give_back(Outcome::Already(Some(interval_s))),
    }
}

/// What is refused as not left in order may be in use elsewhere: that looks the same, and is found by watching alone.
fn or_in_use(path: &Path, planned: Result<Planned, Error>, asking: Asking<'_>) -> Result<Planned, Error> {
    let is_doubtful = matches!(
        planned,
        // A beat may have been under way, five times in a row.
        Err(Error::Damaged { .. } | Error::Ext4 { source: Ext4Error::Unclean { .. } | Ext4Error::Errors, .. })
    );
    if is_doubtful {
        let place = Place::find(path, asking.node)?;
        unused::check(path, &Target::from(place.device()))?;
        watch_place(place, |event| (asking.observe)(path, event))?;
    }
    planned
}

/// A filesystem whose MMP block we hold, and that nothing on this host uses, we neither: what is written goes past the page cache.
struct Claimed {
    held: Held,
    editor: Editor,
    /// Kept until the block was given back.
    _exclusive: ExclusiveHold,
    /// MMP is being switched off, or the block was given back: it is not given back again.
    done: bool,
}

impl Claimed {
    fn claim(path: &Path, asking: Asking<'_>) -> Result<Self, Error> {
        let place = Place::find(path, asking.node)?;
        let device = place.device().clone();
        content::check_alone(&device)?;
        // Known now, not after the wait: whoever has it open for reading is no danger to a claim.
        let target = Target::from(&device);
        let mut interrupted = || (asking.observe)(path, None).is_break();
        drop(while_used(asking.wait, &mut interrupted, || unused::claim(path, &target, &[]))?);
        let options = Options::of_place(place).wait(asking.wait);
        let mut held = options.acquire_with(|event| (asking.observe)(path, event))?;
        let begun = while_used(Duration::ZERO, &mut interrupted, || unused::claim(path, &target, &[]))
            .and_then(|exclusive| Ok((exclusive, Editor::open(&device)?)));
        match begun {
            Ok((exclusive, editor)) => Ok(Claimed { held, editor, _exclusive: exclusive, done: false }),
            Err(error) => {
                // Nothing was done; if it cannot be given back it stands as after a crash, and is watched out.
                let _ = held.take_back();
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
        let mut stopped = false;
        let result = plan.carry_out(editor, &mut |edit| {
            if !*done {
                check_held(held)?;
                *done = edit.part == Part::Superblock;
                return Ok(());
            }
            match stopped || held.stop(STOP_PATIENCE) {
                true => stopped = true,
                false => return Err(Error::io("end the beats in it", &path, std::io::ErrorKind::TimedOut)),
            }
            Ok(())
        });
        match self.done {
            true => result.map_err(|error| unfinished(&path, "MMP was to be switched off", &error)),
            false => result,
        }
    }

    fn give_back(mut self, outcome: Outcome) -> Result<Outcome, Error> {
        self.done = true;
        self.held.take_back()?;
        Ok(outcome)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.done {
            // If it cannot be given back it stands as after a crash, and is watched out.
            let _ = self.held.take_back();
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

/// Asks again for so long, and a while at least, as long as somebody uses the device here.
fn while_used<T>(
    wait: Duration,
    interrupted: &mut dyn FnMut() -> bool,
    ask: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    unused::patiently(wait.max(unused::PASSING), interrupted, ask)
}

/// Nobody has written the superblock since we did: a mount that was under way does.
fn check_undisturbed(path: &Path, plan: &Plan, editor: &mut Editor) -> Result<(), Error> {
    let mut found = *plan.superblock_after();
    editor.read_at(SUPERBLOCK_OFFSET_BYTES, &mut found)?;
    if found == *plan.superblock_after() {
        return Ok(());
    }
    let source = Ext4Error::Changed { part: Part::Superblock, written: plan.edits().len() };
    Err(Error::Ext4 { path: path.to_owned(), source })
}

/// Some of it was written: what stands there now, and what mends it.
fn unfinished(path: &Path, how: &str, error: &Error) -> Error {
    let now = match Place::find(path, None) {
        Ok(_) => "it is on",
        Err(Error::Superblock { source: SuperblockError::NotEnabled, .. }) => "it is off",
        Err(_) => "whether it is cannot be read",
    };
    let what = format!(
        "{how}; {now}, and something was left undone ({}); `e2fsck -f {}` mends it when no host uses it",
        error.without_path(),
        path.display()
    );
    Error::io("finish it", path, std::io::Error::other(what))
}

/// All of it was written; what comes after that was not as it should be.
fn not_verified(path: &Path, done: &str, error: &Error) -> Error {
    let what = format!("{done}, but {}; look at it with `mmp show`", error.without_path());
    Error::io("be sure of it", path, std::io::Error::other(what))
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
