//! A host that stands by takes over sooner: what it has watched counts. Measured beside the kernel, on the same LUN.

use mmpguard::clock;
use serde_json::json;

use crate::Case;
use crate::guard_support::{mount, mounted, nothing_is_left, status_of};
use crate::harness::areas::{Content, Made};
use crate::harness::daemon::{Daemon, together};
use crate::harness::lun::{Lun, text};
use crate::harness::started::patiently;
use crate::harness::{at_least, at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("daemon_4_a_watched_area_is_taken_over_in_one_wait", area),
    ("daemon_4_a_watched_ext4_is_taken_over_in_one_wait_the_kernel_needs_two", native),
    ("daemon_4_what_changed_counts_for_nothing", changed),
    ("daemon_4_what_cannot_be_watched_is_told", told),
];

/// From the ask, at an interval of a second.
const TAKEOVER_S: f64 = 11.8;

fn standby(lun: &Lun, on: &str) {
    lun.mmp(&["standby", on]).end(seconds(20)).expect(0).says(on);
}

fn silent(lun: &Lun, daemon: &Daemon, for_s: u64) {
    let quiet = patiently(seconds(60), || {
        let list = daemon.call("monitor.sock", "ListStandbys", &json!({}));
        let one = &list["parameters"]["standbys"][0];
        (one["state"] == "silent" && one["quiet_ms"].as_u64() >= Some(for_s * 1000)).then_some(())
    });
    assert!(quiet.is_some(), "{}", lun.mmp(&["standby"]).end(seconds(20)).out);
}

fn area() {
    let lun = Lun::protected(Content::Xfs, Made::default());
    let first = lun.guarded(&lun.a, &[]);
    let generation = lun.generation();
    // The peer's daemon has a directory of its own.
    let daemon = Daemon::with(&lun, env!("CARGO_BIN_EXE_mmp"), &peers(&lun));
    peer(&lun, &["standby", lun.b.path()]).expect(0).says("not clean");
    let live = || peer(&lun, &["standby"]).out.contains("in use elsewhere").then_some(());
    assert!(patiently(seconds(10), live).is_some());
    lun.host_dies(Content::Xfs, &first);
    silent(&lun, &daemon, 13);
    let (took, dir) = takeover(&lun, &[]);
    at_least("daemon 4", "an area that was watched, taken over", took, 11.0);
    at_most("daemon 4", "an area that was watched, taken over", took, TAKEOVER_S);
    assert!(lun.generation() > generation);
    assert_eq!(peer(&lun, &["standby"]).expect(0).out.trim(), "nothing is watched on this host");
    peer(&lun, &["umount", text(&dir)]).expect(0);
    lun.forget_mount(&dir);
    daemon.stop().expect(0);
}

fn native() {
    let lun = Lun::new();
    let daemon = Daemon::with(&lun, env!("CARGO_BIN_EXE_mmp"), &peers(&lun));
    peer(&lun, &["standby", lun.b.path()]).expect(0).says("nobody uses it");
    dead_native(&lun);
    // The kernel, beside it: it has to watch twice, whatever was seen before.
    let (mut kernel, at) = lun.mount(&lun.a);
    let end = kernel.end(seconds(60));
    end.expect(0);
    at_least("daemon 4", "the kernel's own takeover", end.took, 22.0);
    lun.umount(&lun.a, &at);

    dead_native(&lun);
    silent(&lun, &daemon, 15);
    let (took, dir) = takeover(&lun, &["--handover", "clean"]);
    at_least("daemon 4", "an ext4 that was watched, taken over", took, 11.0);
    at_most("daemon 4", "an ext4 that was watched, taken over", took, TAKEOVER_S);
    peer(&lun, &["umount", text(&dir)]).expect(0);
    lun.forget_mount(&dir);
    daemon.stop().expect(0);
}

/// The block of a holder that died.
fn dead_native(lun: &Lun) {
    let raw = lun.raw();
    let mut block = raw.read();
    block.seq = 0x0102_0304 + u32::try_from(clock::mono().0 % 1000).expect("is small");
    block.node = mmpguard::format::NodeName::new("dead");
    block.check_interval_s = 5;
    raw.write(&block);
}

fn changed() {
    let lun = Lun::protected(Content::Ext3, Made::default());
    let dir = mounted(&lun, &lun.a, &[]);
    let daemon = Daemon::with(&lun, env!("CARGO_BIN_EXE_mmp"), &peers(&lun));
    peer(&lun, &["standby", lun.b.path()]).expect(0);
    clock::sleep(seconds(14));
    // It lives: the time watched counts for nothing.
    let mount_point = lun.mount_point();
    let refused = peer(
        &lun,
        &["mount", "--on-loss", "shutdown", "--incomplete-fence", lun.b.path(), text(&mount_point)],
    );
    refused.expect(1).says("in use elsewhere");
    lun.unmount_and_wait(&lun.a, &dir);
    peer(&lun, &["standby", "--end", lun.b.path()]).expect(0);
    peer(&lun, &["standby", "--end", lun.b.path()]).expect(7).says("it is not watched");
    daemon.stop().expect(0);
}

fn told() {
    let lun = Lun::new();
    lun.mmp(&["standby", lun.b.path()]).end(seconds(10)).expect(7).says("no daemon listens");
    let daemon = Daemon::of(&lun);
    standby(&lun, lun.b.path());
    standby(&lun, lun.b.path());
    let list = lun.mmp(&["standby", "--json"]).end(seconds(10));
    let list: serde_json::Value = serde_json::from_str(&list.expect(0).out).expect("is JSON");
    assert_eq!(list["standbys"].as_array().map(Vec::len), Some(1), "{list}");
    lun.mmp(&["standby", "/dev/nothing-there"]).end(seconds(10)).expect(4).says("/dev/nothing-there");
    let plain = Lun::holding(Content::Ext3, Made::default());
    let env = together(&lun);
    let mut unprotected = plain.start_with(env!("CARGO_BIN_EXE_mmp"), ["standby", plain.a.path()], &env);
    unprotected.end(seconds(20)).expect(7).says("MMP is not enabled");
    // A device that is watched may be mounted here as any other, and is not in the way of whoever uses it.
    let (mut mounting, dir) = mount(&lun, &lun.a, &["--handover", "clean"]);
    mounting.end(seconds(40)).expect(0);
    observed("daemon 4", &lun.mmp(&["standby"]).end(seconds(10)).out.replace('\n', "; "));
    lun.mmp(&["umount", text(&dir)]).end(seconds(20)).expect(0);
    lun.forget_mount(&dir);
    assert!(status_of(&lun, &lun.a).is_null());
    daemon.stop().expect(0);
    nothing_is_left(&lun);
}

/// The second host's own directory.
fn peers(lun: &Lun) -> [(&'static str, String); 1] {
    [("MMP_RUNTIME_DIR", text(&lun.file("peer")).to_owned())]
}

fn peer(lun: &Lun, arguments: &[&str]) -> crate::harness::started::Ended {
    lun.start_with(env!("CARGO_BIN_EXE_mmp"), arguments, &peers(lun)).end(seconds(60))
}

/// The second host's `mmp mount`: how long it took from the ask, and where it is.
fn takeover(lun: &Lun, options: &[&str]) -> (std::time::Duration, std::path::PathBuf) {
    let dir = lun.mount_point();
    let mut arguments = vec!["mount", "--on-loss", "shutdown", "--incomplete-fence"];
    arguments.extend(options);
    arguments.extend([lun.b.path(), text(&dir)]);
    let end = peer(lun, &arguments);
    end.expect(0);
    (end.took, dir)
}
