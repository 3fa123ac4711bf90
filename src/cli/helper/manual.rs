//! mount.mmp(8) and umount.mmp(8), out of the definitions that are parsed by.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::args::{MountHelper, UmountHelper};
use super::options::OWN;
use crate::cli::exit;
use crate::cli::generate::{item, paragraph, roff, section};

/// What stands in fstab(5), and what else is to be known there.
const FSTAB: [(&str, &str); 7] = [
    (
        "DEV DIR mmp noatime,x-systemd.mount-timeout=5min 0 0",
        "ext4, ldiskfs, or what an area behind it protects: the type is found.",
    ),
    (
        "DEV DIR mmp fstype=xfs,mmp.area=TARGET:SLOT,_netdev,nofail,x-systemd.mount-timeout=5min 0 0",
        "Guarded by a slot of an area elsewhere, on a device that comes with the network. systemd knows no such type: _netdev tells it.",
    ),
    (
        "x-systemd.mount-timeout=",
        "systemd ends a mount after 90 s. A mount waits two waits, 4 C + 2 s, and half a C more if it is asked for right after a \
         crash: from C = 20 s on that is too long, and mmp.wait= comes on top. Say more than the longest of the times that mmp \
         show prints.",
    ),
    (
        "x-systemd.requires=",
        "The unit or the device that the mount needs besides its own: the control LUN of mmp.area=, a device of mmp.with=.",
    ),
    (
        "0 in the sixth field",
        "There is no fsck for this type, on purpose: at boot it would run before anybody is asked who uses the device.",
    ),
    ("noauto", "Where a cluster manager decides which host mounts it: it calls mount DIR and umount DIR."),
    (
        "x-systemd.automount",
        "Does not work with this type, and is refused: until it is mounted the kernel lets none but systemd's own mount(8) near the \
         directory, and a guard outlives that. noauto or nofail instead.",
    ),
];

/// Writes both pages.
pub(in crate::cli) fn write(into: &Path, date: &str) -> io::Result<()> {
    fs::write(into.join("mount.mmp.8"), mount_page(date)?)?;
    fs::write(into.join("umount.mmp.8"), umount_page(date)?)
}

fn mount_page(date: &str) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    section(&mut text, "MOUNT OPTIONS");
    item(
        &mut text,
        "fstype=TYPE",
        "The type of the filesystem, for mount(8) and the kernel; auto, or none, is found out.",
    );
    for own in OWN {
        item(&mut text, &own.shown(), own.help);
    }
    paragraph(
        &mut text,
        "Those with mmp. are the options of mmp-mount(1), where they are explained. A value with a comma in it is quoted. All others are \
         handed on to mount(8), but for what has had its effect by then: defaults, auto, noauto, user, users, owner, group, comment=, \
         X-*. nofail: a device that is not there is no failure; one that is in use elsewhere is. helper=mmp and uhelper=mmp are \
         added, so that umount(8) calls umount.mmp(8).",
    );
    paragraph(
        &mut text,
        "An ordinary user's mount is refused, whatever fstab(5) allows: mount(8) gives his helper no privilege, and a guard needs it.",
    );
    section(&mut text, "FSTAB AND SYSTEMD");
    for (line, words) in FSTAB {
        item(&mut text, line, words);
    }
    paragraph(
        &mut text,
        "mount -a leaves alone what is mounted. With -F it mounts several at once, but some versions exit with 0 whatever their helpers \
         say: mmp status tells. mount -o remount,rw DIR of such a line does what mmp remount does. findmnt --verify complains \
         that mmp is no type that the kernel knows, and not the one on the disk; it is neither.",
    );
    exit_status(&mut text);
    files(&mut text);
    see_also(
        &mut text,
        "umount.mmp(8), mmp-mount(1), mmp-remount(1), mmp-status(1), fstab(5), mount(8), systemd.mount(5)",
    );
    page(MountHelper::command(), date, "mount.mmp DEV DIR [-sfnv] [-o OPTIONS] [-t mmp[.TYPE]]", &text)
}

fn umount_page(date: &str) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    exit_status(&mut text);
    files(&mut text);
    see_also(&mut text, "mount.mmp(8), mmp-umount(1), mmp-status(1), umount(8)");
    page(UmountHelper::command(), date, "umount.mmp {DIR|DEV} [-flnrv]", &text)
}

fn exit_status(text: &mut String) {
    section(text, "EXIT STATUS");
    paragraph(text, "As mount(8) has them, with those of mmp(1) in parentheses:");
    exit::MOUNT.iter().for_each(|(code, meaning)| item(text, &code.to_string(), meaning));
}

fn files(text: &mut String) {
    section(text, "FILES");
    item(text, "/sbin/mount.mmp, /sbin/umount.mmp", "mmp by another name; mount(8) looks nowhere else.");
    item(text, "/run/mount/utab", "What umount(8) knows: helper=mmp.");
    item(text, "/etc/mmp/mmp.toml", "What holds for every guarded mount of this host; see mmp-mount(1).");
}

fn see_also(text: &mut String, pages: &str) {
    section(text, "SEE ALSO");
    paragraph(text, pages);
}

fn page(command: Command, date: &str, synopsis: &str, rest: &str) -> io::Result<Vec<u8>> {
    let mut page = roff::title(command.get_name(), "8", date, false).into_bytes();
    let man = Man::new(command);
    man.render_name_section(&mut page)?;
    let mut text = String::new();
    section(&mut text, "SYNOPSIS");
    paragraph(&mut text, synopsis);
    page.extend(text.into_bytes());
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.extend(rest.bytes());
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pages_tell_all_options_and_codes() {
        let mount = String::from_utf8(mount_page("2026-01-01").expect("renders")).expect("is text");
        for own in OWN {
            assert!(mount.contains(&own.shown().replace('-', "\\-")), "{own:?}: {mount}");
        }
        let umount = String::from_utf8(umount_page("2026-01-01").expect("renders")).expect("is text");
        for (page, title) in [(mount, ".TH \"MOUNT.MMP\" 8"), (umount, ".TH \"UMOUNT.MMP\" 8")] {
            assert!(page.contains(title) && page.contains("SYNOPSIS") && page.contains("OPTIONS"), "{page}");
            for (code, _) in exit::MOUNT {
                assert!(page.contains(&format!("\\fB{code}\\fR")), "{code}: {page}");
            }
        }
    }
}
