//! 1,000 images: `dumpe2fs -h` of each, one after the other, and one `mmp scan` of the directory, in one run. `cargo bench --bench scan`.
//!
//! Both read through the page cache, where the images are.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::checksum::ext4_crc32c;
use mmpguard::format::superblock::SUPERBLOCK_BYTES;
use mmpguard::format::{MmpBlock, Superblock};

const IMAGES: usize = 1000;
const ROUNDS: usize = 5;
const AT_LEAST: f64 = 25.0;
const GOLDEN: &[u8] = include_bytes!("../testimages/demo.img");
const SUPERBLOCK: usize = 1024;
const CHECKSUM: usize = 0x3FC;

fn main() {
    if Command::new("dumpe2fs").arg("-V").output().is_err() {
        println!("needs dumpe2fs to compare with: nothing was measured");
        return;
    }
    let directory = tempfile::Builder::new().prefix("mmpguard-bench-").tempdir_in("/var/tmp").expect("makes");
    for number in 0..IMAGES {
        fs::write(directory.path().join(format!("{number:04}.img")), image(number)).expect("writes");
    }
    run(&mut Command::new("sync"));
    let (mut peer, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        peer.push(timed(|| each_by_dumpe2fs(directory.path())));
        ours.push(timed(|| run(Command::new(env!("CARGO_BIN_EXE_mmp")).arg("scan").arg(directory.path()))));
    }
    let told =
        Command::new(env!("CARGO_BIN_EXE_mmp")).args(["scan", "--json"]).arg(directory.path()).output();
    let told = String::from_utf8(told.expect("runs").stdout).expect("is UTF-8");
    assert_eq!(told.matches("\"mmp\": \"native\"").count(), IMAGES, "all of them were seen");
    assert_eq!(told.matches("same UUID").count(), 0, "each has its own");
    let (peer_s, ours_s) = (median(peer), median(ours));
    let ratio = peer_s / ours_s;
    let met = if ratio >= AT_LEAST { "" } else { ", NOT MET" };
    println!("| {IMAGES} images, median of {ROUNDS} | s |\n|---|---:|");
    println!("| `dumpe2fs -h` of each | {peer_s:.3} |\n| `mmp scan` | {ours_s:.4} |");
    println!("| ratio (at least {AT_LEAST}{met}) | {ratio:.0} |");
}

/// The golden image with another UUID, and the checksums that this takes.
fn image(number: usize) -> Vec<u8> {
    let mut bytes = GOLDEN.to_vec();
    bytes[SUPERBLOCK + 0x68..][..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
    let sum = ext4_crc32c(u32::MAX, &bytes[SUPERBLOCK..][..CHECKSUM]);
    bytes[SUPERBLOCK + CHECKSUM..][..4].copy_from_slice(&sum.to_le_bytes());
    let superblock: &[u8; SUPERBLOCK_BYTES] = bytes[SUPERBLOCK..].first_chunk().expect("is within");
    let superblock = Superblock::decode(superblock).expect("decodes");
    let at = usize::try_from(superblock.mmp_offset_bytes().expect("has MMP")).expect("is small");
    let block = bytes[at..].first_chunk_mut().expect("is within");
    MmpBlock::fields(block).encode_into(block, superblock.checksum_seed);
    bytes
}

fn each_by_dumpe2fs(directory: &Path) {
    for entry in fs::read_dir(directory).expect("lists") {
        run(Command::new("dumpe2fs").arg("-h").arg(entry.expect("lists").path()));
    }
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("runs").success(), "{command:?}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = clock::mono();
    work();
    clock::mono().since(began)
}

fn median(mut spans: Vec<Duration>) -> f64 {
    spans.sort();
    spans[spans.len() / 2].as_secs_f64()
}
