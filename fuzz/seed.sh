#!/bin/sh
# Fills fuzz/corpus/ from the golden images and a made area: a fuzzer that begins with zeroes does not find its way past the magics.
set -eu
cd "$(dirname "$0")"
mkdir -p corpus/superblock corpus/mmp_block corpus/image corpus/area_header corpus/area_slot corpus/area_entry corpus/content corpus/ext4_edit corpus/scan_image
for packed in ../testimages/*.img.gz; do
    name=$(basename "$packed" .img.gz)
    gzip -dc "$packed" >corpus/whole
    dd if=corpus/whole of="corpus/superblock/$name" bs=1024 skip=1 count=1 status=none
    # The first byte says "ext"; the superblocks of XFS and btrfs are below.
    { printf '\000'; cat "corpus/superblock/$name"; } >"corpus/content/$name"
    # Whole ones, of at most 1 MiB; the first byte is an interval less one.
    [ "$(wc -c <corpus/whole)" -gt 1048576 ] || { printf '\004'; cat corpus/whole; } >"corpus/ext4_edit/$name"
    block=$(sed -n 's/^MMP block number: *//p' "../testimages/$name.dumpe2fs.txt")
    size=$(sed -n 's/^Block size: *//p' "../testimages/$name.dumpe2fs.txt")
    [ -n "$block" ] || continue
    # The first byte says "as it is, and once more with the right checksum".
    { printf '\002\001\002\003\004'; dd if=corpus/whole bs="$size" skip="$block" count=1 status=none | head -c 1024; } \
        >"corpus/mmp_block/$name"
    end=$((block * size + 1024))
    # A whole device, for the scan: those that are short.
    [ "$(stat -c %s corpus/whole)" -gt 1048576 ] || cp corpus/whole "corpus/scan_image/$name"
    # Longer ones only slow the fuzzer down.
    [ "$end" -gt 65536 ] || head -c "$end" corpus/whole >"corpus/image/$name"
done
# 3 slots: header, 3 slot blocks, 3 entry blocks, copy. The seed in front of a slot block may be any.
python3 ../tests/area_reader.py make corpus/whole --slots 3 --interval-ms 1000 --label seed --name data
cp corpus/whole corpus/scan_image/area
cp ../testimages/demo.img corpus/scan_image/demo
block() { dd if=corpus/whole bs=4096 skip="$1" count=1 status=none | head -c 1024; }
for number in 0 7; do block "$number" >"corpus/area_header/$number"; done
for number in 1 2 3; do { printf '\001\002\003\004'; block "$number"; } >"corpus/area_slot/$number"; done
for number in 4 5 6; do block "$number" >"corpus/area_entry/$number"; done
# Where the tools are: one filesystem of each, of which the superblock is kept.
if command -v mkfs.xfs >/dev/null; then
    rm -f corpus/whole
    mkfs.xfs -q -d name=corpus/whole,file,size=300m
    { printf '\001'; head -c 512 corpus/whole; } >corpus/content/xfs
fi
if command -v mkfs.btrfs >/dev/null; then
    rm -f corpus/whole
    truncate --size 128M corpus/whole
    mkfs.btrfs --quiet corpus/whole >/dev/null
    { printf '\002'; dd if=corpus/whole bs=4096 skip=16 count=1 status=none; } >corpus/content/btrfs
fi
rm -f corpus/whole
# More than one group, or clusters, in 1 MiB: the golden images of these are larger.
if command -v mke2fs >/dev/null; then
    while read -r name options; do
        truncate --size 1M corpus/whole
        # shellcheck disable=SC2086
        mke2fs -q -F -b 1024 -N 16 -I 128 $options corpus/whole 1M >/dev/null 2>&1
        { printf '\004'; cat corpus/whole; } >"corpus/ext4_edit/$name"
        rm -f corpus/whole
    done <<'LAYOUTS'
groups -t ext4 -g 256 -O ^has_journal,^resize_inode
meta-bg -t ext4 -g 256 -O ^has_journal,^resize_inode,meta_bg
bigalloc -t ext4 -C 4096 -O ^has_journal,^resize_inode,bigalloc
uninit-bg -t ext4 -g 256 -O ^has_journal,^resize_inode,^metadata_csum,uninit_bg
every-copy -t ext2 -g 256 -O ^resize_inode,^sparse_super
LAYOUTS
fi
