//! Reading at any place: of a device, of one that is open for several looks, of bytes in memory.
//!
//! Protects: whoever looks for something on a device can be tried on any bytes, without a device. Does not protect anything else.

use std::path::Path;
use std::time::Duration;

use super::Device;
use crate::clock;
use crate::error::Error;

/// Something that is as long as a device, and is read like one.
pub trait ReadAt {
    /// What it is called in messages.
    fn path(&self) -> &Path;

    /// How long it is, in bytes.
    fn size_bytes(&self) -> u64;

    /// Reads `into.len()` bytes at `offset_bytes`, any offset and any length.
    ///
    /// # Errors
    /// [`Error::Short`] if it ends before; [`Error::Io`] if it cannot be read.
    fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error>;

    /// Waits before what may have been torn by a concurrent write is read again. Bytes that nobody else writes need no wait.
    fn pause(&self, span: Duration) {
        clock::sleep(span);
    }
}

impl ReadAt for Device {
    fn path(&self) -> &Path {
        Device::path(self)
    }

    fn size_bytes(&self) -> u64 {
        Device::size_bytes(self)
    }

    fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        Device::read_at(self, offset_bytes, into)
    }
}

impl<T: ReadAt> ReadAt for &T {
    fn path(&self) -> &Path {
        (**self).path()
    }

    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), Error> {
        (**self).read_at(offset_bytes, into)
    }

    fn pause(&self, span: Duration) {
        (**self).pause(span);
    }
}
