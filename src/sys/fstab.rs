//! fstab(5): which of its lines name a device.
//!
//! Protects: a change that would make a line fail at the next boot is told with the line. Does not protect: units of systemd and other
//! tables are not read, nor are tags that only udev knows (`PARTUUID=`, `PARTLABEL=`, `ID=`).
//!
//! Source of the format: fstab(5), getmntent(3).

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::mountinfo::{path, unescape};
use super::target::{TargetKind, identify};

/// The table of this host.
pub const FSTAB: &str = "/etc/fstab";

/// One line that names something to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FstabLine {
    /// Counted from 1.
    pub number: usize,
    /// The device, or a tag of it.
    pub source: PathBuf,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The type, or several separated by commas.
    pub filesystem: String,
}

/// What a line may call a device by.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// The node.
    pub node: TargetKind,
    /// The UUID of its filesystem, with hyphens.
    pub uuid: &'a str,
    /// The label of its filesystem, as it stands on the disk.
    pub label: &'a [u8],
}

/// The lines of `text`, in order. Comments, and what has no type, are left out.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<FstabLine> {
    let lines = text.split(|&byte| byte == b'\n').zip(1..);
    lines
        .filter_map(|(line, number)| {
            let mut fields =
                line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty());
            let source = path(unescape(fields.next()?));
            let dir = path(unescape(fields.next()?));
            let filesystem = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
            (!source.as_os_str().as_bytes().starts_with(b"#")).then_some(FstabLine {
                number,
                source,
                dir,
                filesystem,
            })
        })
        .collect()
}

impl FstabLine {
    /// True if the line mounts what is called so. A path is looked up below `/dev` alone, as any other may hang; a file is compared by
    /// its name.
    #[must_use]
    pub fn names(&self, called: Called<'_>, real: &Path) -> bool {
        let source = self.source.as_os_str().as_bytes();
        let value = |tag: &[u8]| source.strip_prefix(tag).map(without_quotes);
        if let Some(uuid) = value(b"UUID=") {
            return uuid.eq_ignore_ascii_case(called.uuid.as_bytes());
        }
        if let Some(label) = value(b"LABEL=") {
            return !label.is_empty() && label == called.label;
        }
        self.source == real
            || (self.source.starts_with("/dev")
                && matches!(identify(&self.source), Ok(Some(found)) if found == called.node))
    }

    /// True if it asks for one of the types `wanted`.
    #[must_use]
    pub fn asks_for(&self, wanted: &[&str]) -> bool {
        self.filesystem.split(',').any(|asked| wanted.contains(&asked))
    }
}

/// The value of a tag, without the quotes that may stand around it.
#[must_use]
pub fn without_quotes(value: &[u8]) -> &[u8] {
    match value {
        [quote @ (b'"' | b'\''), inner @ .., last] if quote == last => inner,
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"# a comment with words\n\
        UUID=C0FFEE00-1122-3344-5566-778899aabbcc /srv/a\\040b\text3 defaults 0 2\n\n\
        \tLABEL=\"da ta\" /b ext4 noauto\n  #/dev/sda /c ext3\n/srv/disk.img /d ext2,ext3 loop\n/dev/no-such-device /e ext3\nshort /x\n";

    fn called(uuid: &'static str, label: &'static [u8]) -> Called<'static> {
        Called { node: TargetKind::Block { major: 7, minor: 900 }, uuid, label }
    }

    #[test]
    fn lines_are_read_as_fstab_has_them() {
        let lines = parse(TABLE);
        let numbers: Vec<_> = lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [2, 4, 6, 7]);
        assert_eq!(lines[0].dir, Path::new("/srv/a b"));
        assert!(
            lines[0].asks_for(&["ext2", "ext3"])
                && !lines[1].asks_for(&["ext3"])
                && lines[2].asks_for(&["ext3"])
        );
    }

    #[test]
    fn a_line_names_a_device_by_tag_or_path() {
        let lines = parse(TABLE);
        let named = |called: Called<'_>, real: &str| {
            let named = lines.iter().filter(|line| line.names(called, Path::new(real)));
            named.map(|line| line.number).collect::<Vec<_>>()
        };
        assert_eq!(named(called("c0ffee00-1122-3344-5566-778899aabbcc", b""), "/x"), [2]);
        assert_eq!(named(called("other", b"da ta"), "/x"), [] as [usize; 0], "a blank ends a field");
        assert_eq!(named(called("other", b""), "/srv/disk.img"), [6]);
        let label = parse(b"LABEL=\"da\\040ta\" /b ext4\n");
        assert!(label[0].names(called("other", b"da ta"), Path::new("/x")));
        assert!(!label[0].names(called("other", b"data"), Path::new("/x")));
    }
}
