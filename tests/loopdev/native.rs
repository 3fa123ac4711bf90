//! `mmp enable`, `disable` and `set` on ext2/3/4 without e2fsprogs, judged by the kernel and by e2fsprogs.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use mmpguard::format::{MmpBlock, NodeName};
use mmpguard::protocol::sequence::SEQ_FSCK;

use crate::Case;
use crate::area_refused::md_superblock;
use crate::harness::areas::Content;
use crate::harness::guarded::{spoiled, write_files};
use crate::harness::lun::{Lun, command, forget_other_mounts, must, text};
use crate::harness::started::{Ended, patiently};
use crate::harness::{at_least, at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("native_1_enabled_set_and_disabled_between_mounts_of_the_kernel", life),
    ("native_2_what_lives_elsewhere_or_died_is_refused", elsewhere),
    ("native_3_what_cannot_be_changed_is_refused_and_nothing_written", refused),
    ("native_4_an_ext3_in_fstab_is_warned_about", in_fstab),
    ("native_5_logical_blocks_of_4096_bytes", sectors),
];

const FILES: usize = 12;

/// A LUN with an ext2/3/4 without MMP.
pub(crate) fn plain(bytes: u64, options: &[&str]) -> Lun {
    Lun::made(bytes, None, None, |image| {
        must("mkfs.ext4", &[&["-q", "-F"], options, &[text(image)]].concat());
    })
}

/// What e2fsprogs say of the filesystem.
pub(crate) fn header(on: &str) -> String {
    must("dumpe2fs", &["-h", on])
}

pub(crate) fn is_sound(case: &str, on: &str) {
    let checked = command("e2fsck", &["-fn", on]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{case}: e2fsck -fn {on}: {said}");
}

/// A field of what dumpe2fs prints.
fn field(header: &str, name: &str) -> String {
    let line = header.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {header}"))
        .split(':')
        .nth(1)
        .expect("a value")
        .trim()
        .to_owned()
}

fn life() {
    let case = "native 1";
    let lun = plain(96 << 20, &["-b", "1024", "-g", "8192"]);
    let (a, b) = (lun.a.path(), lun.b.path());
    let dir = lun.mounted(&lun.a);
    write_files(&dir, "file", FILES).expect("writes");
    lun.umount(&lun.a, &dir);
    let free = field(&header(a), "Free blocks");

    let enabled = lun.verb(&["enable", "--node", "alpha", a]);
    enabled.expect(0).says("its own MMP is enabled").says("update interval of 1 s");
    at_most(case, "`mmp enable`", enabled.took, 1.0);
    is_sound(case, a);
    let shown = header(b);
    assert!(field(&shown, "Filesystem features").split(' ').any(|feature| feature == "mmp"), "{shown}");
    assert_eq!(field(&shown, "MMP update interval"), "1");
    let before = lun.bytes();
    lun.verb(&["enable", a]).expect(0).says("protected already");
    lun.verb(&["enable", "--interval", "7s", a]).expect(7).says("mmp set --interval 7s");
    assert!(lun.bytes() == before, "nothing was to be done");
    lun.verb(&["check", b]).expect(0).says("free: cleanly left by node \"alpha\"");

    // The kernel goes by it, and finds what was written before.
    let dir = lun.mounted(&lun.a);
    assert_eq!(spoiled(&dir, "file", FILES), 0);
    lun.verb(&["check", b]).expect(1).says("in use elsewhere");
    lun.verb(&["disable", a]).expect(1).says("in use on this host");
    lun.umount(&lun.a, &dir);

    let set = lun.verb(&["set", "--interval", "5s", a]);
    set.expect(0).says("update interval is 5 s now");
    at_least(case, "`mmp set` of what was left clean", set.took, 11.0);
    lun.verb(&["set", "--interval", "5", b]).expect(0).says("5 s already");
    assert_eq!(field(&header(b), "MMP update interval"), "5");
    is_sound(case, b);

    let disabled = lun.verb(&["disable", b]);
    disabled.expect(0).says("not protected any more");
    is_sound(case, b);
    let shown = header(a);
    assert!(!shown.contains("MMP"), "{shown}");
    assert_eq!(field(&shown, "Free blocks"), free, "the block is given back");
    lun.verb(&["disable", a]).expect(0).says("nothing to do");
    let dir = lun.mounted(&lun.b);
    assert_eq!(spoiled(&dir, "file", FILES), 0);
    lun.umount(&lun.b, &dir);

    // By our block, found by e2fsprogs; and theirs by us.
    lun.verb(&["enable", "--interval", "2s", a]).expect(0);
    must("tune2fs", &["-O", "^mmp", a]);
    is_sound(case, a);
    must("tune2fs", &["-O", "mmp", a]);
    lun.verb(&["disable", b]).expect(0);
    is_sound(case, b);
    assert_eq!(field(&header(a), "Free blocks"), free);
}

fn elsewhere() {
    let case = "native 2";
    let lun = Lun::new();
    let b = lun.b.path();
    let dir = lun.mounted(&lun.a);
    write_files(&dir, "file", FILES).expect("writes");
    for verb in [&["disable", b][..], &["set", "--interval", "9s", b]] {
        let refused = lun.verb(verb);
        refused.expect(1).says("in use elsewhere");
        at_most(case, &format!("the refusal of `mmp {}`", verb[0]), refused.took, 1.4);
    }
    // A copy of what is mounted is what a crash leaves: nobody beats it, and its journal needs recovery.
    let died = Lun::made(24 << 20, None, None, |image| {
        std::fs::copy(lun.image(), image).expect("copies");
    });
    let before = died.bytes();
    let refused = died.verb(&["disable", died.a.path()]);
    refused.expect(7).says("journal needs recovery").says("e2fsck");
    died.assert_unchanged_outside_mmp(&before);
    assert_eq!(field(&header(b), "MMP update interval"), "1");
    lun.umount(&lun.a, &dir);

    // Where there is no MMP, the journal is all that tells of a mount elsewhere.
    let other = plain(24 << 20, &[]);
    let dir = other.mounted(&other.a);
    let before = other.bytes();
    other.verb(&["enable", other.b.path()]).expect(7).says("mounted");
    other.verb(&["enable", other.a.path()]).expect(1).says("in use on this host");
    assert!(other.bytes() == before, "nothing was to be written");
    other.umount(&other.a, &dir);

    // e2fsck's mark is nobody's to overwrite here.
    let marked = Lun::new();
    let raw = marked.raw();
    raw.write(&MmpBlock { seq: SEQ_FSCK, ..raw.read() });
    marked.verb(&["disable", marked.a.path()]).expect(9).says("e2fsck");
}

fn refused() {
    let lun = plain(24 << 20, &[]);
    let a = lun.a.path();
    let before = lun.bytes();
    let unchanged = |what: &str| assert!(lun.bytes() == before, "{what} wrote");
    for interval in ["500ms", "1500ms", "301s", "0"] {
        lun.verb(&["enable", "--interval", interval, a]).expect(2);
    }
    lun.verb(&["enable", "--blank", a]).expect(2).says("are for areas");
    unchanged("a wrong argument");
    must("blockdev", &["--setro", a]);
    lun.verb(&["enable", a]).expect(4).says("read-only");
    must("blockdev", &["--setrw", a]);
    unchanged("`enable` of a read-only device");

    let holder = lun.start("sh", ["-c", &format!("exec 9<>{a}; echo open >&2; exec sleep 1000")]);
    let mut holder = holder;
    holder.says("open", seconds(5));
    lun.verb(&["enable", a]).expect(1).says("in use on this host").says("sleep");
    drop(holder);
    unchanged("`enable` of a device in use");

    // Who only reads it is no danger to a claim, but to the change: known at once, and nothing is claimed.
    let on = Lun::new();
    let before = on.bytes();
    let mut reader =
        on.start("sh", ["-c", &format!("exec 9<{}; echo open >&2; exec sleep 1000", on.a.path())]);
    reader.says("open", seconds(5));
    for verb in [&["disable", on.a.path()][..], &["set", "--interval", "9s", on.a.path()]] {
        let ended = on.verb(verb);
        ended.expect(1).says("in use on this host");
        at_most("native 3", "the refusal of what is open for reading", ended.took, 4.0);
    }
    assert!(on.bytes() == before, "nothing was to be claimed");
    drop(reader);

    lun.verb(&["set", "--interval", "3s", a]).expect(7).says("not enabled");
    lun.verb(&["disable", a]).expect(0).says("nothing to do");
    lun.verb(&["enable", "/dev/null"]).expect(2);
    lun.verb(&["enable", "/nowhere"]).expect(4).says("/nowhere");
    half_of_a_mirror();
    must("debugfs", &["-w", "-R", "ssv state 2", a]);
    lun.verb(&["enable", a]).expect(3).says("errors").says("e2fsck");
}

/// It shows the whole's filesystem, and is never changed alone.
fn half_of_a_mirror() {
    let verbs: [&[&str]; 5] = [
        &["enable"],
        &["disable"],
        &["set", "--interval", "9s"],
        &["clear", "--damaged"],
        &["clear", "--force", "--damaged", "--yes-node", "golden"],
    ];
    for verb in verbs {
        let options: &[&str] = if verb == ["enable"] { &[] } else { &["-O", "mmp"] };
        let half = Lun::made(24 << 20, None, None, |image| {
            must("mkfs.ext4", &[&["-q", "-F"], options, &[text(image), "16m"]].concat());
            let at = (24 << 20) - 8192;
            let file = std::fs::File::options().write(true).open(image).expect("opens");
            file.write_all_at(&md_superblock(at / 512), at).expect("writes");
        });
        if verb[0] == "clear" {
            let raw = half.raw();
            let stale = MmpBlock { seq: 0xE24D_4D51, node: NodeName::new("golden"), ..raw.read() };
            raw.write(&stale);
        }
        let before = half.bytes();
        half.verb(&[verb, &[half.a.path()]].concat()).expect(7).says("linux_raid_member");
        assert!(half.bytes() == before, "{verb:?}: nothing was to be written");
    }
}

fn in_fstab() {
    let lun = Lun::made(24 << 20, None, None, |image| Content::Ext3.make(image, None));
    let a = lun.a.path();
    let uuid = must("blkid", &["-p", "-o", "value", "-s", "UUID", a]);
    let fstab = lun.file("fstab");
    let lines = format!(
        "# none\n{a} /srv/one ext3 noauto 0 2\nUUID={} /srv/two ext2,ext4 noauto 0 0\n{a} /srv/3 ext4\n",
        uuid.trim()
    );
    std::fs::write(&fstab, lines).expect("writes");
    let dir = lun.mount_point();
    let script = forget_other_mounts()
        + &format!(
            "mount --bind {fstab} /etc/fstab; {mmp} enable {a}; echo code $?; mount -t ext3 {a} {dir}; echo old $?; mount -t ext4 {a} {dir}; echo new $?",
            fstab = text(&fstab),
            mmp = env!("CARGO_BIN_EXE_mmp"),
            dir = text(&dir)
        );
    let ended: Ended =
        lun.start("unshare", ["-m", "--propagation", "private", "sh", "-c", &script]).end(seconds(60));
    observed("native 4", ended.err.trim());
    ended.says("code 0").says("it was an ext3").says("line 2 of /etc/fstab").says("line 3 of /etc/fstab");
    assert!(!ended.text().contains("line 4"), "{ended:?}");
    ended.says("old 32").says("new 0");
    let active = Path::new("/sys/fs/ext4").join(lun.a.name());
    assert!(patiently(seconds(20), || (!active.exists()).then_some(())).is_some(), "its namespace is gone");
}

fn sectors() {
    for (block, code) in [("4096", 0), ("1024", 7)] {
        let lun = Lun::made(64 << 20, None, Some(4096), |image| {
            must("mkfs.ext4", &["-q", "-F", "-b", block, text(image)]);
        });
        let before = lun.bytes();
        let enabled = lun.verb(&["enable", lun.a.path()]);
        enabled.expect(code);
        if code != 0 {
            enabled.says("sectors of 4096 bytes");
            assert!(lun.bytes() == before, "nothing was to be written");
            continue;
        }
        is_sound("native 5", lun.a.path());
        let dir = lun.mounted(&lun.a);
        write_files(&dir, "file", FILES).expect("writes");
        lun.verb(&["check", lun.b.path()]).expect(1);
        lun.umount(&lun.a, &dir);
        lun.verb(&["disable", lun.b.path()]).expect(0);
        is_sound("native 5", lun.b.path());
        let dir = lun.mounted(&lun.b);
        assert_eq!(spoiled(&dir, "file", FILES), 0);
        lun.umount(&lun.b, &dir);
    }
}
