//! What is installed beside the program: units, the example of the configuration, man pages, `make install`. No root is
//! needed. Where a tool that judges them is missing the test says so loudly; `MMPGUARD_REQUIRE_TOOLS=1` makes that a failure.

mod configuration;
mod install;
mod manual;
mod units;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program under test.
const MMP: &str = env!("CARGO_BIN_EXE_mmp");

/// A file of the tree.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// True if `tool` is there. If not, that is told, or fails.
fn have(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|list| std::env::split_paths(&list).any(|directory| directory.join(tool).is_file()));
    let required = std::env::var_os("MMPGUARD_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(found || !required, "{tool} is missing, and MMPGUARD_REQUIRE_TOOLS=1");
    if !found {
        eprintln!("PACKAGING NOT JUDGED: {tool} is missing");
    }
    found
}

/// Both streams, for a message.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs it; it must succeed.
fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output
}
