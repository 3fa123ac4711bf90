//! A hash for keys that are whole numbers already.

use std::hash::{BuildHasherDefault, Hasher};

pub(crate) type Quick = BuildHasherDefault<Multiply>;

#[derive(Default)]
pub(crate) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn write_u128(&mut self, number: u128) {
        let halves = number.to_le_bytes();
        let (low, high) = halves.split_at(8);
        self.write_u64(u64::from_le_bytes(low.try_into().expect("eight bytes")));
        self.write_u64(u64::from_le_bytes(high.try_into().expect("eight bytes")));
    }
}
