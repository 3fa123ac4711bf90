//! Two hosts mount one clean ext4 at the same moment, some with writes that come late. The kernel alone may let both in;
//! as soon as one of them is `mmp mount`, never.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use mmpguard::clock;

use crate::Case;
use crate::harness::cleanup;
use crate::harness::guarded::{How, write_files};
use crate::harness::lun::{Loop, Lun, Shape, text};
use crate::harness::started::{Ended, Started, patiently};
use crate::harness::throttle::Throttle;
use crate::harness::{millis, observed, seconds};
use crate::race::build;

pub(crate) const CASES: &[Case] = &[
    ("mount_1_two_mounts_at_once_have_one_winner_in_30_rounds", with_mmp),
    ("mount_1_the_kernel_alone_lets_two_in_at_once", kernel_alone),
];

const SEED: u64 = 11;
const KERNEL_ROUNDS: usize = 8;
/// The rounds do not begin all at once: starting processes is what takes time here, and others measure theirs.
const ONE_AFTER_ANOTHER: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(200);
/// The kernel's timers of 11 s go in steps: who comes within one of them claims at the same instant as the first.
const TIMER_STEP_MS: u64 = 250;
/// What a slow path takes a second for: the MMP block in half of one.
const SLOW: u32 = 2048;

/// Who mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Kernel,
    /// `mmp mount`, by this hand-over.
    Mmp(&'static str),
}

const BY_KERNEL: Host = Host::Mmp("kernel");
const BY_CLEAN: Host = Host::Mmp("clean");

/// What makes the first host slow.
#[derive(Clone, Copy, Debug)]
enum Late {
    Nothing,
    /// The so-manieth write of `mmp` comes so many milliseconds late.
    Write(u32, u64),
    /// All that its processes write, the kernel's claim among it, takes its time.
    Path,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    first: Host,
    second: Host,
    late: Late,
    /// So long after the first starts, or after its late write began.
    offset_ms: u64,
}

/// What a round came to.
struct Outcome {
    round: Round,
    ends: [Ended; 2],
}

impl Outcome {
    fn winners(&self) -> usize {
        self.ends.iter().filter(|end| end.code == 0).count()
    }
}

fn with_mmp() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let library = build(directory.path());
    let rounds = rounds();
    observed("mount 1", &format!("seed {SEED}, {} rounds", rounds.len()));
    let outcomes = play_all(&rounds, Some(&library));
    let mut nobody = 0;
    for Outcome { round, ends } in &outcomes {
        let codes = format!("codes {} and {}", ends[0].code, ends[1].code);
        observed("mount 1", &format!("{round:?}: {codes}"));
        let winners = ends.iter().filter(|end| end.code == 0).count();
        assert!(winners <= 1, "mounted twice: {round:?} {ends:#?}");
        // Only where the kernel waits may two that claim at the same instant refuse each other.
        assert!(winners == 1 || involves_kernel(round), "nobody got in: {round:?} {ends:#?}");
        nobody += usize::from(winners == 0);
        for (host, end) in [round.first, round.second].iter().zip(ends) {
            let refused: &[i32] = if *host == Host::Kernel { &[32] } else { &[1] };
            assert!(end.code == 0 || refused.contains(&end.code), "{round:?} {ends:#?}");
        }
    }
    let total = outcomes.len();
    observed("mount 1", &format!("one winner in {} of {total} rounds, nobody in {nobody}", total - nobody));
    assert!(nobody * 4 <= total, "too seldom does anybody get in");
}

fn involves_kernel(round: &Round) -> bool {
    [round.first, round.second].iter().any(|host| *host != BY_CLEAN)
}

fn rounds() -> Vec<Round> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut rounds = Vec::new();
    let mut add = |first, second, late| {
        rounds.push(Round { first, second, late, offset_ms: random.u64(0..=TIMER_STEP_MS) });
    };
    for _ in 0..4 {
        add(BY_KERNEL, BY_KERNEL, Late::Nothing);
        add(BY_CLEAN, BY_CLEAN, Late::Nothing);
    }
    for (first, second) in [(BY_KERNEL, BY_CLEAN), (BY_CLEAN, BY_KERNEL)] {
        add(first, second, Late::Nothing);
    }
    for _ in 0..2 {
        add(BY_KERNEL, Host::Kernel, Late::Nothing);
        add(Host::Kernel, BY_KERNEL, Late::Nothing);
    }
    for ms in [300, 2000, 4000, 13_000] {
        add(BY_KERNEL, Host::Kernel, Late::Write(1, ms));
        add(BY_KERNEL, BY_KERNEL, Late::Write(1, ms));
    }
    for (nth, ms) in [(1, 300), (1, 4000), (2, 2500), (3, 8000)] {
        add(BY_CLEAN, BY_CLEAN, Late::Write(nth, ms));
    }
    add(BY_KERNEL, Host::Kernel, Late::Path);
    add(Host::Kernel, BY_KERNEL, Late::Path);
    add(BY_KERNEL, BY_KERNEL, Late::Path);
    add(BY_CLEAN, BY_CLEAN, Late::Path);
    rounds
}

fn kernel_alone() {
    let at_once = Round { first: Host::Kernel, second: Host::Kernel, late: Late::Nothing, offset_ms: 0 };
    let slow = Round { late: Late::Path, offset_ms: 100, ..at_once };
    for (what, round) in [("at once", at_once), ("at once, one with writes that take half a second", slow)] {
        let outcomes = play_all(&[round; KERNEL_ROUNDS], None);
        let twice = outcomes.iter().filter(|outcome| outcome.winners() == 2).count();
        observed(
            "mount 1, kernel alone",
            &format!("{what}: both mounted in {twice} of {} rounds (K1)", outcomes.len()),
        );
    }
}

fn play_all(rounds: &[Round], library: Option<&Path>) -> Vec<Outcome> {
    thread::scope(|scope| {
        let begin = |(number, &round): (u32, &Round)| {
            scope.spawn(move || {
                clock::sleep(ONE_AFTER_ANOTHER * number);
                play(round, library)
            })
        };
        let playing: Vec<_> = (0..).zip(rounds).map(begin).collect();
        playing.into_iter().filter_map(|played| played.join().expect("the round is whole")).collect()
    })
}

/// One round on a LUN of its own; none if this system cannot make a path slow.
fn play(round: Round, library: Option<&Path>) -> Option<Outcome> {
    let lun = Lun::shaped(Shape { bytes: 16 << 20, filesystem_bytes: 16 << 20, ..Shape::default() });
    let slow = match round.late {
        Late::Path => match SlowPath::to(&lun) {
            Ok(slow) => Some(slow),
            Err(why) => {
                println!("NOT RUN: {round:?}: no block I/O throttling by cgroup here: {why}");
                return None;
            }
        },
        _ => None,
    };
    let first = slow.as_ref().map_or(&lun.a, |slow| &slow.device);
    let env = late_write(round.late, &lun, library);
    let how = How { env: &env, slow: slow.as_ref().map(|slow| &slow.throttle), ..How::default() };
    let (mut one, one_dir) = begin(&lun, round.first, first, how);
    let from = begins_late(round.late, &lun, &mut one);
    clock::sleep_until(from + millis(round.offset_ms));
    let (mut other, other_dir) = begin(&lun, round.second, &lun.b, How::default());
    let ends = [one.end(PATIENCE), other.end(PATIENCE)];
    if let Late::Write(..) = round.late {
        assert!(lun.file("delayed").exists(), "no write was late, and this proves nothing: {round:?}");
    }
    let outcome = Outcome { round, ends };
    if outcome.winners() == 1 {
        let won = if outcome.ends[0].code == 0 { 0 } else { 1 };
        let device = [first, &lun.b][won];
        let dir = [&one_dir, &other_dir][won];
        is_alone(&lun, &outcome, [round.first, round.second][won], device, dir);
    }
    Some(outcome)
}

/// The one who got in works for a while, and leaves a whole filesystem.
fn is_alone(lun: &Lun, outcome: &Outcome, who: Host, device: &Loop, dir: &Path) {
    let context = format!("{:?} {:?}", outcome.round, outcome.ends);
    write_files(dir, "winner", 20).unwrap_or_else(|error| panic!("{error}: {context}"));
    clock::sleep(seconds(5));
    let raw = lun.raw();
    assert_eq!(raw.read().device.to_string(), device.name(), "{context}");
    match who {
        Host::Kernel => lun.umount(device, dir),
        Host::Mmp(_) => {
            let status = lun.status(device);
            assert_eq!(
                (&status["state"], &status["mode"]),
                (&"guarding".into(), &"watching".into()),
                "{status:#} {context}"
            );
            lun.release(dir);
        }
    }
    let fsck = lun.fsck();
    assert_eq!(fsck.code, 0, "{fsck:?} {context}");
}

fn begin(lun: &Lun, who: Host, on: &Loop, how: How<'_>) -> (Started, PathBuf) {
    match who {
        Host::Kernel => lun.mount_with(on, how),
        Host::Mmp(handover) => {
            let options = ["--handover", handover];
            lun.guard_with(on, How { options: &options, ..how })
        }
    }
}

fn late_write(late: Late, lun: &Lun, library: Option<&Path>) -> Vec<(&'static str, String)> {
    let (Late::Write(nth, ms), Some(library)) = (late, library) else { return Vec::new() };
    vec![
        ("LD_PRELOAD", text(library).to_owned()),
        ("SLOW_WRITE_NTH", nth.to_string()),
        ("SLOW_WRITE_MS", ms.to_string()),
        ("SLOW_WRITE_LOG", text(&lun.file("delayed")).to_owned()),
    ]
}

/// So that the rival meets the late write: the first one under way, the others from its claim on.
fn begins_late(late: Late, lun: &Lun, one: &mut Started) -> clock::Mono {
    match late {
        Late::Write(1, _) => {
            let begun = patiently(seconds(20), || lun.file("delayed").exists().then(clock::mono));
            begun.expect("the first write is late")
        }
        Late::Write(2, _) => one.says("claimed;", seconds(20)),
        Late::Write(..) => one.says("claimed;", seconds(20)) + seconds(6),
        Late::Nothing | Late::Path => one.at,
    }
}

/// A loop device over the first host's: what it writes there, for whoever is in a group, is slow.
struct SlowPath {
    device: Loop,
    throttle: Throttle,
}

impl SlowPath {
    fn to(lun: &Lun) -> std::io::Result<SlowPath> {
        let throttle = Throttle::slow(lun.a.path(), SLOW)?;
        Ok(SlowPath { device: Loop::new(Path::new(lun.a.path())), throttle })
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        cleanup::forget_guards_of(self.device.path());
    }
}
