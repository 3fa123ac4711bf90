//! Re-reading a block that was caught in the middle of a write.
//!
//! Protects: a read beside another host's write may be torn, and a torn block looks damaged for as long as that
//! write takes. Does not protect: a block that stays damaged is returned as it is, for the caller to judge.

use super::BlockStore;
use crate::clock;
use crate::error::Error;
use crate::format::Image;
use crate::protocol::timing::{TORN_PAUSE, TORN_REREADS};

/// Reads the block, and reads it again up to [`TORN_REREADS`] times, [`TORN_PAUSE`] apart, while it does not
/// decode. The bytes of the last read are the result either way.
///
/// Time this from its call to its return: the read that counts lies in between.
///
/// # Errors
/// As [`BlockStore::read`], from the first read that fails.
pub fn read_settled(store: &mut dyn BlockStore, decodes: impl Fn(&Image) -> bool) -> Result<Image, Error> {
    let mut image = *store.read()?;
    for _ in 0..TORN_REREADS {
        if decodes(&image) {
            break;
        }
        clock::sleep(TORN_PAUSE);
        image = *store.read()?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::format::superblock::SUPERBLOCK_BYTES;
    use crate::io::Durability;

    /// A block that is torn for its first `torn` reads.
    struct Torn {
        torn: u32,
        reads: u32,
        image: Image,
    }

    impl BlockStore for Torn {
        fn read(&mut self) -> Result<&Image, Error> {
            self.image[0] = u8::from(self.reads >= self.torn);
            self.reads += 1;
            Ok(&self.image)
        }
        fn write(&mut self, _: &Image, _: Durability) -> Result<(), Error> {
            unreachable!("a read writes nothing")
        }
        fn read_superblock(&mut self) -> Result<[u8; SUPERBLOCK_BYTES], Error> {
            unreachable!("not asked for")
        }
        fn open_for_writing(&mut self) -> Result<(), Error> {
            unreachable!("a read opens nothing for writing")
        }
        fn close(&mut self) {}
    }

    fn settle(torn: u32) -> (u8, u32, Duration) {
        let mut store = Torn { torn, reads: 0, image: [0; 1024] };
        let before = clock::mono();
        let image = read_settled(&mut store, |image| image[0] == 1).expect("reads");
        (image[0], store.reads, clock::mono().since(before))
    }

    #[test]
    fn a_whole_block_is_read_once() {
        let (first, reads, _) = settle(0);
        assert_eq!((first, reads), (1, 1));
    }

    #[test]
    fn a_torn_block_is_read_until_it_is_whole() {
        let (first, reads, took) = settle(2);
        assert_eq!((first, reads), (1, 3));
        assert!(took >= 2 * TORN_PAUSE);
        assert_eq!(settle(TORN_REREADS).0, 1, "the last try counts");
    }

    #[test]
    fn a_block_that_stays_damaged_is_returned_as_it_is() {
        let (first, reads, _) = settle(u32::MAX);
        assert_eq!((first, reads), (0, 1 + TORN_REREADS));
    }
}
