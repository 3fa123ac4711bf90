//! *Somebody gets in*: from a state on, if no more faults happen, every I/O is prompt, and everybody who may claims.
//!
//! One history is followed from each state: what can be done is done at once, the first host first, and whoever loses a race backs
//! off for another time than the one who won it. That somebody gets in *there* shows that no state is a trap: it is possible
//! from everywhere, and happens if back-offs differ. It is not said that it happens whatever the back-offs are: they are drawn
//! anew each time, and two that are alike for ever have no chance.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::hashing::Quick;

/// How many units it took, by state.
pub(crate) type Known = HashMap<u64, u8, Quick>;
/// It never came.
pub(crate) const NEVER: u8 = u8::MAX;

/// Units until somebody holds. `next` gives what follows a state, and whether a unit passes with it; none if somebody holds.
pub(crate) fn units<S: Clone + Hash>(
    state: &S,
    known: &mut Known,
    mut next: impl FnMut(&S) -> Option<(S, bool)>,
) -> u8 {
    let mut way = Vec::new();
    let mut state = state.clone();
    let mut units = loop {
        let Some((after, passes)) = next(&state) else { break 0 };
        let print = print(&state);
        if let Some(&units) = known.get(&print) {
            break units;
        }
        // What comes back to a state of this very way has no end.
        known.insert(print, NEVER);
        way.push((print, passes));
        state = after;
    };
    for (print, passes) in way.into_iter().rev() {
        units = units.saturating_add(u8::from(passes));
        known.insert(print, units);
    }
    units
}

fn print<S: Hash>(state: &S) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}
