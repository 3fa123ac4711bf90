//! Rungs that act on a mounted filesystem.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use mmpguard::clock;
use mmpguard::sys::fence::Outcome;

use crate::host::*;
use crate::stage::*;

pub(crate) const CASES: &[(&str, fn())] = &[
    ("an_xfs_that_is_shut_down_writes_nothing_any_more", xfs_is_stilled),
    ("an_ext4_that_is_shut_down_refuses_writes_and_is_not_fenced", ext4_is_not_fenced),
    ("a_prepared_ladder_does_not_hold_up_an_unmount", unmounts),
    ("what_is_mounted_nowhere_cannot_be_shut_down", mounted_nowhere),
    ("a_covered_mount_is_not_mistaken_for_what_covers_it", covered),
    ("kill_ends_the_users_of_the_mount_and_nobody_else", users_are_killed),
    ("a_loop_device_is_counted", counted),
];

/// A filesystem on a loop device over a file on a real disk, mounted.
struct Stage {
    mounted: Mounted,
    device: Loop,
    image: Image,
}

fn mounted(filesystem: &str, mebibytes: u64) -> Stage {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("image");
    File::create(&path).unwrap().set_len(mebibytes << 20).unwrap();
    let image = Image { dir, path };
    // Direct: what the filesystem writes reaches the file, and nothing waits in a page cache between.
    let device = Loop(
        run("losetup", &["-f", "--show", "--direct-io=on", image.path.to_str().unwrap()]).trim().to_owned(),
    );
    run(&format!("mkfs.{filesystem}"), &["-q", &device.0]);
    let mounted = Mounted::new(&device.0, &image);
    Stage { mounted, device, image }
}

impl Stage {
    /// Files, some of them synced, and much that is dirty.
    fn fill(&self) {
        for number in 0..200 {
            let mut file = File::create(self.mounted.0.join(format!("file{number}"))).unwrap();
            file.write_all(&vec![0x5A; 20_000]).unwrap();
            if number < 10 {
                file.sync_all().unwrap();
            }
        }
    }

    /// A write that wants to reach the disk.
    fn write(&self) -> std::io::Result<()> {
        let mut file = File::create(self.mounted.0.join("after"))?;
        file.write_all(&[1; 4096])?;
        file.sync_all()
    }

    /// Sectors that were written to the loop device so far.
    fn sectors(&self) -> u64 {
        sectors_of(&self.device)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.image.path).unwrap()
    }
}

/// An empty flush counts as a write, but writes no sector.
fn sectors_of(device: &Loop) -> u64 {
    let stat = fs::read_to_string(format!("/sys/block/{}/stat", device.name())).unwrap();
    stat.split_ascii_whitespace().nth(6).unwrap().parse().unwrap()
}

fn xfs_is_stilled() {
    need!("mkfs.xfs", "losetup");
    let stage = mounted("xfs", 320);
    let mut ladder = prepared(stage.device.target(), "xfs", "shutdown");
    assert!(ladder.is_complete() && !ladder.only_reboot());
    stage.fill();
    let report = climbed(&mut ladder, LIMIT);
    assert!(report.done && !report.incomplete && report.in_flight == Some(0), "{report:?}");
    assert_eq!((report.by.as_deref(), outcomes(&report)), (Some("shutdown"), vec![Outcome::Achieved]));
    let (sectors, image) = (stage.sectors(), stage.bytes());
    assert!(stage.write().is_err());
    // Longer than what is dirty may wait, then all that asks for it to be written.
    clock::sleep(ms(6000));
    let _ = Command::new("sync").stderr(std::process::Stdio::null()).arg("-f").arg(&stage.mounted.0).status();
    drop(stage.mounted);
    let later = sectors_of(&stage.device) - sectors;
    println!("xfs: fenced in {} ms, {later} sectors written after it", report.took_ms);
    assert_eq!(later, 0, "XFS wrote after its shutdown");
    assert!(fs::read(&stage.image.path).unwrap() == image, "the image changed after the fence");
}

fn ext4_is_not_fenced() {
    need!("mkfs.ext4", "losetup");
    let stage = mounted("ext4", 64);
    let mut ladder = prepared(stage.device.target(), "ext4", "dm,shutdown");
    assert!(!ladder.is_complete());
    stage.fill();
    let report = climbed(&mut ladder, LIMIT);
    assert!(!report.done && report.incomplete && report.by.is_none(), "{report:?}");
    assert_eq!(outcomes(&report), [Outcome::Impossible, Outcome::Achieved]);
    assert!(report.rungs[1].detail.ends_with("is shut down"), "{report:?}");
    assert!(stage.write().is_err());
    let sectors = stage.sectors();
    drop(stage.mounted);
    let later = sectors_of(&stage.device) - sectors;
    println!("ext4: shut down in {} ms, {later} sectors written after it, by the unmount", report.took_ms);
    assert!(later > 0, "then it would be a fence");
}

/// A plain umount, neither lazy nor forced, with everything prepared that is possible.
fn unmounts() {
    need!("mkfs.ext4", "losetup");
    let stage = mounted("ext4", 16);
    let ladder = prepared(stage.device.target(), "ext4", "dm,scsi,unbind,shutdown,kill,exec:/bin/true");
    run("umount", &[stage.mounted.0.to_str().unwrap()]);
    // Nothing of ours is open on the device: it can be taken away.
    assert_eq!(at_release(&stage.device.target()), []);
    assert!(ladder.is_complete());
}

fn mounted_nowhere() {
    need!("mkfs.xfs", "losetup");
    let stage = mounted("xfs", 320);
    let mut ladder = prepared(stage.device.target(), "xfs", "shutdown");
    drop(stage.mounted);
    let report = climbed(&mut ladder, LIMIT);
    assert_eq!((report.done, outcomes(&report)), (false, vec![Outcome::Failed]));
    assert!(report.rungs[0].detail.contains("mounted nowhere"), "{report:?}");
}

fn covered() {
    need!("mkfs.xfs", "losetup");
    let stage = mounted("xfs", 320);
    let mut ladder = prepared(stage.device.target(), "xfs", "shutdown");
    let dir = stage.mounted.0.to_str().unwrap();
    run("mount", &["-t", "tmpfs", "none", dir]);
    let report = climbed(&mut ladder, LIMIT);
    run("umount", &[dir]);
    assert!(!report.done && report.rungs[0].detail.contains("covered by another mount"), "{report:?}");
    stage.write().unwrap();
    // Another place where it is mounted will do.
    let other = stage.image.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    run("mount", &["--bind", dir, other.to_str().unwrap()]);
    let bound = Mounted(other);
    run("mount", &["-t", "tmpfs", "none", dir]);
    let report = climbed(&mut ladder, LIMIT);
    run("umount", &[dir]);
    drop(bound);
    assert!(report.done, "{report:?}");
}

fn users_are_killed() {
    need!("mkfs.ext4", "losetup");
    let stage = mounted("ext4", 16);
    let file = stage.mounted.0.join("open");
    fs::write(&file, "x").unwrap();
    let holder = Process::with_open(&file, "<");
    let inside = Process(Command::new("sleep").arg("1000").current_dir(&stage.mounted.0).spawn().unwrap());
    inside.until_it_sleeps();
    let writer = Process::with_open(Path::new(&stage.device.0), "<>");
    let reader = Process::with_open(Path::new(&stage.device.0), "<");
    let outsider = Process(Command::new("sleep").arg("1000").spawn().unwrap());
    outsider.until_it_sleeps();
    let mut ladder = prepared(stage.device.target(), "ext4", "kill");
    assert!(!ladder.is_complete());
    let report = climbed(&mut ladder, LIMIT);
    assert!(!report.done && report.incomplete, "{report:?}");
    // Ours are zombies until we reap them; that is over, too.
    assert_eq!(report.rungs[0].detail, "3 killed, of whom 0 are not gone yet", "{report:?}");
    for mut gone in [holder, inside, writer] {
        assert!(gone.0.try_wait().unwrap().is_some(), "{} lives", gone.pid());
    }
    for mut spared in [reader, outsider] {
        assert!(spared.0.try_wait().unwrap().is_none(), "{} was killed", spared.pid());
    }
    run("umount", &[stage.mounted.0.to_str().unwrap()]);
}

fn counted() {
    need!("losetup");
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    let ladder = prepared(device.target(), "xfs", "shutdown");
    let summary = ladder.summary();
    assert!(summary.rungs[0].complete, "the kernel counts what is under way on loop devices: {summary:?}");
}
