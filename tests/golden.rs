//! The codec against images that e2fsprogs and the kernel made (`testimages/README.md`), and against the test
//! vectors of `mmp-format.md`. Three sources have to agree: the bytes as decoded here, what `dumpe2fs` and
//! `debugfs` printed of them, and the table below, which was written by hand.

mod images;
mod vectors;

use Seed::{FromUuid, NoChecksums, Stored};
use mmpguard::format::superblock::{
    COMPAT_HAS_JOURNAL, INCOMPAT_RECOVER, STATE_VALID, SUPERBLOCK_BYTES, SuperblockError,
};
use mmpguard::format::{BlockDamage, ChecksumSeed, Image, MMP_STRUCT_BYTES, MmpBlock, Superblock};
use vectors::{parse, uuid, vectors};

const CLEAN: u32 = 0xFF4D_4D50;
const FSCK: u32 = 0xE24D_4D50;

/// Where metadata checksums start from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seed {
    NoChecksums,
    FromUuid,
    Stored,
}

/// What decodes from one image.
struct Good {
    image: &'static str,
    block_bytes: u32,
    first_data_block: u32,
    mmp_block: u64,
    seed: Seed,
    unclean: bool,
    interval_s: u16,
    seq: u32,
    node: &'static str,
    device: &'static str,
    check_interval_s: u16,
}

/// An image as mke2fs leaves it, interval 1: block size, MMP block, seed.
const fn made(
    image: &'static str,
    device: &'static str,
    block_bytes: u32,
    mmp_block: u64,
    seed: Seed,
) -> Good {
    Good {
        image,
        block_bytes,
        first_data_block: if block_bytes == 1024 { 1 } else { 0 },
        mmp_block,
        seed,
        unclean: false,
        interval_s: 1,
        seq: CLEAN,
        node: "golden",
        device,
        check_interval_s: 5,
    }
}

const NODE_64: &str = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";

const GOOD: &[Good] = &[
    made("b1k", "b1k.img", 1024, 1122, FromUuid),
    made("b2k", "b2k.img", 2048, 13, FromUuid),
    made("b4k", "b4k.img", 4096, 1162, FromUuid),
    made("b64k", "b64k.img", 65536, 7, FromUuid),
    Good { interval_s: 5, ..made("interval-default", "interval-default.img", 4096, 8, FromUuid) },
    Good { interval_s: 0, ..made("interval-0", "interval-0.img", 4096, 8, FromUuid) },
    Good {
        interval_s: 30,
        check_interval_s: 30,
        ..made("interval-30", "interval-30.img", 4096, 8, FromUuid)
    },
    Good {
        interval_s: 300,
        check_interval_s: 300,
        ..made("interval-300", "interval-300.img", 4096, 8, FromUuid)
    },
    made("no-csum", "no-csum.img", 4096, 8, NoChecksums),
    made("uninit-bg", "uninit-bg.img", 4096, 8, NoChecksums),
    made("bits-32", "bits-32.img", 4096, 8, FromUuid),
    made("csum-seed", "csum-seed.img", 4096, 8, Stored),
    made("bigalloc", "bigalloc.img", 4096, 96, FromUuid),
    Good { first_data_block: 0, ..made("bigalloc-1k", "bigalloc-1k.img", 1024, 160, FromUuid) },
    made("meta-bg", "meta-bg.img", 1024, 1300, FromUuid),
    made("no-flex-bg", "no-flex-bg.img", 1024, 604, FromUuid),
    made("ext3", "ext3.img", 1024, 1119, NoChecksums),
    made("ext2", "ext2.img", 1024, 54, NoChecksums),
    made("revision-0", "revision-0.img", 1024, 38, NoChecksums),
    Good { node: NODE_64, ..made("names-full", "a-device-path-of-more-than-32-by", 1024, 54, NoChecksums) },
    Good { seq: FSCK, ..made("fsck-mark", "fsck-mark.img", 4096, 8, NoChecksums) },
    Good { seq: 0x6F1E_F842, ..made("claim-killed", "claim-killed.img", 4096, 8, FromUuid) },
    Good { seq: 3, node: "vm", unclean: true, ..made("kernel-live", "loop0", 1024, 1330, FromUuid) },
    Good { node: "vm", ..made("kernel-clean", "loop0", 1024, 1330, FromUuid) },
    Good { seq: 3, node: "vm", unclean: true, ..made("kernel-no-journal", "loop0", 1024, 32, FromUuid) },
    Good { seq: 0, ..made("sequence-0", "sequence-0.img", 1024, 54, NoChecksums) },
    Good { seq: 0xE24D_4D51, ..made("sequence-unknown", "sequence-unknown.img", 1024, 54, NoChecksums) },
];

/// The images that do not decode, and what stops it.
const BAD: &[(&str, &str)] = &[
    ("no-mmp", "MMP is not enabled"),
    ("journal-device", "is an external journal"),
    ("block-out-of-range", "the superblock is damaged: MMP block 512"),
    ("damaged-superblock", "the superblock is damaged: bad checksum"),
    ("damaged-magic", "bad magic 0x004d4d51 at its byte 0 "),
    ("damaged-checksum", "bad checksum 0x"),
];

#[derive(Debug)]
enum Trouble {
    Superblock(SuperblockError),
    Block(BlockDamage),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Superblock(error) => error.fmt(f),
            Trouble::Block(damage) => damage.fmt(f),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<(Superblock, Image, MmpBlock), Trouble> {
    let superblock = bytes[1024..].first_chunk::<SUPERBLOCK_BYTES>().unwrap();
    let superblock = Superblock::decode(superblock).map_err(Trouble::Superblock)?;
    let offset = usize::try_from(superblock.mmp_offset_bytes().map_err(Trouble::Superblock)?).unwrap();
    let image = *bytes[offset..].first_chunk::<MMP_STRUCT_BYTES>().unwrap();
    let block = MmpBlock::decode(&image, superblock.checksum_seed).map_err(Trouble::Block)?;
    Ok((superblock, image, block))
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{text} is not hex"))
}

/// The three feature words, from the names dumpe2fs prints.
fn features(names: &str) -> [u32; 3] {
    let mut words = [0; 3];
    for name in names.split_whitespace() {
        let (word, bit) = match name {
            "has_journal" => (0, 0x4),
            "ext_attr" => (0, 0x8),
            "resize_inode" => (0, 0x10),
            "dir_index" => (0, 0x20),
            "filetype" => (1, 0x2),
            "needs_recovery" => (1, 0x4),
            "meta_bg" => (1, 0x10),
            "extent" => (1, 0x40),
            "64bit" => (1, 0x80),
            "mmp" => (1, 0x100),
            "flex_bg" => (1, 0x200),
            "metadata_csum_seed" => (1, 0x2000),
            "sparse_super" => (2, 0x1),
            "large_file" => (2, 0x2),
            "huge_file" => (2, 0x8),
            "uninit_bg" => (2, 0x10),
            "dir_nlink" => (2, 0x20),
            "extra_isize" => (2, 0x40),
            "bigalloc" => (2, 0x200),
            "metadata_csum" => (2, 0x400),
            other => panic!("a feature without a bit here: {other}"),
        };
        words[word] |= bit;
    }
    words
}

#[test]
fn every_image_stands_in_exactly_one_table() {
    let mut listed: Vec<_> = GOOD.iter().map(|good| good.image).chain(BAD.iter().map(|bad| bad.0)).collect();
    listed.sort_unstable();
    assert_eq!(images::names(), listed);
}

#[test]
fn images_decode_to_what_the_table_says() {
    for want in GOOD {
        let (superblock, _, block) =
            decode(&images::load(want.image)).unwrap_or_else(|trouble| panic!("{}: {trouble}", want.image));
        let from_uuid = ChecksumSeed::from_uuid(&superblock.uuid);
        let seed = match superblock.checksum_seed {
            None => NoChecksums,
            Some(seed) if seed == from_uuid => FromUuid,
            Some(_) => Stored,
        };
        let layout = (superblock.block_bytes, superblock.first_data_block, superblock.mmp_block);
        assert_eq!(layout, (want.block_bytes, want.first_data_block, want.mmp_block), "{}", want.image);
        let rest = (seed, superblock.in_use_or_unclean(), superblock.mmp_update_interval_s);
        assert_eq!(rest, (want.seed, want.unclean, want.interval_s), "{}", want.image);
        assert_eq!((block.seq, block.check_interval_s), (want.seq, want.check_interval_s), "{}", want.image);
        assert_eq!((&*block.node.to_string(), &*block.device.to_string()), (want.node, want.device));
    }
}

#[test]
fn images_decode_to_what_e2fsprogs_prints() {
    for name in GOOD.iter().map(|good| good.image) {
        let (superblock, image, block) = decode(&images::load(name)).unwrap();
        let printed = images::printed(name);
        let number = |key: &str| parse::<u64>(&printed, key);
        let text = |key: &str| parse::<String>(&printed, key);
        assert_eq!(superblock.blocks_count, number("Block count"), "{name}");
        assert_eq!(u64::from(superblock.first_data_block), number("First block"), "{name}");
        assert_eq!(u64::from(superblock.block_bytes), number("Block size"), "{name}");
        assert_eq!(superblock.uuid, uuid(&text("Filesystem UUID")), "{name}");
        assert_eq!(superblock.mmp_block, number("MMP block number"), "{name}");
        assert_eq!(u64::from(superblock.mmp_update_interval_s), number("MMP update interval"), "{name}");
        assert_eq!(superblock.state & STATE_VALID != 0, text("Filesystem state") == "clean", "{name}");
        let words = [superblock.feature_compat, superblock.feature_incompat, superblock.feature_ro_compat];
        assert_eq!(words, features(&text("Filesystem features")), "{name}");
        let unclean = match words[0] & COMPAT_HAS_JOURNAL {
            0 => text("Filesystem state") != "clean",
            _ => words[1] & INCOMPAT_RECOVER != 0,
        };
        assert_eq!(superblock.in_use_or_unclean(), unclean, "{name}");
        if let Some(seed) = printed.get("Checksum seed") {
            assert_eq!(superblock.checksum_seed.map(|seed| u64::from(seed.0)), Some(hex(seed)), "{name}");
        }
        // What follows is debugfs's, the same fields by another program.
        assert_eq!(superblock.mmp_block, number("block_number"), "{name}");
        assert_eq!(u64::from(superblock.mmp_update_interval_s), number("update_interval"), "{name}");
        assert_eq!(u64::from(block.seq), hex(&text("sequence")), "{name}");
        assert_eq!(u64::from(block.seq), hex(&text("mmp_sequence")), "{name}");
        assert_eq!(block.time_s, number("mmp_update_time"), "{name}");
        assert_eq!(text("time").split(' ').next(), Some(&*block.time_s.to_string()), "{name}");
        for key in ["node_name", "mmp_node_name"] {
            assert_eq!(block.node.to_string(), text(key), "{name}");
        }
        for key in ["device_name", "mmp_device_name"] {
            assert_eq!(block.device.to_string(), text(key), "{name}");
        }
        assert_eq!(u64::from(block.check_interval_s), number("check_interval"), "{name}");
        let checksum = u32::from_le_bytes(*image.last_chunk().unwrap());
        assert_eq!(u64::from(checksum), hex(&text("checksum")), "{name}");
        let computed = superblock.checksum_seed.map(|seed| seed.checksum(&image[..0x3FC]));
        assert_eq!(checksum, computed.unwrap_or(0), "{name}");
    }
}

#[test]
fn encoding_a_decoded_block_gives_the_same_bytes() {
    for name in GOOD.iter().map(|good| good.image) {
        let (superblock, image, block) = decode(&images::load(name)).unwrap();
        let mut again = image;
        again[..0x72].fill(0xA5);
        if superblock.checksum_seed.is_some() {
            again[0x3FC..].fill(0xA5);
        }
        block.encode_into(&mut again, superblock.checksum_seed);
        assert!(again == image, "{name}");
    }
}

#[test]
fn damaged_and_foreign_images_are_refused_with_the_reason() {
    for (name, reason) in BAD {
        let trouble = decode(&images::load(name)).err().unwrap_or_else(|| panic!("{name} decodes"));
        assert!(trouble.to_string().contains(reason), "{name}: {trouble}");
        let damaged = match &trouble {
            Trouble::Superblock(error) => error.is_damage(),
            Trouble::Block(_) => true,
        };
        assert_eq!(damaged, reason.contains("damaged") || reason.starts_with("bad"), "{name}");
    }
}

#[test]
fn the_demo_image_is_small_and_ready_to_be_held() {
    let bytes = std::fs::read(images::folder().join("demo.img")).unwrap();
    let (superblock, _, block) = decode(&bytes).unwrap();
    assert!(bytes.len() <= 128 * 1024);
    assert_eq!(bytes.len() as u64, superblock.blocks_count * u64::from(superblock.block_bytes));
    assert_eq!((superblock.block_bytes, superblock.mmp_update_interval_s), (1024, 1));
    assert_eq!((block.seq, superblock.in_use_or_unclean()), (CLEAN, false));
    assert!(superblock.checksum_seed.is_some() && superblock.feature_compat & COMPAT_HAS_JOURNAL == 0);
}

#[test]
fn the_documents_checksum_vectors_hold() {
    let found = vectors("crc32c", None);
    assert_eq!(found.len(), 2);
    for vector in found {
        let result = ChecksumSeed(vector.hex("start")).checksum(&vector.bytes);
        assert_eq!(result, vector.hex("result"));
    }
}

#[test]
fn the_documents_superblock_vectors_hold() {
    let found = vectors("superblock", Some(SUPERBLOCK_BYTES));
    assert_eq!(found.len(), 3);
    for vector in found {
        assert_eq!(images::load(vector.image())[1024..2048], vector.bytes, "{}", vector.title);
        let superblock = Superblock::decode(vector.bytes.first_chunk().unwrap()).unwrap();
        let number = |key: &str| parse::<u64>(&vector.values, key);
        assert_eq!(u64::from(superblock.block_bytes), number("block_bytes"));
        assert_eq!(u64::from(superblock.first_data_block), number("first_data_block"));
        assert_eq!(superblock.blocks_count, number("blocks_count"));
        assert_eq!(superblock.uuid, uuid(&vector.values["uuid"]));
        assert_eq!(u64::from(superblock.mmp_update_interval_s), number("update_interval"));
        assert_eq!(superblock.mmp_block, number("mmp_block"));
        assert_eq!(superblock.checksum_seed, vector.seed());
    }
}

#[test]
fn the_documents_block_vectors_hold() {
    let found = vectors("block", Some(MMP_STRUCT_BYTES));
    assert_eq!(found.len(), 9);
    assert_eq!(found.iter().filter(|vector| vector.values.contains_key("refused")).count(), 2);
    for vector in found {
        let image = vector.bytes.first_chunk().unwrap();
        let decoded = MmpBlock::decode(image, vector.seed());
        match (vector.values.get("refused").map(String::as_str), decoded) {
            (Some("magic"), Err(BlockDamage::Magic { .. })) => {}
            (Some("checksum"), Err(BlockDamage::Checksum { .. })) => {}
            (None, Ok(block)) => {
                assert_eq!(block.seq, vector.hex("sequence"), "{}", vector.title);
                assert_eq!(block.time_s, parse::<u64>(&vector.values, "time"));
                assert_eq!(block.node.to_string(), vector.values["node"]);
                assert_eq!(block.device.to_string(), vector.values["device"]);
                assert_eq!(block.check_interval_s, parse::<u16>(&vector.values, "check_interval"));
                assert!(decode(&images::load(vector.image())).unwrap().1 == *image, "{}", vector.title);
            }
            (refused, decoded) => panic!("{}: {refused:?}, {decoded:?}", vector.title),
        }
    }
}
