//! What cannot be mounted guarded is refused, and leaves no claim, no process and no record.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use mmpguard::protocol::sequence::{SEQ_CLEAN, SEQ_FSCK};

use crate::Case;
use crate::guard_support::{
    is_mounted, mount, mount_on, nothing_is_left, nothing_is_left_and_clean, opener, unmount_plainly,
};
use crate::harness::lun::{Loop, Lun, must, text};
use crate::harness::{at_least, at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("guard_refused_a_dead_holder_is_vouched_for_by_name", fenced_by_name),
    ("guard_refused_a_mark_of_e2fsck_is_vouched_for_by_name", fsck_by_name),
    ("guard_refused_a_journal_that_cannot_be_recovered_leaves_nothing", || broken_journal("kernel")),
    ("guard_refused_a_journal_that_cannot_be_recovered_leaves_it_clean", || broken_journal("clean")),
    ("guard_refused_mounts_that_fail_after_a_claim_leave_it_clean", failed_after_a_claim),
    ("guard_refused_a_device_in_use_here_says_by_whom", in_use_here),
    ("guard_refused_mounts_that_fail_at_once_leave_it_clean", failed_at_once),
    ("guard_refused_devices_that_cannot_be_guarded", unsuitable),
    ("guard_refused_tags_that_lead_to_two_devices", tags),
    ("guard_refused_a_directory_where_an_automount_waits", automount),
];

/// Whatever is refused before a claim: at once, with nothing written and nothing left.
fn unsuitable() {
    let lun = Lun::new();
    let before = lun.bytes();
    let dir = lun.mount_point();
    let file = lun.file("a-file");
    std::fs::write(&file, "").expect("writes");
    let image = text(lun.image()).to_owned();
    let refused = |device: &str, to: &Path, options: &[&str], code: i32, told: &str| {
        let ended = mount_on(&lun, device, to, options, &[]).end(seconds(30));
        ended.expect(code).says(told);
        at_most("C", &format!("refusing {device} on {} with {options:?}", to.display()), ended.took, 1.0);
        nothing_is_left(&lun);
    };
    let device = lun.a.path();
    refused(device, &lun.file("nowhere"), &[], 4, "No such file or directory");
    refused(device, &file, &[], 4, "not a directory");
    refused("/dev/nonexistent", &dir, &[], 4, "No such file or directory");
    refused(&image, &dir, &[], 7, "losetup --direct-io=on");
    refused(text(&dir), &dir, &[], 2, "directory");
    for option in ["remount,rw", "bind", "loop", "offset=0", "rshared"] {
        refused(device, &dir, &["-o", option], 2, "not with a guarded mount");
    }
    refused(device, &dir, &["-r", "-o", "rw"], 2, "contradict");
    refused(device, &dir, &["-t", "noxfs"], 2, "one type");
    refused(device, &dir, &["-t", "ext4,xfs"], 2, "one type");
    refused(device, &dir, &["--tolerate", "30s"], 2, "--read-only");
    refused(device, &dir, &["-o", "rw", "--on-loss", "shutdown"], 10, "--incomplete-fence");

    must("blockdev", &["--setro", device]);
    refused(device, &dir, &[], 4, "read-only");
    must("blockdev", &["--setrw", device]);

    let empty = lun.file("empty.img");
    std::fs::File::create(&empty).expect("makes it").set_len(1 << 20).expect("has that length");
    let blank = Loop::new(&empty);
    refused(blank.path(), &dir, &[], 7, "neither XFS nor ext4 nor btrfs stands on it");
    must("mkfs.ext4", &["-q", "-F", "-O", "^mmp", blank.path()]);
    refused(blank.path(), &dir, &[], 7, "`mmp enable`");
    lun.assert_unchanged_outside_mmp(&before);
    assert_eq!(lun.bytes(), before, "a refusal wrote something");
}

/// As systemd makes one for `x-systemd.automount`: a guard would wait for the mount that it is to make.
fn automount() {
    let lun = Lun::new();
    let before = lun.bytes();
    let dir = lun.mount_point();
    // Nobody reads what the kernel asks; we are of the group that it lets through, and would not be held up.
    let (_asked, asks) = std::io::pipe().expect("makes a pipe");
    let options =
        format!("fd={},pgrp={},minproto=5,maxproto=5,direct", asks.as_raw_fd(), nix::unistd::getpgrp());
    nix::mount::mount(
        Some("mmpguard-test"),
        &dir,
        Some("autofs"),
        nix::mount::MsFlags::empty(),
        Some(options.as_str()),
    )
    .expect("mounts");
    let refused = mount_on(&lun, lun.a.path(), &dir, &[], &[]).end(seconds(30));
    refused.expect(7).says("x-systemd.automount").says("noauto or nofail");
    must("umount", &[text(&dir)]);
    lun.forget_mount(&dir);
    nothing_is_left(&lun);
    assert_eq!(lun.bytes(), before, "a refusal wrote something");
}

fn in_use_here() {
    let lun = Lun::new();
    let plain = lun.mounted(&lun.a);
    let (mut mounting, _) = mount(&lun, &lun.a, &[]);
    mounting.end(seconds(30)).expect(1).says("in use on this host").says(text(&plain));
    lun.umount(&lun.a, &plain);
    let user = opener(&lun, lun.a.path(), "<>");
    let (mut mounting, _) = mount(&lun, &lun.a, &[]);
    let pid = user.process().pid;
    mounting.end(seconds(30)).expect(1).says(&format!("process {pid} (sleep) has it open for writing"));
    drop(user);
    let (mut first, dir) = mount(&lun, &lun.a, &["--handover", "clean"]);
    first.says("claimed; watching", seconds(10));
    let (mut second, _) = mount(&lun, &lun.a, &[]);
    second.end(seconds(30)).expect(1).says("is about to mount it on").says(text(&dir));
    first.end(seconds(60)).expect(0);
    for options in [&[][..], &["-r"], &["--handover", "clean"]] {
        let (mut mounting, _) = mount(&lun, &lun.a, options);
        let refused = mounting.end(seconds(30));
        refused.expect(1).says("guarded by process").says(text(&dir));
        at_most("C", "refusing what is guarded here", refused.took, 1.0);
    }
    lun.mmp(&["check", lun.a.path()]).end(seconds(30)).expect(1).says("in use on this host");
    unmount_plainly(&lun, &dir);
}

/// mount(8) fails before the kernel comes to MMP: what we wrote is taken back.
fn failed_at_once() {
    for (options, told) in [
        (&["-o", "nonsense"][..], "mount(8) failed"),
        (&["-o", "data=nonsense"], "mount(8) failed"),
        (&["-t", "xfs"], "mount(8) failed"),
        (&["-t", "unheard-of"], "unknown filesystem type"),
    ] {
        let lun = Lun::new();
        let (mut mounting, to) = mount(&lun, &lun.a, options);
        let failed = mounting.end(seconds(60));
        failed.expect(4).says(told).says("nothing is mounted, and the MMP block is clean");
        at_most("C", &format!("a mount with {options:?} that fails"), failed.took, 3.0);
        assert!(!is_mounted(&to));
        nothing_is_left_and_clean(&lun);
        observed("C", failed.err.lines().last().unwrap_or_default());
    }
}

/// The same after a claim of our own.
fn failed_after_a_claim() {
    let cases: [&[&str]; 3] =
        [&["-r", "-o", "nonsense"], &["--handover", "clean", "-o", "nonsense"], &["-r", "-t", "xfs"]];
    let started: Vec<_> = cases
        .iter()
        .map(|options| {
            let lun = Lun::new();
            let (mounting, to) = mount(&lun, &lun.a, options);
            (lun, mounting, to)
        })
        .collect();
    for ((lun, mut mounting, to), options) in started.into_iter().zip(cases) {
        let failed = mounting.end(seconds(60));
        failed.expect(4).says("mount(8) failed").says("nothing is mounted, and the MMP block is clean");
        at_most("C", &format!("a mount with {options:?} that fails"), failed.took, 14.0);
        assert!(!is_mounted(&to));
        nothing_is_left_and_clean(&lun);
        // Nobody has to wait for it.
        let mounted = { lun.mount(&lun.b) }.0.end(seconds(60));
        at_most("C", "another host's mount after that", mounted.expect(0).took, 1.0);
    }
}

/// mount(8) fails after the kernel's MMP claim.
fn broken_journal(handover: &str) {
    let lun = Lun::new();
    let first = must("debugfs", &["-R", "bmap <8> 0", text(lun.image())]);
    let seek = format!("seek={}", first.trim());
    let size = format!("bs={}", lun.raw().block_bytes());
    let of = format!("of={}", text(lun.image()));
    must("dd", &["if=/dev/zero", &of, &size, &seek, "count=1", "conv=notrunc,fsync", "status=none"]);
    let (mut mounting, to) = mount(&lun, &lun.a, &["--handover", handover]);
    let failed = mounting.end(seconds(60));
    failed.expect(4).says("mount(8) failed").says("nothing is mounted");
    assert!(!is_mounted(&to));
    nothing_is_left(&lun);
    // A kernel whose kmmpd was stopped before it ran writes no clean mark, and its claim is older than a lease then: it
    // cannot be taken back, and that is said.
    let stands = handover == "kernel" && failed.err.contains("a claim of this host stands in the MMP block");
    if !stands {
        failed.says("the MMP block is clean");
        nothing_is_left_and_clean(&lun);
    }
    let what = format!("a mount that fails at its journal, handed over {handover}");
    at_most("C", &what, failed.took, if handover == "clean" { 14.0 } else { 24.0 });
}

/// A live block of a host called so, that nobody renews.
fn left_by(lun: &Lun, node: &str, seq: u32) {
    let raw = lun.raw();
    let mut block = raw.read();
    block.seq = seq;
    block.node = mmpguard::format::NodeName::new(node);
    block.check_interval_s = 5;
    raw.write(&block);
}

fn fenced_by_name() {
    let (right, wrong) = (Lun::new(), Lun::new());
    for lun in [&right, &wrong] {
        left_by(lun, "dead-node", 123_456);
    }
    let (mut quick, dir) = mount(&right, &right.a, &["--fenced", "dead-node"]);
    let (mut slow, slow_dir) = mount(&wrong, &wrong.a, &["--fenced", "other-node"]);
    let quick = quick.end(seconds(60));
    quick.expect(0);
    at_least("C", "a mount after a holder that was vouched to be dead", quick.took, 13.5);
    at_most("C", "a mount after a holder that was vouched to be dead", quick.took, 15.0);
    unmount_plainly(&right, &dir);
    let slow = slow.end(seconds(60));
    slow.expect(0);
    at_least("C", "a mount after a holder of another name", slow.took, 22.0);
    unmount_plainly(&wrong, &slow_dir);
}

fn fsck_by_name() {
    let lun = Lun::new();
    left_by(&lun, "dead-node", SEQ_FSCK);
    for options in [&[][..], &["--handover", "clean"], &["-r"], &["--fenced", "other-node"]] {
        let (mut mounting, to) = mount(&lun, &lun.a, options);
        let refused = mounting.end(seconds(30));
        refused.expect(9).says("e2fsck is at work on it, or died at it").says("dead-node");
        at_most("C", &format!("refusing a mark of e2fsck with {options:?}"), refused.took, 1.0);
        assert!(!is_mounted(&to));
        nothing_is_left(&lun);
        assert_eq!(lun.raw().read().seq, SEQ_FSCK);
    }
    let (mut mounting, dir) = mount(&lun, &lun.a, &["--fenced", "dead-node"]);
    let vouched = mounting.end(seconds(60));
    vouched.expect(0);
    at_least("C", "a mount after an e2fsck that was vouched to be dead", vouched.took, 13.5);
    unmount_plainly(&lun, &dir);
}

fn tags() {
    let lun = Lun::shaped(crate::harness::lun::Shape { more: &["-L", "mmp-two"], ..Default::default() });
    let dir = lun.mount_point();
    let refused = mount_on(&lun, "LABEL=mmp-two", &dir, &[], &[]).end(seconds(30));
    refused.expect(2).says(lun.a.path()).says(lun.b.path());
    let uuid = must("blkid", &["-o", "value", "-s", "UUID", lun.a.path()]);
    let tag = format!("UUID={}", uuid.trim());
    mount_on(&lun, &tag, &dir, &[], &[]).end(seconds(30)).expect(2).says(lun.a.path()).says(lun.b.path());
    mount_on(&lun, "LABEL=no-such-label-here", &dir, &[], &[])
        .end(seconds(30))
        .expect(2)
        .says("no block device of this host has that");
    nothing_is_left(&lun);

    // A copy, with a label of its own and one path to it.
    let copy = lun.file("copy.img");
    std::fs::copy(lun.image(), &copy).expect("copies");
    let label = format!("one-{}", std::process::id());
    must("tune2fs", &["-L", &label, text(&copy)]);
    let one = Loop::new(&copy);
    let mut mounting = mount_on(&lun, &format!("LABEL={label}"), &dir, &["--handover", "clean"], &[]);
    mounting.end(seconds(60)).expect(0).says(&format!("{} guarded on", one.path()));
    must("umount", &[text(&dir)]);
    nothing_is_left(&lun);
    let seq = crate::harness::block::RawBlock::find(&copy).read().seq;
    assert_eq!(seq, SEQ_CLEAN);
}
