//! Mistakes on the command line, help and version.

use crate::support::{Scratch, mmp};

#[test]
fn mistakes_have_the_usage_code_of_their_verb() {
    let scratch = Scratch::new();
    let image = scratch.image.to_str().expect("is UTF-8");
    let long = "x".repeat(65);
    let show: [&[&str]; 6] = [
        &["frobnicate"],
        &["show"],
        &["show", image, "more"],
        &["check", "--frobnicate", image],
        &["check", image, "--", "true"],
        &["demo", "more"],
    ];
    for arguments in show {
        let ran = mmp(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {ran:?}");
        assert!(!ran.err.is_empty());
    }
    let run: [(&[&str], &str); 13] = [
        (&[], "required"),
        (&[image], "required"),
        (&[image, "--"], "required"),
        (&[image, "true"], "<COMMAND>"),
        (&["--wait", "soon", image, "--", "true"], "length of time"),
        (&["--wait", "-5s", image, "--", "true"], ""),
        (&["--wait=-5s", image, "--", "true"], "length of time"),
        (&["--interval", "10ms", image, "--", "true"], "100ms"),
        (&["--interval", "61s", image, "--", "true"], "60s"),
        (&["--tolerate", "1h", image, "--", "true"], "320s"),
        (&["--node", "", image, "--", "true"], "empty"),
        (&["--node", &long, image, "--", "true"], "64 bytes"),
        (&["-E", "300", image, "--", "true"], "300"),
    ];
    let before = scratch.bytes();
    for (arguments, told) in run {
        let ran = mmp(["run"].iter().chain(arguments));
        assert_eq!((ran.code, ran.out.as_str()), (Some(122), ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(told), "{arguments:?}: {ran:?}");
    }
    assert!(scratch.bytes() == before, "a mistake claimed the image");
}

#[test]
fn no_verb_is_a_mistake_that_shows_the_verbs() {
    let ran = mmp::<&str>([]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ran:?}");
    assert!(ran.err.contains("check") && ran.err.contains("demo"), "{ran:?}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let asked: [&[&str]; 16] = [
        &["--version"],
        &["-V"],
        &["--help"],
        &["-h"],
        &["help"],
        &["show", "--help"],
        &["check", "--help"],
        &["run", "--help"],
        &["demo", "--help"],
        &["fence", "--help"],
        &["mount", "--help"],
        &["umount", "--help"],
        &["remount", "--help"],
        &["adopt", "--help"],
        &["status", "--help"],
        &["help", "run"],
    ];
    for arguments in asked {
        let ran = mmp(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments:?}: {ran:?}");
        assert!(!ran.out.trim().is_empty(), "{arguments:?}");
    }
    assert_eq!(mmp(["--version"]).out.trim(), concat!("mmp ", env!("CARGO_PKG_VERSION")));
    let help = mmp(["--help"]).out;
    for code in
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "120", "121", "122", "123", "124", "125"]
    {
        let told = help.lines().any(|line| line.trim_start().starts_with(&format!("{code}  ")));
        assert!(told, "--help does not tell exit code {code}: {help}");
    }
}

#[test]
fn man_pages_and_completions_are_generated() {
    let scratch = Scratch::new();
    let into = scratch.file("made");
    for what in ["man", "completions"] {
        let ran = mmp(["generate".as_ref(), what.as_ref(), into.as_os_str()]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let verbs = [
        "show",
        "check",
        "run",
        "mount",
        "umount",
        "remount",
        "adopt",
        "status",
        "fence",
        "demo",
        "enable",
        "area",
        "area-create",
        "area-slot-add",
    ];
    let pages = verbs.iter().map(|verb| format!("mmp-{verb}.1")).chain(["mmp.1".to_owned()]);
    for page in pages {
        let text = std::fs::read_to_string(into.join(&page)).expect("was written");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "FILES", "SEE ALSO"] {
            let found = text.lines().any(|line| line.starts_with(".SH") && line.contains(section));
            assert!(found, "{page} has no {section}");
        }
    }
    for page in ["mount.mmp.8", "umount.mmp.8"] {
        let text = std::fs::read_to_string(into.join(page)).expect("was written");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES", "SEE ALSO"] {
            let found = text.lines().any(|line| line.starts_with(".SH") && line.contains(section));
            assert!(found, "{page} has no {section}");
        }
    }
    // What is not for people has none.
    assert!(!into.join("mmp-guard-keeper.1").exists() && !into.join("mmp-generate.1").exists());
    for file in ["mmp.bash", "mmp.fish", "_mmp"] {
        assert!(into.join(file).metadata().expect("was written").len() > 500, "{file}");
    }
    let missing = mmp(["generate", "man", "/dev/null/nowhere"]);
    assert_eq!(missing.code, Some(4), "{missing:?}");
}
