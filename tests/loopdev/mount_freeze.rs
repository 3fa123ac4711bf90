//! A holder is frozen (fsfreeze, a snapshot) for 40 s. The kernel alone falls silent, and another host mounts after 22 s
//! without a word to either; under `mmp mount` the block is beaten in the kernel's stead, and every other host is refused.

use std::path::Path;
use std::thread;
use std::time::Duration;

use mmpguard::clock::{self, Mono};

use crate::Case;
use crate::harness::block::Sample;
use crate::harness::guarded::{FrozenMount, kernels_count, refused_soon, spoiled, write_files};
use crate::harness::lun::{Loop, Lun};
use crate::harness::{at_least, at_most, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("mount_2_a_frozen_holder_is_refused_to_all_and_beats_on_afterwards", guarded),
    ("mount_2_the_kernel_alone_lets_a_frozen_holder_be_mounted_twice", kernel_alone),
];

const FROZEN_S: u64 = 40;
const FILES: usize = 30;

/// One try to get in.
struct Tried {
    begun: Mono,
    took: Duration,
    code: i32,
    said: String,
}

fn guarded() {
    let case = "mount 2";
    let lun = Lun::new();
    let guard = lun.guarded(&lun.a, &["--handover", "clean"]);
    write_files(&guard.dir, "before", FILES).expect("writes");
    let third = Loop::new(lun.image());
    let sampler = lun.sampler(millis(20));
    clock::sleep(seconds(3));
    let frozen = FrozenMount::new(&guard.dir);
    let since = clock::mono();
    let until = since + seconds(FROZEN_S);
    let (ours, plain) = thread::scope(|scope| {
        let ours = scope.spawn(|| tries(until, || lun.guard(&lun.b, &[]).0));
        let plain = scope.spawn(|| tries(until, || lun.mount(&third).0));
        clock::sleep_until(until);
        let frozen_status = lun.status(&lun.a);
        assert_eq!(frozen_status["mode"], "bridging", "{frozen_status:#}");
        (ours.join().expect("tries"), plain.join().expect("tries"))
    });
    let before = sampler.seen().into_iter().rfind(|sample| sample.at <= since + millis(50));
    let before = before.expect("the kernel beat before");
    drop(frozen);
    let thawed = clock::mono();
    refused(case, since, &ours, &plain);
    longest_silence(case, &sampler.since(since), since, thawed);

    clock::sleep(seconds(8));
    write_files(&guard.dir, "after", FILES).expect("writes on");
    beats_on(case, lun.a.name(), &before, &sampler.since(thawed + seconds(3)));
    guard.assert_alive();
    let status = lun.status(&lun.a);
    assert_eq!((&status["state"], &status["mode"]), (&"guarding".into(), &"watching".into()), "{status:#}");
    assert_eq!(status["bridged"], 1, "{status:#}");
    assert_eq!(spoiled(&guard.dir, "before", FILES) + spoiled(&guard.dir, "after", FILES), 0);
    lun.release(&guard.dir);
    lun.fsck().expect(0);
    observed(case, "writes went on after the thaw, and e2fsck -fn finds nothing");
}

/// Tries again and again, until it is too late to begin.
fn tries(until: Mono, begin: impl Fn() -> crate::harness::started::Started) -> Vec<Tried> {
    let mut all = Vec::new();
    while clock::mono() + seconds(1) < until {
        let mut started = begin();
        let begun = started.at;
        let end = started.end(seconds(60));
        all.push(Tried { begun, took: end.took, code: end.code, said: end.text() });
    }
    all
}

fn refused(case: &str, since: Mono, ours: &[Tried], plain: &[Tried]) {
    for tried in ours {
        assert_eq!(tried.code, 1, "{}", tried.said);
    }
    for tried in plain {
        assert_eq!(tried.code, 32, "{}", tried.said);
    }
    assert!(ours.len() >= 10 && plain.len() >= 3, "{} and {} tries", ours.len(), plain.len());
    let longest = |tries: &mut dyn Iterator<Item = &Tried>| tries.map(|tried| tried.took).max();
    // The kernel has to be silent for a while before it is known to be frozen.
    let all = longest(&mut ours.iter()).expect("tried");
    let later = longest(&mut ours.iter().filter(|tried| tried.begun > since + seconds(5))).expect("tried");
    at_most(case, "the refusal of `mmp mount` in the first seconds of a freeze, at the slowest,", all, 5.0);
    refused_soon(case, "`mmp mount` later in the freeze, at the slowest,", later);
    observed(
        case,
        &format!("{} tries of `mmp mount` and {} of mount(8), all refused", ours.len(), plain.len()),
    );
}

fn longest_silence(case: &str, beats: &[Sample], since: Mono, thawed: Mono) {
    let times: Vec<_> = beats.iter().map(|sample| sample.at).filter(|at| *at < thawed).collect();
    let mut last = since;
    let mut longest = Duration::ZERO;
    for at in times.iter().copied().chain([thawed]) {
        longest = longest.max(at.since(last));
        last = at;
    }
    at_most(case, "the longest silence of the block in 40 s of freeze", longest, 4.5);
    observed(case, &format!("{} beats in the kernel's stead", times.len()));
}

/// The kernel's own beats: its names, and its own count since before the freeze.
fn beats_on(case: &str, device: &str, before: &Sample, after: &[Sample]) {
    let counts = kernels_count(device, after);
    let from = before.block.seq;
    assert!((from + 1..from + 20).contains(&counts[0]), "from {from} on to {counts:?}");
    observed(case, &format!("kmmpd's count stood at {from} before the freeze, and went on: {counts:?}"));
}

fn kernel_alone() {
    let case = "mount 2, kernel alone";
    let lun = Lun::new();
    let a = lun.mounted(&lun.a);
    write_files(&a, "before", FILES).expect("writes");
    let frozen = FrozenMount::new(&a);
    let (mut mounting, b) = lun.mount(&lun.b);
    let mounted = mounting.end(seconds(60));
    at_least(case, "the second mount beside a frozen holder", mounted.expect(0).took, 20.0);
    at_most(case, "the second mount beside a frozen holder", mounted.took, 22.6);
    let on_b = write_files(&b, "second", 4 * FILES);
    drop(frozen);
    let on_a = write_files(&a, "first", 4 * FILES);
    observed(case, &format!("mounted twice (K3); errors told: second {on_b:?}, first, thawed, {on_a:?}"));
    lun.umount(&lun.b, &b);
    lun.umount(&lun.a, &a);
    report_damage(case, &lun, &["before", "first", "second"], &[FILES, 4 * FILES, 4 * FILES]);
}

fn report_damage(case: &str, lun: &Lun, names: &[&str], counts: &[usize]) {
    let fsck = lun.fsck();
    observed(case, &format!("e2fsck -fn of what both left: code {} (4: errors left)", fsck.code));
    let (mut mounting, dir) = lun.mount(&lun.a);
    if mounting.end(seconds(60)).code != 0 {
        observed(case, "it cannot be mounted any more");
        return;
    }
    let files = names
        .iter()
        .zip(counts)
        .map(|(name, &count)| format!("{} of {count} \"{name}\"", spoiled(Path::new(&dir), name, count)));
    observed(case, &format!("files spoiled or gone: {}", files.collect::<Vec<_>>().join(", ")));
}
