//! crc32c as ext4 uses it: seeded, without the final inversion (Linux `fs/ext4/ext4.h`, `ext4_chksum`); and the crc16 of
//! its group descriptors under uninit_bg.
//!
//! Protects against torn and damaged blocks; it is no authentication, anybody can compute it.

/// What a filesystem's metadata checksums start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct ChecksumSeed(pub u32);

impl ChecksumSeed {
    /// The seed of a filesystem without `csum_seed`: the checksum of its UUID.
    #[must_use]
    pub fn from_uuid(uuid: &[u8; 16]) -> Self {
        ChecksumSeed(ext4_crc32c(u32::MAX, uuid))
    }

    /// The checksum of `bytes` under this seed.
    #[must_use]
    pub fn checksum(self, bytes: &[u8]) -> u32 {
        ext4_crc32c(self.0, bytes)
    }
}

/// crc32c of `bytes` continued from `seed`, neither inverted before nor after.
#[must_use]
pub fn ext4_crc32c(seed: u32, bytes: &[u8]) -> u32 {
    // The crate follows the RFC 3720 convention, inverted at both ends; undo both.
    !crc32c::crc32c_append(!seed, bytes)
}

/// CRC-16 of `bytes` continued from `seed` (polynomial 0x8005 from the low end, no inversion: Linux `lib/crc16.c`).
#[must_use]
pub fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xA001 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_check_value_of_crc32c() {
        // RFC 3720 B.4 writes crc32c("123456789") = 0xe3069283 with both inversions.
        assert_eq!(!ext4_crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn crc16_follows_its_check_value() {
        // The catalogue's CRC-16/ARC gives 0xbb3d for "123456789"; ARC begins with 0, as this does if told to.
        assert_eq!(crc16(0, b"123456789"), 0xBB3D);
        assert_eq!(crc16(crc16(u16::MAX, b"abc"), b"def"), crc16(u16::MAX, b"abcdef"));
    }

    #[test]
    fn a_checksum_can_be_continued() {
        let whole = ext4_crc32c(7, b"abcdef");
        assert_eq!(ext4_crc32c(ext4_crc32c(7, b"abc"), b"def"), whole);
    }
}
