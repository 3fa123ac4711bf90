//! How a slot of an area is named: `TARGET:SLOT`, by its number or its name.
//!
//! Protects: a path that exists is never cut at a colon (`/dev/disk/by-path/pci-0000:00:...`). Opens nothing.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::format::area::{SlotName, slot_name};

/// A target, and which of its slots is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotAddress {
    /// A block device or a file.
    pub target: PathBuf,
    /// The slot, if one was named.
    pub slot: Option<Selector>,
}

/// How a slot is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By its number.
    Number(u32),
    /// By its name.
    Name(SlotName),
}

impl SlotAddress {
    /// Reads `PATH` or `PATH:SLOT`.
    ///
    /// # Errors
    /// [`Error::Argument`] if what follows the last colon of a path that leads nowhere cannot be a slot's name.
    pub fn parse(given: &Path) -> Result<Self, Error> {
        let whole = || Ok(SlotAddress { target: given.to_owned(), slot: None });
        if std::fs::symlink_metadata(given).is_ok() {
            return whole();
        }
        let bytes = given.as_os_str().as_bytes();
        let Some(colon) = bytes.iter().rposition(|&byte| byte == b':') else { return whole() };
        let (target, slot) = (&bytes[..colon], &bytes[colon + 1..]);
        if target.is_empty() || slot.contains(&b'/') {
            return whole();
        }
        let target = PathBuf::from(OsStr::from_bytes(target));
        Ok(SlotAddress { target, slot: Some(Selector::parse(slot)?) })
    }
}

impl Selector {
    /// Reads a number, or a name.
    ///
    /// # Errors
    /// [`Error::Argument`] if it can be neither.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
            let number = std::str::from_utf8(bytes).ok().and_then(|digits| digits.parse().ok());
            let number = number.ok_or_else(|| Error::Argument("there is no slot of such a number".into()))?;
            return Ok(Selector::Number(number));
        }
        slot_name(bytes).map(Selector::Name).map_err(|error| Error::Argument(error.to_string()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Number(number) => write!(f, "{number}"),
            Selector::Name(name) => write!(f, "\"{name}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Option<String>) {
        let address = SlotAddress::parse(Path::new(text)).expect("can be read");
        (address.target.display().to_string(), address.slot.map(|slot| slot.to_string()))
    }

    #[test]
    fn a_slot_follows_the_last_colon() {
        assert_eq!(parsed("/no/such:data"), ("/no/such".into(), Some("\"data\"".into())));
        assert_eq!(parsed("/no/such:12"), ("/no/such".into(), Some("12".into())));
        assert_eq!(parsed("/no/pci-0:1:data"), ("/no/pci-0:1".into(), Some("\"data\"".into())));
        assert_eq!(parsed("/no/pci-0:1/data"), ("/no/pci-0:1/data".into(), None));
        assert_eq!(parsed("/no/such"), ("/no/such".into(), None));
    }

    #[test]
    fn what_exists_is_a_path() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let file = dir.path().join("a:b");
        std::fs::write(&file, "").expect("writes");
        let shown = file.display().to_string();
        assert_eq!(parsed(&shown), (shown.clone(), None));
        assert_eq!(parsed(&format!("{shown}:b")), (shown, Some("\"b\"".into())));
    }

    #[test]
    fn what_can_be_no_slot_is_an_error() {
        for bad in ["/no/such:", "/no/such:99999999999", "/no/such:a\nb"] {
            assert!(matches!(SlotAddress::parse(Path::new(bad)), Err(Error::Argument(_))), "{bad:?}");
        }
    }
}
