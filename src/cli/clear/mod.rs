//! `mmp clear`: a stale block is made clean again.
//!
//! Protects: a block that looks live is claimed in full, two waits, before it is marked clean, so nobody who beats is cleared away, and
//! one who stalls has had the time to stop (`docs/safety.md`, S14). What no watching proves is confirmed by whoever looked: e2fsck's mark
//! by the name of its node, a block that says nothing by `--damaged`; the bytes that were seen are watched all the same, and any change
//! voids the word. `--force` leaves the watch out, and is no more than `tune2fs -f -E clear_mmp` with another look right before the write.
//! The superblock is never written. Does not protect from one who vouches wrongly, nor repair a filesystem.

pub(super) mod args;
mod ask;
mod told;

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use self::args::Clear;
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::{exit, output};
use crate::clock;
use crate::driver::clear::{self, Forced};
use crate::driver::{Held, Options, Place, Released};
use crate::error::Error;
use crate::format::{Damage, Image};
use crate::protocol::{Peer, Refusal, Sequence};
use crate::sys::content;

/// A device that is held and looks used is asked for again for so long: udev opens what was closed.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
/// How often.
const RELEASE_PERIOD: Duration = Duration::from_millis(200);

/// What stands in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Clean(Peer),
    /// Somebody's, alive or not; in an area also a clean mark that is not the last one's.
    Live(Peer),
    Fsck(Peer),
    Unknown(Peer),
    Damaged(Damage),
}

/// Why it was not cleared.
struct Stopped {
    text: String,
    code: ExitCode,
}

pub(super) fn run(arguments: &Clear) -> ExitCode {
    match cleared(arguments) {
        Ok(text) => {
            if !arguments.quiet {
                output::complain(&text);
            }
            ExitCode::from(exit::DONE)
        }
        Err(stopped) => {
            output::complain(&stopped.text);
            stopped.code
        }
    }
}

/// Gives what is said in the end.
fn cleared(arguments: &Clear) -> Result<String, Stopped> {
    let interrupt = Interrupt::listen()?;
    let place = Place::find_by(&arguments.device, arguments.by.area.as_deref(), arguments.node.as_deref())?;
    let seen = place.read_block()?;
    let found = Found::of(&place, &seen);
    if let Found::Clean(by) = &found {
        return Ok(told::clean_already(arguments, &place, by));
    }
    check_meant(arguments, &place, &found)?;
    clear::check_unused_here(&place)?;
    if place.slot().is_none() {
        // Where the superblock is not that of what is used here, its MMP block may be somebody's data.
        content::check_alone(place.device())?;
    }
    confirm(arguments, &found, &interrupt)?;
    if arguments.force {
        return Ok(match clear::force(&place, &seen, &mut || interrupt.came())? {
            Forced::Cleared => told::cleared(arguments, &place, &found),
            Forced::CleanMeanwhile => told::clean_meanwhile(arguments),
        });
    }
    let answered = (!matches!(found, Found::Live(_)) && place.slot().is_none()).then_some(seen);
    match by_claim(arguments, place.clone(), answered, &interrupt) {
        Ok(()) => Ok(told::cleared(arguments, &place, &found)),
        Err(error) => Err(Stopped::watching(&error, answered.is_some())),
    }
}

impl Found {
    fn of(place: &Place, image: &Image) -> Self {
        let block = match place.medium().decode(image) {
            Ok(block) => block,
            Err(damage) => return Found::Damaged(damage),
        };
        let by = Peer::from(&block);
        match Sequence::from(block.seq) {
            Sequence::Clean if is_doubted(place) => Found::Live(by),
            Sequence::Clean => Found::Clean(by),
            Sequence::Live(_) => Found::Live(by),
            Sequence::Fsck => Found::Fsck(by),
            Sequence::Unknown(_) => Found::Unknown(by),
        }
    }

    /// Whom it names, if it can be believed.
    fn peer(&self) -> Option<&Peer> {
        match self {
            Found::Clean(by) | Found::Live(by) | Found::Fsck(by) | Found::Unknown(by) => Some(by),
            Found::Damaged(_) => None,
        }
    }

    /// As the refusal that any other verb gives.
    fn refusal(&self) -> Option<Refusal> {
        match *self {
            Found::Clean(_) | Found::Live(_) => None,
            Found::Fsck(by) => Some(Refusal::Fsck { by }),
            Found::Unknown(by) => Some(Refusal::UnknownSequence { seq: by.seq }),
            Found::Damaged(damage) => Some(Refusal::Damaged { damage }),
        }
    }
}

/// In an area: somebody has drawn a later generation than the mark shows, so a claim would not believe it.
fn is_doubted(place: &Place) -> bool {
    match place.slot().map(|(_, slot)| (&slot.block, &slot.entry)) {
        None => false,
        Some((Ok(block), Ok(entry))) => block.record.generation < entry.high_water,
        Some(_) => true,
    }
}

/// What is wanted is possible, and meant for what stands there.
fn check_meant(arguments: &Clear, place: &Place, found: &Found) -> Result<(), Stopped> {
    if place.slot().is_some() && (arguments.force || arguments.damaged) {
        return Err(Stopped::in_area(arguments));
    }
    let refused = |refusal| Error::Refused { path: arguments.device.clone(), refusal };
    if let (Found::Unknown(_) | Found::Damaged(_), false, None) = (found, arguments.damaged, place.slot())
        && let Some(refusal) = found.refusal()
    {
        return Err(refused(refusal).into());
    }
    let Some(said) = &arguments.yes_node else { return Ok(()) };
    let Some(by) = found.peer() else { return Err(Stopped::names_nobody(arguments)) };
    if ask::argument_names(said, &by.node) { Ok(()) } else { Err(Stopped::other_node(arguments, found, by)) }
}

/// Nothing goes on that a watch cannot prove, and nobody vouches for.
fn confirm(arguments: &Clear, found: &Found, interrupt: &Interrupt) -> Result<(), Stopped> {
    let is_mark = matches!(found, Found::Fsck(_));
    // It was compared with what stands there.
    let is_named = arguments.yes_node.is_some() && found.peer().is_some();
    // For what names nobody that can be believed, --damaged is the word.
    let is_needed = is_mark || (arguments.force && matches!(found, Found::Live(_)));
    if is_needed && !is_named && !ask::can_ask() {
        return Err(Stopped::unconfirmed(arguments, found));
    }
    if arguments.force {
        output::complain(&told::risk(arguments, found));
    } else if is_mark && !is_named {
        output::complain(&told::mark(arguments, found));
    }
    if is_named || !(is_mark || arguments.force) || !ask::can_ask() {
        return Ok(());
    }
    let said = ask::line(told::question(found), interrupt);
    let confirmed = said.as_ref().is_some_and(|said| match found.peer() {
        Some(by) => !said.is_empty() && ask::names(said, &by.node),
        None => said == b"yes",
    });
    match (confirmed, said) {
        (true, _) => Ok(()),
        (false, Some(_)) if is_mark => Err(Stopped::unconfirmed(arguments, found)),
        (false, _) => Err(Stopped::withdrawn(arguments)),
    }
}

/// Claims it, in full, and marks it clean.
fn by_claim(
    arguments: &Clear,
    place: Place,
    answered: Option<Image>,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    let mut progress = Progress::new(arguments.quiet);
    let mut options = Options::of_place(place);
    if let Some(seen) = answered {
        options = options.answering_for(seen);
    }
    let held = options.acquire_with(|event| {
        match event {
            Some(event) => progress.event(event),
            None => progress.tick(),
        }
        if interrupt.came() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    progress.clear();
    release(held?, arguments, interrupt)
}

/// Nothing of ours has used it. Somebody else on this host who does by now keeps it from being marked.
fn release(mut held: Held, arguments: &Clear, interrupt: &Interrupt) -> Result<(), Error> {
    let until = clock::mono() + RELEASE_PATIENCE;
    loop {
        match held.release() {
            Ok(Released::Clean) => return Ok(()),
            Ok(Released::LeftToOthers { by }) => {
                let refusal = Refusal::InUse { by, after: Duration::ZERO };
                return Err(Error::Refused { path: arguments.device.clone(), refusal });
            }
            Err(Error::UsedHere { .. }) if clock::mono() < until && !interrupt.came() => {
                clock::sleep(RELEASE_PERIOD);
            }
            Err(error) => return Err(error),
        }
    }
}
