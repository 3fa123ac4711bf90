//! What one look and one beat cost in the codec, without any I/O.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mmpguard::format::superblock::SUPERBLOCK_BYTES;
use mmpguard::format::{
    ChecksumSeed, DeviceName, MMP_STRUCT_BYTES, MmpBlock, NodeName, Superblock, name::escape,
};

/// The image `mmp demo` carries: metadata checksums, so the superblock's is computed too.
const DEMO: &[u8] = include_bytes!("../testimages/demo.img");

fn codec(criterion: &mut Criterion) {
    let superblock = *DEMO[1024..].first_chunk::<SUPERBLOCK_BYTES>().unwrap();
    let seed = Some(ChecksumSeed(0x1234_5678));
    let block = MmpBlock {
        seq: 1,
        time_s: 1_700_000_000,
        node: NodeName::new("node-a.example.org"),
        device: DeviceName::new("sdb1"),
        check_interval_s: 5,
    };
    let mut image = [0; MMP_STRUCT_BYTES];
    block.encode_into(&mut image, seed);

    let mut group = criterion.benchmark_group("codec");
    group.bench_function("decode, checksum verified", |bench| {
        bench.iter(|| MmpBlock::decode(black_box(&image), black_box(seed)).unwrap());
    });
    group.bench_function("decode, no checksum", |bench| {
        bench.iter(|| MmpBlock::decode(black_box(&image), None).unwrap());
    });
    group.bench_function("encode with checksum", |bench| {
        bench.iter(|| black_box(&block).encode_into(black_box(&mut image), black_box(seed)));
    });
    group.bench_function("superblock", |bench| {
        bench.iter(|| Superblock::decode(black_box(&superblock)).unwrap().mmp_offset_bytes().unwrap());
    });
    group.finish();
    criterion
        .bench_function("escape a node name", |bench| bench.iter(|| escape(black_box(block.node.bytes()))));
}

criterion_group!(benches, codec);
criterion_main!(benches);
