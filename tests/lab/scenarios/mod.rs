//! What is tried on the machines.

mod aoe;
mod clean_mark;
mod clean_race;
mod fences;
mod freeze;
mod iscsi;
mod life;
mod live;
mod lustre;
mod path_loss;
mod paths;
mod queueing;
mod race;
mod readonly;
mod remote;
mod resets;
mod side;
mod soak;
mod stage;
mod stall;
mod stall_short;
mod takeover;
mod unlike;
mod witness;
mod xfs;

use crate::Scenario;

/// All of them, the longest of the short set first: several run at once.
pub(crate) fn all() -> Vec<Scenario> {
    [
        witness::SCENARIOS,
        lustre::SCENARIOS,
        soak::SCENARIOS,
        queueing::SCENARIOS,
        live::SCENARIOS,
        takeover::SCENARIOS,
        clean_race::SCENARIOS,
        freeze::SCENARIOS,
        stall::SCENARIOS,
        stall_short::SCENARIOS,
        readonly::SCENARIOS,
        resets::SCENARIOS,
        unlike::SCENARIOS,
        path_loss::SCENARIOS,
        fences::SCENARIOS,
        clean_mark::SCENARIOS,
        xfs::SCENARIOS,
        aoe::SCENARIOS,
        iscsi::SCENARIOS,
    ]
    .concat()
}
