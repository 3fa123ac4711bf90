//! What is told of guarded mounts: the log, the journal, hooks, `mmp health`, the last beats. And that none of it delays a beat.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::{MmpBlock, NodeName};
use mmpguard::protocol::sequence::SEQ_FSCK;
use serde_json::Value;

use crate::Case;
use crate::harness::guarded::{FrozenMount, Guarded, How, MOUNT_PATIENCE};
use crate::harness::lun::{Loop, Lun, command, text};
use crate::harness::process::{Process, all_dead};
use crate::harness::started::{Ended, patiently};
use crate::harness::{observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("events_of_a_takeover_a_freeze_and_an_unmount_are_told_in_order", in_order),
    ("events_of_a_loss_are_told_by_the_keeper_after_the_fence", of_a_loss),
    ("events_hooks_that_hang_are_killed_and_delay_no_beat", hook_that_hangs),
    ("events_a_guard_that_hangs_or_is_gone_is_unhealthy", unhealthy),
];

/// Of a block that names a holder who is dead.
const LIVE: u32 = 123_456;

/// A configuration, and a journal that only listens.
struct Told {
    config: PathBuf,
    journal: UnixDatagram,
    journal_path: PathBuf,
}

impl Told {
    /// With these hooks, each as it stands in the file.
    fn new(lun: &Lun, hooks: &str) -> Told {
        let config = lun.file("mmp.toml");
        fs::write(&config, format!("[events]\nhooks = [ {hooks} ]\n")).expect("writes");
        let journal_path = lun.file("journal");
        let journal = UnixDatagram::bind(&journal_path).expect("binds");
        journal.set_nonblocking(true).expect("is a socket");
        Told { config, journal, journal_path }
    }

    fn env(&self) -> [(&'static str, String); 2] {
        [
            ("MMP_CONFIG", text(&self.config).to_owned()),
            ("MMP_JOURNAL_SOCKET", text(&self.journal_path).to_owned()),
        ]
    }

    fn guarded(&self, lun: &Lun, on: &Loop, options: &[&str]) -> Guarded {
        let env = self.env();
        let (mut mounting, dir) = lun.guard_with(on, How { options, env: &env, slow: None });
        let end = mounting.end(MOUNT_PATIENCE);
        end.expect(0);
        lun.guard_of(on, dir, end.took)
    }

    /// The events that the journal was told of.
    fn journal(&self) -> Vec<String> {
        let mut bytes = vec![0; 1 << 16];
        let mut all = Vec::new();
        while let Ok(length) = self.journal.recv(&mut bytes) {
            let entry = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let field = |name: &str| {
                let value = entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
                value.unwrap_or_else(|| panic!("no {name} in {entry}")).to_owned()
            };
            assert_eq!(field("MESSAGE_ID").len(), 32, "{entry}");
            all.push(field("MMP_EVENT"));
        }
        all
    }
}

fn events(lun: &Lun, options: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["events", "--json"];
    arguments.extend(options);
    parsed(&lun.mmp(&arguments).end(seconds(20)).expect(0).out)
}

fn parsed(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().unwrap_or_default()).collect()
}

/// Waits until so many have come.
fn events_until(lun: &Lun, count: usize) -> Vec<Value> {
    let found = patiently(seconds(20), || Some(events(lun, &[])).filter(|all| all.len() >= count));
    found.unwrap_or_else(|| panic!("not {count} events: {:#?}", events(lun, &[])))
}

fn health(lun: &Lun, on: &Loop) -> Ended {
    lun.mmp(&["health", on.path()]).end(seconds(20))
}

fn history(lun: &Lun, on: &Loop) -> Vec<Value> {
    let end = lun.mmp(&["status", "--history", "--json", on.path()]).end(seconds(20));
    let report: Value = serde_json::from_str(&end.expect(0).out).expect("is JSON");
    report["guards"][0]["beats"].as_array().expect("has beats").clone()
}

fn change_block(lun: &Lun, change: impl FnOnce(&mut MmpBlock)) {
    let raw = lun.raw();
    let mut block = raw.read();
    change(&mut block);
    raw.write(&block);
}

fn in_order() {
    let case = "events, in order";
    let lun = Lun::new();
    let seen = lun.file("seen");
    let hook = format!(
        "{{ command = [\"/bin/sh\", \"-c\", \"echo $MMP_EVENT $MMP_STAGE $MMP_OTHER >> {}\"], on = [\"takeover\", \
         \"bridged\"] }}",
        text(&seen)
    );
    let told = Told::new(&lun, &hook);
    change_block(&lun, |block| {
        (block.seq, block.check_interval_s, block.node) = (LIVE, 5, NodeName::new("dead\x1bnode"));
    });
    let mut following = lun.mmp(&["events", "--json", "--follow"]);
    let guard = told.guarded(&lun, &lun.a, &["--handover", "clean"]);
    assert_eq!(kinds(&events_until(&lun, 2)), ["takeover", "held"]);
    assert_eq!(
        health(&lun, &lun.a).expect(0).out.lines().next(),
        Some(first_line_while_well(&lun, &guard).as_str())
    );
    clock::sleep(seconds(4));
    plausible_looks(case, &history(&lun, &lun.a));

    let frozen = FrozenMount::new(&guard.dir);
    lun.status_until(&lun.a, seconds(20), |status| status["mode"] == "bridging");
    health(&lun, &lun.a).expect(12).says("UNHEALTHY: ").says("the kernel is silent");
    clock::sleep(seconds(3));
    let beats = history(&lun, &lun.a);
    assert!(beats.iter().any(|beat| beat["write_ns"].is_u64()), "we beat: {beats:?}");
    drop(frozen);
    events_until(&lun, 4);
    lun.release(&guard.dir);
    let all = events_until(&lun, 5);
    assert_eq!(kinds(&all), ["takeover", "held", "bridged", "bridged", "released"], "{all:#?}");
    assert_eq!(
        (&all[0]["other"], &all[2]["stage"], &all[3]["stage"]),
        (&"dead\\x1bnode".into(), &"begun".into(), &"ended".into())
    );
    assert!(all.iter().all(|event| event["device"] == lun.a.path()), "{all:#?}");
    let times: Vec<_> = all.iter().map(|event| event["boottime_ns"].as_u64().expect("has a time")).collect();
    assert!(times.is_sorted(), "{times:?}");

    let followed = patiently(seconds(10), || Some(parsed(&following.out())).filter(|all| all.len() == 5));
    assert_eq!(followed.expect("follows"), all);
    assert!(!following.has_ended(), "it goes on");
    following.process().signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(told.journal(), kinds(&all), "in the journal");
    let ran =
        patiently(seconds(10), || fs::read_to_string(&seen).ok().filter(|text| text.lines().count() == 3));
    assert_eq!(ran.as_deref(), Some("takeover dead\\x1bnode\nbridged begun\nbridged ended\n"));
    assert_eq!(kinds(&events(&lun, &["--kind", "held", lun.a.path()])), ["held"]);
    assert!(events(&lun, &[lun.b.path()]).is_empty() && events(&lun, &["--since", "1ms"]).is_empty());
    health(&lun, &lun.a).expect(7).says("NOT GUARDED");
    lun.mmp(&["health"]).end(seconds(20)).expect(0).says("HEALTHY: nothing is guarded");
    observed(case, "log, follower, journal and hooks told the same");
}

fn first_line_while_well(lun: &Lun, guard: &Guarded) -> String {
    // The ladder of the tests is no real fence.
    let what = "what is done on a loss (shutdown) was allowed to be no real fence";
    format!("HEALTHY, WITH A WARNING: {} on {}: {what}", lun.a.path(), text(&guard.dir))
}

/// While a kernel beats: twice a second, nothing is written, and a look takes no time to speak of.
fn plausible_looks(case: &str, beats: &[Value]) {
    let ns = |beat: &Value, name: &str| beat[name].as_u64().unwrap_or_else(|| panic!("no {name}: {beat}"));
    assert!((4..=60).contains(&beats.len()), "{} looks within some seconds", beats.len());
    assert!(beats.iter().rev().take(4).all(|beat| beat["write_ns"].is_null()), "{beats:?}");
    let times: Vec<_> = beats.iter().map(|beat| ns(beat, "boottime_ns")).collect();
    assert!(times.is_sorted() && clock::mono().0 - times[times.len() - 1] < 3_000_000_000, "{times:?}");
    let longest =
        |name| Duration::from_nanos(beats.iter().map(|beat| ns(beat, name)).max().unwrap_or_default());
    let (read, late) = (longest("read_ns"), longest("late_ns"));
    assert!(read > Duration::ZERO && read < seconds(2) && late < seconds(2), "{read:?} {late:?}");
    observed(case, &format!("{} looks, the longest {read:?}, the latest {late:?}", beats.len()));
}

fn of_a_loss() {
    let case = "events, a loss";
    let lun = Lun::new();
    let seen = lun.file("seen");
    let hook = format!(
        "{{ command = [\"/bin/sh\", \"-c\", \"cat >> {0}; id -u >> {0}; cat /proc/self/oom_score_adj >> {0}\"], on = [\"fenced\"] }}",
        text(&seen)
    );
    let told = Told::new(&lun, &hook);
    let guard = told.guarded(&lun, &lun.a, &["--handover", "clean"]);
    // Somebody's e2fsck passed its whole wait.
    change_block(&lun, |block| (block.seq, block.node) = (SEQ_FSCK, NodeName::new("other")));
    lun.status_until(&lun.a, seconds(30), |status| status["state"] == "lost" && !status["lost"].is_null());
    let all = events_until(&lun, 3);
    let kinds = kinds(&all);
    assert_eq!(kinds, ["held", "lost", "fenced"], "{all:#?}");
    assert!(all[1]["text"].as_str().is_some_and(|text| text.contains("e2fsck")), "{:#}", all[1]);
    assert!(all[2]["text"].as_str().is_some_and(|text| text.contains("shutdown")), "{:#}", all[2]);
    let pid = |event: &Value| event["pid"].as_i64();
    assert_eq!((pid(&all[1]), pid(&all[2])), (Some(guard.keeper.pid.into()), Some(guard.keeper.pid.into())));
    assert_eq!(told.journal(), kinds);
    health(&lun, &lun.a).expect(5).says("UNPROTECTED: ").says("protection was lost");
    let ran =
        patiently(seconds(10), || fs::read_to_string(&seen).ok().filter(|text| text.lines().count() == 3));
    let ran = ran.expect("the hook of a keeper that has ended runs");
    let lines: Vec<_> = ran.lines().collect();
    assert_eq!(serde_json::from_str::<Value>(lines[0]).expect("is the record"), all[2]);
    let ours = fs::read_to_string("/proc/self/oom_score_adj").expect("reads");
    assert_eq!((lines[1], lines[2]), ("0", ours.trim()), "nothing of the keeper's protection is left");
    observed(case, "lost and fenced were told by the keeper, in this order, and its hook ran");
}

fn hook_that_hangs() {
    let case = "events, hooks that hang";
    let lun = Lun::new();
    let pids = lun.file("pids");
    let hook = format!(
        "{{ command = [\"/bin/sh\", \"-c\", \"trap '' TERM; echo $$ >> {}; sleep 600\"], on = [\"held\"], time_limit_s = 3 }}",
        text(&pids)
    );
    // One more than run at once.
    let told = Told::new(&lun, &[hook.as_str(); 5].join(", "));
    // We beat.
    let guard = told.guarded(&lun, &lun.a, &["--read-only"]);
    let hooks = || -> Vec<Process> {
        let pids = fs::read_to_string(&pids).unwrap_or_default();
        pids.lines().filter_map(|pid| Process::of(pid.parse().ok()?)).collect()
    };
    let started = patiently(seconds(10), || Some(hooks()).filter(|hooks| hooks.len() == 4));
    let started = started.unwrap_or_else(|| panic!("not four hooks: {:?}", hooks()));
    let at = clock::mono();
    let killed = all_dead(&started, seconds(20)).unwrap_or_else(|| panic!("they live: {started:?}"));
    let took = killed.since(at);
    assert!(took < seconds(10), "{took:?}");
    clock::sleep(seconds(2));
    let beats = history(&lun, &lun.a);
    assert!(beats.len() >= 4 && beats.iter().all(|beat| beat["write_ns"].is_u64()), "{beats:?}");
    let late = beats.iter().filter_map(|beat| beat["late_ns"].as_u64()).max().expect("has beats");
    assert!(late < 1_000_000_000, "a beat was {late} ns late");
    assert_eq!(lun.status(&lun.a)["state"], "guarding");
    health(&lun, &lun.a).expect(0).says("events lost on their way to log, journal or hook: 1");
    guard.assert_alive();
    lun.release(&guard.dir);
    assert_eq!(kinds(&events_until(&lun, 2)), ["held", "released"]);
    assert_eq!(fs::read_to_string(&pids).expect("reads").lines().count(), 4, "the fifth was not run");
    observed(case, &format!("killed {took:?} after they were seen; the latest beat was {late} ns late"));
}

fn unhealthy() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    let case = "events, health";
    let lun = Lun::new();
    let guard = lun.guarded(&lun.a, &["--handover", "clean"]);
    health(&lun, &lun.a).expect(0);
    guard.driver.signal(SIGSTOP);
    let found = patiently(seconds(12), || Some(health(&lun, &lun.a)).filter(|end| end.code == 12));
    guard.driver.signal(SIGCONT);
    found.expect("is found").says("told nothing for");
    // It has looked too late, and says so.
    assert_eq!(kinds(&events_until(&lun, 2)), ["held", "late"]);
    lun.status_until(&lun.a, seconds(10), |status| {
        status["told_s"].as_f64().is_some_and(|told_s| told_s < 1.5)
    });
    health(&lun, &lun.a).expect(12).says("late beats within the last minute: ");
    let metrics = lun.mmp(&["metrics"]).end(seconds(20));
    metrics.expect(0).says("mmp_keeper_present{").says("state=\"guarding\"} 1.0");
    guard.kill();
    let gone = patiently(seconds(5), || Some(health(&lun, &lun.a)).filter(|end| end.code == 5));
    gone.expect("is found").says("UNPROTECTED: ").says("its guarding processes are gone");
    let metrics = lun.mmp(&["metrics"]).end(seconds(20));
    metrics.expect(0).says("state=\"unguarded\"} 1.0").says("health=\"unprotected\"} 1.0");
    assert!(command("umount", &[text(&guard.dir)]).status.success());
    lun.forget_mount(&guard.dir);
    let left = patiently(seconds(10), || Some(health(&lun, &lun.a)).filter(|end| end.code == 0));
    left.expect("is no more than a warning").says("not mounted any more");
    observed(case, "12 while the driver stood still, 5 without any guard");
}
