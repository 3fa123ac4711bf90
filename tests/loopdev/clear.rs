//! `mmp clear` against the running kernel and e2fsprogs: what it clears the kernel mounts at once, and whoever lives is not cleared away.

use std::fs;

use mmpguard::clock;
use mmpguard::format::NodeName;
use mmpguard::protocol::Sequence;
use nix::sys::signal::Signal;

use crate::Case;
use crate::harness::areas::{Content, Made};
use crate::harness::lun::{Lun, Shape, must, text};
use crate::harness::process::all_dead;
use crate::harness::started::{Ended, patiently};
use crate::harness::{at_least, at_most, millis, observed, seconds};
use crate::tools::{asking, the_e2fsck};

pub(crate) const CASES: &[Case] = &[
    ("clear_of_a_dead_e2fscks_mark_takes_its_nodes_name_and_a_full_claim", dead_fsck),
    ("clear_after_a_kernel_lost_its_power_lets_the_kernel_mount_at_once", dead_kernel),
    ("clear_of_what_mmp_left_unclean_behind_an_xfs", dead_slot),
    ("clear_by_two_at_once_leaves_it_clean", two_at_once),
    ("clear_of_a_live_kernels_block_is_refused_at_once", live_kernel),
    ("clear_of_a_damaged_block_finds_the_kernel_that_lives", damaged_and_alive),
    ("clear_by_force_over_a_live_holder_is_beaten_over", forced_over_a_holder),
    ("clear_by_force_over_a_live_kernel_is_beaten_over", forced_over_a_kernel),
];

const PATIENCE_S: u64 = 90;

/// Its holder beats so seldom that a busy machine gets from a look to a write between two beats.
const SLOW: Shape<'static> =
    Shape { bytes: 24 << 20, filesystem_bytes: 24 << 20, update_interval_s: 5, more: &[], place: None };

fn host() -> String {
    hostname::get().expect("has a name").into_string().expect("UTF-8")
}

/// What a host that has it mounted leaves on the disk when its power goes.
fn lost_power() -> Lun {
    let before = Lun::new();
    let mounted = before.mounted(&before.b);
    fs::write(mounted.join("file"), "written before").expect("writes");
    must("sync", &["-f", text(&mounted)]);
    let raw = before.raw();
    let counted = patiently(seconds(20), || (1..1000).contains(&raw.read().seq).then_some(()));
    assert!(counted.is_some(), "kmmpd does not beat: {:?}", raw.read());
    let bytes = before.bytes();
    Lun::made(bytes.len() as u64, None, None, |image| fs::write(image, &bytes).expect("writes"))
}

/// After the clear, and after e2fsprogs' own.
fn mounts_at_once(lun: &Lun, how: &str) {
    let (mut mounting, mounted) = lun.mount(&lun.b);
    let ended = mounting.end(seconds(PATIENCE_S));
    at_most("clear", &format!("the kernel's mount after {how}"), ended.expect(0).took, 1.0);
    let file = fs::read_to_string(mounted.join("file")).expect("is there, by the journal or without");
    assert_eq!(file, "written before");
    lun.umount(&lun.b, &mounted);
}

fn dead_kernel() {
    let (lun, peers) = (lost_power(), lost_power());
    let stale = lun.raw().read();
    let before = lun.bytes();
    let cleared = lun.mmp(&["clear", "--node", "beta", lun.a.path()]).end(seconds(PATIENCE_S));
    cleared.expect(0).says("cleared").says(&host()).says("needs_recovery");
    at_least("clear", "clearing what a kernel left", cleared.took, 23.5);
    at_most("clear", "clearing what a kernel left", cleared.took, 24.5);
    lun.assert_unchanged_outside_mmp(&before);
    let block = lun.raw().read();
    assert_eq!((Sequence::from(block.seq), block.node), (Sequence::Clean, NodeName::new("beta")));
    assert!(block.device.to_string() == lun.a.name() && block.time_s >= stale.time_s, "{block:?}");

    must("tune2fs", &["-f", "-E", "clear_mmp", peers.a.path()]);
    let theirs = peers.raw().read();
    assert_eq!((block.seq, block.check_interval_s), (theirs.seq, theirs.check_interval_s));
    for (lun, how) in [(&lun, "mmp clear"), (&peers, "tune2fs -f -E clear_mmp")] {
        let status = lun.start("e2mmpstatus", [lun.a.path()]).end(seconds(30));
        assert!(status.code == 0 && status.text().contains("clean"), "after {how}: {status:?}");
        mounts_at_once(lun, how);
        lun.start("e2fsck", ["-fn", lun.a.path()]).end(seconds(60)).expect(0);
    }
    let again = lun.mmp(&["clear", lun.a.path()]).end(seconds(30));
    again.expect(0).says("clean already");
    at_most("clear", "finding nothing to clear", again.took, 1.0);
}

fn live_kernel() {
    let lun = Lun::new();
    let mounted = lun.mounted(&lun.b);
    for more in [&[][..], &["--yes-node", &host()]] {
        let refused = lun.mmp(&[&["clear"], more, &[lun.a.path()]].concat()).end(seconds(30));
        refused.expect(1).says("in use elsewhere").says(&host()).says(lun.b.name()).says("is alive");
        at_most("clear", "refusal of what a kernel has mounted", refused.took, 1.4);
    }
    // On the host that has it mounted nothing is watched, and nothing forced.
    let before = lun.raw().read();
    for more in [&[][..], &["--force"]] {
        let here = lun.mmp(&[&["clear"], more, &[lun.b.path()]].concat()).end(seconds(30));
        here.expect(1).says("in use on this host").says(text(&mounted));
        assert!(!here.err.contains("without a watch"), "{}", here.err);
    }
    let now = lun.raw().read();
    assert!(now.node == before.node && now.device == before.device && now.seq >= before.seq, "{now:?}");
    lun.umount(&lun.b, &mounted);
}

fn dead_fsck() {
    let lun = Lun::new();
    let (mut fsck, _silent) = asking(&lun);
    let e2fsck = the_e2fsck(&fsck.process()).expect("runs");
    // Stopped or killed: nothing of it tells the difference.
    e2fsck.signal(Signal::SIGSTOP);
    let asked = lun.mmp(&["clear", lun.a.path()]).end(seconds(30));
    asked.expect(9).says("e2fsck").says(&host()).says(lun.b.path()).says("last update").says("--yes-node");
    at_most("clear", "asking about e2fsck's mark", asked.took, 1.0);
    lun.mmp(&["clear", "--yes-node", "another", lun.a.path()]).end(seconds(30)).expect(9);
    let used = lun.mmp(&["clear", "--yes-node", &host(), lun.b.path()]).end(seconds(30));
    used.expect(1).says("in use on this host").says("e2fsck");
    e2fsck.signal(Signal::SIGKILL);
    assert!(all_dead(std::slice::from_ref(&e2fsck), seconds(5)).is_some());
    // script(1) has stopped with what runs under it.
    for process in fsck.process().descendants() {
        process.signal(Signal::SIGCONT);
    }
    let _ = fsck.end(seconds(10));

    let before = lun.bytes();
    let raw = lun.raw();
    assert_eq!(Sequence::from(raw.read().seq), Sequence::Fsck, "its mark stands");
    let cleared = lun.mmp(&["clear", "--yes-node", &host(), lun.a.path()]).end(seconds(PATIENCE_S));
    cleared.expect(0).says("cleared");
    at_least("clear", "clearing e2fsck's mark", cleared.took, 23.5);
    lun.assert_unchanged_outside_mmp(&before);
    // Without lost+found there is something to mend, and nobody in the way.
    let checked = lun.start("e2fsck", ["-fn", lun.a.path()]).end(seconds(60));
    assert!(checked.code == 4 && !checked.text().contains("MMP"), "{checked:?}");
    lun.start("e2fsck", ["-fy", lun.a.path()]).end(seconds(PATIENCE_S)).expect(1);
    lun.mounted(&lun.b);
}

/// A kernel whose block was overwritten writes it anew with its next beat.
fn damaged_and_alive() {
    let lun = Lun::shaped(Shape { update_interval_s: 5, ..Shape::default() });
    lun.mounted(&lun.b);
    let image = fs::File::options().write(true).open(lun.image()).expect("opens");
    let at = lun.raw().offset as u64;
    std::os::unix::fs::FileExt::write_all_at(&image, b"Q", at).expect("writes");
    image.sync_all().expect("syncs");
    let refused = lun.mmp(&["clear", "--damaged", lun.a.path()]).end(seconds(PATIENCE_S));
    refused.expect(1).says("is alive").says(&host());
    observed(
        "clear",
        &format!("a damaged block that a kernel beats: refused after {:.2} s", refused.took.as_secs_f64()),
    );
    at_most("clear", "refusal of a damaged block that a kernel beats", refused.took, 6.0);
}

fn forced_over_a_holder() {
    let lun = Lun::shaped(SLOW);
    let mut run = lun.run_with("alpha", &lun.a, &["--interval", "5s"], "mark alpha.up; exec sleep 1000", &[]);
    lun.up("alpha", &mut run, seconds(PATIENCE_S));
    let forced = forced(&lun, &["--yes-node", "alpha", "--node", "beta", lun.b.path()]);
    forced.expect(0).says("cleared").says("without a watch").says("alpha");
    run.says("was marked clean", seconds(20));
    clock::sleep(seconds(3));
    assert!(!run.has_ended(), "the holder goes on: {}", run.err());
    let raw = lun.raw();
    let block = raw.read();
    assert!(
        matches!(Sequence::from(block.seq), Sequence::Live(_)) && block.node == NodeName::new("alpha"),
        "{block:?}"
    );
}

/// Right after a beat, over one who beats every five seconds: refused if he does so again between the first look and the last.
fn forced(lun: &Lun, more: &[&str]) -> Ended {
    let raw = lun.raw();
    let mut tries = 0;
    loop {
        let before = raw.read().seq;
        patiently(seconds(20), || (raw.read().seq != before).then_some(())).expect("beats");
        let ended = lun.mmp(&[&["clear", "--force"], more].concat()).end(seconds(30));
        tries += 1;
        if ended.code != 1 || tries == 10 {
            return ended;
        }
        ended.says("changed after");
    }
}

/// `kmmpd` does not notice, and goes on.
fn forced_over_a_kernel() {
    let lun = Lun::shaped(SLOW);
    let mounted = lun.mounted(&lun.b);
    let raw = lun.raw();
    let node = lun.raw().read().node.to_string();
    let forced = forced(&lun, &["--yes-node", &node, lun.a.path()]);
    forced.expect(0).says("cleared").says("without any wait");
    let live = patiently(seconds(30), || {
        matches!(Sequence::from(raw.read().seq), Sequence::Live(_)).then(clock::mono)
    });
    let live = live.expect("kmmpd beats on");
    at_most("clear", "the kernel's beat over a forced clean mark", live.since(forced.at), 5.3);
    lun.umount(&lun.b, &mounted);
    lun.start("e2fsck", ["-fn", lun.a.path()]).end(seconds(60)).expect(0);
}

fn dead_slot() {
    let lun = Lun::protected(Content::Xfs, Made::default());
    let mut run = lun.hold("alpha", &lun.a, "sleep 1000");
    let guards = run.process().descendants();
    run.process().signal(Signal::SIGKILL);
    assert!(all_dead(&guards, seconds(20)).is_some(), "left: {guards:?}");
    run.end(seconds(10)).expect(128 + 9);
    let before = lun.shown(lun.a.path())["generation"].as_u64().expect("has one");
    let cleared = lun.mmp(&["clear", "--node", "beta", lun.b.path()]).end(seconds(PATIENCE_S));
    cleared.expect(0).says("cleared").says("alpha");
    at_least("clear", "clearing a slot", cleared.took, 22.0);
    at_most("clear", "clearing a slot", cleared.took, 23.0);
    let after = lun.shown(lun.a.path())["generation"].as_u64().expect("has one");
    assert!(after > before, "{after} {before}");
    lun.mmp(&["check", lun.a.path()]).end(seconds(30)).expect(0).says("free");
    lun.mmp(&["clear", lun.a.path()]).end(seconds(30)).expect(0).says("clean already");
}

/// Either both get through, one after the other, or one finds the other alive.
fn two_at_once() {
    let lun = lost_power();
    let mut clears = [("beta", &lun.a), ("gamma", &lun.b)]
        .map(|(node, on)| lun.mmp(&["clear", "--node", node, on.path()]));
    clock::sleep(millis(100));
    let codes = clears.each_mut().map(|clear| clear.end(seconds(PATIENCE_S)).code);
    observed("clear", &format!("two at once ended with {codes:?}"));
    assert!(codes.contains(&0) && codes.iter().all(|code| [0, 1].contains(code)), "{codes:?}");
    assert_eq!(Sequence::from(lun.raw().read().seq), Sequence::Clean);
}
