//! `mmp scan` of real block devices: those of the host, several paths to one LUN, and one that hangs.

use std::fs;

use serde_json::Value;

use crate::Case;
use crate::harness::areas::{Content, Made};
use crate::harness::lun::{Loop, Lun, must, text};
use crate::harness::process::{Process, all_dead};
use crate::harness::started::{Ended, Started, patiently};
use crate::harness::throttle::Throttle;
use crate::harness::{at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("case_scan_the_host_has_a_row_a_lun", host),
    ("case_scan_a_hanging_device_delays_no_other_and_the_prompt_comes_back", hangs),
    ("case_scan_a_follower_sees_who_lives", follows),
    ("case_scan_a_file_a_whole_device_and_a_window_are_told_apart", windows),
];

fn document(end: &Ended) -> Vec<Value> {
    let report: Value = serde_json::from_str(&end.out).unwrap_or_else(|error| panic!("{error}: {end:?}"));
    report["devices"].as_array().expect("is a list").clone()
}

fn row<'a>(devices: &'a [Value], path: &str) -> &'a Value {
    let has = |device: &&Value| {
        device["slot"].is_null()
            && device["paths"].as_array().expect("is a list").iter().any(|one| one == path)
    };
    devices.iter().find(has).unwrap_or_else(|| panic!("no row of {path}: {devices:#?}"))
}

/// Native MMP, areas behind filesystems and alone, in one scan of the host; what is mounted guarded is told.
fn host() {
    let native = Lun::new();
    let tail = Lun::protected(Content::Ext3, Made::default());
    let control = Lun::control(2);
    control.slot("data");
    let bare = Lun::holding(Content::Xfs, Made::default());
    let before: Vec<_> = [&native, &tail, &control, &bare].map(Lun::digest).into();
    let end = native.verb(&["scan", "--json"]);
    let devices = document(end.expect(0));
    for (lun, filesystem, mmp, state) in [
        (&native, "ext4", "native", "clean"),
        (&tail, "ext3", "tail_area", "clean"),
        (&bare, "xfs", "none", "not_enabled"),
    ] {
        let row = row(&devices, lun.a.path());
        assert_eq!((&row["mmp"], &row["state"]), (&mmp.into(), &state.into()), "{row:#}");
        assert_eq!(row["filesystem"], filesystem, "{row:#}");
        // Two loop devices over one file are one LUN.
        let paths = row["paths"].as_array().expect("is a list");
        assert!(paths.len() == 2 && paths.iter().any(|path| path == lun.b.path()), "{row:#}");
    }
    let area = row(&devices, control.a.path());
    assert_eq!((&area["mmp"], &area["state"]), (&"area".into(), &"usable".into()), "{area:#}");
    assert!(area["notes"].to_string().contains("1 of 2 slots used"), "{area:#}");
    let name = format!("{}:data", area["device"].as_str().expect("is text"));
    let slot = devices.iter().find(|device| device["device"] == name.as_str()).expect("has a row");
    assert_eq!((&slot["mmp"], &slot["state"]), (&"slot".into(), &"clean".into()), "{slot:#}");
    native.verb(&["show", &name]).expect(0);
    let after: Vec<_> = [&native, &tail, &control, &bare].map(Lun::digest).into();
    assert_eq!(before, after, "a scan writes nothing");

    let guarded = native.guarded(&native.a, &["--handover", "clean"]);
    let end = native.verb(&["scan", "--json", native.b.path(), native.a.path()]);
    let row = row(&document(end.expect(0)), native.a.path()).clone();
    assert_eq!(row["state"], "live_or_unclean", "{row:#}");
    assert_eq!(row["guarded_here"]["state"], "guarding", "{row:#}");
    assert_eq!(row["guarded_here"]["mounted_on"], text(&guarded.dir), "{row:#}");
    native.verb(&["scan", native.a.path()]).expect(0).says("guarded by this host, on ");
    native.released(&guarded.dir);
}

/// Runs `mmp scan` in a group whose I/O on one device hangs; the rest of the machine is well.
fn in_group(lun: &Lun, throttle: &Throttle, arguments: &str) -> Started {
    let script = format!(
        "echo $$ > {}; exec {} scan {arguments}",
        text(&throttle.processes()),
        env!("CARGO_BIN_EXE_mmp")
    );
    lun.start("sh", ["-c", &script])
}

fn hangs() {
    let case = "scan, a device hangs";
    let (hung, well) = (Lun::new(), Lun::new());
    let throttle = match Throttle::hanging(hung.a.path()) {
        Ok(throttle) => throttle,
        Err(why) => {
            println!("NOT RUN: {case}: no block I/O throttling by cgroup here: {why}");
            let required = std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_some();
            assert!(!required, "must run and needs block I/O throttling: {why}");
            return;
        }
    };
    let (a, other) = (hung.a.path(), well.a.path());
    let mut scan = in_group(&hung, &throttle, &format!("--json --timeout 2s {a} {other}"));
    let worker = scan.child("mmp-scan");
    let end = scan.end(seconds(30));
    let devices = document(end.expect(4));
    assert_eq!(
        (&devices[0]["state"], &devices[1]["state"]),
        (&"hung".into(), &"clean".into()),
        "{devices:#?}"
    );
    assert!(devices[0]["reason"].as_str().is_some_and(|why| why.contains("within 2 s")), "{devices:#?}");
    at_most(case, "the end of `mmp scan --timeout 2s`", end.took, 3.0);
    let (left, states) = (worker.is_alive(), worker.states());
    observed(case, &format!("the other process's threads after the end: {states} (D: in the hung look)"));
    assert!(left, "its I/O hangs, or this test proves nothing");

    // Whoever reads a pipe to its end has it, too, although a process is left behind.
    let mut piped = hung.start(
        "sh",
        [
            "-c",
            &format!(
                "echo $$ > {}; {} scan --timeout 1s {a} 2>&1 | cat",
                text(&throttle.processes()),
                env!("CARGO_BIN_EXE_mmp")
            ),
        ],
    );
    piped.end(seconds(30)).expect(0).says("HUNG").says("no answer within 1 s");

    // By the other path it is well: one row, which says what was seen by which.
    let both =
        in_group(&hung, &throttle, &format!("--json --timeout 1s {a} {}", hung.b.path())).end(seconds(30));
    let devices = document(both.expect(4));
    assert_eq!((devices.len(), &devices[0]["state"]), (1, &"clean".into()), "{devices:#?}");
    assert!(devices[0]["notes"].to_string().contains(&format!("HUNG by {a}: ")), "{devices:#?}");

    // A follower is not held up, and sees when it answers again.
    let mut follow =
        in_group(&hung, &throttle, &format!("--follow --json --interval 100ms --timeout 1s {a} {other}"));
    let told =
        |follow: &Started, what: &str| patiently(seconds(30), || follow.out().contains(what).then_some(()));
    assert!(told(&follow, "\"hung\"").is_some(), "{}", follow.out());
    drop(throttle);
    assert!(told(&follow, "\"was\":\"hung\"").is_some(), "it answers again: {}", follow.out());
    assert!(!follow.has_ended(), "{}", follow.err());
    let others: Vec<Process> = vec![worker];
    assert!(all_dead(&others, seconds(20)).is_some(), "it ends when its I/O does");
}

fn follows() {
    let lun = Lun::new();
    let mut follow = lun.mmp(&["scan", "--follow", "--interval", "200ms", lun.b.path()]);
    let told = |follow: &Started, what: &str| {
        let found = patiently(seconds(60), || follow.out().contains(what).then_some(()));
        assert!(found.is_some(), "no {what:?}: {}", follow.out());
    };
    told(&follow, " clean ");
    let to = lun.mounted(&lun.a);
    told(&follow, "clean -> live or unclean; ");
    told(&follow, "live or unclean -> live; ");
    lun.umount(&lun.a, &to);
    told(&follow, "live -> clean; ");
    assert!(!follow.has_ended(), "{}", follow.err());
}

/// A loop device that shows a part of a file is another thing than the file.
fn windows() {
    let lun = Lun::new();
    let scan = |paths: &[&str]| document(lun.verb(&[&["scan", "--json"], paths].concat()).expect(0));
    let image = text(lun.image()).to_owned();
    let devices = scan(&[&image, lun.b.path(), lun.a.path()]);
    assert_eq!(devices.len(), 1, "{devices:#?}");
    assert_eq!(devices[0]["device"], image.as_str());
    assert_eq!(devices[0]["paths"].as_array().map(Vec::len), Some(3), "{devices:#?}");
    let part = Part(must("losetup", &["-f", "--show", "--offset", "1048576", &image]).trim().to_owned());
    let devices = scan(&[lun.a.path(), &part.0]);
    assert_eq!(devices.len(), 2, "{devices:#?}");
    assert_eq!(devices[1]["state"], "not_enabled", "{devices:#?}");
    // A loop device over another shows what that shows.
    let over = Loop::new(lun.a.path().as_ref());
    let devices = scan(&[over.path(), lun.b.path()]);
    assert_eq!(devices.len(), 1, "{devices:#?}");
    drop(over);
    // A clone is another disk.
    let copy = lun.copy("clone.img");
    let devices = scan(&[lun.a.path(), text(&copy)]);
    assert_eq!(devices.len(), 2, "{devices:#?}");
    assert!(devices[1]["notes"].to_string().contains("same UUID as"), "{devices:#?}");
    fs::remove_file(copy).expect("removes");
}

/// A loop device over a part of an image, detached when dropped.
struct Part(String);

impl Drop for Part {
    fn drop(&mut self) {
        crate::harness::lun::command("losetup", &["-d", &self.0]);
    }
}
