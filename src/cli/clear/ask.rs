//! Vouching by name: what cannot be proved by watching is confirmed by whoever looked on that node.
//!
//! Protects: a confirmation is for the node that the block names, and is never taken from a script that answers without having
//! been asked: without a terminal the name has to be given beforehand. Does not protect from one who vouches without having looked.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::termios::{FlushArg, tcflush};

use super::super::interrupt::Interrupt;
use crate::format::NodeName;
use crate::format::name::escape;

/// What stands for a name that is empty, where one is shown, and where one is typed.
const NO_NAME: &str = "(none)";
/// No line that names a node is longer: 64 bytes, each shown as up to ten.
const LINE_BYTES: usize = 1024;

/// True if `said` names that node: byte for byte, or as it is shown.
pub(super) fn names(said: &[u8], node: &NodeName) -> bool {
    match node.is_empty() {
        // Nothing at all is what a variable says that was never set.
        true => said == NO_NAME.as_bytes(),
        false => said == node.bytes() || said == escape(node.bytes()).as_bytes(),
    }
}

/// As [`names`], of an argument.
pub(super) fn argument_names(said: &OsStr, node: &NodeName) -> bool {
    names(said.as_bytes(), node)
}

/// What to type for that node, as one word of a shell.
pub(super) fn typed(node: &NodeName) -> String {
    let shown = if node.is_empty() { NO_NAME.to_owned() } else { escape(node.bytes()) };
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    match shown.chars().all(is_plain) && !shown.starts_with('-') {
        true => shown,
        false => format!("'{}'", shown.replace('\'', "'\\''")),
    }
}

/// True if somebody can be asked.
pub(super) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a line on the terminal; none if it was interrupted, or there is none.
pub(super) fn line(question: &str, interrupt: &Interrupt) -> Option<Vec<u8>> {
    let stdin = std::io::stdin();
    // What was typed before it was asked is no answer.
    let _ = tcflush(stdin.as_fd(), FlushArg::TCIFLUSH);
    // A terminal that is gone gives no answer, either.
    let _ = write!(std::io::stderr(), "mmp: {question}: ").and_then(|()| std::io::stderr().flush());
    if !interrupt.or_readable(stdin.as_fd()) {
        let _ = writeln!(std::io::stderr());
        return None;
    }
    // The terminal gives a whole line at once.
    let mut buffer = [0; LINE_BYTES];
    let length = nix::unistd::read(stdin.as_fd(), &mut buffer).ok().filter(|&length| length > 0)?;
    let line = &buffer[..length];
    Some(line.strip_suffix(b"\n").unwrap_or(line).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(bytes: &[u8]) -> NodeName {
        let mut field = [0; 64];
        field[..bytes.len()].copy_from_slice(bytes);
        NodeName::from_field(field)
    }

    #[test]
    fn a_node_is_named_by_its_bytes_or_as_it_is_shown() {
        assert!(names(b"alpha", &node(b"alpha")));
        for other in [b"".as_slice(), b"alph", b"alpha ", b"Alpha", b"(none)"] {
            assert!(!names(other, &node(b"alpha")), "{other:?}");
        }
        let hostile = node(b"a\x1b[2J\xff\\");
        assert!(names(b"a\x1b[2J\xff\\", &hostile) && names(br"a\x1b[2J\xff\\", &hostile));
        assert!(!names(b"a[2J", &hostile));
        let unnamed = node(b"");
        assert!(names(b"(none)", &unnamed) && !names(b"", &unnamed) && !names(b"alpha", &unnamed));
    }

    #[test]
    fn what_is_to_be_typed_is_one_word_whatever_the_name_holds() {
        assert_eq!(typed(&node(b"alpha-1.example")), "alpha-1.example");
        assert_eq!(typed(&node(b"")), "'(none)'");
        assert_eq!(typed(&node(b"--force")), "'--force'");
        assert_eq!(typed(&node(b"$(reboot) `x`;'\n")), r"'$(reboot) `x`;'\''\x0a'");
    }
}
