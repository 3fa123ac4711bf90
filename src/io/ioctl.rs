//! The block device ioctls (Linux `include/uapi/linux/fs.h`), each as a safe function over a descriptor.
//!
//! Protects: the argument types stand in one place, beside their request codes. Does not protect: whether the
//! descriptor is a block device at all; one that is not answers `ENOTTY`.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::libc::c_int;

mod raw {
    #![allow(missing_docs)]
    use nix::libc::c_int;

    nix::ioctl_read_bad!(blkroget, nix::request_code_none!(0x12, 94), c_int);
    nix::ioctl_none_bad!(blkflsbuf, nix::request_code_none!(0x12, 97));
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), c_int);
    // The request code says size_t, the kernel writes a u64 (block/ioctl.c).
    nix::ioctl_read_bad!(blkgetsize64, nix::request_code_read!(0x12, 114, size_of::<usize>()), u64);
}

/// `BLKROGET`: whether the device is write-protected.
pub(super) fn is_read_only(device: &File) -> nix::Result<bool> {
    let mut read_only: c_int = 0;
    // SAFETY: the kernel writes one int, to an int that outlives the call.
    unsafe { raw::blkroget(device.as_raw_fd(), &raw mut read_only) }?;
    Ok(read_only != 0)
}

/// `BLKSSZGET`: the logical block size in bytes, what direct I/O must be aligned to.
pub(super) fn sector_bytes(device: &File) -> nix::Result<u32> {
    let mut bytes: c_int = 0;
    // SAFETY: the kernel writes one int, to an int that outlives the call.
    unsafe { raw::blksszget(device.as_raw_fd(), &raw mut bytes) }?;
    u32::try_from(bytes).map_err(|_| nix::errno::Errno::EOVERFLOW)
}

/// `BLKGETSIZE64`: the size in bytes.
pub(super) fn size_bytes(device: &File) -> nix::Result<u64> {
    let mut bytes: u64 = 0;
    // SAFETY: the kernel writes one u64, to a u64 that outlives the call.
    unsafe { raw::blkgetsize64(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// `BLKFLSBUF`: writes the page cache of the device back and drops what is clean. Needs `CAP_SYS_ADMIN`.
pub(super) fn flush_buffers(device: &File) -> nix::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { raw::blkflsbuf(device.as_raw_fd()) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn a_file_answers_that_it_is_no_block_device() {
        let file = tempfile::tempfile().expect("makes a file");
        assert_eq!(is_read_only(&file), Err(Errno::ENOTTY));
        assert_eq!(sector_bytes(&file), Err(Errno::ENOTTY));
        assert_eq!(size_bytes(&file), Err(Errno::ENOTTY));
        assert_eq!(flush_buffers(&file), Err(Errno::ENOTTY));
    }

    #[test]
    fn request_codes_are_those_of_the_header() {
        assert_eq!(nix::request_code_none!(0x12, 94), 0x125e);
        assert_eq!(nix::request_code_none!(0x12, 104), 0x1268);
        assert_eq!(nix::request_code_none!(0x12, 97), 0x1261);
        #[cfg(target_pointer_width = "64")]
        assert_eq!(nix::request_code_read!(0x12, 114, size_of::<usize>()), 0x8008_1272);
    }
}
