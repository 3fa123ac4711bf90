//! Peers of other kinds: e2fsck, and administrators who clear the block by force; and one fault alone.

use super::checked;
use super::simulator::plan::Profile;

/// It neither gets in beside a user nor stops one, and nobody gets in beside it. Killed, it leaves a mark that keeps
/// everybody out until it is cleared (`Apart::left_marked`).
#[test]
fn never_two_users_beside_e2fsck() {
    let report = checked(Profile::Fscks, 500);
    let (total, fsck) = (&report.total, &report.total.fsck);
    for count in [
        total.held,
        total.lost * 3,
        fsck.worked,
        fsck.refused,
        fsck.died * 3,
        fsck.clears * 12,
        fsck.answered * 12,
    ] {
        assert!(count > 100, "{}", report.figures());
    }
}

/// Over a holder of ours it is no loss: he beats again at once, and a claimer waits on clean, too.
#[test]
fn a_forced_clear_lets_nobody_in_beside_a_holder_of_ours() {
    let report = checked(Profile::Clears, 150);
    let (total, fsck) = (&report.total, &report.total.fsck);
    for count in [total.held, total.intruders, total.mounts.watched, fsck.worked * 8, fsck.clears] {
        assert!(count > 300, "{}", report.figures());
    }
}

/// After any single fault somebody is in again, within the stated time, and nobody whom it did not strike suffers.
#[test]
fn after_any_single_fault_somebody_gets_in_again() {
    let report = checked(Profile::OneFault, 200);
    let (total, mounts) = (&report.total, &report.total.mounts);
    for count in [total.held, total.kernel_mounts, total.crashes * 8, total.stalls * 8, mounts.watched * 2] {
        assert!(count > 50, "{}", report.figures());
    }
}
