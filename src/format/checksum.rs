//! crc32c as ext4 uses it: seeded, without the final inversion (Linux `fs/ext4/ext4.h`, `ext4_chksum`).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_check_value_of_crc32c() {
        // RFC 3720 B.4 writes crc32c("123456789") = 0xe3069283 with both inversions.
        assert_eq!(!ext4_crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_checksum_can_be_continued() {
        let whole = ext4_crc32c(7, b"abcdef");
        assert_eq!(ext4_crc32c(ext4_crc32c(7, b"abc"), b"def"), whole);
    }
}
