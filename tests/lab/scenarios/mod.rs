//! What is tried on the machines.

mod live;
mod soak;
mod stage;
mod witness;

use crate::Scenario;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [live::SCENARIOS, soak::SCENARIOS, witness::SCENARIOS].concat()
}
