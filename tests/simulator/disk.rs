//! The simulated shared disk: one superblock, of which mounting changes `needs_recovery` alone, one `mmp_struct`, written in sectors of 512 bytes.

use std::collections::VecDeque;
use std::rc::Rc;

use byteorder::{ByteOrder, LittleEndian};
use mmpguard::format::checksum::ext4_crc32c;
use mmpguard::format::superblock::{
    COMPAT_HAS_JOURNAL, EXT4_SUPER_MAGIC, INCOMPAT_MMP, INCOMPAT_RECOVER, RO_COMPAT_METADATA_CSUM,
    STATE_VALID,
};
use mmpguard::format::{DeviceName, Image, MmpBlock, NodeName, Superblock};

use super::areas::{AreaDisk, AreaPlan};

/// What a disk atomically writes.
const SECTOR_BYTES: usize = 512;

/// A read is answered within this time of its sample.
const REMEMBERED_NS: u64 = 2000 * 1_000_000_000;

/// What of a write lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Sector(usize),
}

/// How the filesystem on the disk was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filesystem {
    /// `s_mmp_update_interval`, in seconds.
    pub(crate) update_interval_s: u16,
    /// With `metadata_csum`.
    pub(crate) checksums: bool,
    /// With `needs_recovery`: a clean mark on it may lie.
    pub(crate) needs_recovery: bool,
}

/// What stands in the block when the simulation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Clean,
    /// A holder died and left this check interval, in seconds.
    Dead(u16),
}

pub(crate) struct Disk {
    /// What stood in the block, and since when; the last is what stands there.
    versions: VecDeque<(u64, Rc<Image>)>,
    filesystem: Filesystem,
    pub(crate) superblock_bytes: [u8; 1024],
    pub(crate) superblock: Superblock,
    pub(crate) area: Option<AreaDisk>,
}

impl Disk {
    pub(crate) fn new(filesystem: Filesystem, before: Before, area: Option<AreaPlan>) -> Self {
        let superblock_bytes = superblock_bytes(filesystem);
        let superblock = Superblock::decode(&superblock_bytes).expect("the simulated superblock decodes");
        let (seq, check_interval_s) = match before {
            Before::Clean => (crate::protocol::sequence::SEQ_CLEAN, 5),
            Before::Dead(check_interval_s) => (77, check_interval_s),
        };
        let mut disk =
            Disk { versions: VecDeque::new(), filesystem, superblock_bytes, superblock, area: None };
        if let Some(area) = area {
            let (first, header, area) = AreaDisk::new(area, before);
            disk.versions.push_back((0, Rc::new(first)));
            (disk.superblock_bytes, disk.area) = (header, Some(area));
            return disk;
        }
        let names = (NodeName::new("long-gone"), DeviceName::new("sdz"));
        let mut image = [0; 1024];
        disk.encode(&mut image, seq, 1_700_000_000, Some(names), Some(check_interval_s));
        disk.versions.push_back((0, Rc::new(image)));
        disk
    }

    /// Changes what is given and leaves the rest of `image`, as `write_mmp_block` does with its buffer.
    pub(crate) fn encode(
        &self,
        image: &mut Image,
        seq: u32,
        time_s: u64,
        names: Option<(NodeName, DeviceName)>,
        check_interval_s: Option<u16>,
    ) {
        let old = MmpBlock::fields(image);
        let (node, device) = names.unwrap_or((old.node, old.device));
        let check_interval_s = check_interval_s.unwrap_or(old.check_interval_s);
        MmpBlock { seq, time_s, node, device, check_interval_s }
            .encode_into(image, self.superblock.checksum_seed);
    }

    /// The superblock's `needs_recovery`, as mounting and unmounting set it.
    pub(crate) fn set_needs_recovery(&mut self, needs_recovery: bool) {
        if needs_recovery != self.filesystem.needs_recovery {
            self.filesystem.needs_recovery = needs_recovery;
            self.superblock_bytes = superblock_bytes(self.filesystem);
        }
    }

    /// A write lands, or one sector of it.
    pub(crate) fn land(&mut self, now: u64, image: &Rc<Image>, part: Part) {
        let image = match part {
            Part::Whole => Rc::clone(image),
            Part::Sector(sector) => {
                let bytes = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                let mut torn = **self.image();
                torn[bytes.clone()].copy_from_slice(&image[bytes]);
                Rc::new(torn)
            }
        };
        self.versions.push_back((now, image));
        // The second one stood from its own time on: nobody asks for what was there before it, long ago.
        while self.versions.get(1).is_some_and(|(since, _)| since + REMEMBERED_NS < now) {
            self.versions.pop_front();
        }
    }

    /// What stands there.
    pub(crate) fn image(&self) -> &Rc<Image> {
        &self.versions.back().expect("there is always one").1
    }

    /// Since when it has.
    pub(crate) fn stands_since(&self) -> u64 {
        self.versions.back().expect("there is always one").0
    }

    /// What stood there at that time.
    pub(crate) fn image_at(&self, at: u64) -> &Rc<Image> {
        let found = self.versions.iter().rev().find(|(since, _)| *since <= at);
        &found.expect("what is asked for is remembered").1
    }

    /// False while the block stands torn.
    pub(crate) fn decodes(&self) -> bool {
        match &self.area {
            Some(area) => area.decodes(self.image()),
            None => MmpBlock::decode(self.image(), self.superblock.checksum_seed).is_ok(),
        }
    }

    /// What stands there, checked or not.
    pub(crate) fn block(&self) -> MmpBlock {
        MmpBlock::fields(self.image())
    }
}

/// A superblock of 4 KiB blocks, by hand: what `Superblock::decode` and `mmp_offset_bytes` look at.
fn superblock_bytes(filesystem: Filesystem) -> [u8; 1024] {
    let mut bytes = [0; 1024];
    let mut put_u32 = |at: usize, value: u32| LittleEndian::write_u32(&mut bytes[at..], value);
    put_u32(0x04, 25_600);
    put_u32(0x18, 2);
    put_u32(0x4C, 1);
    put_u32(0x5C, COMPAT_HAS_JOURNAL);
    put_u32(0x60, INCOMPAT_MMP | if filesystem.needs_recovery { INCOMPAT_RECOVER } else { 0 });
    put_u32(0x64, if filesystem.checksums { RO_COMPAT_METADATA_CSUM } else { 0 });
    put_u32(0x168, 1234);
    LittleEndian::write_u16(&mut bytes[0x38..], EXT4_SUPER_MAGIC);
    LittleEndian::write_u16(&mut bytes[0x3A..], STATE_VALID);
    LittleEndian::write_u16(&mut bytes[0x166..], filesystem.update_interval_s);
    bytes[0x68..0x78].copy_from_slice(b"simulated volume");
    bytes[0x175] = 1;
    let checksum = ext4_crc32c(u32::MAX, &bytes[..0x3FC]);
    LittleEndian::write_u32(&mut bytes[0x3FC..], checksum);
    bytes
}
