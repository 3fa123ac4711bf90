//! `/proc/swaps`: which devices and files are swap space.
//!
//! Does not protect: a swap device without a path that this process can resolve is found by the exclusive open alone.

use std::path::PathBuf;

use super::mountinfo::{path, unescape};

/// The paths in the text of `/proc/swaps`. What does not parse is left out.
pub(super) fn parse(text: &[u8]) -> Vec<PathBuf> {
    text.split(|&byte| byte == b'\n')
        .skip(1) // the headings
        .filter_map(|line| line.split(|byte| matches!(byte, b' ' | b'\t')).next())
        .map(|name| path(unescape(name)))
        .filter(|name| name.is_absolute())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn devices_and_files_are_listed() {
        let text = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
            /dev/loop0                              partition\t65532\t\t0\t\t-2\n\
            /var/swap\\040file\\040(deleted)\tfile\t\t1\t\t0\t\t-3\n";
        assert_eq!(parse(text), [PathBuf::from("/dev/loop0"), "/var/swap file (deleted)".into()]);
        assert!(parse(b"").is_empty());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            for name in parse(&text) {
                prop_assert!(name.is_absolute());
            }
        }
    }
}
