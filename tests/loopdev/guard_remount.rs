//! Remounts of a guarded mount, by `mmp remount` and past it; and what `mmp status` tells.

use mmpguard::clock;
use serde_json::Value;

use crate::Case;
use crate::guard_support::{
    Frozen, becomes, guard, longest_gap, marking_fence, mount_options, mounted, mounted_clean,
    nothing_is_left_and_clean, refuses_others, status, status_of, unmount_plainly,
};
use crate::harness::lun::{Lun, command, must, text};
use crate::harness::started::{Ended, patiently};
use crate::harness::{at_most, at_most_strictly, millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("guard_remount_past_mmp_is_followed_and_a_plain_way_back_fails", past_mmp),
    ("guard_remount_a_freeze_of_thirty_seconds_is_bridged", long_freeze),
    ("guard_remount_to_writable_and_back", there_and_back),
    ("guard_remount_to_writable_needs_a_fence", needs_a_fence),
    ("guard_remount_with_options", with_options),
    ("guard_status_tells_everything", everything_is_told),
];

fn remount(lun: &Lun, options: &str, what: &str) -> Ended {
    lun.mmp(&["remount", "-o", options, what]).end(seconds(90))
}

fn is_writable(dir: &std::path::Path) -> bool {
    std::fs::write(dir.join("file"), "x").is_ok()
}

fn there_and_back() {
    let lun = Lun::new();
    let dir = mounted(&lun, &lun.a, &["-r"]);
    let before = guard(&lun, &lun.a);
    assert!(!is_writable(&dir));
    let sampler = lun.sampler(millis(20));
    let begun = clock::mono();
    for round in 0..2 {
        let told = becomes(&lun, &lun.a, "mode", "beating", seconds(5));
        assert!(told["advice"].as_str().expect("is text").contains("mmp remount"), "{told}");
        let writable = remount(&lun, "rw", text(&dir));
        writable.expect(0);
        at_most("F", &format!("remount {round} to writable"), writable.took, 5.0);
        assert!(is_writable(&dir));
        becomes(&lun, &lun.a, "mode", "watching", seconds(5));
        refuses_others(&lun);
        let readonly = remount(&lun, "ro", lun.a.path());
        readonly.expect(0);
        at_most("F", &format!("remount {round} to read-only"), readonly.took, 5.0);
        assert!(!is_writable(&dir));
    }
    // At its heels, before anybody has noticed.
    remount(&lun, "rw", text(&dir)).expect(0);
    remount(&lun, "ro", text(&dir)).expect(0);
    let at_once = remount(&lun, "rw", text(&dir));
    at_most("F", "a remount right after its opposite", at_once.expect(0).took, 5.0);
    assert!(is_writable(&dir));
    remount(&lun, "ro", text(&dir)).expect(0);
    becomes(&lun, &lun.a, "mode", "beating", seconds(5));
    refuses_others(&lun);
    assert_eq!(guard(&lun, &lun.a), before);
    let gap = longest_gap(&sampler.since(begun), clock::mono());
    at_most_strictly("F", "the longest silence around remounts", gap, 2.5, 5.0);
    unmount_plainly(&lun, &dir);
}

fn needs_a_fence() {
    let lun = Lun::new();
    // Read-only it may be guarded without a fence.
    let to = lun.mount_point();
    let mut mounting = lun.mmp(&["mount", "-r", "--on-loss", "shutdown", lun.a.path(), text(&to)]);
    mounting.end(seconds(60)).expect(0);
    let refused = remount(&lun, "rw", text(&to));
    refused.expect(4).says("nothing of its ladder cuts the device off");
    observed("F", refused.err.lines().last().unwrap_or_default());
    assert!(!is_writable(&to));
    assert_eq!(status_of(&lun, &lun.a)["mode"], "beating");
    refuses_others(&lun);
    lun.mmp(&["umount", text(&to)]).end(seconds(30)).expect(0);
    let ladder = marking_fence(&lun);
    let mut mounting = lun.mmp(&["mount", "-r", "--on-loss", &ladder, lun.a.path(), text(&to)]);
    mounting.end(seconds(60)).expect(0);
    remount(&lun, "rw", text(&to)).expect(0);
    assert!(is_writable(&to));
    unmount_plainly(&lun, &to);
}

fn with_options() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    remount(&lun, "noatime", text(&dir)).expect(0);
    assert!(mount_options(&dir).expect("is mounted").contains("noatime"));
    let failed = remount(&lun, "nonsense", text(&dir));
    failed.expect(4);
    observed("F", failed.err.lines().last().unwrap_or_default());
    assert_eq!(status_of(&lun, &lun.a)["mode"], "watching");
    unmount_plainly(&lun, &dir);

    let dir = mounted(&lun, &lun.a, &["-r"]);
    remount(&lun, "noatime", text(&dir)).expect(0);
    let options = mount_options(&dir).expect("is mounted");
    assert!(options.contains("noatime") && options.starts_with("ro"), "{options}");
    assert_eq!(status_of(&lun, &lun.a)["mode"], "beating");
    // The hand-over is taken back if nothing comes of it.
    remount(&lun, "rw,nonsense", text(&dir)).expect(4);
    becomes(&lun, &lun.a, "mode", "beating", seconds(5));
    assert!(!is_writable(&dir));
    clock::sleep(seconds(12));
    refuses_others(&lun);
    remount(&lun, "rw", text(&dir)).expect(0);
    assert!(is_writable(&dir));
    // What is not guarded is mount(8)'s.
    unmount_plainly(&lun, &dir);
    let plain = lun.mounted(&lun.a);
    remount(&lun, "ro", text(&plain)).expect(0);
    assert!(!is_writable(&plain));
    assert_ne!(remount(&lun, "nonsense", text(&plain)).code, 0);
}

fn past_mmp() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    let sampler = lun.sampler(millis(20));
    let begun = clock::mono();
    must("mount", &["-o", "remount,ro", text(&dir)]);
    becomes(&lun, &lun.a, "mode", "beating", seconds(10));
    refuses_others(&lun);
    let back = command("mount", &["-o", "remount,rw", text(&dir)]);
    assert!(!back.status.success(), "a plain way back went through under our beats");
    assert!(!is_writable(&dir));
    assert_eq!(status_of(&lun, &lun.a)["state"], "guarding");
    remount(&lun, "rw", text(&dir)).expect(0);
    assert!(is_writable(&dir));
    becomes(&lun, &lun.a, "mode", "watching", seconds(5));
    refuses_others(&lun);
    let gap = longest_gap(&sampler.since(begun), clock::mono());
    at_most_strictly("F", "the longest silence around plain remounts", gap, 3.0, 6.0);
    unmount_plainly(&lun, &dir);
}

fn long_freeze() {
    let lun = Lun::new();
    let dir = mounted_clean(&lun, &lun.a);
    let sampler = lun.sampler(millis(20));
    let begun = clock::mono();
    let frozen = Frozen::new(&dir);
    let third = crate::harness::lun::Loop::new(lun.image());
    let (mut other, _) = lun.mount(&third);
    assert_ne!(other.end(seconds(60)).code, 0, "the kernel's mount got in");
    refuses_others(&lun);
    clock::sleep_until(begun + seconds(30));
    let told = status_of(&lun, &lun.a);
    assert_eq!((&told["state"], &told["mode"]), (&"guarding".into(), &"bridging".into()), "{told}");
    assert!(told["bridged"].as_u64() >= Some(1), "{told}");
    drop(frozen);
    becomes(&lun, &lun.a, "mode", "watching", seconds(5));
    let gap = longest_gap(&sampler.since(begun), clock::mono());
    at_most_strictly("F", "the longest silence around a freeze", gap, 5.0, 8.0);
    assert!(is_writable(&dir));
    unmount_plainly(&lun, &dir);
    must("e2fsck", &["-fn", lun.a.path()]);
}

fn everything_is_told() {
    let lun = Lun::new();
    let (code, report) = status(&lun);
    assert_eq!((code, &report["guards"]), (0, &Value::Array(Vec::new())));
    let ladder = marking_fence(&lun);
    let to = lun.mount_point();
    let arguments = ["mount", "--handover", "clean", "--on-loss", &ladder, lun.a.path(), text(&to)];
    let mut mounting = lun.mmp(&arguments);
    let beginning = patiently(seconds(5), || Some(status_of(&lun, &lun.a)).filter(|told| !told.is_null()));
    assert_eq!(beginning.expect("is told")["state"], "beginning");
    mounting.end(seconds(60)).expect(0);
    clock::sleep(seconds(3));
    let (code, report) = status(&lun);
    assert_eq!(code, 0);
    let told = &report["guards"][0];
    let host = must("uname", &["-n"]);
    for (key, value) in [
        ("device", lun.a.path()),
        ("mounted_on", text(&to)),
        ("filesystem", "ext4"),
        ("state", "guarding"),
        ("mode", "watching"),
        ("node", host.trim()),
        ("block_device", lun.a.name()),
        ("on_loss", &ladder),
    ] {
        assert_eq!(told[key], value, "{key}: {report}");
    }
    let number = |key: &str| told[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {report}"));
    assert!((0.0..3.0).contains(&number("last_beat_age_s")), "{report}");
    assert!((7.0..=11.0).contains(&number("lease_left_s")), "{report}");
    assert!(number("beats") >= 2.0 && number("bridged") < 0.5 && number("told_s") < 3.0, "{report}");
    assert!(number("worst_lateness_s") < 1.0 && number("since_s") > 1e9, "{report}");
    assert_eq!((&told["lost"], &told["incomplete_fence"]), (&Value::Null, &false.into()), "{report}");
    let text_of = lun.mmp(&["status"]).end(seconds(20));
    text_of.expect(0).says("guarded; the kernel beats, watched").says("processes  driver");
    lun.mmp(&["status", text(&to)]).end(seconds(20)).expect(0).says(lun.a.path());
    lun.mmp(&["status", lun.a.path(), lun.b.path()]).end(seconds(20)).expect(7).says("not everything");
    lun.mmp(&["umount", text(&to)]).end(seconds(30)).expect(0);
    nothing_is_left_and_clean(&lun);
}
