//! Devices by what stands on them: `UUID=`, `LABEL=`, `PARTUUID=`, `PARTLABEL=`.
//!
//! blkid(8) is asked, since it knows every filesystem's idea of a label. Protects: a tag that leads to several devices
//! (two paths to one LUN, a clone) is refused and not guessed at. Does not protect from a device that took the tag since.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fstab::without_quotes;
use crate::Error;

/// The tags that blkid(8) finds devices by.
const TAGS: [&str; 4] = ["UUID", "LABEL", "PARTUUID", "PARTLABEL"];

/// The device that `named` means: itself, unless it is a tag.
///
/// # Errors
/// [`Error::Argument`] if no device, or more than one, has the tag; [`Error::Io`] if blkid(8) cannot be run.
pub fn resolve(named: &Path) -> Result<PathBuf, Error> {
    let Some(tag) = tag(named.as_os_str()) else { return Ok(named.to_owned()) };
    // Without its cache, which may tell of yesterday.
    let output = Command::new("blkid")
        .args(["-c", "/dev/null", "-o", "device", "-t"])
        .arg(tag)
        .output()
        .map_err(|source| Error::io("run blkid(8) for", named, source))?;
    let found: Vec<PathBuf> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| PathBuf::from(std::ffi::OsString::from_vec(line.to_vec())))
        .collect();
    let shown = crate::format::name::escape(named.as_os_str().as_bytes());
    match found.as_slice() {
        [] => Err(Error::Argument(format!("{shown}: no block device of this host has that"))),
        [device] => Ok(device.clone()),
        several => {
            let names: Vec<_> = several.iter().map(|device| device.display().to_string()).collect();
            Err(Error::Argument(format!(
                "{shown}: {} have that; name the one that is meant (of a multipath device its own name, not a path's)",
                names.join(" and ")
            )))
        }
    }
}

/// True for what is looked up, and is no path.
#[must_use]
pub fn is_tag(named: &str) -> bool {
    tag(OsStr::new(named)).is_some()
}

/// `NAME=value`, with the quotes of fstab(5) taken off.
fn tag(named: &OsStr) -> Option<std::ffi::OsString> {
    let bytes = named.as_bytes();
    let equals = bytes.iter().position(|&byte| byte == b'=')?;
    let name = std::str::from_utf8(&bytes[..equals]).ok().filter(|name| TAGS.contains(name))?;
    let value = without_quotes(&bytes[equals + 1..]);
    let mut tag = std::ffi::OsString::from(format!("{name}="));
    tag.push(OsStr::from_bytes(value));
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_from_paths() {
        let of = |named: &str| tag(OsStr::new(named)).map(|tag| tag.into_string().unwrap());
        assert_eq!(of("UUID=1-2").as_deref(), Some("UUID=1-2"));
        assert_eq!(of("LABEL=\"a b\"").as_deref(), Some("LABEL=a b"));
        assert_eq!(of("/dev/by=x"), None);
        assert_eq!(of("SIZE=3"), None);
        assert_eq!(resolve(Path::new("/dev/sda1")).unwrap(), Path::new("/dev/sda1"));
    }
}
