//! Cases 2 and 10: e2fsprogs and `mmp` on one LUN.

use std::os::unix::fs::OpenOptionsExt as _;

use mmpguard::clock;
use mmpguard::protocol::Sequence;
use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::Case;
use crate::harness::lun::{Loop, Lun, must, text};
use crate::harness::process::{self, Process};
use crate::harness::started::{Started, patiently};
use crate::harness::{at_most_strictly, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("case_10_e2fsck_at_a_question_and_e2fsck_killed_are_told_apart_from_a_holder", fsck),
    ("case_02_e2fsprogs_refuse_what_mmp_run_holds", tools_refuse),
];

const ACTIVE: &str = "MMP: device currently active";

fn tools_refuse() {
    let lun = Lun::new();
    let mut run = lun.hold("alpha", &lun.a, "sleep 1000");
    let before = lun.bytes();
    let calls: [&[&str]; 4] =
        [&["e2mmpstatus"], &["tune2fs", "-O", "^mmp"], &["e2fsck", "-p"], &["e2fsck", "-fy"]];
    // Each on a host of its own: on one they would keep each other out.
    let hosts = [(); 4].map(|()| Loop::new(lun.image()));
    let mut started: Vec<_> = calls
        .iter()
        .zip(&hosts)
        .map(|(call, host)| (lun.start(call[0], call[1..].iter().chain([&host.path()])), call.join(" ")))
        .collect();
    let header = lun.start("dumpe2fs", ["-h", lun.b.path()]).end(seconds(30));
    header.expect(0).says("mmp_node_name: alpha").says(&format!("mmp_device_name: {}", lun.a.name()));
    for (tool, call) in &mut started {
        let refusal = tool.end(seconds(60));
        assert_ne!(refusal.code, 0, "{call} went through: {refusal:?}");
        refusal.says(ACTIVE);
        let said = refusal.text();
        let line = said.lines().find(|line| line.contains(ACTIVE)).expect("says so");
        observed(
            "2",
            &format!("{call}: exit {} after {:.2} s: {line}", refusal.code, refusal.took.as_secs_f64()),
        );
    }
    assert!(!run.has_ended(), "the holder goes on");
    lun.assert_unchanged_outside_mmp(&before);
    assert_eq!(lun.raw().read().node.to_string(), "alpha");
}

/// An e2fsck that waits at a question on the second host, and the pipe from which its answer would come.
pub(crate) fn asking(lun: &Lun) -> (Started, std::fs::File) {
    // Without lost+found e2fsck has something to ask.
    must("debugfs", &["-w", "-R", "clri <11>", lun.b.path()]);
    // e2fsck asks a terminal only; `script` makes one, and this pipe never says anything.
    let pipe = lun.file("keys");
    mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("makes a pipe");
    let silent = std::fs::File::options().read(true).write(true).custom_flags(O_NONBLOCK).open(&pipe);
    let silent = silent.expect("opens");
    let call = format!("script -qec 'e2fsck -f {}' /dev/null < {}", lun.b.path(), text(&pipe));
    let fsck = lun.start("sh", ["-c", &call]);
    let raw = lun.raw();
    let asks = patiently(seconds(60), || {
        let marked = Sequence::from(raw.read().seq) == Sequence::Fsck;
        (marked && fsck.out().contains("<y>")).then_some(())
    });
    assert!(asks.is_some(), "e2fsck asks nothing: {}", fsck.out());
    (fsck, silent)
}

fn fsck() {
    let lun = Lun::new();
    let (mut fsck, _silent) = asking(&lun);
    let raw = lun.raw();
    let question = fsck.out();
    observed("10", &format!("e2fsck asks: {}", question.lines().last().unwrap_or_default().trim()));
    refused_by_mark(&lun, "while it waits");

    let e2fsck = the_e2fsck(&fsck.process()).expect("runs");
    e2fsck.signal(Signal::SIGKILL);
    assert!(process::all_dead(std::slice::from_ref(&e2fsck), seconds(5)).is_some());
    let _ = fsck.end(seconds(10));
    clock::sleep(seconds(1));
    assert_eq!(Sequence::from(raw.read().seq), Sequence::Fsck, "its mark stands for ever");
    refused_by_mark(&lun, "after it was killed");

    must("tune2fs", &["-f", "-E", "clear_mmp", lun.b.path()]);
    lun.mmp(&["check", lun.a.path()]).end(seconds(60)).expect(0).says("free");
    lun.run("alpha", &lun.a, "exit 5").end(seconds(60)).expect(5);
}

fn refused_by_mark(lun: &Lun, when: &str) {
    let device = lun.a.path();
    let check = lun.mmp(&["check", device]).end(seconds(30));
    check.expect(9).says("e2fsck is at work on it, or died at it").says("`mmp clear ");
    assert!(!check.text().contains("in use elsewhere"), "{}", check.text());
    at_most_strictly("10", &format!("refusal by check {when}"), check.took, 1.0, 9.0);
    let check = lun.mmp(&["check", "--json", device]).end(seconds(30));
    let report: Value = serde_json::from_str(&check.expect(9).out).expect("is JSON");
    assert_eq!(report["state"], "fsck", "{report}");
    let run = lun.run("alpha", &lun.a, "mark alpha.up").end(seconds(30));
    run.expect(121).says("e2fsck is at work on it, or died at it").says("`mmp clear ");
    at_most_strictly("10", &format!("refusal by run {when}"), run.took, 1.0, 9.0);
    assert_eq!(lun.marked("alpha.up"), None, "the command ran");
}

pub(crate) fn the_e2fsck(below: &Process) -> Option<Process> {
    below.descendants().into_iter().find(|process| process.comm == "e2fsck")
}
