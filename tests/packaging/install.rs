//! `make install` and `make uninstall`: what is put where, and that nothing of it stays.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{MMP, done, have, path, read};

/// A root to install into, and what `make` would have generated.
struct Root {
    scratch: TempDir,
}

impl Root {
    fn new() -> Self {
        let root = Root { scratch: tempfile::tempdir().expect("makes a directory") };
        root.make(&["generated"]);
        root
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join("root").join(name)
    }

    fn make(&self, words: &[&str]) {
        let of = |name: &str| self.scratch.path().join(name).display().to_string();
        let built = Path::new(MMP).parent().expect("is in a directory").display();
        done(
            Command::new("make")
                .current_dir(path("."))
                .args(["-s", &format!("BUILT={built}"), &format!("MAN={}", of("man"))])
                .args([&format!("COMPLETIONS={}", of("completions")), &format!("DESTDIR={}", of("root"))])
                // This make is not one of a make that may have started the tests.
                .env_remove("MAKEFLAGS")
                .env_remove("MAKELEVEL")
                .args(words),
        );
    }

    /// Everything that is no directory, without the root.
    fn files(&self) -> Vec<String> {
        let root = self.at("");
        let mut open = vec![root.clone()];
        let mut found = Vec::new();
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let file = entry.expect("lists").path();
                if file.is_dir() && !file.is_symlink() {
                    open.push(file);
                } else {
                    found.push(format!("/{}", file.strip_prefix(&root).expect("is below").display()));
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn everything_is_put_where_it_is_looked_for_and_taken_away_again() {
    if !have("make") {
        return;
    }
    let root = Root::new();
    root.make(&["install"]);
    let files = root.files();
    for wanted in [
        "/usr/local/bin/mmp",
        "/usr/local/bin/mmpd",
        "/sbin/mount.mmp",
        "/sbin/umount.mmp",
        "/etc/mmp/mmp.toml",
        "/usr/local/lib/systemd/system/mmpd.service",
        "/usr/local/lib/systemd/system/mmpd.socket",
        "/usr/local/lib/systemd/system/mmpd-monitor.socket",
        "/usr/local/lib/sysusers.d/mmp.conf",
        "/usr/local/share/man/man1/mmp.1",
        "/usr/local/share/man/man1/mmp-run.1",
        "/usr/local/share/man/man5/mmp.toml.5",
        "/usr/local/share/man/man5/mmp-format.5",
        "/usr/local/share/man/man7/mmp.7",
        "/usr/local/share/man/man8/mount.mmp.8",
        "/usr/local/share/man/man8/umount.mmp.8",
        "/usr/local/share/bash-completion/completions/mmp",
        "/usr/local/share/doc/mmpguard/README.md",
        "/usr/local/share/doc/mmpguard/guide.md",
        "/usr/local/share/doc/mmpguard/examples/mount.conf",
    ] {
        assert!(files.iter().any(|file| file == wanted), "no {wanted} in {files:#?}");
    }
    let unit = fs::read_to_string(root.at("usr/local/lib/systemd/system/mmpd.service")).expect("reads");
    assert!(unit.contains("ExecStart=/usr/local/bin/mmp daemon"), "{unit}");
    assert_eq!(fs::read_link(root.at("sbin/mount.mmp")).expect("is a link"), Path::new("/usr/local/bin/mmp"));
    assert_eq!(fs::read_link(root.at("usr/local/bin/mmpd")).expect("is a link"), Path::new("mmp"));
    let mode = |name: &str| fs::metadata(root.at(name)).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode("usr/local/bin/mmp"), 0o755);
    assert_eq!(mode("usr/local/lib/systemd/system/mmpd.service"), 0o644);

    root.make(&["uninstall"]);
    assert_eq!(root.files(), [""; 0], "is left over");
}

#[test]
fn a_configuration_that_was_changed_is_left_as_it_is() {
    if !have("make") {
        return;
    }
    let root = Root::new();
    let config = root.at("etc/mmp/mmp.toml");
    root.make(&["install", "PREFIX=/usr", "SBINDIR=/usr/sbin"]);
    assert_eq!(fs::read_to_string(&config).expect("reads"), read("packaging/mmp.toml"));
    assert!(root.at("usr/sbin/mount.mmp").is_symlink() && !root.at("sbin").exists());
    let changed = "[mount]\nhandover = \"clean\"\n";
    fs::write(&config, changed).expect("writes");
    root.make(&["install", "PREFIX=/usr", "SBINDIR=/usr/sbin"]);
    root.make(&["uninstall", "PREFIX=/usr", "SBINDIR=/usr/sbin"]);
    assert_eq!(fs::read_to_string(&config).expect("reads"), changed);
    assert_eq!(root.files(), ["/etc/mmp/mmp.toml"]);
}
