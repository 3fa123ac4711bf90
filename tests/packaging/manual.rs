//! The man pages: there is one for everything, and those who judge pages find nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::{MMP, done, have, said};

pub(crate) fn pages() -> TempDir {
    let into = tempfile::tempdir().expect("makes a directory");
    done(Command::new(MMP).args(["generate", "man"]).arg(into.path()));
    into
}

fn names(pages: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(pages)
        .expect("lists")
        .map(|entry| entry.expect("lists").file_name().into_string().expect("is UTF-8"))
        .collect();
    names.sort();
    names
}

/// Every verb that `mmp --help` lists has a page, and `mmp(1)` names it.
#[test]
fn there_is_a_page_for_everything() {
    let pages = pages();
    let names = names(pages.path());
    for wanted in ["mmp.1", "mmp.7", "mmp.toml.5", "mmp-format.5", "mount.mmp.8", "umount.mmp.8"] {
        assert!(names.iter().any(|name| name == wanted), "no {wanted} in {names:?}");
    }
    let help = said(&done(Command::new(MMP).arg("--help")));
    let verbs: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.strip_prefix("  ")?.split_ascii_whitespace().next().filter(|_| !line.starts_with("   "))
        })
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 12, "only {verbs:?} in {help}");
    let first = fs::read_to_string(pages.path().join("mmp.1")).expect("reads");
    for verb in verbs {
        assert!(names.contains(&format!("mmp-{verb}.1")), "no page for {verb} in {names:?}");
        assert!(first.contains(&format!("mmp\\-{verb}(1)")), "mmp.1 does not name {verb}");
    }
}

/// Warnings and worse. Long lines and other matters of style are the library's, which makes the pages of verbs.
#[test]
fn mandoc_finds_nothing() {
    if !have("mandoc") {
        return;
    }
    let pages = pages();
    for name in names(pages.path()).iter() {
        let output =
            Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(pages.path().join(name)).output();
        let output = output.expect("starts");
        assert!(output.status.success(), "{name}: {}", said(&output));
    }
}

#[test]
fn groff_finds_nothing() {
    if !have("groff") || !have("tbl") {
        return;
    }
    let pages = pages();
    for name in names(pages.path()).iter() {
        let output = Command::new("groff")
            // A number that is wider than the narrow column of a table is no mistake.
            .args(["-ww", "-Wbreak", "-t", "-man", "-Tutf8", "-z", "-rLL=78n"])
            .arg(pages.path().join(name))
            .output()
            .expect("starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {}", said(&output));
    }
}

/// What they say is legible: text of the sources, no marks of Markdown, no escapes.
#[test]
fn written_pages_read_as_text() {
    if !have("mandoc") {
        return;
    }
    let pages = pages();
    for (name, wanted) in [
        ("mmp.7", "MMP_GENERATION"),
        ("mmp.toml.5", "on_loss = \"dm,reboot\""),
        ("mmp-format.5", "s_mmp_update_interval"),
        ("mount.mmp.8", "_netdev"),
    ] {
        let output =
            done(Command::new("mandoc").args(["-Tascii", "-Owidth=100"]).arg(pages.path().join(name)));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Bold and underlined characters are struck over in this output.
        let mut plain = String::new();
        for letter in text.chars() {
            if letter == '\u{8}' {
                plain.pop();
            } else {
                plain.push(letter);
            }
        }
        assert!(plain.contains(wanted), "{name}: {plain}");
        for mark in ["**", "](", "\\f", "\\:", "```", "|---"] {
            assert!(!plain.contains(mark), "{name} has {mark}: {plain}");
        }
    }
}
