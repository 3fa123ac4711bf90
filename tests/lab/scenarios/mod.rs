//! What is tried on the machines.

mod aoe;
mod clean_race;
mod freeze;
mod iscsi;
mod life;
mod live;
mod lustre;
mod race;
mod readonly;
mod remote;
mod resets;
mod side;
mod soak;
mod stage;
mod stall;
mod stall_short;
mod unlike;
mod witness;
mod xfs;

use crate::Scenario;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [
        witness::SCENARIOS,
        live::SCENARIOS,
        clean_race::SCENARIOS,
        freeze::SCENARIOS,
        stall::SCENARIOS,
        stall_short::SCENARIOS,
        readonly::SCENARIOS,
        resets::SCENARIOS,
        unlike::SCENARIOS,
        lustre::SCENARIOS,
        xfs::SCENARIOS,
        aoe::SCENARIOS,
        iscsi::SCENARIOS,
        soak::SCENARIOS,
    ]
    .concat()
}
