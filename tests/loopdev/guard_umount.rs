//! How a guarded mount ends: by a plain umount, lazily, with users left behind, in other mount namespaces.

use mmpguard::clock;
use mmpguard::protocol::sequence::SEQ_CLEAN;

use crate::Case;
use crate::guard_support::{
    becomes, guard, guards, is_mounted, mount, mounted, mounted_clean, nothing_is_left_and_clean, opener,
    refuses_others, status_of, unmount_plainly,
};
use crate::harness::lun::{DIRECTORY_PREFIX, Lun, must, text};
use crate::harness::started::{Started, patiently};
use crate::harness::{at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("guard_umount_a_process_with_the_device_open_delays_the_release_of_a_read_only_mount", open_device),
    ("guard_umount_lazily_with_a_file_open_stays_guarded_until_it_is_closed", lazily),
    ("guard_umount_a_mount_in_another_namespace_stays_guarded", other_namespace),
    ("guard_umount_waits_and_a_new_mount_follows_at_once", plain),
    ("guard_umount_a_busy_filesystem_stays_guarded", busy),
    ("guard_umount_two_mounts_of_one_filesystem_end_with_the_last", two_mounts),
];

fn umount<'a>(lun: &Lun, arguments: impl IntoIterator<Item = &'a str>) -> Started {
    lun.mmp(&["umount"].into_iter().chain(arguments).collect::<Vec<_>>())
}

fn plain() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    for (round, what) in [text(&dir), lun.a.path()].into_iter().enumerate() {
        std::fs::write(dir.join("file"), "dirty").expect("writes");
        let ended = umount(&lun, [what]).end(seconds(30));
        ended.expect(0).says("unmounted and released");
        assert_eq!(lun.raw().read().seq, SEQ_CLEAN, "released means clean");
        at_most("D", &format!("mmp umount {what}"), ended.took, 2.0);
        nothing_is_left_and_clean(&lun);
        if round == 0 {
            let mut again =
                crate::guard_support::mount_on(&lun, lun.a.path(), &dir, &["--handover", "clean"], &[]);
            again.end(seconds(60)).expect(0);
        }
    }
    // A plain umount, and the next mount at its heels: the guard has not let go yet.
    let mut again = crate::guard_support::mount_on(&lun, lun.a.path(), &dir, &["--handover", "clean"], &[]);
    again.end(seconds(60)).expect(0);
    must("umount", &[text(&dir)]);
    let mut at_once = crate::guard_support::mount_on(&lun, lun.a.path(), &dir, &["--handover", "clean"], &[]);
    at_once.end(seconds(60)).expect(0).says("guarded on");
    umount(&lun, ["-q", text(&dir)]).end(seconds(30)).expect(0);
    nothing_is_left_and_clean(&lun);
    let nothing = umount(&lun, [text(&dir)]).end(seconds(30));
    nothing.expect(4).says("not mounted");
    // What is not guarded is unmounted all the same.
    let unguarded = lun.mounted(&lun.a);
    umount(&lun, [text(&unguarded)]).end(seconds(30)).expect(0).says("it was not guarded");
}

fn busy() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    let file = dir.join("file");
    std::fs::write(&file, "x").expect("writes");
    let user = opener(&lun, text(&file), "<>");
    umount(&lun, [text(&dir)]).end(seconds(30)).expect(4).says("busy");
    assert_eq!(status_of(&lun, &lun.a)["state"], "guarding");
    let readonly = lun.mmp(&["remount", "-o", "ro", text(&dir)]).end(seconds(60));
    readonly.expect(4).says("busy");
    assert_eq!(status_of(&lun, &lun.a)["mode"], "watching");
    refuses_others(&lun);
    drop(user);
    unmount_plainly(&lun, &dir);
}

fn lazily() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    let file = dir.join("file");
    std::fs::write(&file, "x").expect("writes");
    let user = opener(&lun, text(&file), "<>");
    let before = guard(&lun, &lun.a);
    let waited = umount(&lun, ["-l", "--wait", "4s", text(&dir)]).end(seconds(30));
    let pid = user.process().pid;
    waited.expect(1).says("still guarded").says(&format!("process {pid} (sleep) has a file of it open"));
    observed("D", waited.err.lines().last().unwrap_or_default());
    assert!(!is_mounted(&dir));
    // Longer than a lease.
    clock::sleep(seconds(12));
    assert_eq!(guard(&lun, &lun.a), before);
    assert_eq!(status_of(&lun, &lun.a)["mode"], "watching");
    refuses_others(&lun);
    let (mut again, _) = mount(&lun, &lun.a, &[]);
    again.end(seconds(30)).expect(1).says("guarded by process");
    drop(user);
    let closed = clock::mono();
    nothing_is_left_and_clean(&lun);
    at_most("D", "the release after the last file was closed", clock::mono().since(closed), 3.0);
}

fn other_namespace() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    // Only this mount: a copy of the others' would keep their cases from ending.
    let others = format!(
        "for dir in $(cut -d' ' -f2 /proc/self/mounts | grep {DIRECTORY_PREFIX}); do \
         [ \"$dir\" = {} ] || umount -l \"$dir\"; done; echo ready >&2; exec sleep 1000",
        dir.display()
    );
    let mut elsewhere = lun.start("unshare", ["-m", "sh", "-c", &others]);
    elsewhere.says("ready", seconds(10));
    let waited = umount(&lun, ["--wait", "4s", text(&dir)]).end(seconds(30));
    waited.expect(1).says("still guarded").says("in another mount namespace");
    observed("D", waited.err.lines().last().unwrap_or_default());
    assert!(!is_mounted(&dir));
    let told = status_of(&lun, &lun.a);
    assert_eq!((&told["state"], &told["mode"]), (&"guarding".into(), &"watching".into()), "{told}");
    refuses_others(&lun);
    drop(elsewhere);
    nothing_is_left_and_clean(&lun);
}

fn open_device() {
    let lun = Lun::new();
    let dir = mounted(&lun, &lun.a, &["-r"]);
    let user = opener(&lun, lun.a.path(), "<");
    let before = guard(&lun, &lun.a);
    let waited = umount(&lun, ["--wait", "4s", text(&dir)]).end(seconds(30));
    let pid = user.process().pid;
    waited.expect(1).says("still guarded").says(&format!("process {pid} (sleep) has it open"));
    observed("D", waited.err.lines().last().unwrap_or_default());
    let told = becomes(&lun, &lun.a, "state", "releasing", seconds(5));
    assert_eq!(told["mode"], "beating", "{told}");
    clock::sleep(seconds(12));
    assert_eq!(guards(&lun).len(), 2);
    refuses_others(&lun);
    // Mounted again meanwhile, by whoever does not know better: guarded as before.
    must("mount", &["-r", "-t", "ext4", lun.a.path(), text(&dir)]);
    becomes(&lun, &lun.a, "state", "guarding", seconds(10));
    assert_eq!(guard(&lun, &lun.a), before);
    must("umount", &[text(&dir)]);
    becomes(&lun, &lun.a, "state", "releasing", seconds(10));
    drop(user);
    nothing_is_left_and_clean(&lun);
}

fn two_mounts() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    let second = lun.mount_point();
    must("mount", &["--bind", text(&dir), text(&second)]);
    let waited = umount(&lun, ["--wait", "4s", text(&dir)]).end(seconds(30));
    waited.expect(1).says("still guarded").says(&format!("mounted on {}", second.display()));
    refuses_others(&lun);
    must("umount", &[text(&second)]);
    let gone = patiently(seconds(10), || guards(&lun).is_empty().then_some(()));
    assert!(gone.is_some());
    nothing_is_left_and_clean(&lun);
}
