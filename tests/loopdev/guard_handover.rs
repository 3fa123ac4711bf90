//! How long a guarded mount takes, by the hand-over; who leaves in its way; what the configuration file says.

use mmpguard::clock;
use mmpguard::protocol::sequence::SEQ_CLEAN;

use crate::Case;
use crate::guard_support::{
    becomes, mount, mount_on, mounted, mounted_clean, nothing_is_left, refuses_others, unmount_plainly,
};
use crate::harness::lun::{Lun, must, text};
use crate::harness::{at_least, at_most, millis, seconds};

pub(crate) const CASES: &[Case] = &[
    ("guard_handover_a_clean_mark_in_the_kernels_wait_goes_on", clean_mark_in_the_wait),
    ("guard_handover_a_peer_that_leaves_lets_the_waiting_one_in_by_the_kernel", || peer_leaves("kernel")),
    ("guard_handover_a_peer_that_leaves_lets_the_waiting_one_in_clean", || peer_leaves("clean")),
    ("guard_handover_waits_for_a_guard_of_the_same_host", same_host),
    ("guard_handover_by_the_kernel_takes_two_waits", by_the_kernel),
    ("guard_handover_clean_takes_one_wait", clean),
    ("guard_handover_by_the_configuration_file", by_configuration),
];

fn clean() {
    let lun = Lun::new();
    for round in 0..2 {
        let (mut mounting, dir) = mount(&lun, &lun.a, &["--handover", "clean"]);
        let mounted = mounting.end(seconds(60));
        mounted.expect(0);
        at_least("E", &format!("mount {round} of a clean LUN, handed over clean"), mounted.took, 11.0);
        at_most("E", &format!("mount {round} of a clean LUN, handed over clean"), mounted.took, 11.8);
        std::fs::write(dir.join("file"), "x").expect("writes");
        refuses_others(&lun);
        unmount_plainly(&lun, &dir);
    }
    must("e2fsck", &["-fn", lun.b.path()]);
}

fn by_the_kernel() {
    let lun = Lun::new();
    let (mut mounting, dir) = mount(&lun, &lun.a, &[]);
    let mounted = mounting.end(seconds(60));
    mounted.expect(0);
    at_least("E", "mount of a clean LUN, the kernel waits", mounted.took, 21.9);
    at_most("E", "mount of a clean LUN, the kernel waits", mounted.took, 22.6);
    refuses_others(&lun);
    unmount_plainly(&lun, &dir);
}

fn by_configuration() {
    let lun = Lun::new();
    let file = lun.file("mmp.toml");
    let env = [("MMP_CONFIG", text(&file).to_owned())];
    let dir = lun.mount_point();
    let refused = |content: &str, told: &str| {
        std::fs::write(&file, content).expect("writes");
        let ended = mount_on(&lun, lun.a.path(), &dir, &[], &env).end(seconds(30));
        ended.expect(2).says("mmp.toml").says(told);
        nothing_is_left(&lun);
    };
    refused("[mount]\nhand_over = \"clean\"\n", "hand_over");
    refused("[mount]\nhandover = \"soon\"\n", "soon");
    refused("[mounts]\n", "mounts");
    std::fs::remove_file(&file).expect("is there");
    mount_on(&lun, lun.a.path(), &dir, &[], &env).end(seconds(30)).expect(4).says("mmp.toml");
    std::fs::write(&file, "[mount]\nhandover = \"clean\"\n").expect("writes");
    let mounted = mount_on(&lun, lun.a.path(), &dir, &[], &env).end(seconds(60));
    at_most("E", "a mount handed over clean by the configuration", mounted.expect(0).took, 11.8);
    unmount_plainly(&lun, &dir);
}

/// K8: the peer's clean unmount is a success.
fn peer_leaves(handover: &str) {
    let lun = Lun::new();
    let peer = mounted_clean(&lun, &lun.b);
    let (mut mounting, dir) = mount(&lun, &lun.a, &["--wait", "60s", "--handover", handover]);
    mounting.says("in use elsewhere; waiting up to", seconds(10));
    clock::sleep(seconds(4));
    assert!(!mounting.has_ended());
    must("umount", &[text(&peer)]);
    let left = clock::mono();
    let mounted = mounting.end(seconds(60));
    mounted.expect(0);
    let (least, most) = if handover == "clean" { (11.0, 12.5) } else { (21.9, 23.5) };
    at_least("E", &format!("from a peer's unmount to our mount, {handover}"), mounted.at.since(left), least);
    at_most("E", &format!("from a peer's unmount to our mount, {handover}"), mounted.at.since(left), most);
    becomes(&lun, &lun.a, "mode", "watching", seconds(5));
    unmount_plainly(&lun, &dir);
}

/// He was silent (frozen, or slow), and leaves while the kernel watches his block.
fn clean_mark_in_the_wait() {
    let lun = Lun::new();
    let raw = lun.raw();
    let mut block = raw.read();
    (block.seq, block.check_interval_s) = (4711, 5);
    block.node = mmpguard::format::NodeName::new("peer");
    raw.write(&block);
    let (mut mounting, dir) = mount(&lun, &lun.a, &[]);
    mounting.says("not clean; last named", seconds(5));
    clock::sleep(seconds(5));
    block.seq = SEQ_CLEAN;
    raw.write(&block);
    let left = clock::mono();
    mounting.says("it was left cleanly just now; again", seconds(5));
    let mounted = mounting.end(seconds(60));
    mounted.expect(0);
    at_least("E", "from the clean mark in the kernel's wait to the mount", mounted.at.since(left), 21.9);
    at_most("E", "from the clean mark in the kernel's wait to the mount", mounted.at.since(left), 23.5);
    refuses_others(&lun);
    unmount_plainly(&lun, &dir);
}

fn same_host() {
    let lun = Lun::new();
    let first = mounted(&lun, &lun.a, &["--handover", "clean"]);
    let (mut mounting, dir) = mount(&lun, &lun.a, &["--wait", "60s", "--handover", "clean"]);
    mounting.says("in use on this host, guarded by mmp; waiting", seconds(5));
    clock::sleep(seconds(2));
    must("umount", &[text(&first)]);
    let left = clock::mono();
    let mounted = mounting.end(seconds(60));
    at_most("E", "from our own unmount to the mount that waited", mounted.expect(0).at.since(left), 14.0);
    clock::sleep(millis(100));
    unmount_plainly(&lun, &dir);
}
