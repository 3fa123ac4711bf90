//! A machine that is short of memory and of CPU: no look and no beat is late by more than a second.

use std::time::Duration;

use mmpguard::clock;

use crate::Case;
use crate::guard_support::{longest_gap, mount, mounted, mounted_clean, status_of, unmount_plainly};
use crate::harness::daemon::Daemon;
use crate::harness::lun::{Lun, must, text};
use crate::harness::started::{Started, patiently};
use crate::harness::{at_most_strictly, millis, observed, seconds};

pub(crate) const CASES: &[Case] =
    &[("guard_load_short_of_memory_and_cpu_no_beat_is_late_by_a_second", short_of_everything)];

/// The shortage begins when all guards stand, and lasts so long.
const SHORTAGE: Duration = Duration::from_secs(12);
/// The memory may take so long to be taken.
const FILLING: Duration = Duration::from_secs(50);
/// Left to everybody else on the machine.
const RESERVE_KIB: u64 = 2 << 20;
/// So many processes share the rest.
const EATERS: u64 = 6;

fn short_of_everything() {
    let (read_only, watched, waiting, resident) = (Lun::new(), Lun::new(), Lun::new(), Lun::new());
    let daemon = Daemon::of(&resident);
    let peer = mounted_clean(&waiting, &waiting.b);
    let dir = mounted_clean(&watched, &watched.a);
    let (mut for_the_peer, waited) = mount(&waiting, &waiting.a, &["--wait", "240s", "--handover", "clean"]);
    for_the_peer.says("in use elsewhere; waiting", seconds(10));
    let ro_dir = mounted(&read_only, &read_only.a, &["-r"]);
    let resident_dir = mounted(&resident, &resident.a, &["-r"]);
    let samplers = [&read_only, &watched, &resident].map(|lun| lun.sampler(millis(50)));
    let begun = clock::mono();
    let mut hogs = eaters(&read_only);
    let full = patiently(FILLING, || (available_kib() < RESERVE_KIB * 5 / 4).then_some(()));
    hogs.extend(busy_loops(&read_only));
    let (shortage, mut least_kib) = (clock::mono(), available_kib());
    while clock::mono().since(shortage) < SHORTAGE {
        least_kib = least_kib.min(available_kib());
        clock::sleep(millis(200));
    }
    observed(
        "6",
        &format!(
            "all memory was taken: {}; the least that was free: {} MiB",
            full.is_some(),
            least_kib >> 10
        ),
    );
    for mut hog in hogs {
        hog.end(FILLING + SHORTAGE);
    }
    for (lun, sampler, what) in [
        (&read_only, &samplers[0], "our own beats"),
        (&watched, &samplers[1], "the kernel's"),
        (&resident, &samplers[2], "the daemon's"),
    ] {
        let told = status_of(lun, &lun.a);
        assert_eq!(told["state"], "guarding", "{told}");
        let late = Duration::from_secs_f64(told["worst_lateness_s"].as_f64().expect("is a number"));
        at_most_strictly("6", &format!("the latest look under load, {what}"), late, 0.1, 1.0);
        // A beat comes after 1.1 s at most, and one look of the sampler, which is late, too.
        let gap = longest_gap(&sampler.since(begun), clock::mono());
        at_most_strictly("6", &format!("the longest silence under load, {what}"), gap, 1.3, 3.0);
    }
    assert!(!for_the_peer.has_ended(), "{}", for_the_peer.err());
    must("umount", &[text(&peer)]);
    for_the_peer.end(seconds(60)).expect(0);
    unmount_plainly(&waiting, &waited);
    unmount_plainly(&watched, &dir);
    unmount_plainly(&read_only, &ro_dir);
    resident.mmp(&["umount", text(&resident_dir)]).end(seconds(30)).expect(0);
    resident.forget_mount(&resident_dir);
    daemon.stop().expect(0);
}

/// Two for each processor.
fn busy_loops(lun: &Lun) -> Vec<Started> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (0..2 * processors).map(|_| hog(lun, SHORTAGE, "while :; do :; done")).collect()
}

/// All memory but a reserve.
fn eaters(lun: &Lun) -> Vec<Started> {
    let kib = available_kib().saturating_sub(RESERVE_KIB) / EATERS;
    // A buffer of that size, filled, and kept because nobody reads it.
    let eats = format!("dd if=/dev/zero bs={kib}K count=1 iflag=fullblock status=none | sleep 100");
    (0..EATERS).map(|_| hog(lun, FILLING + SHORTAGE, &eats)).collect()
}

/// Dies first if the kernel runs out of memory.
fn hog(lun: &Lun, span: Duration, script: &str) -> Started {
    let seconds = span.as_secs();
    let script = format!("echo 1000 > /proc/self/oom_score_adj; exec timeout {seconds} sh -c '{script}'");
    lun.start("sh", ["-c", &script])
}

fn available_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("reads");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).expect("is there");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("is a number")
}
