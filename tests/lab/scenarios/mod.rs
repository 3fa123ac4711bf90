//! What is tried on the machines.

mod clean_race;
mod live;
mod race;
mod side;
mod stage;

use crate::Scenario;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [clean_race::SCENARIOS, live::SCENARIOS].concat()
}
