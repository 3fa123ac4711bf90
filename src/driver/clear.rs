//! Clearing by force: a clean mark over whatever stands there, without a claim.
//!
//! Protects: nothing that this host uses, nothing that has changed since it was seen, and no block that the superblock places elsewhere
//! by now, is written over. Does not protect from anybody on another host who is merely slow to beat: only a claim does. So the mark has
//! the form of e2fsprogs' own forced clear (`tune2fs -f -E clear_mmp`: the struct zeroed, the device named by its path), by which a
//! holder that lives tells it from a successor's end, and beats over it (`docs/safety.md`, S7).

use super::first_use::check_privilege;
use super::place::Place;
use crate::clock;
use crate::error::Error;
use crate::format::{DeviceName, Image, MMP_STRUCT_BYTES, MmpBlock};
use crate::io::Durability;
use crate::protocol::sequence::SEQ_CLEAN;
use crate::protocol::{Peer, Refusal, Sequence};
use crate::sys::unused;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forced {
    /// The mark was written, and read back.
    Cleared,
    /// It was left cleanly since it was seen; nothing was written.
    CleanMeanwhile,
}

/// Step 0, before anybody is asked anything: it can be written, and nobody on this host uses it.
///
/// # Errors
/// [`Error::ReadOnly`]; [`Error::Unsupported`] without the privilege that a claim takes; [`Error::UsedHere`]; [`Error::Io`].
pub(crate) fn check_unused_here(place: &Place) -> Result<(), Error> {
    place.check_writable()?;
    check_privilege(place)?;
    let Some(target) = place.target() else { return Ok(()) };
    unused::check(place.asked(), target)
}

/// Writes the clean mark over a filesystem's own MMP block, if that still shows `seen`, to the byte.
///
/// # Errors
/// [`Error::Interrupted`] if `interrupted` says so before the write; as [`check_unused_here`]; [`Error::Refused`] if the block, or what the superblock says of it, is not as it was seen, or if
/// somebody has written over the mark at once; [`Error::Unsupported`] in an area.
pub(crate) fn force(
    place: &Place,
    seen: &Image,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Forced, Error> {
    let (Some(target), Some(superblock)) = (place.target(), place.superblock()) else {
        let what =
            "a slot of an area is never cleared by force: whoever claims it next watches it by himself"
                .to_owned();
        return Err(Error::Unsupported { path: place.asked().to_owned(), what });
    };
    check_unused_here(place)?;
    let began = clock::mono();
    let exclusive =
        unused::patiently(unused::PASSING, interrupted, || unused::claim(place.asked(), target, &[]))?;
    let refused = |refusal| Error::Refused { path: place.asked().to_owned(), refusal };
    let changed = |image: &Image| {
        let by = Peer::from(&MmpBlock::fields(image));
        refused(Refusal::InUse { by, after: clock::mono().since(began) })
    };
    let mut store = place.store()?;
    store.open_for_writing()?;
    place.medium().clean_is_believable(&store.read_superblock()?).map_err(refused)?;
    let looked = clock::mono();
    let standing = *store.read()?;
    if standing != *seen {
        let left =
            place.medium().decode(&standing).is_ok_and(|block| Sequence::from(block.seq) == Sequence::Clean);
        return if left { Ok(Forced::CleanMeanwhile) } else { Err(changed(&standing)) };
    }
    let mut mark: Image = [0; MMP_STRUCT_BYTES];
    forced_mark(place).encode_into(&mut mark, superblock.checksum_seed);
    if clock::mono().since(looked) > place.medium().own_check().limit() {
        let slow = std::io::Error::other("this host took too long between its look and its write; try again");
        return Err(Error::io("clear the MMP block", place.asked(), slow));
    }
    if interrupted() {
        return Err(Error::Interrupted);
    }
    store.write(&mark, Durability::Durable)?;
    let standing = *store.read()?;
    drop(exclusive);
    if standing == mark { Ok(Forced::Cleared) } else { Err(changed(&standing)) }
}

/// As e2fsprogs 1.47 writes it (`lib/ext2fs/mmp.c`, `ext2fs_mmp_reset`).
fn forced_mark(place: &Place) -> MmpBlock {
    let path = place.device().path();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    MmpBlock {
        seq: SEQ_CLEAN,
        time_s: clock::wall().0,
        node: place.medium().owner().node,
        device: DeviceName::new(&path.to_string_lossy()),
        check_interval_s: place.medium().own_check().field_s(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;

    use crate::format::NodeName;

    /// Left clean by e2fsprogs on node "golden".
    const DEMO: &[u8] = include_bytes!("../../testimages/demo.img");

    /// An image whose block says that, and what was read there.
    fn stale(seq: u32) -> (tempfile::TempDir, PathBuf, Place, Image) {
        let dir = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
        let path = dir.path().join("disk.img");
        fs::write(&path, DEMO).expect("writes");
        let place = Place::find(&path, Some("alpha")).expect("has MMP");
        let mut image = place.read_block().expect("reads");
        put(&place, &path, &mut image, seq);
        (dir, path, place, image)
    }

    fn put(place: &Place, path: &std::path::Path, image: &mut Image, seq: u32) {
        let seed = place.superblock().expect("is native").checksum_seed;
        MmpBlock { seq, ..MmpBlock::fields(image) }.encode_into(image, seed);
        let file = fs::File::options().write(true).open(path).expect("opens");
        file.write_all_at(image, place.offset_bytes()).expect("writes");
    }

    #[test]
    fn what_was_seen_is_marked_as_e2fsprogs_mark_it_and_nothing_else_changes() {
        for seq in [77, 0, 0xE24D_4D50, 0xE24D_4D51] {
            let (_dir, path, place, seen) = stale(seq);
            let before = fs::read(&path).expect("reads");
            assert_eq!(force(&place, &seen, &mut || false).expect("clears"), Forced::Cleared);
            let after = fs::read(&path).expect("reads");
            let at = usize::try_from(place.offset_bytes()).expect("is small");
            assert!(before[..at] == after[..at] && before[at + 1024..] == after[at + 1024..]);
            let image = place.read_block().expect("reads");
            let block = place.medium().decode(&image).expect("decodes");
            assert_eq!((block.seq, block.check_interval_s), (SEQ_CLEAN, 5));
            assert_eq!(block.node, NodeName::new("alpha"));
            assert!(crate::protocol::medium::is_path(&block.device), "{}", block.device);
            assert!(image[0x72..0x3FC].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn who_is_told_to_stop_writes_nothing() {
        let (_dir, path, place, seen) = stale(77);
        let before = fs::read(&path).expect("reads");
        assert!(matches!(force(&place, &seen, &mut || true), Err(Error::Interrupted)));
        assert!(fs::read(&path).expect("reads") == before);
    }

    #[test]
    fn what_has_changed_since_it_was_seen_stays() {
        let (_dir, path, place, seen) = stale(77);
        put(&place, &path, &mut seen.clone(), 78);
        let before = fs::read(&path).expect("reads");
        let error = force(&place, &seen, &mut || false).expect_err("somebody is alive");
        assert!(matches!(error, Error::Refused { refusal: Refusal::InUse { .. }, .. }), "{error}");
        put(&place, &path, &mut seen.clone(), SEQ_CLEAN);
        assert_eq!(force(&place, &seen, &mut || false).expect("is clean"), Forced::CleanMeanwhile);
        put(&place, &path, &mut seen.clone(), 78);
        assert!(fs::read(&path).expect("reads") == before);
    }

    /// MMP was switched off, or the block moved, since the device was found.
    #[test]
    fn a_block_that_the_superblock_does_not_name_any_more_stays() {
        let (_dir, path, place, seen) = stale(77);
        let file = fs::File::options().write(true).open(&path).expect("opens");
        file.write_all_at(&[0; 2], 1024 + 0x38).expect("writes");
        let before = fs::read(&path).expect("reads");
        assert!(matches!(
            force(&place, &seen, &mut || false),
            Err(Error::Refused { refusal: Refusal::Changed { .. }, .. })
        ));
        assert!(fs::read(&path).expect("reads") == before);
    }
}
