//! What is tried on the machines.

mod aoe;
mod iscsi;
mod life;
mod live;
mod lustre;
mod remote;
mod stage;
mod xfs;

use crate::Scenario;

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [aoe::SCENARIOS, iscsi::SCENARIOS, live::SCENARIOS, lustre::SCENARIOS, xfs::SCENARIOS].concat()
}
