//! Rules of the mounts, with the steps of their argument (`mmpguard::protocol`'s `watch`) that fall without them.

use super::simulator::breakage::Breakage;
use super::simulator::plan::Profile;
use super::{TWO_USERS, teeth};

/// W6: the kernel finds the clean mark that a live holder leaves for a moment.
#[test]
fn a_kernel_that_is_called_upon_a_live_block_is_found() {
    teeth(Breakage::NoBeatBeforeTheCall, Profile::Mounts, TWO_USERS);
}

/// W4: the kernel takes our beat for somebody else's, and never mounts.
#[test]
fn a_bridge_before_the_kernels_first_beat_is_found() {
    teeth(Breakage::BridgesBeforeTheBeat, Profile::Mounts, "without a fault nobody got in");
}
