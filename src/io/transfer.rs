//! Whole reads and whole writes at a place in a file.
//!
//! Protects: a short transfer is an error, never half a block; an interrupted one is repeated; a durable write is on
//! stable storage when it returns. Does not protect: alignment is the caller's business.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::libc;

use super::store::Durability;

/// The most that [`read_span`] asks for at once, in bytes.
const SPAN_BYTES: usize = 1 << 20;

/// Fills `into` from `offset_bytes` by one read; returns false if the file ends before it is full.
pub(super) fn read_whole(file: &File, into: &mut [u8], offset_bytes: u64) -> Result<bool> {
    Ok(read_once(file, into, offset_bytes)? == into.len())
}

/// Fills `into` from any offset: rounds out to `sector_bytes` on both sides by way of an aligned buffer. Returns
/// false if the file ends before it is full.
pub(super) fn read_span(file: &File, sector_bytes: u32, offset_bytes: u64, into: &mut [u8]) -> Result<bool> {
    let mut at = offset_bytes;
    for piece in into.chunks_mut(SPAN_BYTES) {
        let mut bounce = super::Arena::new(piece.len() + 2 * sector_bytes as usize).map_err(Error::other)?;
        if !read_span_by(file, sector_bytes, at, piece, bounce.bytes_mut())? {
            return Ok(false);
        }
        at += piece.len() as u64;
    }
    Ok(true)
}

/// As [`read_span`], by one read into `bounce`, which is aligned, and longer than `into` by two sectors.
pub(super) fn read_span_by(
    file: &File,
    sector_bytes: u32,
    offset_bytes: u64,
    into: &mut [u8],
    bounce: &mut [u8],
) -> Result<bool> {
    let sector = u64::from(sector_bytes.max(1));
    let start = offset_bytes - offset_bytes % sector;
    let end =
        offset_bytes.checked_add(into.len() as u64).and_then(|end| end.checked_next_multiple_of(sector));
    let end = end.ok_or_else(|| Error::from_raw_os_error(libc::EOVERFLOW))?;
    let (skip, span) = (to_usize(offset_bytes - start)?, to_usize(end - start)?);
    let buffer = &mut bounce[..span];
    // The file may end inside the last sector: only what was asked for has to be there.
    if read_once(file, buffer, start)? < skip + into.len() {
        return Ok(false);
    }
    into.copy_from_slice(&buffer[skip..skip + into.len()]);
    Ok(true)
}

/// Writes all of `bytes` at `offset_bytes` by one write.
pub(super) fn write_whole(file: &File, bytes: &[u8], offset_bytes: u64) -> Result<()> {
    loop {
        match file.write_at(bytes, offset_bytes) {
            Ok(written) => return whole(written, bytes.len()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes all of `bytes` at `offset_bytes`, durably. `dsync` says whether to try `RWF_DSYNC`, one call instead of
/// two; it becomes false where that is not supported.
pub(super) fn write_durably(file: &File, bytes: &[u8], offset_bytes: u64, dsync: &mut bool) -> Result<()> {
    if *dsync {
        match write_dsync(file, bytes, offset_bytes) {
            Err(error) if is_unsupported(&error) => *dsync = false,
            done => return done,
        }
    }
    write_whole(file, bytes, offset_bytes)?;
    file.sync_data()
}

/// Writes a block as a [`BlockStore`](super::BlockStore) does. What is in the page cache only is on no disk: a buffered beat is synced as
/// well.
pub(super) fn write_block(
    file: &File,
    bytes: &[u8],
    offset_bytes: u64,
    direct: bool,
    durability: Durability,
    dsync: &mut bool,
) -> Result<()> {
    if !direct {
        write_whole(file, bytes, offset_bytes).and_then(|()| file.sync_data())
    } else if durability == Durability::Durable {
        write_durably(file, bytes, offset_bytes, dsync)
    } else {
        write_whole(file, bytes, offset_bytes)
    }
}

fn read_once(file: &File, into: &mut [u8], offset_bytes: u64) -> Result<usize> {
    loop {
        match file.read_at(into, offset_bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn write_dsync(file: &File, bytes: &[u8], offset_bytes: u64) -> Result<()> {
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let offset = libc::off_t::try_from(offset_bytes).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    loop {
        // SAFETY: one vector over `bytes`, which outlives the call; a write only reads from it.
        let written =
            unsafe { libc::pwritev2(file.as_raw_fd(), &raw const vector, 1, offset, libc::RWF_DSYNC) };
        if let Ok(written) = usize::try_from(written) {
            return whole(written, bytes.len());
        }
        let error = Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn is_unsupported(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS))
}

fn whole(written: usize, wanted: usize) -> Result<()> {
    if written == wanted {
        return Ok(());
    }
    Err(Error::new(ErrorKind::WriteZero, format!("only {written} of {wanted} bytes were written")))
}

fn to_usize(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| Error::from_raw_os_error(libc::EOVERFLOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).expect("below 251")).collect();
        let file = tempfile::tempfile().expect("makes a file");
        file.write_all_at(&bytes, 0).expect("writes");
        (file, bytes)
    }

    #[test]
    fn a_span_may_begin_and_end_anywhere() {
        let len = 3 * SPAN_BYTES + 700;
        let (file, bytes) = file(len);
        for sector in [1, 512, 4096] {
            for (at, count) in
                [(0, 1), (511, 2), (1024, 1024), (4095, 4098), (7, 2 * SPAN_BYTES + 9), (len - 1, 1)]
            {
                let mut into = vec![0; count];
                assert!(read_span(&file, sector, at as u64, &mut into).expect("reads"), "{at} {count}");
                assert_eq!(into, bytes[at..at + count], "sector {sector}, {count} bytes at {at}");
            }
            let mut beyond = [0; 2];
            assert!(!read_span(&file, sector, len as u64 - 1, &mut beyond).expect("reads"));
            assert!(read_span(&file, sector, 0, &mut []).expect("reads nothing"));
        }
    }

    #[test]
    fn a_read_beyond_the_end_is_not_whole() {
        let (file, _) = file(1000);
        assert!(!read_whole(&file, &mut [0; 1024], 0).expect("reads"));
        assert!(read_whole(&file, &mut [0; 1000], 0).expect("reads"));
    }

    #[test]
    fn a_short_write_is_an_error() {
        assert_eq!(whole(512, 1024).expect_err("short").kind(), ErrorKind::WriteZero);
        assert!(whole(1024, 1024).is_ok());
    }

    #[test]
    fn a_durable_write_falls_back_where_dsync_is_unknown() {
        let (file, _) = file(4096);
        let mut dsync = true;
        write_durably(&file, b"one", 10, &mut dsync).expect("writes");
        write_durably(&file, b"two", 20, &mut false).expect("writes");
        let mut into = [0; 13];
        assert!(read_whole(&file, &mut into, 10).expect("reads"));
        assert_eq!((&into[..3], &into[10..]), (&b"one"[..], &b"two"[..]));
        assert!(is_unsupported(&Error::from_raw_os_error(libc::EOPNOTSUPP)));
        assert!(!is_unsupported(&Error::from_raw_os_error(libc::EIO)));
    }

    #[test]
    fn a_full_device_is_an_error_and_stays_one() {
        let full = File::options().write(true).open("/dev/full").expect("opens");
        let mut dsync = true;
        let error = write_durably(&full, b"x", 0, &mut dsync).expect_err("no space");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
}
