//! Cases 9a and 9b: a release leaves nothing behind, and does not happen while anything still uses the device.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use mmpguard::clock;
use mmpguard::io::{Arena, Device};
use nix::libc::O_DIRECT;
use nix::sys::signal::Signal;

use crate::Case;
use crate::harness::lun::{Loop, Lun, Shape};
use crate::harness::process::Process;
use crate::harness::started::{Started, patiently};
use crate::harness::{at_most, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("case_09a_nothing_of_the_first_lands_after_the_next_holder_wrote", nothing_lands_late),
    ("case_09b_a_process_that_has_the_device_open_keeps_it_held", || still_used(User::Process)),
    ("case_09b_a_loop_device_over_the_device_keeps_it_held", || still_used(User::Stacked)),
    ("case_09b_a_daemon_of_the_commands_keeps_it_held", || still_used(User::Daemon)),
];

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// Beyond the filesystem, where nobody writes but these tests.
const PLACE: u64 = 32 * MIB;
/// The same, for the writer who does not flush.
const CONTROL: u64 = 36 * MIB;

fn nothing_lands_late() {
    let lun = Lun::shaped(Shape { bytes: 40 * MIB, filesystem_bytes: 16 * MIB, ..Shape::default() });
    let write = |letter: &str, block: u64, how: &str| {
        format!(
            "head -c 65536 /dev/zero | tr '\\0' {letter} > \"$DIR/{letter}\"; \
             dd if=\"$DIR/{letter}\" of=\"$MMP_DEVICE\" bs=4096 seek={block} conv=notrunc {how} status=none"
        )
    };
    let block = PLACE / BLOCK as u64;
    // A reader, and an ancestor of mmp: it keeps nobody from anything, but the kernel flushes at the *last* close only.
    let _kept_open = File::open(lun.a.path()).expect("opens");
    lun.run("alpha", &lun.a, &write("A", block, "")).end(seconds(60)).expect(0);
    let released = clock::mono();
    assert_eq!(letters(&lun, PLACE), "A", "flushed before the clean mark");

    // The danger is real on this machine: a descriptor that stays open, and no flush.
    let third = Loop::new(lun.image());
    let kept = File::options().write(true).open(third.path()).expect("opens");
    kept.write_all_at(&[b'C'; 16 * BLOCK], CONTROL).expect("writes to the page cache");
    let cached = clock::mono();
    let direct = File::options().write(true).custom_flags(O_DIRECT).open(lun.image()).expect("opens");
    let mut bytes = Arena::new(16 * BLOCK).expect("has memory");
    bytes.bytes_mut().fill(b'D');
    direct.write_all_at(bytes.bytes(), CONTROL).expect("writes");
    assert_eq!(letters(&lun, CONTROL), "D");

    lun.run("beta", &lun.b, &write("B", block, "oflag=direct")).end(seconds(60)).expect(0);
    assert_eq!(letters(&lun, PLACE), "B");
    let wrote = clock::mono();
    clock::sleep(seconds(40));
    let overwritten = patiently(seconds(40), || (letters(&lun, CONTROL) == "C").then(clock::mono));
    let overwritten = overwritten.expect("an unflushed write lands late, or this test proves nothing");
    drop(kept);
    assert_eq!(letters(&lun, PLACE), "B", "something of alpha's landed after its clean mark");
    observed(
        "9a",
        &format!(
            "beta's bytes stand {:.0} s after its write, {:.0} s after alpha's release; what was not flushed landed \
             within {:.0} s",
            clock::mono().since(wrote).as_secs_f64(),
            clock::mono().since(released).as_secs_f64(),
            overwritten.since(cached).as_secs_f64(),
        ),
    );
}

/// The one letter that fills the place on the disk.
fn letters(lun: &Lun, at: u64) -> String {
    let mut bytes = vec![0; 16 * BLOCK];
    Device::inspect(lun.image()).expect("inspects").read_at(at, &mut bytes).expect("reads");
    let mut found: Vec<char> = bytes.into_iter().map(char::from).collect();
    found.dedup();
    found.into_iter().collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// Somebody else's process.
    Process,
    /// A loop device over the loop device.
    Stacked,
    /// Of the command's own making.
    Daemon,
}

/// Who uses it, until dropped.
enum Using {
    Process(Started),
    Stacked(Loop),
    Daemon(Process),
}

fn still_used(user: User) {
    let case = format!("9b, {user:?}");
    let lun = Lun::new();
    let script = match user {
        User::Daemon => {
            "setsid sh -c 'sleep 1001 & exit'; while ! [ -e \"$DIR/go\" ]; do sleep 0.1; done; exit 7"
        }
        _ => "while ! [ -e \"$DIR/go\" ]; do sleep 0.1; done; exit 7",
    };
    let mut run = lun.hold("alpha", &lun.a, script);
    let (using, says) = begin(user, &lun, &run);
    let sampler = lun.sampler(millis(50));
    std::fs::write(lun.file("go"), "").expect("writes");
    run.says(&says, seconds(20));
    let said = clock::mono();
    clock::sleep(seconds(5));
    assert!(!run.has_ended(), "released under a user: {:?}", run.end(seconds(0)));
    let beats = sampler.since(said);
    assert!(beats.len() >= 2 && beats.iter().all(|beat| beat.block.node.to_string() == "alpha"), "{beats:?}");
    lun.mmp(&["check", lun.b.path()]).end(seconds(30)).expect(1).says("in use elsewhere").says("alpha");
    let line = run.err();
    observed(&case, line.lines().find(|line| line.contains("command ended")).unwrap_or_default());

    let gone = clock::mono();
    match using {
        Using::Process(started) => drop(started),
        Using::Stacked(stacked) => drop(stacked),
        Using::Daemon(process) => process.signal(Signal::SIGKILL),
    }
    let end = run.end(seconds(30));
    end.expect(7);
    at_most(&case, "the release after the last user went", end.at.since(gone), 5.0);
    assert_eq!(lun.raw().read().seq, mmpguard::protocol::sequence::SEQ_CLEAN);
    lun.mounted(&lun.b);
}

/// Begins to use the device; what mmp has to say about that.
fn begin(user: User, lun: &Lun, run: &Started) -> (Using, String) {
    match user {
        User::Process => {
            let script = format!("exec 3<>{}; echo open >&2; exec sleep 1000", lun.a.path());
            let mut process = lun.start("sh", ["-c", &script]);
            process.says("open", seconds(10));
            let pid = process.process().pid;
            (
                Using::Process(process),
                format!("the command ended, but the device is still used, so it stays held: process {pid}"),
            )
        }
        User::Stacked => {
            let stacked = Loop::new(lun.a.path().as_ref());
            let says = format!("the loop device {} is backed by it", stacked.path());
            (Using::Stacked(stacked), says)
        }
        User::Daemon => {
            let daemon = || {
                let keeper = run.child("mmp-keeper");
                keeper.children().into_iter().find(|process| process.comm == "sleep")
            };
            let daemon = patiently(seconds(10), daemon).expect("the keeper adopts the daemon");
            (Using::Daemon(daemon), "the command ended, but 1 of its processes still run".to_owned())
        }
    }
}
