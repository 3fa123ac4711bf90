//! Two hosts have one ext4 mounted, because the guard of the first was killed and its filesystem frozen. The kernels
//! alone overwrite each other's beats for ever; a guard that comes back finds that this host slept, and stops it.

use std::path::Path;

use mmpguard::clock::{self, Mono};
use serde_json::Value;

use crate::Case;
use crate::harness::block::Sampler;
use crate::harness::guarded::{FrozenMount, Guarded, LADDER, MOUNT_PATIENCE, write_files};
use crate::harness::lun::{Loop, Lun};
use crate::harness::{at_most, at_most_strictly, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("mount_3_who_slept_is_fenced_on_adoption_beside_a_kernel_mount", || double(Taker::Kernel, 1, false)),
    ("mount_3_who_slept_is_fenced_on_adoption_beside_a_guarded_mount", || double(Taker::Mmp, 1, false)),
    ("mount_3_who_slept_is_fenced_on_adoption_whatever_the_names", || double(Taker::Mmp, 20, true)),
    ("mount_3_the_kernel_alone_beats_in_turn_for_ever", kernel_alone),
];

/// Who takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Kernel,
    Mmp,
}

/// `thaw_after_s`: so long after the takeover the first one is thawed. `lower`: the taker has the lower name.
fn double(taker: Taker, thaw_after_s: u64, lower: bool) {
    let case = format!("mount 3, {taker:?} takes over");
    let lun = Lun::new();
    let (a, b) = if lower { (&lun.b, &lun.a) } else { (&lun.a, &lun.b) };
    let guard = lun.guarded(a, &["--handover", "clean"]);
    write_files(&guard.dir, "first", 20).expect("writes");
    clock::sleep(seconds(3));
    guard.kill();
    let frozen = FrozenMount::new(&guard.dir);
    let unguarded = lun.status(a);
    assert_eq!(unguarded["state"], "unguarded", "{unguarded:#}");

    let (mut taking, dir) = match taker {
        Taker::Kernel => lun.mount(b),
        Taker::Mmp => lun.guard(b, &[]),
    };
    let taken = taking.end(MOUNT_PATIENCE);
    at_most(&case, "the takeover from a frozen host whose guard is dead", taken.expect(0).took, 22.8);
    let second = (taker == Taker::Mmp).then(|| lun.guard_of(b, dir.clone(), taken.took));
    let sampler = lun.sampler(millis(10));
    clock::sleep(seconds(thaw_after_s));
    let thawed = thaw(&sampler, frozen);
    let fenced = adopt(&case, &lun, a);
    goes_on(&case, &lun, b, &dir, second, &sampler, fenced);
    let beats = sampler.seen();
    let of_a = beats.iter().filter(|beat| beat.at > thawed && beat.block.device.to_string() == a.name());
    observed(&case, &format!("{} states of the block after the thaw were the first host's", of_a.count()));
}

/// The first host beats as soon as it is thawed, and every second from there on: not in phase with the second, or one of
/// them is hardly ever seen.
fn thaw(sampler: &Sampler, frozen: FrozenMount) -> Mono {
    let last = sampler.last().at;
    let beats = clock::mono().since(last).as_millis() / 1000;
    clock::sleep_until(last + millis(1000 * u64::try_from(beats).expect("is small") + 1500));
    drop(frozen);
    clock::mono()
}

/// Puts a guard on the first host again, which finds out that it slept. Gives when it was fenced.
fn adopt(case: &str, lun: &Lun, on: &Loop) -> Mono {
    let mut arguments = vec!["adopt"];
    arguments.extend(LADDER);
    arguments.push(on.path());
    let end = lun.mmp(&arguments).end(seconds(30));
    assert!(matches!(end.code, 5 | 10), "{end:?}");
    end.says("protection lost").says("slept").says("shutdown");
    at_most_strictly(case, "from the adoption to the end of the fence", end.took, 3.0, 5.0);
    let status = lun.status(on);
    assert_eq!(status["state"], "lost", "{status:#}");
    let reason = status["lost"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("slept"), "{status:#}");
    let rungs = status["lost"]["fence"]["rungs"].as_array().expect("climbed");
    assert!(shut_down(rungs), "{status:#}");
    observed(case, &format!("adopt: exit {}, {reason}; rungs {}", end.code, Value::from(rungs.clone())));
    end.at
}

fn shut_down(rungs: &[Value]) -> bool {
    rungs.iter().any(|rung| rung["rung"] == "shutdown" && rung["detail"].to_string().contains("is shut down"))
}

/// The second host beats on, undisturbed.
fn goes_on(
    case: &str,
    lun: &Lun,
    on: &Loop,
    dir: &Path,
    second: Option<Guarded>,
    sampler: &Sampler,
    fenced: Mono,
) {
    clock::sleep_until(fenced + seconds(12));
    let beats = sampler.since(fenced + seconds(6));
    let own = beats.iter().filter(|beat| beat.block.device.to_string() == on.name());
    assert!(own.clone().count() >= 4 && own.count() == beats.len(), "{beats:#?}");
    write_files(dir, "second", 20).expect("the second host writes on");
    let Some(second) = second else { return lun.umount(on, dir) };
    second.assert_alive();
    let status = lun.status(on);
    assert_eq!((&status["state"], &status["mode"]), (&"guarding".into(), &"watching".into()), "{status:#}");
    observed(case, &format!("the second host's guard says: {}", status["notes"]));
    lun.release(dir);
}

fn kernel_alone() {
    let case = "mount 3, kernel alone";
    let lun = Lun::new();
    let a = lun.mounted(&lun.a);
    let frozen = FrozenMount::new(&a);
    lun.mounted(&lun.b);
    let sampler = lun.sampler(millis(10));
    clock::sleep(seconds(2));
    let thawed = thaw(&sampler, frozen);
    clock::sleep(seconds(10));
    let beats = sampler.since(thawed);
    let of = |on: &Loop| beats.iter().filter(|beat| beat.block.device.to_string() == on.name()).count();
    let turns = beats.windows(2).filter(|pair| pair[0].block.device != pair[1].block.device).count();
    let (first, second) = (of(&lun.a), of(&lun.b));
    observed(
        case,
        &format!("10 s: {first} beats of the first, {second} of the second, {turns} changes (K4)"),
    );
    assert!(first >= 5 && second >= 5, "both beat: {beats:#?}");
}
