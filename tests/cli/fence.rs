//! `fence --test`: what it tells, with root and without, and that it does nothing.

use std::process::Command;

use serde_json::Value;

use crate::support::{MMP, OrdinaryUser, Ran, Scratch, mmp, ran};

fn fence(arguments: &[&str], scratch: &Scratch) -> Ran {
    let path = scratch.image.to_str().expect("is UTF-8");
    mmp(["fence", "--test", path].iter().chain(arguments))
}

fn json(arguments: &[&str], scratch: &Scratch) -> Value {
    let ran = fence(&[&["--json"], arguments].concat(), scratch);
    let report: Value = serde_json::from_str(&ran.out).expect("is JSON");
    assert_eq!((&report["schema"], &report["exit_code"]), (&1.into(), &ran.code.expect("exits").into()));
    report
}

#[test]
fn without_a_fence_it_exits_with_10_and_gives_every_reason() {
    let scratch = Scratch::new();
    let before = scratch.bytes();
    let told = fence(&["--on-loss", "dm,scsi,unbind,shutdown,kill"], &scratch);
    assert_eq!((told.code, told.err.as_str()), (Some(10), ""), "{told:?}");
    for word in ["no fence is possible here", "ext4", "not possible", "image file", "no fence by itself"] {
        assert!(told.out.contains(word), "{word}: {told:?}");
    }
    let report = json(&["--on-loss", "dm,shutdown"], &scratch);
    assert_eq!((&report["state"], &report["complete"]), (&"no_fence".into(), &false.into()));
    assert_eq!((&report["filesystem"], &report["ladder"]), (&"ext4".into(), &"dm,shutdown".into()));
    assert_eq!(report["rungs"][0]["possible"], false);
    assert_eq!(report["queueing"], Value::Array(Vec::new()));
    assert!(scratch.bytes() == before);
}

#[test]
fn a_command_of_the_administrators_is_a_fence() {
    let scratch = Scratch::new();
    let mark = scratch.file("mark");
    let script = scratch.file("cut-off");
    std::fs::write(&script, format!("#!/bin/sh\ntouch {}\n", mark.display())).expect("writes");
    std::os::unix::fs::chown(&script, None, None).expect("exists");
    let ladder = format!("shutdown,exec:{}", script.display());
    let refused = json(&["--on-loss", &ladder], &scratch);
    assert!(refused["rungs"][1]["what"].as_str().expect("is text").contains("not executable"), "{refused}");
    let mut permissions = script.metadata().expect("exists").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&script, permissions).expect("sets");
    let report = json(&["--on-loss", &ladder, "--type", "xfs"], &scratch);
    assert_eq!((&report["state"], &report["exit_code"]), (&"fence".into(), &0.into()), "{report}");
    assert!(report["first_complete"].as_str().expect("is text").ends_with("/cut-off"));
    assert_eq!((&report["only_reboot"], &report["filesystem"]), (&false.into(), &"xfs".into()));
    assert!(!mark.exists(), "a test ran the command");
}

/// Whether a reboot is possible depends on who asks and where; that it is said does not.
#[test]
fn a_ladder_that_only_has_the_reboot_says_so() {
    let scratch = Scratch::new();
    let report = json(&[], &scratch);
    let message = report["message"].as_str().expect("is text");
    let told = fence(&["--on-loss", "auto"], &scratch);
    if report["only_reboot"] == true {
        assert_eq!((told.code, &report["first_complete"]), (Some(0), &"reboot".into()));
        assert!(
            message.contains("the only real fence here is an immediate reboot of this host"),
            "{message}"
        );
    } else {
        assert_eq!((told.code, report["complete"].as_bool()), (Some(10), Some(false)), "{report}");
        assert!(message.contains("no fence is possible"), "{message}");
    }
    assert!(told.out.contains(message), "{told:?}");
}

#[test]
fn an_ordinary_user_is_told_what_it_takes() {
    let (scratch, user) = (Scratch::new(), OrdinaryUser::new());
    user.owns(&scratch.image);
    let told = ran(user.mmp().args(["fence", "--test"]).arg(&scratch.image));
    assert_eq!((told.code, told.err.as_str()), (Some(10), ""), "{told:?}");
    assert!(told.out.contains("CAP_SYS_BOOT"), "{told:?}");
}

#[test]
fn the_ladder_may_come_from_the_environment() {
    let scratch = Scratch::new();
    // The helper clears it for everybody else.
    let told = |ladder: &str, arguments: &[&str]| {
        let output = Command::new(MMP)
            .args(["fence", "--test", "--json"])
            .args(arguments)
            .arg(&scratch.image)
            .env("MMP_ON_LOSS", ladder)
            .output()
            .expect("runs");
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default())
    };
    assert_eq!(told("shutdown,kill", &[]).1["ladder"], "shutdown,kill");
    assert_eq!(told("shutdown", &["--on-loss", "kill"]).1["ladder"], "kill");
    assert_eq!(told("nonsense", &[]).0, Some(2));
}

#[test]
fn mistakes_are_usage_errors() {
    let scratch = Scratch::new();
    for (ladder, told) in [
        ("", "needs rungs"),
        ("dm,fly", "unknown rung"),
        ("reboot,dm", "after the reboot"),
        ("exec:x", "absolute"),
    ] {
        let ran = fence(&["--on-loss", ladder], &scratch);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ladder}: {ran:?}");
        assert!(ran.err.contains(told), "{ladder}: {ran:?}");
    }
    let untested = mmp(["fence".as_ref(), scratch.image.as_os_str()]);
    assert_eq!((untested.code, untested.out.as_str()), (Some(2), ""), "{untested:?}");
    assert!(untested.err.contains("only with --test"), "{untested:?}");
    let missing = mmp(["fence", "--test", "/dev/nonexistent"]);
    assert_eq!(missing.code, Some(4), "{missing:?}");
    let directory = mmp(["fence", "--test", "--json", "/"]);
    assert!(directory.code == Some(2) && directory.out.contains("\"exit_code\": 2"), "{directory:?}");
}
