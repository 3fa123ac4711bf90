//! What is tried on the machines.

mod clean_race;
mod freeze;
mod live;
mod race;
mod readonly;
mod resets;
mod side;
mod stage;
mod stall;
mod stall_short;
mod unlike;

use crate::Scenario;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [
        clean_race::SCENARIOS,
        freeze::SCENARIOS,
        live::SCENARIOS,
        readonly::SCENARIOS,
        resets::SCENARIOS,
        stall::SCENARIOS,
        stall_short::SCENARIOS,
        unlike::SCENARIOS,
    ]
    .concat()
}
