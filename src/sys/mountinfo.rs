//! `/proc/PID/mountinfo`: what is mounted where.
//!
//! Protects: the text is believed only as far as it parses; a line that does not is left out, nothing panics.
//! Does not protect: a table shows what can be reached below the root directory of its process. A lazily unmounted
//! filesystem and one mounted in a namespace without processes stand in no table; the exclusive open finds them.
//!
//! Source of the format: Linux `Documentation/filesystems/proc.rst`, 3.5, and `fs/proc_namespace.c`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::target::{TargetKind, identify};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The number of the filesystem; its major number is 0 if it has no block device of its own (btrfs, NFS).
    pub device: TargetKind,
    /// Which part of the filesystem is mounted: `/`, or a directory or file below it (bind mounts, subvolumes).
    pub root: PathBuf,
    /// Where.
    pub dir: PathBuf,
    /// The type, as the kernel names it.
    pub filesystem: String,
    /// What was mounted, as the filesystem shows it: a path, or any text.
    pub source: PathBuf,
    /// The filesystem itself is read-only, whatever this mount of it is.
    pub read_only: bool,
    /// Other devices the options name (an external log, `logdev=/dev/sdc`).
    pub more_devices: Vec<PathBuf>,
}

/// Reads the whole table. What does not parse is left out.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// What is mounted on top of everything else where `is_there` says; the directories are not looked into. Read anew.
#[must_use]
pub fn on_top(is_there: impl Fn(&Path) -> bool) -> Option<Mount> {
    on_top_of(parse(&std::fs::read("/proc/self/mountinfo").unwrap_or_default()), is_there)
}

fn on_top_of(mounts: Vec<Mount>, is_there: impl Fn(&Path) -> bool) -> Option<Mount> {
    mounts.into_iter().rev().find(|mount| is_there(&mount.dir))
}

impl Mount {
    /// True if this is a mount of one of `devices` (the device asked about, and its siblings in one btrfs), or of
    /// the file at `image`.
    ///
    /// Where the filesystem has no block device number, its source decides; only names below `/dev` are looked up,
    /// as any other path may lie on a dead file server.
    #[must_use]
    pub fn is_of(&self, devices: &[TargetKind], image: Option<&Path>) -> bool {
        if devices.contains(&self.device) {
            return true;
        }
        let anonymous = matches!(self.device, TargetKind::Block { major: 0, .. });
        let source = Some(&self.source).filter(|_| anonymous);
        if source.is_some_and(|source| Some(source.as_path()) == image) {
            return true;
        }
        source.into_iter().chain(&self.more_devices).any(|path| {
            path.starts_with("/dev")
                && matches!(identify(path), Ok(Some(found @ TargetKind::Block { .. })) if devices.contains(&found))
        })
    }
}

/// Undoes the kernel's `\NNN` (three octal digits); anything else stays as it is.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) = (byte, tail) {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    plain
}

pub(super) fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// `ID PARENT MAJOR:MINOR ROOT DIR OPTIONS [OPTIONAL...] - TYPE SOURCE SUPER_OPTIONS`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = TargetKind::parse_block(fields.nth(2)?)?;
    let root = path(unescape(fields.next()?));
    let dir = path(unescape(fields.next()?));
    fields.next()?;
    fields.find(|field| *field == b"-")?;
    let filesystem = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let source = path(unescape(fields.next()?));
    let options = fields.next().unwrap_or_default();
    let read_only = options.split(|&byte| byte == b',').any(|option| option == b"ro");
    let more_devices = options
        .split(|&byte| byte == b',')
        .filter_map(|option| option.splitn(2, |&byte| byte == b'=').nth(1))
        .map(|value| path(unescape(value)))
        .filter(|value| value.as_os_str().as_bytes().starts_with(b"/dev/"))
        .collect();
    Some(Mount { device, root, dir, filesystem, source, read_only, more_devices })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: TargetKind = TargetKind::Block { major: 7, minor: 3 };

    fn one(line: &str) -> Mount {
        let mounts = parse(line.as_bytes());
        assert_eq!(mounts.len(), 1, "{line}");
        mounts.into_iter().next().unwrap()
    }

    #[test]
    fn what_was_mounted_last_is_on_top() {
        let waiting =
            b"36 25 0:33 / /srv rw,relatime shared:1 - autofs systemd-1 rw,fd=29,pgrp=1,direct\n".to_vec();
        let on = |table: &[u8], dir: &str| {
            on_top_of(parse(table), |mounted| mounted == Path::new(dir)).map(|mount| mount.filesystem)
        };
        assert_eq!(on(&waiting, "/srv").as_deref(), Some("autofs"));
        assert_eq!(on(&waiting, "/"), None);
        let mounted =
            [waiting, b"37 36 7:1 / /srv rw,relatime shared:2 - xfs /dev/loop1 rw\n".to_vec()].concat();
        assert_eq!(on(&mounted, "/srv").as_deref(), Some("xfs"));
    }

    #[test]
    fn a_plain_mount_with_optional_fields_and_without() {
        for optional in ["", "shared:1 ", "shared:1 master:2 propagate_from:3 ", "unbindable "] {
            let mount = one(&format!("36 27 7:3 / /srv rw,noatime {optional}- xfs /dev/loop3 rw,attr2"));
            assert_eq!(mount.device, BLOCK);
            assert_eq!(mount.dir, Path::new("/srv"));
            assert_eq!(mount.filesystem, "xfs");
            assert_eq!(mount.source, Path::new("/dev/loop3"));
            assert!(mount.is_of(&[BLOCK], None) && !mount.read_only);
            assert!(!mount.is_of(&[TargetKind::Block { major: 7, minor: 4 }], None));
        }
    }

    #[test]
    fn names_are_unescaped() {
        let mount = one("36 27 7:3 / /a\\040b\\011c\\012d\\134e\\043 rw - ext4 /dev/x\\040y rw");
        assert_eq!(mount.dir, Path::new("/a b\tc\nd\\e#"));
        assert_eq!(mount.source, Path::new("/dev/x y"));
        assert_eq!(unescape(b"\\04 \\999 \\400 \\"), b"\\04 \\999 \\400 \\");
        assert_eq!(unescape(b"\\377\\000"), b"\xff\0");
    }

    #[test]
    fn a_bind_mount_is_a_mount_of_the_same_device() {
        let mount = one("40 27 7:3 /deep/below /mnt/bind rw - ext4 /dev/loop3 rw");
        assert_eq!(mount.root, Path::new("/deep/below"));
        assert!(mount.is_of(&[BLOCK], None));
    }

    #[test]
    fn an_anonymous_filesystem_is_known_by_its_source() {
        // /dev/null is no block device: its number must not be mistaken for one.
        assert!(!one("1 2 0:45 /sub /b rw - btrfs /dev/null rw").is_of(&[BLOCK], None));
        let image = one("1 2 0:45 / /b rw - erofs /srv/image.erofs ro");
        assert!(image.is_of(&[], Some(Path::new("/srv/image.erofs"))));
        assert!(!image.is_of(&[], Some(Path::new("/srv/image"))));
        // With a device number of its own the source says nothing: it may be /dev/root, or renamed since.
        let named = one("1 2 8:1 / / rw - ext4 /srv/image rw");
        assert!(!named.is_of(&[], Some(Path::new("/srv/image"))));
    }

    #[test]
    fn devices_named_by_options_are_kept() {
        let mount = one("1 2 8:1 / /x rw - xfs /dev/sda1 rw,logdev=/dev/sdc\\0401,rtdev=/dev/sdd,logbufs=8");
        assert_eq!(mount.more_devices, [Path::new("/dev/sdc 1"), Path::new("/dev/sdd")]);
    }

    #[test]
    fn damaged_lines_are_left_out_and_the_rest_is_read() {
        let text = b"\n36\n36 27 7:3 / /srv rw\n36 27 x:3 / /srv rw - xfs a b\n36 27 7:3 / /srv rw - xfs\n\
            36 27 7:3 / /ok rw - xfs /dev/loop3\n\xff\xfe 1 7:3 / /\xff rw - \xff \xff \xff\n";
        let dirs: Vec<_> = parse(text).into_iter().map(|mount| mount.dir).collect();
        assert_eq!(dirs, [PathBuf::from("/ok"), path(b"/\xff".to_vec())]);
    }

    #[test]
    fn the_running_hosts_table_is_read_whole() {
        let text = std::fs::read("/proc/self/mountinfo").unwrap();
        assert_eq!(parse(&text).len(), text.iter().filter(|&&byte| byte == b'\n').count());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&text);
            prop_assert!(unescape(&text).len() <= text.len());
        }

        #[test]
        fn damaged_tables_never_panic(
            text in "([0-9 :/\\-,=\\\\a-d]{0,40}|[0-9]{1,3} [0-9] [0-9]{1,12}:[0-9] /[^\n]{0,20} - x y z){0,6}",
        ) {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn escaping_is_undone(name in proptest::collection::vec(1u8..=255, 0..40)) {
            let escaped: Vec<u8> = name
                .iter()
                .flat_map(|&byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                    _ => vec![byte],
                })
                .collect();
            prop_assert_eq!(unescape(&escaped), name);
        }
    }
}
