//! Where a file allows `O_DIRECT`, and where it must.
//!
//! Protects: a file on a network filesystem that is read through this host's cache would show what this host last
//! read, not what another wrote; without direct I/O it is refused. Does not protect: what a server caches itself.

use std::fs::File;

use nix::errno::Errno;
use nix::libc;
use nix::sys::statfs::fstatfs;

use super::node::Node;
use crate::error::Error;

/// The largest memory alignment that every [`Arena`](super::Arena) has, in bytes.
const ARENA_ALIGNMENT_BYTES: u32 = 4096;

/// What to align direct I/O to on a network filesystem that does not say: NFS wants nothing, others pass it on to
/// the disk of the server.
const NETWORK_SECTOR_BYTES: u32 = 512;

/// How a file is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileAccess {
    /// What offsets and lengths must be multiples of, in bytes; 1 if buffered.
    pub(super) sector_bytes: u32,
    /// `O_DIRECT` is used.
    pub(super) direct: bool,
    /// Only `O_DIRECT` shows what other hosts write.
    pub(super) shared: bool,
}

/// Finds out how the open file of `node` must be read and written; `opens_direct` tries whether it can be past the page cache, and is told
/// whether only that shows what other hosts write.
///
/// # Errors
/// [`Error::Io`] if the system does not answer, [`Error::Unsupported`] on a network filesystem without direct I/O.
pub(super) fn file_access(
    node: &Node,
    file: &File,
    opens_direct: impl FnOnce(bool) -> bool,
) -> Result<FileAccess, Error> {
    let statfs = fstatfs(file).map_err(|source| node.fail("ask for its filesystem", source))?;
    // The type of the field differs between platforms; all these numbers have 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let shared = is_network(statfs.filesystem_type().0 as u32);
    let alignment = direct_alignment(file).map_err(|source| node.fail("ask for its alignment", source))?;
    let sector_bytes = match alignment {
        Alignment::Bytes(bytes) => Some(bytes),
        Alignment::Unknown if shared => Some(NETWORK_SECTOR_BYTES),
        Alignment::Unknown | Alignment::Impossible => None,
    };
    match sector_bytes.filter(|_| opens_direct(shared)) {
        Some(sector_bytes) => Ok(FileAccess { sector_bytes, direct: true, shared }),
        None if shared => Err(Error::Unsupported {
            path: node.shown.clone(),
            what:
                "it lies on a network filesystem without direct I/O (O_DIRECT); this host's cache would hide \
                   what other hosts write"
                    .to_owned(),
        }),
        None => Ok(FileAccess { sector_bytes: 1, direct: false, shared }),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alignment {
    Bytes(u32),
    /// Neither the kernel nor the filesystem says (before Linux 6.1; tmpfs).
    Unknown,
    Impossible,
}

/// What `statx(STATX_DIOALIGN)` says about a file.
fn direct_alignment(file: &File) -> nix::Result<Alignment> {
    use std::os::fd::AsRawFd;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the empty name means the descriptor itself; the kernel writes one statx, which outlives the call.
    let result = unsafe {
        let flags = libc::AT_EMPTY_PATH;
        libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_DIOALIGN, found.as_mut_ptr())
    };
    match Errno::result(result) {
        Ok(_) => {}
        Err(Errno::ENOSYS) => return Ok(Alignment::Unknown),
        Err(error) => return Err(error),
    }
    // SAFETY: every bit pattern is a statx, and it was zeroed before the kernel filled it.
    let found = unsafe { found.assume_init() };
    Ok(if found.stx_mask & libc::STATX_DIOALIGN == 0 {
        Alignment::Unknown
    } else {
        judge(found.stx_dio_mem_align, found.stx_dio_offset_align)
    })
}

/// What the two alignments mean; 0 is the kernel's word for "no direct I/O on this file".
fn judge(memory_bytes: u32, offset_bytes: u32) -> Alignment {
    if memory_bytes == 0 || offset_bytes == 0 || memory_bytes > ARENA_ALIGNMENT_BYTES {
        Alignment::Impossible
    } else {
        Alignment::Bytes(offset_bytes)
    }
}

/// Whether a filesystem's magic number (`f_type`) is one that other hosts write behind this host's page cache.
fn is_network(magic: u32) -> bool {
    // Linux include/uapi/linux/magic.h, fs/smb/client, fs/ceph. Filesystems with cluster-wide locks on their
    // caches (OCFS2, GFS2, Lustre) are not among them.
    const NFS: u32 = 0x6969;
    const SMB: u32 = 0x517B;
    const CIFS: u32 = 0xFF53_4D42;
    const SMB2: u32 = 0xFE53_4D42;
    const CEPH: u32 = 0x00C3_6400;
    const FUSE: u32 = 0x6573_5546;
    const V9FS: u32 = 0x0102_1997;
    const AFS: u32 = 0x5346_414F;
    const KAFS: u32 = 0x6B41_4653;
    const CODA: u32 = 0x7375_7245;
    matches!(magic, NFS | SMB | CIFS | SMB2 | CEPH | FUSE | V9FS | AFS | KAFS | CODA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignments_that_an_arena_cannot_meet_mean_no_direct_io() {
        assert_eq!(judge(512, 512), Alignment::Bytes(512));
        assert_eq!(judge(4, 4096), Alignment::Bytes(4096));
        assert_eq!(judge(0, 0), Alignment::Impossible);
        assert_eq!(judge(8192, 512), Alignment::Impossible);
    }

    #[test]
    fn network_filesystems_are_known_by_their_numbers() {
        assert!(is_network(0x6969) && is_network(0xFF53_4D42));
        assert!(!is_network(0xEF53) && !is_network(0x0102_1994), "ext4, tmpfs");
    }

    #[test]
    fn a_file_in_memory_is_buffered_unless_it_says_otherwise() {
        let Ok(named) = tempfile::NamedTempFile::new_in("/dev/shm") else {
            eprintln!("skipped: no /dev/shm");
            return;
        };
        let node = Node::find(named.path()).expect("is a file");
        let access = file_access(&node, named.as_file(), |_| node.opens_direct()).expect("answers");
        assert!(!access.shared);
        assert_eq!(access.direct, access.sector_bytes > 1);
    }
}
