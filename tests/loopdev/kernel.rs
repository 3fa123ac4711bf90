//! Cases 1, 3, 7 and 9: the kernel and `mmp run` on one LUN.

use serde_json::Value;

use crate::Case;
use crate::harness::kernel::KernelLog;
use crate::harness::lun::{Lun, Shape};
use crate::harness::{at_least, at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("case_09_a_clean_unmount_lets_the_waiting_claim_go_on", unmount_while_waiting),
    ("case_03_the_kernels_mount_refuses_us_at_once_at_the_default_interval", || refused("3, 5 s", 5, 5.8)),
    ("case_01_the_kernel_refuses_to_mount_what_mmp_run_holds", kernel_refuses),
    ("case_07_after_a_clean_end_the_kernel_mounts_at_once_and_nothing_changed", clean_end),
    ("case_03_the_kernels_mount_refuses_us_at_once", || refused("3", 1, 1.4)),
];

fn kernel_refuses() {
    let lun = Lun::new();
    let mut run = lun.hold("alpha", &lun.a, "sleep 1000");
    let mut log = KernelLog::from_here();
    let (mut mounting, _) = lun.mount(&lun.b);
    let refusal = mounting.end(seconds(60));
    assert_ne!(refusal.code, 0, "mounted over a live holder: {refusal:?}");
    observed("1", &format!("the kernel refused after {:.2} s", refusal.took.as_secs_f64()));
    let lines = log.about(lun.b.name());
    let active = lines.iter().any(|line| line.contains("already active on another node"));
    let named = lines.iter().find(|line| {
        line.contains("last update node: alpha") && line.contains(&format!("device: {}", lun.a.name()))
    });
    assert!(active && named.is_some(), "{lines:#?}");
    observed("1", named.expect("was found").split_once(';').expect("has a header").1.trim());
    assert!(!run.has_ended(), "the holder goes on");
}

fn refused(case: &str, interval_s: u32, limit_s: f64) {
    let lun = Lun::shaped(Shape { update_interval_s: interval_s, ..Shape::default() });
    let host = hostname::get().expect("has a name").into_string().expect("UTF-8");
    let mounted = lun.mounted(&lun.b);
    let device = lun.a.path();

    let check = lun.mmp(&["check", device]).end(seconds(30));
    check.expect(1).says("in use elsewhere").says(&host).says(lun.b.name());
    at_most(case, "refusal by check", check.took, limit_s);

    let check = lun.mmp(&["check", "--json", device]).end(seconds(30));
    let report: Value = serde_json::from_str(&check.expect(1).out).expect("is JSON");
    assert_eq!((&report["state"], &report["exit_code"]), (&"in_use".into(), &1.into()), "{report}");
    assert_eq!(report["peer"]["node"], host.as_str(), "{report}");
    assert_eq!(report["peer"]["device"], lun.b.name(), "{report}");
    at_most(case, "refusal by check --json", check.took, limit_s);

    let run = lun.run("alpha", &lun.a, "mark alpha.up").end(seconds(30));
    run.expect(121).says("in use elsewhere").says(&host).says(lun.b.name()).says("--wait");
    at_most(case, "refusal by run", run.took, limit_s);
    assert_eq!(lun.marked("alpha.up"), None, "the command ran");

    // On the host that has it mounted nothing needs watching.
    let here = lun.mmp(&["check", lun.b.path()]).end(seconds(30));
    here.expect(1).says("in use on this host").says(mounted.to_str().expect("UTF-8"));
    at_most(case, "check on the host that has it mounted", here.took, 1.0);
}

fn clean_end() {
    let lun = Lun::new();
    let before = lun.bytes();
    let run = lun.run("alpha", &lun.a, "mark alpha.up; exit 7").end(seconds(60));
    run.expect(7);
    assert!(lun.marked("alpha.up").is_some(), "the command ran");
    let held_for = lun.marked("alpha.up").expect("ran").since(run.at - run.took);
    at_least("7", "the claim of a clean LUN", held_for, 11.0);
    lun.assert_unchanged_outside_mmp(&before);
    lun.start("e2fsck", ["-fn", lun.b.path()]).end(seconds(60)).expect(0);
    lun.assert_unchanged_outside_mmp(&before);
    let (mut mounting, _) = lun.mount(&lun.b);
    let mounted = mounting.end(seconds(60));
    at_most("7", "the kernel's mount after the clean end", mounted.expect(0).took, 1.0);
}

fn unmount_while_waiting() {
    let lun = Lun::new();
    let host = hostname::get().expect("has a name").into_string().expect("UTF-8");
    let mounted = lun.mounted(&lun.b);
    let script = "mark alpha.up; sleep 1; exit 3";
    let mut run = lun.run_with("alpha", &lun.a, &["--wait", "120s"], script, &[]);
    run.says("waiting up to", seconds(20));
    assert!(run.err().contains(&host) && run.err().contains(lun.b.name()), "{}", run.err());
    mmpguard::clock::sleep(seconds(6));
    assert!(!run.has_ended() && lun.marked("alpha.up").is_none());
    let unmounting = mmpguard::clock::mono();
    lun.umount(&lun.b, &mounted);
    let unmounted = mmpguard::clock::mono();
    let up = lun.up("alpha", &mut run, seconds(60));
    at_least("9", "from the unmount to our use", up.since(unmounting), 11.0);
    at_most("9", "from the unmount to our use", up.since(unmounted), 12.5);
    run.end(seconds(30)).expect(3);
    // What the kernel left is still whole.
    lun.mounted(&lun.b);
}
