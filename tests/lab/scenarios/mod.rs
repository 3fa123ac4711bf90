//! What is tried on the machines.

mod clean_mark;
mod fences;
mod live;
mod path_loss;
mod paths;
mod queueing;
mod stage;
mod takeover;

use crate::Scenario;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [
        live::SCENARIOS,
        takeover::SCENARIOS,
        path_loss::SCENARIOS,
        fences::SCENARIOS,
        clean_mark::SCENARIOS,
        queueing::SCENARIOS,
    ]
    .concat()
}
