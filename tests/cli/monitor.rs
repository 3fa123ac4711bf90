//! `events`, `health`, `metrics` and `status --history`, as far as they go without a device.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mmpguard::clock;
use mmpguard::events::{EventKind, EventRecord, Severity, Subject, Told, log};
use serde_json::Value;

use crate::support::{MMP, Ran, Scratch, ran};

fn command(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = Command::new(MMP);
    command.args(arguments).env("MMP_RUNTIME_DIR", run(scratch)).env("MMP_ON_LOSS", "shutdown");
    command
}

fn mmp(scratch: &Scratch, arguments: &[&str]) -> Ran {
    ran(&mut command(scratch, arguments))
}

fn run(scratch: &Scratch) -> PathBuf {
    scratch.file("run")
}

fn tell(scratch: &Scratch, kind: EventKind, device: &str, text: &str) {
    std::fs::create_dir_all(run(scratch)).expect("makes it");
    let subject =
        Subject { node: "alpha".into(), ..Subject::new(Path::new(device), Some(Path::new("/srv"))) };
    let record = EventRecord::now(&subject, &Told::new(kind, Severity::Warning, text));
    log::append(&run(scratch), &record).expect("writes");
}

#[test]
fn mistakes_are_usage_errors() {
    let scratch = Scratch::new();
    for arguments in [
        &["events", "--kind", "dead"][..],
        &["events", "--since", "soon"],
        &["health", "--frobnicate"],
        &["metrics", "more"],
        &["status", "--history", "--frobnicate"],
    ] {
        let told = mmp(&scratch, arguments);
        assert_eq!((told.code, told.out.as_str()), (Some(2), ""), "{arguments:?}: {told:?}");
    }
    assert_ne!(mmp(&scratch, &["event-hook"]).code, Some(0), "nobody else starts it");
}

#[test]
fn a_host_that_guards_nothing_is_healthy_and_has_no_events() {
    let scratch = Scratch::new();
    let told = |arguments: &[&str], code: i32, out: &str| {
        let ran = mmp(&scratch, arguments);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(code), out, ""), "{arguments:?}");
    };
    told(&["events"], 0, "");
    told(&["events", "--json"], 0, "");
    told(&["health"], 0, "HEALTHY: nothing is guarded on this host\n");
    told(&["status", "--history"], 0, "nothing is guarded on this host\n");
    let json = mmp(&scratch, &["health", "--json"]);
    let report: Value = serde_json::from_str(&json.out).expect("is JSON");
    assert_eq!((json.code, &report["health"], &report["exit_code"]), (Some(0), &"healthy".into(), &0.into()));
    let other = mmp(&scratch, &["health", "/dev/nonexistent"]);
    assert_eq!(other.code, Some(7), "{other:?}");
    assert_eq!(other.out.lines().next(), Some("NOT GUARDED: /dev/nonexistent is not guarded on this host"));
    let metrics = mmp(&scratch, &["metrics"]);
    assert!(metrics.out.contains("mmp_guards 0.0\n") && metrics.out.ends_with("# EOF\n"), "{metrics:?}");
    assert!(!run(&scratch).exists(), "asking makes no directory");
}

#[test]
fn a_loss_is_the_first_line_and_the_exit_code() {
    let scratch = Scratch::new();
    std::fs::create_dir(run(&scratch)).expect("makes it");
    let record = crate::guarded::record(&mmpguard::registry::boot_id());
    std::fs::write(run(&scratch).join("7-4000.json"), record.to_string()).expect("writes");
    let told = mmp(&scratch, &["health"]);
    // Not mounted any more: nothing is unprotected, and somebody has to look at it.
    assert_eq!(told.code, Some(12), "{told:?}");
    let first = told.out.lines().next().unwrap_or_default();
    let begins =
        "UNHEALTHY: /dev/loop4000 on /mnt/gone: protection was lost: the lease ran out; what was allowed";
    assert!(first.starts_with(begins), "{first}");
    let json = mmp(&scratch, &["health", "--json"]);
    let report: Value = serde_json::from_str(&json.out).expect("is JSON");
    let finding = &report["guards"][0]["findings"][0];
    assert_eq!((&finding["kind"], &finding["level"]), (&"lost".into(), &"unhealthy".into()), "{report}");
    let metrics = mmp(&scratch, &["metrics"]);
    let line = "mmp_guard_state{device=\"/dev/loop4000\",dir=\"/mnt/gone\",state=\"lost\"} 1.0";
    assert!(metrics.out.contains(line), "{metrics:?}");
    let history = mmp(&scratch, &["status", "--history", "--json"]);
    assert_eq!(history.code, Some(4), "{history:?}");
    let report: Value = serde_json::from_str(&history.out).expect("is JSON");
    let error = report["guards"][0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("does not answer"), "{report}");
}

#[test]
fn the_log_is_shown_in_order_and_harmless() {
    let scratch = Scratch::new();
    tell(&scratch, EventKind::Held, "/dev/sda", "guarded");
    tell(&scratch, EventKind::Intruder, "/dev/sdb", "by \u{1b}[2Jevil\u{202e}");
    tell(&scratch, EventKind::Released, "/dev/sda", "gone");
    let shown = mmp(&scratch, &["events"]);
    let words: Vec<Vec<_>> = shown.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((shown.code, words.len()), (Some(0), 3), "{shown:?}");
    assert_eq!(words[0][1..], ["held", "/dev/sda", "on", "/srv:", "guarded"]);
    assert!(!shown.out.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    let count = |arguments: &[&str]| {
        let arguments = [&["events", "--json"], arguments].concat();
        let ran = mmp(&scratch, &arguments);
        assert!(ran.out.lines().all(|line| serde_json::from_str::<EventRecord>(line).is_ok()), "{ran:?}");
        ran.out.lines().count()
    };
    assert_eq!((count(&[]), count(&["/dev/sda"]), count(&["/srv"]), count(&["/dev/sdc"])), (3, 2, 3, 0));
    assert_eq!((count(&["--kind", "held", "--kind", "intruder"]), count(&["--since", "10m"])), (2, 3));
    assert_eq!(count(&["--since", "1ms"]), 0);
}

#[test]
fn a_follower_prints_what_comes_across_a_rotation() {
    let scratch = Scratch::new();
    tell(&scratch, EventKind::Held, "/dev/sda", "before");
    let out = scratch.file("followed");
    let into = std::fs::File::create(&out).expect("makes it");
    let mut following: Child =
        command(&scratch, &["events", "-f"]).stdout(into).stderr(Stdio::null()).spawn().expect("starts");
    let lines = |count: usize| {
        let until = clock::mono() + Duration::from_secs(20);
        loop {
            let text = std::fs::read_to_string(&out).expect("reads");
            if text.lines().count() >= count {
                return text;
            }
            assert!(clock::mono() < until, "not {count} lines: {text}");
            clock::sleep(Duration::from_millis(20));
        }
    };
    lines(1);
    tell(&scratch, EventKind::Late, "/dev/sda", "then");
    let directory = run(&scratch);
    std::fs::rename(directory.join("events.jsonl"), directory.join("events.jsonl.1")).expect("rotates");
    tell(&scratch, EventKind::Released, "/dev/sda", "after");
    let text = lines(3);
    let last: Vec<_> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(last, ["before", "then", "after"]);
    assert!(following.try_wait().expect("is a child").is_none(), "it goes on");
    following.kill().expect("is a child");
    following.wait().expect("is a child");
}

#[test]
fn hooks_that_cannot_be_meant_refuse_the_mount() {
    let scratch = Scratch::new();
    let (file, dir) = (scratch.file("mmp.toml"), scratch.file("dir"));
    std::fs::create_dir(&dir).expect("makes it");
    for (bad, why) in [
        ("[events]\nhooks = [ { command = [\"mail\"] } ]", "absolute path"),
        ("[events]\nhook = []", "unknown field"),
        ("[metrics]\nlisten = \"0.0.0.0:9998\"", "other hosts"),
    ] {
        std::fs::write(&file, bad).expect("writes");
        let (image, dir) = (scratch.image.to_str().expect("is UTF-8"), dir.to_str().expect("is UTF-8"));
        let mut command = command(&scratch, &["mount", image, dir]);
        let output = command.env("MMP_CONFIG", &file).output().expect("runs");
        let err = String::from_utf8(output.stderr).expect("is UTF-8");
        assert!(
            output.status.code() == Some(2) && err.contains(why) && err.contains("line 2"),
            "{bad}: {err}"
        );
    }
}
