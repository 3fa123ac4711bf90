//! Copies of a LUN, and areas that were written over: each is used for what it is or refused with the reason, and nothing is ever
//! mounted plainly instead.

use crate::Case;
use crate::harness::areas::{Content, Made};
use crate::harness::guarded::{How, spoiled, write_files};
use crate::harness::lun::{Loop, Lun, must};
use crate::harness::{at_least, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("area_4_a_clone_is_used_by_itself_and_does_not_disturb_the_original", clone),
    ("area_4_a_rollback_goes_on_with_higher_generations_after_a_repair", rollback),
    ("area_4_an_area_under_a_new_filesystem_is_never_a_plain_mount", made_over),
    ("area_4_a_lost_header_is_found_by_a_repair", lost_header),
    ("area_4_wipefs_takes_the_filesystem_and_leaves_the_area", wiped),
];

const FILES: usize = 10;

fn clone() {
    let case = "area 4, clone";
    let lun = Lun::protected(Content::Xfs, Made::default());
    let original = lun.guarded(&lun.a, &[]);
    write_files(&original.dir, "file", FILES).expect("writes");
    let copy = lun.copy("clone.img");
    let clone = Loop::new(&copy);
    // The kernel would find two filesystems of one UUID.
    let how = How { options: &["-o", "nouuid"], ..How::default() };
    let (mut mounting, dir) = lun.guard_with(&clone, how);
    let end = mounting.end(seconds(60));
    end.expect(0);
    let cloned = lun.guard_of(&clone, dir, end.took);
    at_least(case, "the mount of a clone, which says that it is held,", cloned.took, 22.0);
    assert_eq!(spoiled(&cloned.dir, "file", FILES), 0);
    write_files(&cloned.dir, "clone", FILES).expect("writes");
    original.assert_alive();
    lun.refuses_the_other_host(case, 1.4);
    write_files(&original.dir, "original", FILES).expect("writes on");
    let differ = |path: &str| lun.shown(path)["generation"].as_u64().expect("is told");
    observed(
        case,
        &format!("generations: original {}, clone {}", differ(lun.b.path()), differ(clone.path())),
    );
    lun.released(&cloned.dir);
    original.assert_alive();
    assert_eq!(lun.status(&lun.a)["state"], "guarding");
    lun.released(&original.dir);
    Content::Xfs.check(case, lun.image());
    Content::Xfs.check(case, &copy);
}

fn rollback() {
    let case = "area 4, rollback";
    let lun = Lun::protected(Content::Xfs, Made { options: &["--interval", "500ms"], ..Made::default() });
    lun.run_true(lun.a.path()).expect(0);
    let snapshot = lun.copy("snapshot.img");
    let at_snapshot = lun.generation();
    lun.run_true(lun.b.path()).expect(0);
    lun.run_true(lun.a.path()).expect(0);
    let given_away = lun.generation();
    assert_eq!(given_away, at_snapshot + 2);
    lun.restore(&snapshot);
    assert_eq!(lun.generation(), at_snapshot, "nothing tells of what was given away since");
    let repaired = lun.verb(&["area", "repair", "--rolled-back", lun.a.path()]);
    repaired.expect(0).says("generations raised");
    lun.run_true(lun.b.path()).expect(0);
    let next = lun.generation();
    assert!(next > given_away, "{given_away} was given away, and now {next}");
    observed(case, &format!("snapshot at {at_snapshot}, given away {given_away}, after the repair {next}"));
}

/// Everything asked for protection is refused, and no byte is written.
fn all_refused(lun: &Lun, told: &str) {
    let before = lun.digest();
    for on in [&lun.a, &lun.b] {
        lun.mount_fails(on, 7, told);
        lun.run_true(on.path()).expect(120).says(told);
        lun.verb(&["check", on.path()]).expect(7).says(told);
    }
    assert_eq!(lun.digest(), before, "a refusal wrote something");
}

fn made_over() {
    let case = "area 4, mkfs";
    let lun = Lun::protected(Content::Xfs, Made::default());
    must("mkfs.xfs", &["-q", "-f", lun.a.path()]);
    all_refused(&lun, "it is not protected");
    let none = lun.verb(&["enable", lun.a.path()]);
    none.expect(7).says("no room for an area").says("mkfs.xfs -d size=");
    // As large as before, and without a discard: mkfs zeroes over the last 64 KiB of the device all the same.
    let lun = Lun::protected(Content::Xfs, Made { options: &["--interval", "500ms"], ..Made::default() });
    lun.run_true(lun.a.path()).expect(0);
    let generation = lun.generation();
    let size = format!("size={}", Content::Xfs.filesystem_bytes());
    must("mkfs.xfs", &["-q", "-f", "-K", "-d", &size, lun.a.path()]);
    all_refused(&lun, "it is not protected");
    lun.verb(&["enable", "--interval", "500ms", lun.a.path()]).expect(0);
    lun.run_true(lun.b.path()).expect(0);
    assert!(lun.generation() > generation, "a new area goes on with higher generations");
    observed(
        case,
        "mkfs.xfs, over all of it or over the filesystem alone: refused until there is a new area",
    );
}

fn lost_header() {
    let case = "area 4, lost header";
    let lun = Lun::protected(Content::Xfs, Made { options: &["--interval", "500ms"], ..Made::default() });
    lun.run_true(lun.a.path()).expect(0);
    let generation = lun.generation();
    lun.zero_block_from_end(1);
    all_refused(&lun, "mmp area repair");
    lun.verb(&["enable", lun.a.path()]).expect(7).says("mmp area repair");
    for slots in [&["--slots", "1"][..], &[]] {
        let mut arguments = vec!["area", "repair"];
        arguments.extend(slots);
        arguments.push(lun.b.path());
        let repaired = lun.verb(&arguments);
        repaired.expect(0).says("the copy of the header was written anew");
        observed(case, &format!("mmp area repair {slots:?} took {:?}", repaired.took));
        assert_eq!(lun.generation(), generation);
        lun.zero_block_from_end(1);
    }
    lun.verb(&["area", "repair", lun.a.path()]).expect(0);
    // The other header, from which it is not found: it may be used without.
    lun.zero_block_from_end(6);
    lun.verb(&["area", "show", lun.b.path()]).expect(0).says("area repair");
    lun.run_true(lun.b.path()).expect(0);
    lun.verb(&["area", "repair", lun.b.path()]).expect(0).says("header");
    lun.run_true(lun.a.path()).expect(0);
    assert_eq!(lun.generation(), generation + 2);
}

fn wiped() {
    let case = "area 4, wipefs";
    let lun = Lun::protected(Content::Xfs, Made { options: &["--interval", "500ms"], ..Made::default() });
    let said = must("wipefs", &["-a", lun.a.path()]);
    assert!(said.contains("(xfs)"), "{said}");
    must("blockdev", &["--flushbufs", lun.b.path()]);
    let before = lun.digest();
    lun.mount_fails(&lun.b, 7, "neither XFS nor ext4 nor btrfs stands on it");
    assert_eq!(lun.digest(), before, "a refusal wrote something");
    let hold = lun.hold("alpha", &lun.a, "exec sleep 1000");
    lun.run_true(lun.b.path()).expect(121).says("alpha");
    mmpguard::clock::sleep(millis(500));
    drop(hold);
    observed(case, "wipefs -a took 4 bytes of XFS, and nothing of the area");
}
