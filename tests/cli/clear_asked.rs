//! `mmp clear` on a terminal: what it asks, and what an answer is worth.

use std::fs;
use std::path::Path;

use crate::clear::{LIVE, MARK, UNKNOWN, with_sequence};
use crate::images;
use crate::support::{MMP, Scratch, on_a_terminal, write_block};

/// Types what `keys` gives when it asks.
fn asked(path: &Path, more: &str, mut keys: impl FnMut() -> Vec<u8>) -> Option<(String, Option<i32>)> {
    on_a_terminal(&format!("exec {MMP} clear --node beta {more} {}", path.display()), |shown| {
        (shown.ends_with(": ") && shown.contains("to confirm")).then(&mut keys)
    })
}

#[test]
fn it_asks_for_the_nodes_name() {
    type Case = (u32, &'static str, &'static [u8], i32, &'static str);
    let cases: [Case; 10] = [
        (MARK, "", b"gold\n", 9, "--yes-node golden"),
        (MARK, "", b"\n", 9, "--yes-node golden"),
        (MARK, "", b"yes\n", 9, "--yes-node golden"),
        (MARK, "", b"\x03", 6, "not confirmed"),
        (MARK, "--force", b"golden\n", 0, "cleared"),
        (LIVE, "--force", b"golden\n", 0, "cleared"),
        (LIVE, "--force", b"y\n", 6, "not confirmed"),
        (LIVE, "--force", b"\x04", 6, "not confirmed"),
        (UNKNOWN, "--force --damaged", b"golden\n", 0, "cleared"),
        (UNKNOWN, "--force --damaged", b"yes\n", 6, "not confirmed"),
    ];
    for (seq, more, keys, code, said) in cases {
        let scratch = with_sequence(seq);
        let before = scratch.bytes();
        let Some((shown, ended)) = asked(&scratch.image, more, || keys.to_vec()) else { return };
        assert_eq!(ended, Some(code), "{more} {keys:?}: {shown}");
        for word in [said, "golden", "last update", "type the node's name"] {
            assert!(shown.contains(word), "does not say {word:?}: {shown}");
        }
        assert_eq!(scratch.bytes() != before, code == 0, "{more} {keys:?}: {shown}");
    }
}

#[test]
fn what_names_nobody_takes_a_yes_and_a_name_beforehand_no_question() {
    let damaged = images::load("damaged-magic");
    for (keys, code) in [(b"no\n".as_slice(), 6), (b"yes\n", 0)] {
        let scratch = Scratch::new();
        fs::write(&scratch.image, &damaged).expect("writes");
        let Some((shown, ended)) = asked(&scratch.image, "--force --damaged", || keys.to_vec()) else {
            return;
        };
        assert_eq!(ended, Some(code), "{shown}");
        assert_eq!(scratch.bytes() != damaged, code == 0, "{shown}");
    }
    let scratch = with_sequence(MARK);
    let Some((shown, ended)) = asked(&scratch.image, "--force --yes-node golden", Vec::new) else {
        return;
    };
    assert!(ended == Some(0) && !shown.contains("to confirm"), "{shown}");
}

/// The word is for the bytes that were shown: a mark that was renewed while somebody was asked is not cleared.
#[test]
fn what_changes_while_somebody_is_asked_voids_his_word() {
    let scratch = with_sequence(MARK);
    let mut renewed = scratch.block();
    renewed.time_s += 60;
    let renew = || {
        write_block(&scratch.image, &renewed);
        b"golden\n".to_vec()
    };
    let Some((shown, code)) = asked(&scratch.image, "", renew) else { return };
    assert_eq!(code, Some(9), "{shown}");
    assert!(shown.contains("has changed since it was looked at"), "{shown}");
    assert_eq!(scratch.block(), renewed);
}
