//! What is grown under an area: a filesystem over it, and the LUN behind it. Both are noticed at the next use, with nothing written,
//! and `mmp area move` puts the area where it belongs.

use mmpguard::clock;

use crate::Case;
use crate::harness::areas::{Content, Made};
use crate::harness::guarded::{spoiled, write_files};
use crate::harness::lun::{Lun, must, text};
use crate::harness::{at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("area_3_xfs_grown_over_its_area_is_refused_at_the_next_use", grown_filesystem),
    ("area_3_xfs_grown_over_its_area_is_stopped_while_it_is_mounted", || grown_and_stopped(Content::Xfs)),
    ("area_3_btrfs_grown_over_its_area_is_stopped_while_it_is_mounted", || grown_and_stopped(Content::Btrfs)),
    ("area_4_a_grown_lun_is_refused_until_its_area_was_moved", grown_lun),
    ("area_4_a_lun_that_grows_while_it_is_held_stays_held", grown_while_held),
];

const FILES: usize = 10;
const MIB: u64 = 1 << 20;

fn grown_filesystem() {
    let case = "area 3";
    let lun = Lun::protected(Content::Xfs, Made::default());
    let mounted = lun.guarded(&lun.a, &[]);
    write_files(&mounted.dir, "file", FILES).expect("writes");
    let grown = must("xfs_growfs", &[text(&mounted.dir)]);
    assert!(grown.contains("data blocks changed"), "{grown}");
    // The guard holds what it has, and others are kept out.
    clock::sleep(seconds(3));
    lun.refuses_the_other_host(case, 1.4);
    let generation = lun.generation();
    lun.unmount_and_wait(&lun.a, &mounted.dir);

    let before = lun.digest();
    let reason = "over the area that begins at byte";
    for on in [&lun.a, &lun.b] {
        lun.mount_fails(on, 7, reason);
        lun.run_true(on.path()).expect(120).says(reason);
        lun.verb(&["check", on.path()]).expect(7).says(reason);
    }
    lun.verb(&["area", "move", lun.a.path()]).expect(7).says("reaches to byte");
    lun.verb(&["enable", lun.a.path()]).expect(7).says(reason);
    let shown = lun.verb(&["area", "show", lun.a.path()]);
    shown.expect(0).says(reason);
    assert_eq!(lun.digest(), before, "a refusal wrote something");
    observed(
        case,
        "grown over its area: mount, run, check, move and enable refused, and no byte was written",
    );

    // Where the area was there is a filesystem by now: on a larger LUN it is not moved, which would be written there first.
    lun.grow(8 * MIB);
    let before = lun.digest();
    let was = (Content::Xfs.filesystem_bytes() + 4 * MIB).to_string();
    lun.verb(&["area", "move", "--was", &was, lun.a.path()]).expect(7).says(reason);
    lun.mount_fails(&lun.a, 7, "it is not protected");
    assert_eq!(lun.digest(), before, "a refusal wrote something");
    lun.verb(&["enable", lun.a.path()]).expect(0).says("protected");
    let again = lun.guarded(&lun.b, &[]);
    assert!(lun.generation() > generation, "a new area goes on with higher generations");
    assert_eq!(spoiled(&again.dir, "file", FILES), 0);
    lun.released(&again.dir);
    Content::Xfs.check(case, lun.image());
}

/// Every beat would be written into what is the filesystem's by then.
fn grown_and_stopped(content: Content) {
    let case = format!("area 3, {content:?} mounted");
    let lun = Lun::protected(content, Made::default());
    let mounted = lun.guarded(&lun.a, &[]);
    match content {
        Content::Xfs => must("xfs_growfs", &[text(&mounted.dir)]),
        _ => must("btrfs", &["filesystem", "resize", "max", text(&mounted.dir)]),
    };
    let grown = clock::mono();
    let (status, seen) = lun.status_until(&lun.a, seconds(120), |status| !status["lost"].is_null());
    // XFS tells it on the disk half a minute later.
    at_most(&case, "from growing it over its area to the loss", seen.since(grown), 60.0);
    let lost = &status["lost"];
    assert!(lost["reason"].to_string().contains("over the area"), "{status:#}");
    observed(&case, &format!("fence {}", lost["fence"]));
    if content == Content::Xfs {
        std::fs::write(mounted.dir.join("late"), "late").expect_err("the filesystem is shut down");
    }
    // By its directory, whatever number mountinfo has for it.
    lun.verb(&["umount", text(&mounted.dir)]).expect(5).says("not unmounted").says("--although-lost");
    lun.verb(&["umount", "--although-lost", text(&mounted.dir)]).expect(0);
    lun.forget_mount(&mounted.dir);
    let before = lun.digest();
    lun.mount_fails(&lun.b, 7, "over the area that begins at byte");
    assert_eq!(lun.digest(), before, "a refusal wrote something");
}

fn grown_lun() {
    let case = "area 4, grown";
    let lun = Lun::protected(Content::Xfs, Made::default());
    lun.run_true(lun.a.path()).expect(0);
    let generation = lun.generation();
    lun.grow(8 * MIB);
    let before = lun.digest();
    for on in [&lun.a, &lun.b] {
        lun.mount_fails(on, 7, "mmp area move");
        lun.run_true(on.path()).expect(120).says("mmp area move");
        lun.verb(&["check", on.path()]).expect(7).says("mmp area move");
    }
    // A second area would let in both who finds the one and who finds the other.
    lun.verb(&["enable", lun.a.path()]).expect(7).says("mmp area move");
    assert_eq!(lun.digest(), before, "a refusal wrote something");
    let moved = lun.verb(&["area", "move", lun.b.path()]);
    moved.expect(0).says("where it belongs now");
    at_most(case, "`mmp area move`", moved.took, 25.0);
    let there = lun.shown(lun.a.path());
    assert_eq!(there["area"]["target_bytes"], Content::Xfs.filesystem_bytes() + 12 * MIB, "{there:#}");
    assert!(lun.generation() >= generation, "{there:#}");
    let moved = lun.generation();
    lun.run_true(lun.b.path()).expect(0);
    assert_eq!(lun.generation(), moved + 1, "generations go on");
    let mounted = lun.guarded(&lun.a, &[]);
    lun.refuses_the_other_host(case, 1.4);
    assert_eq!(lun.generation(), moved + 2);
    observed(case, &format!("generation {generation}, {moved} after the move, {} in use", lun.generation()));
    lun.released(&mounted.dir);
    lun.verb(&["area", "move", lun.a.path()]).expect(0).says("the area is where it belongs");
}

fn grown_while_held() {
    let case = "area 4, grown while held";
    let lun = Lun::protected(Content::Xfs, Made::default());
    let mounted = lun.guarded(&lun.a, &[]);
    lun.grow(8 * MIB);
    clock::sleep(seconds(13));
    mounted.assert_alive();
    assert_eq!(lun.status(&lun.a)["state"], "guarding");
    lun.mount_fails(&lun.b, 7, "mmp area move");
    lun.verb(&["enable", lun.b.path()]).expect(7);
    let moving = lun.verb(&["area", "move", lun.b.path()]);
    moving.expect(1).says("in use elsewhere");
    write_files(&mounted.dir, "file", FILES).expect("writes on");
    lun.unmount_and_wait(&lun.a, &mounted.dir);
    lun.verb(&["area", "move", lun.b.path()]).expect(0);
    let next = lun.guarded(&lun.b, &[]);
    assert_eq!(spoiled(&next.dir, "file", FILES), 0);
    lun.released(&next.dir);
    Content::Xfs.check(case, lun.image());
}
