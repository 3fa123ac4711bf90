//! *Somebody gets in*: from a state on, if no more faults happen, every I/O is prompt, and everybody who may claims.
//!
//! One history is followed from each state: what can be done is done at once, host 0 first, and when both back off, host 0 does so
//! for the shortest time and host 1 for the longest. That somebody gets in *there* shows that no state is a trap: it is possible
//! from everywhere, and happens if back-offs differ. It is not said that it happens whatever the back-offs are: they are drawn
//! anew each time, so two that are alike for ever have no chance.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::guards::Told;
use crate::hashing::Quick;
use crate::moves::World;
use crate::random::Draw;
use crate::sequences::HOSTS;
use crate::state::{Io, Move, Shown, State};

/// How many units it took, by state. So many that no count is that high: it never came.
pub(crate) type Known = HashMap<u64, u8, Quick>;
pub(crate) const NEVER: u8 = u8::MAX;

/// Units until somebody holds.
pub(crate) fn units(world: &mut World<'_>, state: &State, known: &mut Known) -> u8 {
    let mut way = Vec::new();
    let mut state = state.clone();
    let mut units = loop {
        if state.hosts.iter().any(|host| host.uses > 0 && host.guard.is_some()) {
            break 0;
        }
        let print = print(&state);
        if let Some(&units) = known.get(&print) {
            break units;
        }
        // What comes back to a state of this very way has no end.
        known.insert(print, NEVER);
        let next = next(world, &state);
        way.push((print, next == Move::Time));
        state = world.after(&state, next);
    };
    for (print, time) in way.into_iter().rev() {
        units = units.saturating_add(u8::from(time));
        known.insert(print, units);
    }
    units
}

fn print(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn next(world: &mut World<'_>, state: &State) -> Move {
    if !state.loose.is_empty() {
        let reads = [0, 1].map(|at: usize| matches!(state.hosts[at].io, Io::Read(..)));
        return Move::LandLoose(0, Shown(reads));
    }
    for at in 0..HOSTS {
        let host = &state.hosts[at];
        let number = u8::try_from(at).expect("there are few");
        let Some(guard) = host.guard else {
            if host.uses == 0 {
                return Move::Begin(number);
            }
            continue;
        };
        match host.io {
            Io::None if world.guards.due(guard) == 0 => return Move::Tick(number),
            Io::None => {}
            Io::Read(block, _) => {
                let drew = world.guards.tell(guard, Told::Read(block), Draw::Least).drew;
                return Move::Answer(number, drew && at == 1);
            }
            Io::Asked(..) => return Move::Issue(number),
            Io::Flying(..) => {
                return Move::Land(number, matches!(state.hosts[1 - at].io, Io::Read(..)));
            }
            Io::Landed(..) => return Move::Answer(number, false),
        }
    }
    Move::Time
}
