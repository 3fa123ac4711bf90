//! What stands on a device, and where it ends: before an area is made behind it, and again at each use.
//!
//! Protects: nothing here writes. The ends come from the disk (direct reads where the device allows them) and from superblocks that were
//! checked ([`format::content`](crate::format::content)). blkid(8) says what else there is, for it knows everything, and where it and the
//! superblocks contradict each other, neither is believed. What owns a whole device (a partition table, a
//! member of LVM, md, ZFS) is refused with a reason, and so is every signature that is not known to leave the end of its device
//! alone.
//!
//! Does not protect:
//! - What carries no signature: a database on the raw device, a filesystem whose superblock was overwritten, a guest's disk with an
//!   encryption that looks like noise, what blkid(8) is too old for.
//! - blkid(8) reads through the page cache of the node. It closes the device at once, and the kernel drops the cache with the last
//!   descriptor, so nothing stale is left behind for a later user, who drops it himself after his claim in any case. But if something
//!   else on this host keeps the device open, what blkid(8) reads may be as old as that descriptor. For that reason no end is
//!   ever taken from blkid(8), and a filesystem that it sees has to be the one on the disk, by its UUID.
//! - ext4 and XFS write a new size into their journal first: see [`format::content`](crate::format::content).
//! - Whether anything uses the device: that is [`users`](super::users).
//! - A device that does not answer: reading it hangs as any read of it does; only blkid(8) is limited in time.

mod blkid;
mod kinds;

use std::time::Duration;

use self::blkid::{Blkid, Seen};
use super::sysfs::Sysfs;
use crate::error::Error;
use crate::format::content::{HEAD_BYTES, standing};
use crate::io::{Device, ReadAt};

pub(super) use self::kinds::is_private;
pub use crate::format::content::Standing;

/// How often a superblock that cannot be right is read before that is said: a filesystem in use may be writing it.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// blkid(8) finds its signatures within so many bytes of both ends of a device: the one farthest in is that of VMFS, at 2 MiB.
const SIGNATURES_WITHIN_BYTES: u64 = 4 << 20;

/// What stands on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // one a command, and matched with more ease than a box
pub enum Found {
    /// blkid(8) finds no signature, and no superblock of ours stands there; both ends of the device can be read.
    ///
    /// That does not prove that it is empty: see what the [module](self) does not protect. An area that stands there already is no
    /// signature to blkid(8) either, and on a device of up to 1440 KiB it looks for no RAID. Whoever writes on such a device has to be told to.
    Blank,
    /// One filesystem whose end its superblock tells.
    Filesystem(Standing),
    /// Something that blkid(8) knows, alone on the device, and that leaves alone what is behind its end; where that is, the
    /// administrator has to say.
    Other {
        /// What blkid(8) calls it: "swap", "vfat", "ntfs". Letters, digits, `_`, `-`, `.` and `+` only.
        kind: String,
        /// Its UUID or serial number as blkid(8) writes it, if it has one: letters, digits and `-` only.
        uuid: Option<String>,
    },
    /// Nothing can be put behind it, or what stands there is not clear.
    Unsuitable {
        /// What it is, as a noun ("a physical volume of LVM"). Safe to show.
        what: String,
        /// Why it is refused, and what to do instead.
        why: String,
    },
}

/// Where the longest of [`filesystems`] ends, in bytes; none if there is none.
///
/// # Errors
/// As [`filesystems`].
pub fn end_bytes(device: &impl ReadAt) -> Result<Option<u64>, Error> {
    Ok(filesystems(device)?.iter().map(|standing| standing.end_bytes).max())
}

/// All filesystems of the kinds known here that stand on the device, by superblocks read from the disk: none, one, or
/// several if an old one was left. Their order says nothing; all that counts for safety is the greatest `end_bytes`.
///
/// Takes some milliseconds; a quarter of a second where a superblock is damaged.
///
/// # Errors
/// [`Error::Content`] if a superblock stands there that cannot be right or is of a later format, whatever else does; [`Error::Io`] and
/// [`Error::Short`] as [`Device::read_at`].
pub fn filesystems(device: &impl ReadAt) -> Result<Vec<Standing>, Error> {
    let bytes = device.size_bytes().min(HEAD_BYTES as u64);
    let mut head = vec![0; usize::try_from(bytes).unwrap_or(HEAD_BYTES)];
    let mut look = 1;
    loop {
        device.read_at(0, &mut head)?;
        match standing(&head) {
            Ok(found) => return Ok(found),
            Err(source) if look == LOOKS || !source.is_damage() => {
                return Err(Error::Content { path: device.path().to_owned(), source });
            }
            Err(_) => device.pause(BETWEEN_LOOKS),
        }
        look += 1;
    }
}

/// What stands on the device, by blkid(8), sysfs and [`filesystems`].
///
/// Takes as long as blkid(8), at most some 20 seconds, and one more to be rid of it.
///
/// # Errors
/// [`Error::Unsupported`] if blkid(8) is not installed, does not answer in time or says something that is not understood, if it and the
/// superblocks contradict each other, or if the device has no bytes; [`Error::Io`] if blkid(8) cannot be run, and if the device cannot be
/// read or its name belongs to another one by now; else as [`filesystems`].
pub fn identify(device: &Device) -> Result<Found, Error> {
    identify_by(device, &Blkid::host(), Sysfs::host())
}

/// One filesystem stands on the device, and nothing beside it. One half of a mirror shows the filesystem of the whole, and must not be
/// changed alone; so may a disk that was partitioned since, whose old superblock places its blocks among somebody else's data.
///
/// # Errors
/// [`Error::Unsupported`] with what there is; as [`identify`].
pub fn check_alone(device: &Device) -> Result<(), Error> {
    let what = match identify(device)? {
        Found::Filesystem(_) => return Ok(()),
        Found::Unsuitable { what, .. } | Found::Other { kind: what, .. } => format!(
            "it holds {what}, beside the superblock of an ext2/3/4; name the device that the filesystem is used on"
        ),
        Found::Blank => "blkid(8) finds nothing on it; run `e2fsck -fn` on it".to_owned(),
    };
    Err(Error::Unsupported { path: device.path().to_owned(), what })
}

fn identify_by(device: &Device, blkid: &Blkid, sysfs: Sysfs<'_>) -> Result<Found, Error> {
    if device.size_bytes() == 0 {
        return Err(unsupported(device, "it has no bytes (a loop device without a file?)"));
    }
    // What has partitions belongs to them, even where blkid(8) does not know the kind of table.
    let partitions = sysfs.partitions(device.kind());
    if !partitions.is_empty() {
        let names: Vec<_> = partitions.into_iter().map(|partition| partition.name).collect();
        return Ok(kinds::partitioned(&format!("partitions: {}", names.join(", "))));
    }
    // blkid(8) says nothing of these, whatever stands on them.
    let uuid = sysfs.dir_of(device.kind()).and_then(|dir| std::fs::read(dir.join("dm/uuid")).ok());
    if uuid.is_some_and(|uuid| kinds::is_private(&uuid)) {
        return Ok(kinds::private());
    }
    let seen = blkid.ask(device)?;
    // blkid(8) opened the name a second time.
    let again = Device::inspect(device.canonical())?;
    if (again.kind(), again.size_bytes()) != (device.kind(), device.size_bytes()) {
        let source =
            std::io::Error::other("it has changed its size, or its name belongs to another one than before");
        return Err(Error::io("find out what stands on it", device.path(), source));
    }
    match seen {
        Seen::Several(names) => Ok(kinds::ambivalent(&names)),
        Seen::Table { table, beside } => Ok(kinds::table(&table, beside.as_deref())),
        Seen::One { kind, usage, uuid } => match kinds::refusal(&kind, &usage) {
            Some(refused) => Ok(refused),
            None => one(device, kind, uuid, filesystems(device)?),
        },
        Seen::Nothing => nothing(device, &filesystems(device)?),
    }
}

/// blkid(8) sees one thing that is not refused: is it ours, and is it alone?
fn one(device: &Device, kind: String, uuid: Option<String>, standing: Vec<Standing>) -> Result<Found, Error> {
    let ours = kinds::is_ours(&kind);
    match (ours, <[Standing; 1]>::try_from(standing)) {
        (true, Ok([standing])) => {
            // blkid(8) does not tell a UUID of zeroes.
            let same = kinds::same_family(&kind, standing.kind)
                && uuid.map_or(standing.uuid == [0; 16], |uuid| {
                    uuid.eq_ignore_ascii_case(&standing.uuid_text())
                });
            if same {
                Ok(Found::Filesystem(standing))
            } else {
                Err(contradiction(device, &kind, &[standing]))
            }
        }
        (false, Err(standing)) if standing.is_empty() => Ok(Found::Other { kind, uuid }),
        (true, Err(standing)) if standing.is_empty() => Err(contradiction(device, &kind, &[])),
        (_, several) => {
            let several = several.map_or_else(|several| several, |one| one.to_vec());
            let mut names: Vec<_> = several.iter().map(ToString::to_string).collect();
            if !ours {
                names.push(kind);
            }
            Ok(kinds::ambivalent(&names))
        }
    }
}

/// blkid(8) sees nothing. It says the same where it cannot read, so both ends are read here.
fn nothing(device: &Device, standing: &[Standing]) -> Result<Found, Error> {
    if !standing.is_empty() {
        return Err(contradiction(device, "nothing", standing));
    }
    let size = device.size_bytes();
    let bytes = size.min(SIGNATURES_WITHIN_BYTES);
    let mut end = vec![0; usize::try_from(bytes).unwrap_or_default()];
    device.read_at(0, &mut end)?;
    device.read_at(size - bytes, &mut end)?;
    Ok(Found::Blank)
}

fn contradiction(device: &Device, seen: &str, standing: &[Standing]) -> Error {
    let names: Vec<_> = standing.iter().map(ToString::to_string).collect();
    let stands = if names.is_empty() { "no such superblock".to_owned() } else { names.join(" and ") };
    let what = format!(
        "blkid(8) finds {seen} on it, but on the disk stands {stands}; something on this host may keep an old view of it \
         in the page cache: see who has it open, run `blockdev --flushbufs`, and try again"
    );
    unsupported(device, &what)
}

fn unsupported(device: &Device, what: &str) -> Error {
    Error::Unsupported { path: device.path().to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests;
