//! Fixed-size names as they stand on the disk (`mmp_nodename`, `mmp_bdevname`).
//!
//! What a disk says is hostile: a name may hold escape sequences, bytes that are no UTF-8, or no NUL at all.
//! [`Name`] keeps the bytes as they are and only ever *shows* them escaped, in text and in JSON alike, so no
//! caller can forget to.

use std::fmt::{self, Write as _};

/// A name of at most `N` bytes, ended by a NUL where it is shorter. Compares by the bytes before the first NUL; the
/// whole field is kept, since what follows the NUL is covered by the checksum.
#[derive(Clone, Copy)]
pub struct Name<const N: usize>([u8; N]);

impl<const N: usize> Name<N> {
    /// Takes the field as it stands on the disk.
    #[must_use]
    pub const fn from_field(field: [u8; N]) -> Self {
        Name(field)
    }

    /// Makes a name from `text`, cut at `N` bytes (on a character boundary) or at its first NUL.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let bytes = &text.as_bytes()[..end];
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let mut field = [0; N];
        field[..len].copy_from_slice(&bytes[..len]);
        Name(field)
    }

    /// The whole field, padding included.
    #[must_use]
    pub const fn field(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes before the first NUL; all of them where there is none.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(N);
        &self.0[..len]
    }

    /// True if nothing stands before the first NUL.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

impl<const N: usize> PartialEq for Name<N> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl<const N: usize> Eq for Name<N> {}

impl<const N: usize> PartialOrd for Name<N> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<const N: usize> Ord for Name<N> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl<const N: usize> fmt::Debug for Name<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl<const N: usize> fmt::Display for Name<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(self.bytes()))
    }
}

impl<const N: usize> serde::Serialize for Name<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&escape(self.bytes()))
    }
}

/// The letters that Unicode wants drawn as nothing: the Hangul fillers.
const INVISIBLE_LETTERS: [char; 4] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}'];

/// Makes untrusted bytes harmless to show: printable ASCII, visible letters and digits of any script stay; a backslash
/// is doubled; other characters become `\u{..}`, and ASCII controls and bytes that are no UTF-8 become `\x..`.
/// Different bytes are shown differently.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => shown.push_str("\\\\"),
                ' '..='~' => shown.push(character),
                _ if character.is_alphanumeric() && !INVISIBLE_LETTERS.contains(&character) => {
                    shown.push(character)
                }
                _ if character.is_ascii() => {
                    push(&mut shown, format_args!("\\x{:02x}", u32::from(character)))
                }
                _ => push(&mut shown, format_args!("\\u{{{:x}}}", u32::from(character))),
            }
        }
        for byte in chunk.invalid() {
            push(&mut shown, format_args!("\\x{byte:02x}"));
        }
    }
    shown
}

fn push(to: &mut String, what: fmt::Arguments<'_>) {
    to.write_fmt(what).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_are_shown_escaped() {
        let name = Name::<64>::from_field({
            let mut field = [0; 64];
            let text = b"\x1b[2J\x07evil\\\xff\xe2\x80\xae";
            field[..text.len()].copy_from_slice(text);
            field
        });
        assert_eq!(name.to_string(), "\\x1b[2J\\x07evil\\\\\\xff\\u{202e}");
        assert_eq!(
            serde_json::to_string(&name).unwrap(),
            "\"\\\\x1b[2J\\\\x07evil\\\\\\\\\\\\xff\\\\u{202e}\""
        );
    }

    #[test]
    fn letters_stay_where_they_can_be_seen() {
        assert_eq!(escape("größe-Ж٣\u{3164}\u{301}".as_bytes()), "größe-Ж٣\\u{3164}\\u{301}");
    }

    #[test]
    fn a_field_without_nul_is_all_name() {
        let name = Name::<4>::from_field(*b"abcd");
        assert_eq!(name.bytes(), b"abcd");
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        assert_eq!(Name::<4>::new("abcé").bytes(), b"abc");
        assert_eq!(Name::<5>::new("abcé").bytes(), "abcé".as_bytes());
        assert_eq!(Name::<5>::new("a\0b").bytes(), b"a");
    }

    #[test]
    fn names_compare_by_what_stands_before_the_nul() {
        assert_eq!(Name::<4>::from_field(*b"a\0xy"), Name::new("a"));
        assert!(Name::<4>::from_field(*b"\0xyz").is_empty() && !Name::<4>::new("a").is_empty());
        assert_eq!(format!("{:?}", Name::<4>::new("a")), "\"a\"");
        assert!(Name::<4>::new("a") < Name::new("b"));
    }
}
