//! Case 11: the storage hangs. For less than a lease nothing happens; for longer, the command is dead in time and the
//! exit code is given although the I/O still hangs. Afterwards nothing of the old holder's reaches the disk but, at
//! most, the one write that hung in the kernel when the lease ended.

use std::path::{Path, PathBuf};

use mmpguard::clock;
use tempfile::TempDir;

use crate::Case;
use crate::harness::block::Sample;
use crate::harness::cleanup;
use crate::harness::lun::{DIRECTORY_PREFIX, Loop, Lun, Shape, command, must, text, unmount};
use crate::harness::process;
use crate::harness::started::Started;
use crate::harness::throttle::Throttle;
use crate::harness::{at_least, at_most, at_most_strictly, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("case_11_writes_hang_for_40_s_and_the_command_dies_in_time", long_freeze),
    ("case_11_reads_and_writes_hang_for_40_s_while_another_takes_over", everything_hangs),
    ("case_11_a_command_that_hangs_in_its_own_io_is_told_and_dies_with_it", command_hangs_too),
    ("case_11_writes_hang_for_7_s_and_nothing_happens", short_freeze),
];

/// The command's end asks for this.
const COMMAND: &str = "while ! [ -e \"$DIR/go\" ]; do sleep 0.1; done; exit 3";

/// A filesystem of its own for an image: what is frozen hangs for nobody else.
pub(crate) struct Disk {
    mounted: PathBuf,
    _below: Loop,
    _directory: TempDir,
}

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk::of(128 << 20)
    }

    /// One of that size.
    pub(crate) fn of(bytes: u64) -> Disk {
        let name = format!("{DIRECTORY_PREFIX}{}-disk", cleanup::run());
        let directory =
            tempfile::Builder::new().prefix(&name).tempdir_in("/var/tmp").expect("makes a directory");
        let (image, mounted) = (directory.path().join("disk.img"), directory.path().join("mounted"));
        std::fs::File::create(&image).and_then(|file| file.set_len(bytes)).expect("makes an image");
        std::fs::create_dir(&mounted).expect("makes a directory");
        must("mkfs.ext4", &["-q", "-F", text(&image)]);
        let below = Loop::new(&image);
        must("mount", &["-o", "noatime", below.path(), text(&mounted)]);
        Disk { mounted, _below: below, _directory: directory }
    }

    /// Its filesystem ends before it does.
    pub(crate) fn lun(&self) -> Lun {
        Lun::shaped(Shape { place: Some(&self.mounted), bytes: 32 << 20, ..Shape::default() })
    }

    /// Where images lie on it.
    pub(crate) fn place(&self) -> &Path {
        &self.mounted
    }

    pub(crate) fn freeze(&self) -> Frozen<'_> {
        must("fsfreeze", &["-f", text(&self.mounted)]);
        Frozen(self)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.mounted);
    }
}

/// Writes hang until this is dropped; reads do not, but for those that queue behind a write.
pub(crate) struct Frozen<'a>(&'a Disk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        command("fsfreeze", &["-u", text(&self.0.mounted)]);
    }
}

fn short_freeze() {
    let disk = Disk::new();
    let lun = disk.lun();
    let mut run = lun.hold("alpha", &lun.a, COMMAND);
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    let command = run.child("mmp-keeper").children();
    let frozen = disk.freeze();
    let since = clock::mono();
    clock::sleep(seconds(7));
    let during = sampler.since(since + millis(50)).len();
    drop(frozen);
    let thawed = clock::mono();
    assert_eq!(during, 0, "writes hang, or this test proves nothing");
    clock::sleep(seconds(5));
    assert!(!run.has_ended() && command.iter().all(process::Process::is_alive), "{}", run.err());
    let after = sampler.since(thawed);
    assert!(after.len() >= 3, "beats again: {after:?}");
    assert!(!run.err().contains("lost"), "{}", run.err());
    observed("11, 7 s", &format!("{} beats in the 5 s after the thaw, command untouched", after.len()));
    std::fs::write(lun.file("go"), "").expect("writes");
    run.end(seconds(30)).expect(3);
    lun.mounted(&lun.b);
}

fn long_freeze() {
    let disk = Disk::new();
    let lun = disk.lun();
    let mut run = lun.hold("alpha", &lun.a, COMMAND);
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    let driver = run.child("mmp-driver");
    let frozen = disk.freeze();
    let since = clock::mono();
    clock::sleep(millis(300));
    let last_beat = sampler.last();
    dies_in_time("11, 40 s", &mut run, &last_beat);
    let (hangs, states) = (driver.is_alive(), driver.states());
    observed(
        "11, 40 s",
        &format!("the driver's threads after mmp run ended: {states} (D: in the hung write)"),
    );
    assert!(hangs, "the exit code came although the I/O hangs, or this test proves nothing");
    clock::sleep_until(since + seconds(40));
    assert!(sampler.since(since + millis(50)).is_empty(), "writes hang, or this test proves nothing");

    drop(frozen);
    let thawed = clock::mono();
    assert!(process::all_dead(&[driver], seconds(10)).is_some(), "the driver is gone once its I/O ended");
    at_most("11, 40 s", "the end of the driver after the thaw", clock::mono().since(thawed), 2.0);
    clock::sleep(seconds(10));
    let late = sampler.since(since + millis(50));
    observed(
        "11, 40 s",
        &format!("writes of the lost holder that landed after the thaw: {} (at most 1)", late.len()),
    );
    assert!(late.len() <= 1, "a new write: {late:#?}");
    for sample in &late {
        // What was under way in the kernel cannot be called back: it is the next beat, and it came with the thaw.
        assert_eq!(sample.block.seq, last_beat.block.seq + 1, "{sample:?}");
        assert!(sample.at.since(thawed) < seconds(2), "{sample:?}");
    }
}

fn everything_hangs() {
    let lun = Lun::new();
    let mut run = lun.hold("alpha", &lun.a, COMMAND);
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    let driver = run.child("mmp-driver");
    // For alpha's driver alone: beta's path to the disk is well.
    let throttle = match Throttle::of(&driver, lun.a.path()) {
        Ok(throttle) => throttle,
        Err(why) => {
            println!("NOT RUN: case 11 with hanging reads: no block I/O throttling by cgroup here: {why}");
            let required = std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_some();
            assert!(!required, "must run and needs block I/O throttling: {why}");
            return;
        }
    };
    let since = clock::mono();
    let mut next = lun.run("beta", &lun.b, "mark beta.up; sleep 25; exit 4");
    clock::sleep(millis(300));
    let last_beat = sampler.last();
    let case = "11, reads hang too";
    let dead = dies_in_time(case, &mut run, &last_beat);
    let (hangs, states) = (driver.is_alive(), driver.states());
    observed(case, &format!("the driver's threads after mmp run ended: {states} (D: in the hung look)"));
    assert!(hangs, "the exit code came although the I/O hangs, or this test proves nothing");
    let up = lun.up("beta", &mut next, seconds(60));
    assert!(dead < up, "used by two");
    clock::sleep_until(since + seconds(40));
    let foreign = |sample: &Sample| sample.block.node.to_string() != "beta";
    assert!(
        !sampler.since(last_beat.at).iter().any(foreign),
        "alpha's I/O hangs, or this test proves nothing"
    );

    drop(throttle);
    assert!(process::all_dead(&[driver], seconds(10)).is_some(), "the driver is gone once its I/O ended");
    clock::sleep(seconds(5));
    let late: Vec<_> = sampler.since(last_beat.at).into_iter().filter(foreign).collect();
    observed(case, &format!("writes of alpha's that landed on beta's block afterwards: {}", late.len()));
    // It hung in a look, or in one beat: that one the kernel has, and beta beats over it.
    assert!(late.len() <= 1, "a new write: {late:#?}");
    next.end(seconds(60)).expect(4);
}

fn command_hangs_too() {
    let case = "11, the command hangs too";
    let disk = Disk::new();
    let lun = disk.lun();
    // Beyond the filesystem.
    let write =
        "dd if=/dev/zero of=\"$MMP_DEVICE\" bs=4096 count=1 seek=7168 oflag=direct conv=notrunc status=none";
    let mut run = lun.hold("alpha", &lun.a, &format!("while {write}; do sleep 0.1; done"));
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    let frozen = disk.freeze();
    clock::sleep(millis(500));
    let last_beat = sampler.last();
    let tree = run.tree();
    let hung: Vec<_> = tree.iter().filter(|process| process.comm == "dd").collect();
    assert!(!hung.is_empty(), "hangs in its write: {tree:?}");
    let end = run.end(seconds(40));
    end.expect(125).says("protection lost").says("still hang in I/O").says("(dd, state D)");
    let took = end.at.since(last_beat.at);
    at_least(case, "from the last good write to exit 125, with a command that no signal ends,", took, 9.0);
    at_most(case, "from the last good write to exit 125, with a command that no signal ends,", took, 16.0);
    let others = tree.iter().filter(|process| process.comm != "dd");
    assert!(!others.clone().any(process::Process::is_alive), "only what hangs is left: {tree:?}");
    drop(frozen);
    assert!(process::all_dead(&tree, seconds(10)).is_some(), "it ends with its I/O: {tree:?}");
}

/// The command dies by the end of the lease of the last good write, and mmp run says so, with its code.
fn dies_in_time(case: &str, run: &mut Started, last_beat: &Sample) -> clock::Mono {
    assert_eq!(last_beat.block.node.to_string(), "alpha");
    let dead = process::all_dead(&run.tree(), seconds(40)).expect("the command dies");
    at_least(case, "from the last good write to the command's death", dead.since(last_beat.at), 9.0);
    at_most_strictly(
        case,
        "from the last good write to the command's death",
        dead.since(last_beat.at),
        11.6,
        14.0,
    );
    let end = run.end(seconds(20));
    end.expect(125).says("protection lost");
    at_most(case, "from the command's death to exit 125, while I/O hangs,", end.at.since(dead), 3.0);
    dead
}
