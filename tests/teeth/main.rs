//! The simulator's teeth: rules are left out on purpose, one at a time, and each time that must be found. Otherwise what the
//! simulator says of the whole set of rules would prove nothing.
//!
//! The sources of `mmpguard::protocol` are compiled here once more, so that the library, and every program made of it, has
//! nothing in it that could be broken by a switch. `machine` leaves out rules of the protocol's own, `driver` those of
//! whoever drives it.

/// In these sources `broken!(Rule)` is true while that rule, or one of several, is left out.
macro_rules! broken {
    ($($rule:ident),+) => {
        $(crate::simulator::breakage::is_broken(crate::simulator::breakage::Breakage::$rule))||+
    };
}

mod driver;
mod machine;
mod machine_area;
mod machine_hold;
mod machine_mount;
#[allow(dead_code, unused_imports, unreachable_pub, missing_docs)] // as a library they are whole
#[path = "../../src/protocol/mod.rs"]
mod protocol;
#[path = "../simulator/mod.rs"]
mod simulator;
mod survey;

use mmpguard::{clock, format};
use simulator::breakage::Breakage;
use simulator::plan::Profile;
use simulator::run::must_find;

const TWO_USERS: &str = "use the device at once";

/// Must be found, as `symptom`.
fn teeth(breakage: Breakage, profile: Profile, symptom: &str) {
    must_find(&format!("{breakage:?}"), profile, breakage, symptom, 20_000);
}
