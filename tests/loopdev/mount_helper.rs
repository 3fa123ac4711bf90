//! `mount.mmp` and `umount.mmp`, called by the real mount(8) and umount(8): by type, out of an fstab, several at once, after a loss.
//!
//! Everything happens in a mount namespace whose `/sbin`, `/run/mount` and `/etc/fstab` are the test's own: nothing is
//! installed on this host, and what was mounted there is gone with its last process. Never is everything that is mounted there
//! remounted or unmounted: this host's filesystems are in it, too.

use std::path::{Path, PathBuf};

use mmpguard::clock;
use nix::sys::signal::Signal;

use crate::Case;
use crate::guard_support::{
    Guard, becomes, guard, kill_both, marking_fence, nothing_is_left, records, status_of,
};
use crate::harness::areas::{Content, Made};
use crate::harness::lun::{Lun, command, forget_other_mounts, must, text};
use crate::harness::process::marked;
use crate::harness::started::{Ended, Started};
use crate::harness::{at_least, at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("helper_mounts_by_type_remounts_and_unmounts", by_type),
    ("helper_serves_a_real_fstab_all_at_once", by_fstab),
    ("helper_knows_a_subvolume_that_mount_a_does_not", subvolume),
    ("helper_refuses_to_unmount_what_was_lost", after_a_loss),
    ("helper_without_a_guard_ends_and_does_the_plain_thing", without_a_guard),
    ("helper_and_its_guard_are_sent_sigterm_as_a_control_group_is", control_group),
    ("helper_gives_an_ordinary_user_nothing", ordinary_user),
    ("helper_is_heeded_by_systemds_own_reader_of_fstab", systemd),
];

/// No reboot, and soon.
const OURS: &str = "mmp.handover=clean,mmp.on-loss=shutdown,mmp.incomplete-fence";
const GENERATOR: &str = "/lib/systemd/system-generators/systemd-fstab-generator";

/// A mount namespace with the helpers in `/sbin`, which is there until it is dropped.
struct Namespace<'a> {
    lun: &'a Lun,
    shell: Started,
    fstab: PathBuf,
}

impl<'a> Namespace<'a> {
    fn new(lun: &'a Lun) -> Self {
        let helpers = lun.file("sbin");
        std::fs::create_dir(&helpers).expect("makes it");
        for name in ["mount.mmp", "umount.mmp"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mmp"), helpers.join(name)).expect("links");
        }
        let fstab = lun.file("fstab");
        std::fs::write(&fstab, "").expect("writes");
        let sbin = Path::new("/sbin").canonicalize().expect("is there");
        std::fs::create_dir_all("/run/mount").expect("is there, or is made");
        // mount(8) calls helpers in /sbin alone. Both directories in one, which is read-only.
        let script = forget_other_mounts()
            + &format!(
                "mount -t overlay -o lowerdir={helpers}:{sbin} overlay {sbin} && mount -t tmpfs tmpfs /run/mount && \
             mount --bind {fstab} /etc/fstab && echo ready >&2 && exec sleep 1000",
                helpers = text(&helpers),
                sbin = text(&sbin),
                fstab = text(&fstab)
            );
        let mut shell = lun.start("unshare", ["-m", "--propagation", "private", "sh", "-c", &script]);
        shell.says("ready", seconds(20));
        Namespace { lun, shell, fstab }
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Started {
        let pid = self.shell.process().pid.to_string();
        let inside = ["-t", &pid, "-m", "--", program];
        self.lun.start("nsenter", inside.iter().chain(arguments))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Ended {
        self.start(program, arguments).end(seconds(120))
    }

    fn mmp(&self, arguments: &[&str]) -> Ended {
        self.run(env!("CARGO_BIN_EXE_mmp"), arguments)
    }

    /// One line each, in a file that is bound where mount(8) looks.
    fn fstab(&self, lines: &[String]) {
        std::fs::write(&self.fstab, lines.join("\n") + "\n").expect("writes");
    }

    fn table(&self) -> String {
        self.run("cat", &["/run/mount/utab"]).out
    }

    /// The options of what is mounted there.
    fn options(&self, dir: &Path) -> Option<String> {
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", self.shell.process().pid));
        let mounts = mounts.expect("reads");
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(text(dir)))?;
        line.split(' ').nth(3).map(ToOwned::to_owned)
    }

    fn is_mounted(&self, dir: &Path) -> bool {
        self.options(dir).is_some()
    }
}

fn directory(lun: &Lun, name: &str) -> PathBuf {
    let dir = lun.file(name);
    std::fs::create_dir(&dir).expect("makes it");
    dir
}

fn by_type() {
    let lun = Lun::new();
    let dir = directory(&lun, "dir");
    let host = Namespace::new(&lun);
    let options = format!(
        "fstype=ext4,noatime,x-systemd.mount-timeout=300,_netdev,nofail,noauto,comment=hi,users,{OURS}"
    );
    let mount = |flags: &[&str], on: &str, options: &str| {
        let arguments = [&["-t", "mmp"], flags, &["-o", options, on, text(&dir)]].concat();
        host.start("mount", &arguments)
    };
    let a = lun.a.path();
    // Nothing is mounted by what only looks, nor by what is wrong.
    mount(&["-f", "-v"], a, &options).end(seconds(20)).expect(0).says("runs mmp mount");
    assert!(!host.is_mounted(&dir) && records(&lun).is_empty());
    mount(&["-f"], "/dev/nonexistent", "rw").end(seconds(20)).expect(32).says("No such file");
    mount(&[], "/dev/nonexistent", "nofail").end(seconds(20)).expect(0).says("nofail");
    mount(&[], a, "mmp.frobnicate").end(seconds(20)).expect(1).says("there is no such option");
    mount(&[], a, "mmp.wait=soon").end(seconds(20)).expect(1).says("length of time");

    let ended = mount(&[], a, &options).end(seconds(60));
    ended.expect(0).says("guarded on");
    at_least("helper", "mount -t mmp, handed over clean,", ended.took, 11.0);
    let kernel = host.options(&dir).expect("is mounted");
    assert!(kernel.contains("noatime") && kernel.contains("nosuid"), "users implies nosuid: {kernel}");
    let table = host.table();
    observed("helper", &format!("utab: {}", table.trim()));
    assert!(table.contains("_netdev,helper=mmp,uhelper=mmp"), "{table}");
    assert_eq!(status_of(&lun, &lun.a)["filesystem"], "ext4");
    let refused = host.run("mount", &["-t", "mmp", "-o", OURS, lun.b.path(), text(&dir)]);
    refused.expect(32).says("in use elsewhere");
    at_most("helper", "the refusal of the other host's mount -t mmp", refused.took, 1.6);

    // With the type, mount(8) calls the helper: it becomes writable, which it would not under our beats.
    host.run("mount", &["-t", "mmp", "-o", "remount,ro", text(&dir)]).expect(0);
    assert!(host.options(&dir).expect("is mounted").starts_with("ro"));
    becomes(&lun, &lun.a, "mode", "beating", seconds(10));
    host.run("mount", &["-t", "mmp", "-o", "remount,rw", text(&dir)]).expect(0);
    assert!(host.options(&dir).expect("is mounted").starts_with("rw"));
    becomes(&lun, &lun.a, "mode", "watching", seconds(10));
    assert!(host.table().contains("helper=mmp"), "{}", host.table());

    // When umount(8) returns, it is released: the helper has waited.
    host.run("umount", &["-v", text(&dir)]).expect(0).says("unmounted and released");
    assert!(records(&lun).is_empty() && host.table().is_empty());
    nothing_is_left(&lun);

    // Lazily, with a file open: umount(8) has unmounted, and it stays guarded.
    mount(&["-n"], a, OURS).end(seconds(60)).expect(0);
    assert!(host.table().is_empty(), "-n: {}", host.table());
    host.run("umount", &[text(&dir)]).expect(0);
    nothing_is_left(&lun);
}

fn by_fstab() {
    let lun = Lun::new();
    let other = Lun::protected(Content::Xfs, Made::default());
    let (ext4, xfs, not_yet) = (directory(&lun, "ext4"), directory(&lun, "xfs"), directory(&lun, "not-yet"));
    let link = lun.file("by-name");
    std::os::unix::fs::symlink(lun.a.path(), &link).expect("links");
    let host = Namespace::new(&lun);
    host.fstab(&[
        format!("{} {} mmp noatime,x-systemd.mount-timeout=300,{OURS} 0 0", text(&link), text(&ext4)),
        format!("{} {} mmp fstype=xfs,_netdev,nofail,{OURS} 0 0", other.a.path(), text(&xfs)),
        format!("{} {} mmp noauto 0 0", other.b.path(), text(&not_yet)),
        format!("/dev/nonexistent {} mmp nofail,{OURS} 0 0", text(&not_yet)),
    ]);
    let all = host.run("mount", &["-a", "-F"]);
    all.expect(0);
    at_most("helper", "mount -a -F of two devices, left clean,", all.took, 14.0);
    let both = || host.is_mounted(&ext4) && host.is_mounted(&xfs);
    assert!(both() && !host.is_mounted(&not_yet), "{all:?}");
    for device in [&lun.a, &other.a] {
        assert_eq!(status_of(&lun, device)["state"], "guarding");
    }
    // Once more: they are found by device and directory, the type notwithstanding.
    for flags in [&["-a", "-v"][..], &["-a", "-F", "-v"]] {
        let again = host.run("mount", flags);
        again.expect(0);
        assert_eq!(again.out.matches("already mounted").count(), 2, "{again:?}");
        at_most("helper", "mount -a once more", again.took, 3.0);
    }
    // The line in fstab makes a plain remount ours.
    for (how, mode) in [("ro", "beating"), ("rw", "watching")] {
        host.run("mount", &["-o", &format!("remount,{how}"), text(&ext4)]).expect(0);
        assert!(host.options(&ext4).expect("is mounted").starts_with(how));
        becomes(&lun, &lun.a, "mode", mode, seconds(10));
    }
    assert!(host.options(&ext4).expect("is mounted").contains("noatime"));
    // By its other name, and by the device's.
    host.run("umount", &[text(&link)]).expect(0);
    host.run("umount", &[text(&xfs)]).expect(0);
    assert!(!host.is_mounted(&ext4) && !host.is_mounted(&xfs) && records(&lun).is_empty());
    nothing_is_left(&lun);

    // What is refused: the statuses that mount -a makes of it.
    let holder = lun.hold("other", &lun.b, "exec sleep 1000");
    host.run("mount", &[text(&ext4)]).expect(32).says("in use elsewhere");
    let some = host.run("mount", &["-a"]);
    some.expect(64).says("in use elsewhere");
    assert!(host.is_mounted(&xfs) && !host.is_mounted(&ext4));
    let at_once = host.run("mount", &["-a", "-F"]);
    observed("helper", &format!("mount -a -F with one that is in use elsewhere: status {}", at_once.code));
    drop(holder);
    host.run("umount", &[text(&xfs)]).expect(0);
}

fn subvolume() {
    let lun = Lun::protected(Content::Btrfs, Made::default());
    let dir = directory(&lun, "dir");
    let host = Namespace::new(&lun);
    host.run("mount", &["-t", "btrfs", lun.a.path(), text(&dir)]).expect(0);
    host.run("btrfs", &["subvolume", "create", text(&dir.join("sub"))]).expect(0);
    host.run("umount", &[text(&dir)]).expect(0);
    let line = |subvolume: &str| {
        host.fstab(&[format!("{} {} mmp subvol={subvolume},{OURS} 0 0", lun.a.path(), text(&dir))]);
    };
    line("sub");
    host.run("mount", &["-a"]).expect(0);
    let again = host.run("mount", &["-a"]);
    again.expect(0).says("mounted there already");
    line("/sub");
    host.run("mount", &["-a"]).expect(0);
    // Another one is not what is there.
    line("other");
    host.run("mount", &["-a"]).expect(32).says("in use on this host");
    host.run("umount", &[text(&dir)]).expect(0);
    nothing_is_left(&lun);
}

fn after_a_loss() {
    let lun = Lun::new();
    let dir = directory(&lun, "dir");
    let host = Namespace::new(&lun);
    let options = format!("mmp.handover=clean,mmp.on-loss={}", marking_fence(&lun));
    host.run("mount", &["-t", "mmp", "-o", &options, lun.a.path(), text(&dir)]).expect(0);
    guard(&lun, &lun.a).driver.signal(Signal::SIGSTOP);
    becomes(&lun, &lun.a, "state", "lost", seconds(40));
    host.run("umount", &[text(&dir)]).expect(32).says("not unmounted").says("reboot -ff -n");
    assert!(host.is_mounted(&dir));
    host.run("mount", &["-t", "mmp", "-o", "remount,ro", text(&dir)]).expect(32).says("not remounted");
    host.mmp(&["umount", "--although-lost", text(&dir)]).expect(0);
    assert!(!host.is_mounted(&dir));
}

fn without_a_guard() {
    let lun = Lun::new();
    let dir = directory(&lun, "dir");
    let host = Namespace::new(&lun);
    host.fstab(&[format!("{} {} mmp fstype=ext4,{OURS} 0 0", lun.a.path(), text(&dir))]);
    host.run("mount", &[text(&dir)]).expect(0);
    let both: Guard = guard(&lun, &lun.a);
    kill_both(&both);
    // mount(8) calls us, and we call mount(8), which must not call us.
    for how in ["ro", "rw"] {
        let ended = host.run("mount", &["-o", &format!("remount,{how}"), text(&dir)]);
        ended.expect(0).says("processes are gone");
        at_most("helper", "a remount that nobody guards", ended.took, 5.0);
        assert!(host.options(&dir).expect("is mounted").starts_with(how));
    }
    let ended = host.mmp(&["remount", "-o", "ro", text(&dir)]);
    ended.expect(0).says("processes are gone");
    let ended = host.run("umount", &[text(&dir)]);
    ended.expect(0);
    at_most("helper", "an unmount of what nobody guards", ended.took, 5.0);
    assert!(!host.is_mounted(&dir));
    nothing_is_left(&lun);
}

/// systemd, when its patience ends, sends SIGTERM to all that came from mount(8).
fn control_group() {
    let lun = Lun::new();
    let dir = directory(&lun, "dir");
    let host = Namespace::new(&lun);
    let shell = host.shell.process();
    let terminate = || {
        let all = marked(lun.mark()).into_iter().filter(|process| *process != shell);
        all.for_each(|process| process.signal(Signal::SIGTERM));
    };
    let mount = || host.start("mount", &["-t", "mmp", "-o", OURS, lun.a.path(), text(&dir)]);
    let mut mounting = mount();
    mounting.says("watching", seconds(10));
    terminate();
    let sent = clock::mono();
    assert_ne!(mounting.end(seconds(30)).code, 0);
    nothing_is_left(&lun);
    at_most("helper", "from SIGTERM to all to the end of the last", clock::mono().since(sent), 5.0);
    assert!(!host.is_mounted(&dir));

    mount().end(seconds(60)).expect(0);
    let before = guard(&lun, &lun.a);
    terminate();
    clock::sleep(seconds(2));
    let told = status_of(&lun, &lun.a);
    observed("helper", &format!("a guard that is sent SIGTERM: {} {}", told["state"], told["mode"]));
    assert_eq!((&told["state"], guard(&lun, &lun.a)), (&"guarding".into(), before));
    host.run("umount", &[text(&dir)]).expect(0);
    nothing_is_left(&lun);
}

fn ordinary_user() {
    let lun = Lun::new();
    let dir = directory(&lun, "dir");
    let host = Namespace::new(&lun);
    must("chmod", &["755", text(lun.file("fstab").parent().expect("is in a directory"))]);
    host.fstab(&[format!("{} {} mmp fstype=ext4,users,{OURS} 0 0", lun.a.path(), text(&dir))]);
    let as_nobody = |program: &str, what: &str| {
        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", program, what];
        host.run("setpriv", &nobody)
    };
    let refused = as_nobody("mount", text(&dir));
    assert_ne!(refused.code, 0, "{refused:?}");
    observed("helper", &format!("an ordinary user's mount: status {}, {}", refused.code, refused.err.trim()));
    assert!(!host.is_mounted(&dir) && records(&lun).is_empty());
    host.run("mount", &[text(&dir)]).expect(0);
    let unmounted = as_nobody("umount", text(&dir));
    observed(
        "helper",
        &format!("an ordinary user's umount: status {}, {}", unmounted.code, unmounted.err.trim()),
    );
    if unmounted.code == 0 {
        assert!(!host.is_mounted(&dir));
    } else {
        assert!(host.is_mounted(&dir));
        host.run("umount", &[text(&dir)]).expect(0);
    }
    nothing_is_left(&lun);
}

/// What systemd makes of such a line. It is not started: its generator writes the units.
fn systemd() {
    if !Path::new(GENERATOR).exists() {
        return observed("helper", "systemd is not here: what it makes of fstab was not looked at");
    }
    let lun = Lun::new();
    let units = directory(&lun, "units");
    let host = Namespace::new(&lun);
    host.fstab(&[
        "/dev/sdX1 /srv/a mmp noatime,x-systemd.mount-timeout=300 0 0".to_owned(),
        "/dev/sdX2 /srv/b mmp fstype=xfs,mmp.area=/dev/sdC:data,_netdev,nofail,x-systemd.requires=/dev/sdC 0 0".to_owned(),
        "/dev/sdX3 /srv/c mmp noauto 0 0".to_owned(),
    ]);
    host.run(GENERATOR, &[text(&units), text(&units), text(&units)]).expect(0);
    let unit = |name: &str| std::fs::read_to_string(units.join(name)).unwrap_or_default();
    let told = [
        ("srv-a.mount", "Type=mmp"),
        ("srv-a.mount", "TimeoutSec=5min"),
        ("srv-b.mount", "Type=mmp"),
        (
            "srv-b.mount",
            "Options=fstype=xfs,mmp.area=/dev/sdC:data,_netdev,nofail,x-systemd.requires=/dev/sdC",
        ),
        ("srv-b.mount", "Requires=dev-sdC.device"),
    ];
    for (name, line) in told {
        assert!(unit(name).lines().any(|other| other == line), "{name} has no {line}: {}", unit(name));
    }
    let wanted = |target: &str, name: &str| units.join(target).join(name).exists();
    assert!(wanted("local-fs.target.requires", "srv-a.mount"));
    // _netdev: with the network; nofail: the boot goes on without.
    assert!(wanted("remote-fs.target.wants", "srv-b.mount"));
    let everywhere = command("find", &[text(&units), "-name", "srv-c.mount", "-type", "l"]);
    assert!(everywhere.stdout.is_empty(), "noauto: {everywhere:?}");
}
