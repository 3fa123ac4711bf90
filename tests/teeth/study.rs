//! A longer life through a stall (`simulator::second_life`): what makes it safe is that its beat has to stand.

use super::simulator::breakage::Breakage;
use super::simulator::plan::Profile;
use super::{TWO_USERS, teeth};

#[test]
fn a_second_life_whose_beat_need_not_stand_is_found() {
    teeth(Breakage::UnconfirmedSecondLife, Profile::SecondLife, TWO_USERS);
}
