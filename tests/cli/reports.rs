//! What `show` and `check` report, also of hostile names, and to a reader who does not listen.

use std::process::Command;
use std::time::Duration;

use mmpguard::format::{DeviceName, NodeName};
use mmpguard::{Options, clock};
use serde_json::Value;

use crate::support::{MMP, Scratch, layout, mmp, patch_block, patch_superblock, ran};

fn json(verb: &str, scratch: &Scratch) -> Value {
    let ran = mmp([verb.as_ref(), "--json".as_ref(), scratch.image.as_os_str()]);
    let report: Value = serde_json::from_str(&ran.out).expect("is JSON");
    assert_eq!(report["schema"], 1);
    if verb == "check" {
        assert_eq!(report["exit_code"], ran.code.expect("exits"));
    }
    report
}

#[test]
fn a_clean_image_is_shown_and_free() {
    let scratch = Scratch::new();
    let before = scratch.bytes();
    let report = json("show", &scratch);
    assert_eq!(report["state"], "clean");
    assert_eq!((&report["last"]["node"], &report["mmp_block"]), (&"golden".into(), &22.into()));
    assert_eq!(report["last"]["last_update_s"], 1_700_000_000);
    assert_eq!((&report["timing"]["crash_mount_s"], &report["timing"]["wait_s"]), (&22.into(), &11.into()));
    let shown = mmp(["show".as_ref(), scratch.image.as_os_str()]);
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
    assert!(shown.out.contains("golden") && shown.out.contains("after a crash"), "{shown:?}");

    let report = json("check", &scratch);
    assert_eq!((&report["state"], &report["peer"]["node"]), (&"free".into(), &"golden".into()));
    let checked = mmp(["check".as_ref(), scratch.image.as_os_str()]);
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{checked:?}");
    assert!(checked.took < Duration::from_secs(5) && checked.out.contains("free"), "{checked:?}");
    assert!(scratch.bytes() == before);
}

/// What `show` says a claim takes goes by what the claim finds, not by the block's check interval alone.
#[test]
fn the_times_shown_are_those_of_the_claim() {
    let found = |seq, check_interval_s, needs_recovery: bool| {
        let scratch = Scratch::with(|bytes| {
            patch_block(bytes, |block| (block.seq, block.check_interval_s) = (seq, check_interval_s));
            if needs_recovery {
                let incompat = layout().superblock.feature_incompat | 0x0004;
                patch_superblock(bytes, 0x60, &incompat.to_le_bytes());
            }
        });
        json("show", &scratch)["timing"].clone()
    };
    let clean = 0xFF4D_4D50;
    for (seq, check_interval_s, needs_recovery, claim_now_s) in [
        (clean, 5, false, Some(11.0)),
        (clean, 30, false, Some(11.0)),
        (clean, 5, true, Some(57.5)),
        (clean, 30, true, Some(134.5)),
        (77, 5, false, Some(23.5)),
        (77, 30, false, Some(123.5)),
        (0xE24D_4D50, 5, false, None),
    ] {
        let timing = found(seq, check_interval_s, needs_recovery);
        assert_eq!(timing["claim_now_s"].as_f64(), claim_now_s, "{timing}");
        assert_eq!(timing["clean_claim_s"], 11.0, "{timing}");
        // He may beat as seldom as half of what the block shows.
        assert_eq!(timing["peer_interval_s"], f64::from(check_interval_s) / 2.0, "{timing}");
    }
}

/// Every report of `check` has the same keys; a dead end of `show` has them as well.
#[test]
fn reports_and_failures_have_one_shape() {
    let damaged = Scratch::with(|bytes| bytes[layout().at] ^= 1);
    let bare = Scratch::with(|bytes| {
        let incompat = layout().superblock.feature_incompat & !0x0100;
        patch_superblock(bytes, 0x60, &incompat.to_le_bytes());
    });
    let marked = Scratch::with(|bytes| patch_block(bytes, |block| block.seq = 0xE24D_4D50));
    let cases = [
        ("check", &Scratch::new(), "free", false),
        ("check", &damaged, "damaged", true),
        ("check", &bare, "not_enabled", false),
        ("check", &marked, "fsck", true),
        ("show", &damaged, "damaged", true),
        ("show", &bare, "not_enabled", false),
    ];
    for (verb, scratch, state, has_advice) in cases {
        let report = json(verb, scratch);
        assert_eq!(report["state"], state, "{report}");
        assert_eq!(report["device"].as_str(), scratch.image.to_str(), "{report}");
        assert!(report["message"].is_string() && report["exit_code"].is_u64(), "{report}");
        assert_eq!(report["advice"].is_string(), has_advice, "{report}");
        assert!(!report.to_string().contains("\\n"), "a line break inside: {report}");
    }
}

/// Cut off under the watch: the same code as before it, and the device named once.
#[test]
fn a_device_cut_off_under_the_watch_is_too_short() {
    let scratch = Scratch::with(|bytes| patch_block(bytes, |block| block.seq = 77));
    let watching = Command::new(MMP)
        .arg("check")
        .arg(&scratch.image)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    clock::sleep(Duration::from_secs(2));
    let file = std::fs::OpenOptions::new().write(true).open(&scratch.image).expect("opens");
    file.set_len(4096).expect("cuts it off");
    let ran = crate::support::finished(&watching.wait_with_output().expect("ends"), Duration::ZERO);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let line = ran.err.lines().last().unwrap_or_default();
    assert_eq!(line.matches(scratch.image.to_str().expect("is UTF-8")).count(), 1, "{ran:?}");
    assert!(line.contains("too short"), "{ran:?}");
}

/// A hangup that was ignored at the start (nohup) does not end a watch; one that was not, does.
#[test]
fn an_ignored_signal_stays_ignored() {
    let scratch = Scratch::with(|bytes| patch_block(bytes, |block| block.seq = 77));
    let image = scratch.image.display();
    for (trap, code) in [("trap '' HUP;", 8), ("", 6)] {
        let script = format!("{trap} {MMP} check -q {image} & p=$!; sleep 2; kill -HUP $p; wait $p");
        let ran = ran(Command::new("sh").args(["-c", &script]));
        assert_eq!(ran.code, Some(code), "{script}: {ran:?}");
    }
}

/// A live sequence that stands still: known to be dead after a whole watch, not before.
#[test]
fn a_dead_holder_is_told_apart() {
    let scratch = Scratch::with(|bytes| {
        patch_block(bytes, |block| (block.seq, block.node) = (77, NodeName::new("alpha")));
    });
    let before = scratch.bytes();
    assert_eq!(json("show", &scratch)["state"], "live_or_unclean");
    let start = clock::mono();
    let report = json("check", &scratch);
    let took = clock::mono().since(start);
    assert_eq!((&report["state"], &report["exit_code"]), (&"holder_dead".into(), &8.into()));
    assert_eq!((&report["peer"]["node"], &report["safe_after_s"]), (&"alpha".into(), &23.5.into()));
    assert!(took >= Duration::from_secs(11), "a holder was called dead after {took:?}");
    assert!(scratch.bytes() == before);
}

/// Somebody of this host uses it: said at once, with who.
#[test]
fn a_user_on_this_host_is_named() {
    let scratch = Scratch::new();
    let held = Options::new(&scratch.image).node("alpha").acquire().expect("holds it");
    let checked = mmp(["check".as_ref(), scratch.image.as_os_str()]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.took < Duration::from_secs(5), "{checked:?}");
    assert!(checked.out.contains("in use on this host"), "{checked:?}");
    assert!(checked.out.contains(&std::process::id().to_string()), "does not name us: {checked:?}");
    let report = json("check", &scratch);
    assert_eq!(report["state"], "in_use_here");
    assert!(!report["users"].as_array().expect("is a list").is_empty());
    let image = scratch.image.as_os_str();
    let run = mmp(["run".as_ref(), image, "--".as_ref(), "true".as_ref()]);
    assert_eq!(run.code, Some(121), "{run:?}");
    let run = mmp(["run".as_ref(), "-E".as_ref(), "77".as_ref(), image, "--".as_ref(), "true".as_ref()]);
    assert_eq!(run.code, Some(77), "{run:?}");
    assert!(held.is_held());
}

#[test]
fn hostile_names_are_escaped() {
    let mut node = [0xFF_u8; 64];
    node[..12].copy_from_slice(b"\x1b]0;evil\x07\x1b[2");
    let device = DeviceName::from_field(*b"\x1b[31m\r\n'\"\\<\xe2\x80\xae0123456789abcdefgh");
    for seq in [0xFF4D_4D50, 0xE24D_4D50] {
        let scratch = Scratch::with(|bytes| {
            patch_block(bytes, |block| {
                (block.seq, block.node, block.device) = (seq, NodeName::from_field(node), device);
            });
        });
        let image = scratch.image.as_os_str();
        for arguments in [
            vec!["show".as_ref(), image],
            vec!["show".as_ref(), "--json".as_ref(), image],
            vec!["check".as_ref(), image],
            vec!["check".as_ref(), "--json".as_ref(), image],
        ] {
            let ran = mmp(&arguments);
            let said = format!("{}{}", ran.out, ran.err);
            assert!(said.contains("evil"), "{arguments:?}: {ran:?}");
            let harmful = said.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
            assert_eq!(harmful, None, "{arguments:?}: {ran:?}");
            assert!(!said.contains('\u{fffd}'), "bytes were lost: {ran:?}");
        }
        assert_eq!(
            json("show", &scratch)["last"]["node"].as_str().map(|name| name.starts_with("\\x1b]0;evil")),
            Some(true)
        );
    }
}

/// Nobody has to listen: nothing panics, and the exit code still tells.
#[test]
fn closed_outputs_are_borne() {
    let scratch = Scratch::new();
    let damaged = Scratch::with(|bytes| bytes[0] = 1);
    let image = scratch.image.to_str().expect("is UTF-8");
    let gone = damaged.file("gone").display().to_string();
    let cases = [
        (format!("{MMP} show {image} >&-"), 0),
        (format!("{MMP} show --json {image} >&- 2>&-"), 0),
        (format!("{MMP} check {image} >&- 2>&- <&-"), 0),
        (format!("{MMP} show {gone} >&- 2>&-"), 4),
        (format!("{MMP} check {gone} 2>&-"), 4),
        (format!("{MMP} run {gone} -- true >&- 2>&- <&-"), 124),
        (format!("{MMP} --help >&-"), 0),
        (format!("{MMP} frobnicate 2>&-"), 2),
        (format!("{MMP} show {image} >/dev/full"), 4),
    ];
    for (script, code) in cases {
        let ran = ran(Command::new("sh").args(["-c", &script]));
        assert_eq!(ran.code, Some(code), "{script}: {ran:?}");
    }
    for verb in ["show", "show --json", "check", "--help"] {
        let image = if verb == "--help" { "" } else { image };
        let script = format!("({MMP} {verb} {image}; echo \"code $?\" >&2) | head -0");
        let ran = ran(Command::new("sh").args(["-c", &script]));
        assert!(ran.err.trim().ends_with("code 0"), "{script}: {ran:?}");
    }
}
