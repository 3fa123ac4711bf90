//! Rules of the protocol's own machines.

use super::simulator::breakage::Breakage;
use super::simulator::plan::Profile;
use super::{TWO_USERS, teeth};

/// S3: the kernel's way (K1).
#[test]
fn a_claim_that_does_not_wait_on_clean_is_found() {
    teeth(Breakage::NoWaitOnClean, Profile::Faults, TWO_USERS);
}
