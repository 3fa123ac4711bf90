//! `mmp run` on a terminal: the command has the foreground, so Ctrl-C reaches it and not the holder.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use mmpguard::protocol::Sequence;

use crate::support::{MMP, Scratch, has};

/// Runs `script` (the command around `mmp run IMAGE --`) on a pseudo terminal, types `keys` when it said "up", and
/// gives what the terminal showed and the exit code.
fn on_a_terminal(scratch: &Scratch, command: &str, keys: &[u8]) -> Option<(String, Option<i32>)> {
    if !has("script") {
        return None;
    }
    let line = format!("{MMP} run --node alpha {} -- sh -c '{command}'", scratch.image.display());
    let mut terminal = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut input = terminal.stdin.take().expect("is a pipe");
    let mut output = terminal.stdout.take().expect("is a pipe");
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    let mut typed = false;
    while let Ok(len @ 1..) = output.read(&mut buffer) {
        shown.extend(&buffer[..len]);
        if !typed && shown.windows(4).any(|four| four == b"up\r\n") {
            input.write_all(keys).and_then(|()| input.flush()).expect("types");
            typed = true;
        }
    }
    let code = terminal.wait().expect("ends").code();
    Some((String::from_utf8_lossy(&shown).into_owned(), code))
}

#[test]
fn ctrl_c_reaches_the_command_alone() {
    let scratch = Scratch::new();
    let command = "trap \"echo caught; exit 9\" INT; echo up; while :; do sleep 0.1; done";
    let Some((shown, code)) = on_a_terminal(&scratch, command, b"\x03") else { return };
    assert!(shown.contains("caught"), "the command did not see it: {shown:?}");
    assert_eq!(code, Some(9), "{shown:?}");
    assert_eq!(Sequence::from(scratch.block().seq), Sequence::Clean, "the holder was hit, too: {shown:?}");
    // While it waited, the terminal had a countdown.
    assert!(shown.contains("s left"), "{shown:?}");
}

#[test]
fn the_command_reads_what_is_typed() {
    let scratch = Scratch::new();
    let Some((shown, code)) =
        on_a_terminal(&scratch, "echo up; read line; echo \"read <$line>\"", b"words\n")
    else {
        return;
    };
    assert!(shown.contains("read <words>"), "{shown:?}");
    assert_eq!(code, Some(0), "{shown:?}");
}
