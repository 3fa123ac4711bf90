//! The superblock of the model's disk: an ext4 as mke2fs makes it, its interval 5 s, without `metadata_csum`, cleanly unmounted.
//! It never changes: that is the simulator's business.

use std::sync::LazyLock;

use byteorder::{ByteOrder, LittleEndian};

use crate::format::Superblock;
use crate::format::superblock::{COMPAT_HAS_JOURNAL, EXT4_SUPER_MAGIC, INCOMPAT_MMP, STATE_VALID};

pub(crate) static SUPERBLOCK: LazyLock<[u8; 1024]> = LazyLock::new(bytes);

pub(crate) fn decoded() -> Superblock {
    Superblock::decode(&SUPERBLOCK).expect("the superblock of the model decodes")
}

fn bytes() -> [u8; 1024] {
    let mut bytes = [0; 1024];
    let mut put_u32 = |at: usize, value: u32| LittleEndian::write_u32(&mut bytes[at..], value);
    put_u32(0x04, 25_600);
    put_u32(0x18, 2);
    put_u32(0x4C, 1);
    put_u32(0x5C, COMPAT_HAS_JOURNAL);
    put_u32(0x60, INCOMPAT_MMP);
    put_u32(0x168, 1234);
    LittleEndian::write_u16(&mut bytes[0x38..], EXT4_SUPER_MAGIC);
    LittleEndian::write_u16(&mut bytes[0x3A..], STATE_VALID);
    LittleEndian::write_u16(&mut bytes[0x166..], 5);
    bytes[0x68..0x78].copy_from_slice(b"a volume, model.");
    bytes[0x175] = 1;
    bytes
}
