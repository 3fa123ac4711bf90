//! `mmp` on MMP areas in files: no root, no device. What a second implementation, written from the document, reads and writes; what a
//! command and a report are told; what is refused, with nothing written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{MMP, Ran, Scratch, has, mmp, ran};

/// U of all areas here: claims take 1.1 s.
const INTERVAL: &str = "100ms";

fn text(path: &Path) -> &str {
    path.to_str().expect("is UTF-8")
}

fn done(arguments: &[&str]) -> Ran {
    let ran = mmp(arguments);
    assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    ran
}

fn json(arguments: &[&str]) -> Value {
    let ran = mmp(arguments);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Refused with this code, naming the target, with nothing written.
fn refused(path: &Path, arguments: &[&str], code: i32, what: &str) {
    let before = fs::read(path).expect("reads");
    let ran = mmp(arguments);
    assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
    let first = ran.err.lines().next().unwrap_or_default();
    assert!(ran.err.contains(what) && first.contains(text(path)), "does not say {what:?}: {ran:?}");
    assert!(fs::read(path).expect("reads") == before, "{arguments:?} wrote something");
}

fn control(scratch: &Scratch, slots: &str) -> PathBuf {
    let path = scratch.file("control");
    done(&["area", "create", "--slots", slots, "--interval", INTERVAL, "--label", "rack 4", text(&path)]);
    path
}

/// The same area as the second implementation sees it; none without Python.
fn python(arguments: &[&str]) -> Option<Value> {
    if !has("python3") {
        assert!(std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_none(), "no python3");
        eprintln!("SKIPPED: no python3");
        return None;
    }
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/area_reader.py");
    let output = Command::new("python3").arg("-B").arg(reader).args(arguments).output().expect("starts");
    assert!(output.status.success(), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

#[test]
fn a_reader_written_from_the_document_reads_what_the_command_made() {
    let scratch = Scratch::new();
    let control = control(&scratch, "3");
    let target = text(&control);
    done(&["area", "slot", "add", target, "data", "--uuid", "c0ffee00-1122-3344-5566-778899aabbcc"]);
    done(&["run", "--node", "alpha", &format!("{target}:data"), "--", "true"]);
    let Some(seen) = python(&["show", target]) else { return };
    let (header, slot) = (&seen["header"], &seen["slots"][1]);
    assert_eq!(
        (&header["slots"], &header["interval_ms"], &header["label"]),
        (&4.into(), &100.into(), &"rack 4".into())
    );
    assert_eq!((&slot["name"], &slot["state"]), (&"data".into(), &"released".into()), "{seen:#}");
    assert_eq!(
        (&slot["mmp_nodename"], &slot["target"]),
        (&"alpha".into(), &"c0ffee00112233445566778899aabbcc".into())
    );
    let listed = json(&["area", "list", "--json", target]);
    assert_eq!(listed["slots"][1]["generation"], slot["generation"]);
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("reads");
    assert_eq!(slot["boot_id"], boot_id.trim().replace('-', ""));
}

#[test]
fn the_command_uses_what_a_writer_from_the_document_made() {
    let scratch = Scratch::new();
    let made = scratch.file("made");
    let make =
        ["make", text(&made), "--slots", "4", "--interval-ms", "100", "--label", "py", "--name", "one"];
    if python(&make).is_none() {
        return;
    }
    let target = text(&made);
    let listed = json(&["area", "list", "--json", target]);
    assert_eq!((&listed["area"]["label"], &listed["slots"][1]["name"]), (&"py".into(), &"one".into()));
    done(&["run", &format!("{target}:one"), "--", "true"]);
    done(&["area", "slot", "add", target, "two"]);
    let seen = python(&["show", target]).expect("python is there");
    assert_eq!(seen["slots"][2]["name"], "two", "{seen:#}");
    assert_eq!(seen["repair"], Value::Null);
}

#[test]
fn each_acquisition_has_the_next_generation_and_the_command_is_told() {
    let scratch = Scratch::new();
    let control = control(&scratch, "1");
    let slot = format!("{}:1", text(&control));
    refused(&control, &["run", &slot, "--", "true"], 120, "not in use");
    done(&["area", "slot", "add", text(&control), "data"]);
    let mut last = 0;
    for _ in 0..3 {
        let script = "echo $MMP_GENERATION $MMP_SLOT $MMP_MEMBERS $MMP_NODE ${MMP_BLOCK-none}";
        let ran = done(&["run", "--node", "alpha", &slot, "--", "sh", "-c", script]);
        let words: Vec<_> = ran.out.split_whitespace().collect();
        assert_eq!(words[1..], ["1", "1", "alpha", "none"], "{ran:?}");
        let generation: u64 = words[0].parse().expect("is a number");
        assert!(last == 0 || generation == last + 1, "{last} {generation}");
        last = generation;
        let shown = json(&["show", "--json", &slot]);
        assert_eq!((&shown["generation"], &shown["state"]), (&last.into(), &"clean".into()), "{shown:#}");
    }
    let now = mmpguard::clock::wall().0;
    assert!(last / 65_536 <= now && last / 65_536 + 600 > now, "it was seeded from the time: {last}");
}

#[test]
fn a_slot_that_is_held_is_refused_at_once_and_taken_over_after_a_crash() {
    let scratch = Scratch::new();
    let control = control(&scratch, "1");
    done(&["area", "slot", "add", text(&control), "data"]);
    let slot = format!("{}:data", text(&control));
    let run = |node: &str, script: &str| {
        let mut command = Command::new(MMP);
        command.args(["run", "--node", node, &slot, "--", "sh", "-c", script]);
        command
    };
    let up = scratch.file("up");
    let mut holder = run("alpha", &format!("echo $MMP_GENERATION > {}; exec sleep 60", text(&up)));
    let mut holder = holder.stderr(std::process::Stdio::null()).spawn().expect("starts");
    while !up.exists() {
        mmpguard::clock::sleep(Duration::from_millis(20));
    }
    let refused = ran(&mut run("beta", "true"));
    assert_eq!(refused.code, Some(121), "{refused:?}");
    assert!(refused.err.contains("\"alpha\"") && refused.took < Duration::from_secs(1), "{refused:?}");
    let checked = ran(Command::new(MMP).args(["check", &slot]));
    assert_eq!(checked.code, Some(1), "{checked:?}");
    refused_removal(&control);
    holder.kill().expect("is ours");
    holder.wait().expect("ended");
    let checked = ran(Command::new(MMP).args(["check", &slot]));
    assert_eq!(checked.code, Some(8), "{checked:?}");
    let taken = ran(&mut run("beta", "echo $MMP_GENERATION"));
    let before: u64 = fs::read_to_string(&up).expect("reads").trim().parse().expect("is a number");
    // Not a clean mark: the time counts, too.
    let after: u64 = taken.out.trim().parse().unwrap_or_else(|error| panic!("{error}: {taken:?}"));
    assert!(after > before, "{before} {after}");
    assert!(taken.took > Duration::from_millis(2200) && taken.took < Duration::from_secs(6), "{taken:?}");
}

fn refused_removal(control: &Path) {
    let ran = mmp(["area", "slot", "remove", text(control), "data"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let listed = json(&["area", "list", "--json", text(control)]);
    assert_eq!(listed["slots"][1]["name"], "data", "{listed:#}");
}

#[test]
fn what_cannot_be_meant_writes_nothing() {
    let scratch = Scratch::new();
    let control = control(&scratch, "2");
    let target = text(&control);
    for (arguments, code, what) in [
        (vec!["run", target, "--", "true"], 122, "name one"),
        (vec!["show", target], 2, "name one"),
        (vec!["area", "create", target], 7, "an area already"),
        (vec!["area", "slot", "rename", target, "none", "other"], 2, "no slot"),
        (vec!["area", "slot", "remove", target, "9"], 2, "no slot 9"),
        (vec!["area", "slot", "remove", target, "1"], 2, "not in use"),
    ] {
        // Taking the lock writes its own slot; what is refused before that writes nothing.
        if arguments.contains(&"remove") && arguments.contains(&"1") {
            let ran = mmp(&arguments);
            assert_eq!(ran.code, Some(code), "{ran:?}");
            continue;
        }
        refused(&control, &arguments, code, what);
    }
    let slot = |name: &str| format!("{target}:{name}");
    refused(&control, &["run", &slot("nobody"), "--", "true"], 122, "no slot \"nobody\"");
    refused(&control, &["run", "--interval", "1s", &slot("lock"), "--", "true"], 122, "stands in its header");
    refused(
        &control,
        &["run", "--tolerate", "20s", &slot("lock"), "--", "true"],
        122,
        "stands in its header",
    );
    for bad in ["a/b", "a:b", "12", ""] {
        refused_name(&control, bad);
    }
}

fn refused_name(control: &Path, name: &str) {
    let before = fs::read(control).expect("reads");
    let ran = mmp(["area", "slot", "add", text(control), name]);
    assert_eq!(ran.code, Some(2), "{name:?}: {ran:?}");
    assert!(fs::read(control).expect("reads") == before, "{name:?}");
}

#[test]
fn an_image_has_its_area_behind_its_filesystem_or_is_told_how() {
    let scratch = Scratch::new();
    let image = &scratch.image;
    // An ext4 that could have MMP of its own, and fills its image.
    refused(image, &["enable", text(image)], 0, "protected already");
    let plain = Scratch::with(|bytes| crate::support::patch_superblock(bytes, 0x60, &0x42_u32.to_le_bytes()));
    let full = ["area", "create", text(&plain.image)];
    refused(&plain.image, &full, 7, "no room");
    let ran = mmp(full);
    assert!(ran.err.contains("resize2fs") && ran.err.contains("grow the LUN by 1 MiB"), "{ran:?}");
    fs::OpenOptions::new()
        .write(true)
        .open(&plain.image)
        .and_then(|file| file.set_len(1 << 17))
        .expect("grows");
    done(&["area", "create", "--interval", INTERVAL, text(&plain.image)]);
    done(&["run", text(&plain.image), "--", "true"]);
    let shown = json(&["show", "--json", text(&plain.image)]);
    assert_eq!(
        (&shown["area"]["place"], &shown["slot"]["name"]),
        (&"tail".into(), &"device".into()),
        "{shown:#}"
    );
    let blank = scratch.file("blank");
    fs::write(&blank, vec![0; 1 << 17]).expect("writes");
    refused(&blank, &["area", "create", text(&blank)], 7, "--blank");
    refused(&blank, &["run", text(&blank), "--", "true"], 120, "not protected");
}
