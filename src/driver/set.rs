//! Several devices that are used together: a filesystem on several LUNs, or one with an external log. All of them, or none.
//!
//! Protects: hosts that want the same set meet at one member, since all begin with the same one, whatever order they were asked
//! in; so two hosts never hold half of it each, and wait for the other. The others are claimed side by side, and what was
//! claimed is given back if one cannot be had. Does not protect: a host that asks for another set, which shares a member, may
//! be the one who is refused.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::{Held, Options, Place};
use crate::error::Error;
use crate::protocol::Event;

/// What sorts the members: the same on every host.
pub(crate) type Rank = ([u8; 16], u64);

/// The members as they were asked for, each with where its protection stands.
pub(crate) struct Member {
    pub(crate) place: Place,
    pub(crate) options: Options,
}

/// Refuses a set in which one protection stands for two members.
///
/// # Errors
/// [`Error::Argument`].
pub(crate) fn check_distinct(places: &[&Place]) -> Result<(), Error> {
    for (index, place) in places.iter().enumerate() {
        if let Some(twin) = places[..index].iter().find(|other| other.rank() == place.rank()) {
            return Err(Error::Argument(format!(
                "{} and {} are protected by the same block, or are copies of one another; name one of them",
                twin.asked().display(),
                place.asked().display()
            )));
        }
    }
    Ok(())
}

/// Claims all of them; blocks until all are held. `observe` hears of each, as it was asked for, what [`Options::acquire_with`] tells,
/// from any thread.
///
/// # Errors
/// Of the first that could not be had; the others are given back.
pub(crate) fn acquire_all(
    members: Vec<Member>,
    observe: &(impl Fn(&Path, Option<&Event>) -> ControlFlow<()> + Sync),
) -> Result<Vec<Held>, Error> {
    check_distinct(&members.iter().map(|member| &member.place).collect::<Vec<_>>())?;
    let Some(first) = (0..members.len()).min_by_key(|&index| members[index].place.rank()) else {
        return Ok(Vec::new());
    };
    let names: Vec<_> = members.iter().map(|member| member.place.asked().to_owned()).collect();
    let mut members: Vec<_> = members.into_iter().map(|member| Some(member.options)).collect();
    let mut held: Vec<_> = members.iter().map(|_| None).collect();
    let leader = members[first].take();
    let leader =
        leader.map(|options| options.acquire_with(|event| observe(&names[first], event))).transpose()?;
    held[first] = leader;
    let failed = AtomicBool::new(false);
    let trouble = Mutex::new(None);
    std::thread::scope(|scope| {
        for ((options, held), name) in members.into_iter().zip(&mut held).zip(&names) {
            let Some(options) = options else { continue };
            let (failed, trouble) = (&failed, &trouble);
            scope.spawn(move || {
                let acquired = options.acquire_with(|event| {
                    if failed.load(SeqCst) { ControlFlow::Break(()) } else { observe(name, event) }
                });
                match acquired {
                    Ok(member) => *held = Some(member),
                    Err(error) => {
                        failed.store(true, SeqCst);
                        // The first is the reason; the others were withdrawn because of it.
                        trouble
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .get_or_insert(error);
                    }
                }
            });
        }
    });
    match trouble.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        None => Ok(held.into_iter().flatten().collect()),
        Some(error) => {
            for mut member in held.into_iter().flatten() {
                // Never used. One that was lost meanwhile stands as after a crash.
                let _ = member.take_back();
            }
            Err(error)
        }
    }
}
