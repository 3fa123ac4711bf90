//! `mmp run` on a terminal: the command has the foreground, so Ctrl-C reaches it and not the holder.

use mmpguard::protocol::Sequence;

use crate::support::{MMP, Scratch, on_a_terminal};

/// Runs `command` under `mmp run IMAGE --`, and types `keys` when it said "up".
fn run(scratch: &Scratch, command: &str, keys: &[u8]) -> Option<(String, Option<i32>)> {
    let line = format!("{MMP} run --node alpha {} -- sh -c '{command}'", scratch.image.display());
    on_a_terminal(&line, |shown| shown.contains("up\r\n").then(|| keys.to_vec()))
}

#[test]
fn ctrl_c_reaches_the_command_alone() {
    let scratch = Scratch::new();
    let command = "trap \"echo caught; exit 9\" INT; echo up; while :; do sleep 0.1; done";
    let Some((shown, code)) = run(&scratch, command, b"\x03") else { return };
    assert!(shown.contains("caught"), "the command did not see it: {shown:?}");
    assert_eq!(code, Some(9), "{shown:?}");
    assert_eq!(Sequence::from(scratch.block().seq), Sequence::Clean, "the holder was hit, too: {shown:?}");
    // While it waited, the terminal had a countdown.
    assert!(shown.contains("s left"), "{shown:?}");
}

#[test]
fn the_command_reads_what_is_typed() {
    let scratch = Scratch::new();
    let Some((shown, code)) = run(&scratch, "echo up; read line; echo \"read <$line>\"", b"words\n") else {
        return;
    };
    assert!(shown.contains("read <words>"), "{shown:?}");
    assert_eq!(code, Some(0), "{shown:?}");
}
