//! What is tried on the machines.

mod aoe;
mod iscsi;
mod life;
mod live;
mod lustre;
mod remote;
mod soak;
mod stage;
mod witness;
mod xfs;

use crate::Scenario;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [
        witness::SCENARIOS,
        live::SCENARIOS,
        soak::SCENARIOS,
        lustre::SCENARIOS,
        xfs::SCENARIOS,
        aoe::SCENARIOS,
        iscsi::SCENARIOS,
    ]
    .concat()
}
