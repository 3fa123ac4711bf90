#!/bin/bash
# Makes the golden images and README.md of this folder with e2fsprogs. Nothing of mmpguard takes part: what the
# images say is the peers' word. The tests read only what is checked in, so this runs when an image is added.
#
# Needs: root (unshare, loop device), e2fsprogs, faketime, script(1). Takes half a minute: every writer that is
# not mke2fs waits out the MMP interval first.
# The clock is frozen and the process numbers begin anew, so e2fsprogs' "random" sequences come out the same each
# time. The kernel-* images are the exception: the kernel has the real clock and the real host name.
set -euo pipefail
cd "$(dirname "$0")"

if [ "${GOLDEN_NAMESPACE:-}" != yes ]; then
    exec env GOLDEN_NAMESPACE=yes unshare --uts --pid --fork --kill-child --mount --mount-proc "$0" "$@"
fi
hostname golden
out=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

export TZ=UTC LC_ALL=C PAGER=cat DEBUGFS_PAGER=cat
export MKE2FS_CONFIG=/nonexistent              # mke2fs's built-in defaults, not the distribution's
export E2FSPROGS_FAKE_TIME=1700000000          # stamps in the superblock
# ... and mmp_time, which takes no notice of the former. Preloaded by hand, since faketime(1) keeps a semaphore
# named after its process number.
lib=$(faketime -f '2023-11-14 22:13:20' printenv LD_PRELOAD)
frozen() { LD_PRELOAD=$lib FAKETIME='2023-11-14 22:13:20' "$@"; }

number=0
table=""

# mkfs NAME SIZE OPTIONS...: one image as mke2fs leaves it.
mkfs() {
    local name=$1 size=$2
    shift 2
    number=$((number + 1))
    truncate -s "$size" "$name.img" # mke2fs alone leaves a file shorter than its filesystem
    frozen mke2fs -q -F -m 0 -U "$(printf '6d6d7067-7561-7264-0000-%012d' $number)" "$@" "$name.img" "$size" >mkfs.err 2>&1 \
        || { cat mkfs.err >&2; exit 1; }
}

# Every -E list begins with these.
E=hash_seed=6d6d7067-7561-7264-ffff-000000000000,nodiscard

# keep NAME COMMAND SHOWS: the image, what e2fsprogs prints of it, and its line in the table.
keep() {
    local name=$1
    {
        echo "\$ dumpe2fs -h $name.img"
        dumpe2fs -h "$name.img" 2>/dev/null || true
        echo "\$ debugfs -R dump_mmp $name.img"
        debugfs -R dump_mmp "$name.img" 2>/dev/null || true
    } >"$out/$name.dumpe2fs.txt"
    gzip -9nc "$name.img" >"$out/$name.img.gz"
    table+="| \`$name\` | $2 | $3 |"$'\n'
}

# simple NAME SHOWS SIZE OPTIONS...: an image that mke2fs alone makes.
simple() {
    local name=$1 shows=$2 size=$3
    shift 3
    mkfs "$name" "$size" "$@"
    local command="mke2fs $* $name.img $size"
    keep "$name" "\`${command//$E/\$E}\`" "$shows"
}

# poke NAME OFFSET BYTES: writes bytes (printf notation) at a byte offset.
poke() { printf "$3" | dd of="$1.img" bs=1 seek="$2" conv=notrunc status=none; }

# mmp_byte NAME: where the MMP block begins.
mmp_byte() {
    dumpe2fs -h "$1.img" 2>/dev/null | awk '/^Block size:/ {size = $3} /^MMP block number:/ {block = $4} END {print size * block}'
}

# sequence NAME: mmp_seq as hex digits, read from the bytes.
sequence() { od -An -tx4 -j $(($(mmp_byte "$1") + 4)) -N 4 "$1.img" | tr -d ' '; }

# until_sequence NAME PATTERN: waits (30 s at most) until the sequence matches a case pattern.
until_sequence() {
    local _
    for _ in $(seq 300); do
        # shellcheck disable=SC2254
        case $(sequence "$1") in $2) return 0 ;; esac
        sleep 0.1
    done
    echo "$1: the sequence never became $2" >&2
    return 1
}

live='[0-9a-d]*' # whatever begins like this is below 0xe24d4d50

### Block sizes and features, as mke2fs leaves them.
simple b1k "1 KiB blocks: the first data block is 1" 2M -t ext4 -b 1024 -O mmp -E $E,mmp_update_interval=1
simple b2k "2 KiB blocks" 2M -t ext4 -b 2048 -O 'mmp,^has_journal' -E $E,mmp_update_interval=1
simple b4k "4 KiB blocks, with a journal" 8M -t ext4 -b 4096 -O mmp -E $E,mmp_update_interval=1
simple b64k "64 KiB blocks, which a kernel with smaller pages may not mount" 4M -t ext4 -b 65536 -O 'mmp,^has_journal' -E $E,mmp_update_interval=1
simple interval-default "mke2fs's own interval, 5 s" 2M -t ext4 -b 4096 -O 'mmp,^has_journal' -E $E
simple interval-30 "interval 30 s: the check interval is 30 too, not 60" 2M -t ext4 -b 4096 -O 'mmp,^has_journal' -E $E,mmp_update_interval=30
simple interval-300 "the longest interval mke2fs takes" 2M -t ext4 -b 4096 -O 'mmp,^has_journal' -E $E,mmp_update_interval=300
simple no-csum "ext4 with neither metadata_csum nor uninit_bg" 2M -t ext4 -b 4096 -O 'mmp,^has_journal,^metadata_csum' -E $E,mmp_update_interval=1
simple uninit-bg "group checksums only: the MMP block has none" 2M -t ext4 -b 4096 -O 'mmp,^has_journal,^metadata_csum,uninit_bg' -E $E,mmp_update_interval=1
simple bits-32 "without the 64bit feature" 2M -t ext4 -b 4096 -O 'mmp,^has_journal,^64bit' -E $E,mmp_update_interval=1
simple bigalloc "clusters of 16 blocks" 4M -t ext4 -b 4096 -C 65536 -O 'mmp,^has_journal,bigalloc' -E $E,mmp_update_interval=1
simple bigalloc-1k "with bigalloc the first data block is 0 at 1 KiB blocks too" 4M -t ext4 -b 1024 -C 16384 -O 'mmp,^has_journal,bigalloc' -E $E,mmp_update_interval=1
simple meta-bg "group descriptors spread over the groups; three groups" 20M -t ext4 -b 1024 -O 'mmp,^has_journal,meta_bg,^resize_inode' -E $E,mmp_update_interval=1
simple no-flex-bg "without flex_bg; three groups" 20M -t ext4 -b 1024 -O 'mmp,^has_journal,^flex_bg' -E $E,mmp_update_interval=1
simple ext3 "ext3 with the mmp feature" 2M -t ext3 -b 1024 -O mmp -E $E,mmp_update_interval=1
simple ext2 "ext2 with the mmp feature" 1M -t ext2 -b 1024 -O mmp -E $E,mmp_update_interval=1
simple no-mmp "no mmp feature" 2M -t ext4 -b 4096 -O '^has_journal' -E $E
simple journal-device "an external journal: no filesystem" 2M -O journal_dev -b 1024 -E $E

long=a-device-path-of-more-than-32-bytes
hostname "$(printf 'n%.0s' $(seq 64))"
mkfs $long 1M -t ext2 -b 1024 -O mmp -E $E,mmp_update_interval=1
hostname golden
mv $long.img names-full.img
keep names-full "as \`ext2\`, on a host whose name has 64 bytes, under a path of more than 32" "both name fields without NUL"

### Changed afterwards, by e2fsprogs.
# Each of these sleeps out the MMP interval, so they run side by side, each with its own process numbers.
apart() { exec env LD_PRELOAD="$lib" FAKETIME='2023-11-14 22:13:20' unshare --pid --fork --kill-child "$@"; }

mkfs csum-seed 2M -t ext4 -b 4096 -O 'mmp,^has_journal,metadata_csum_seed' -E $E,mmp_update_interval=1
apart tune2fs -U 6d6d7067-7561-7264-eeee-eeeeeeeeeeee csum-seed.img >/dev/null &

mkfs interval-0 2M -t ext4 -b 4096 -O 'mmp,^has_journal' -E $E,mmp_update_interval=1
apart debugfs -w -R 'set_super_value mmp_interval 0' interval-0.img 2>/dev/null &

mkfs revision-0 1M -t ext2 -b 1024 -I 128 -O mmp -E $E,mmp_update_interval=1
apart debugfs -w -R 'set_super_value rev_level 0' revision-0.img 2>/dev/null &

mkfs block-out-of-range 2M -t ext4 -b 4096 -O 'mmp,^has_journal' -E $E,mmp_update_interval=1
# The first number beyond the end. debugfs, having changed it, cannot clear its own mark, which stays in block 8.
apart debugfs -w -R 'set_super_value mmp_block 512' block-out-of-range.img >/dev/null 2>&1 &

# e2fsck at a question: a link count that is wrong makes it ask. It is looked at while it waits for the answer,
# then killed.
mkfs fsck-mark 2M -t ext4 -b 4096 -O 'mmp,^has_journal,^metadata_csum' -E $E,mmp_update_interval=1
table_block=$(dumpe2fs fsck-mark.img 2>/dev/null | sed -n 's/.*Inode table at \([0-9]*\)-.*/\1/p')
poke fsck-mark $((table_block * 4096 + 10 * 256 + 0x1A)) '\x07' # i_links_count of inode 11, lost+found
mkfifo question
apart script -qefc 'e2fsck -f fsck-mark.img' fsck.log <question >/dev/null &
asking=$!
exec 9>question

# e2fsck killed while it waits after its claim: a live sequence under its names. Without metadata_csum.
mkfs claim-killed 2M -t ext4 -b 4096 -O 'mmp,^has_journal' -E $E,mmp_update_interval=1
apart e2fsck -fy claim-killed.img >/dev/null 2>&1 &
claimer=$!
until_sequence claim-killed "$live"
kill -9 $claimer
wait $claimer 2>/dev/null || true

until_sequence fsck-mark e24d4d50
for _ in $(seq 100); do grep -q '<y>' fsck.log && break; sleep 0.1; done
grep -q 'Fix<y>' fsck.log
kill -9 $asking
wait $asking 2>/dev/null || true
exec 9>&-
wait

keep csum-seed "\`mke2fs -t ext4 -b 4096 -O mmp,^has_journal,metadata_csum_seed -E \$E,mmp_update_interval=1 csum-seed.img 2M\`; \`tune2fs -U 6d6d7067-7561-7264-eeee-eeeeeeeeeeee csum-seed.img\`" \
    "the checksum seed is stored, and is no longer the checksum of the UUID"
keep interval-0 "as \`interval-default\`; \`debugfs -w -R 'set_super_value mmp_interval 0'\`" \
    "interval 0 in the superblock, which means 5 (mke2fs itself writes 5 for it)"
keep revision-0 "\`mke2fs -t ext2 -b 1024 -I 128 -O mmp -E \$E,mmp_update_interval=1 revision-0.img 1M\`; \`debugfs -w -R 'set_super_value rev_level 0'\`" \
    "feature flags in a superblock of revision 0: the kernel and e2fsprogs honour them"
keep block-out-of-range "as \`interval-default\`; \`debugfs -w -R 'set_super_value mmp_block 512'\`" \
    "the MMP block's number is the filesystem's length"
keep fsck-mark "mke2fs as \`no-csum\`; \`i_links_count\` of lost+found set to 7; \`e2fsck -f\` on a terminal, killed at its question" \
    "e2fsck's mark, never to be renewed"
keep claim-killed "mke2fs as \`interval-default\` with interval 1; \`e2fsck -fy\` killed 1 s after its claim" \
    "a live sequence whose holder is dead"

### By the kernel.
mkdir mnt

# mounted_copy NAME: mounts the image, copies it as it stands after two beats to copy.img, unmounts it.
mounted_copy() {
    local loop
    loop=$(losetup -f --show "$1.img")
    mount -t ext4 "$loop" mnt
    sleep 2.5
    sync -f mnt
    cp "$1.img" copy.img
    umount mnt
    losetup -d "$loop"
}

mkfs kernel-live 4M -t ext4 -b 1024 -O mmp -E $E,mmp_update_interval=1
mounted_copy kernel-live
mv kernel-live.img kernel-clean.img
mv copy.img kernel-live.img
keep kernel-live "mke2fs as \`b1k\`, 4M; mounted by Linux $(uname -r | cut -d. -f1,2), copied while mounted" \
    "what a host that lost its power leaves: a live sequence, \`needs_recovery\`"
keep kernel-clean "the same image after \`umount\`" "the kernel's clean mark, under its names; after the NUL stands what was there before"
mkfs kernel-no-journal 2M -t ext4 -b 1024 -O 'mmp,^has_journal' -E $E,mmp_update_interval=1
mounted_copy kernel-no-journal
mv copy.img kernel-no-journal.img
keep kernel-no-journal "as \`kernel-live\`, with \`^has_journal\`, 2M" "without a journal \`s_state\` alone says that it was in use"

### By hand: bytes that no tool writes.
mkfs sequence-0 1M -t ext2 -b 1024 -O mmp -E $E,mmp_update_interval=1
poke sequence-0 $(($(mmp_byte sequence-0) + 4)) '\0\0\0\0'
keep sequence-0 "as \`ext2\`; \`mmp_seq\` set to 0" "0 is a live sequence: the kernel's random start may be 0"
mkfs sequence-unknown 1M -t ext2 -b 1024 -O mmp -E $E,mmp_update_interval=1
poke sequence-unknown $(($(mmp_byte sequence-unknown) + 4)) '\x51\x4d\x4d\xe2'
keep sequence-unknown "as \`ext2\`; \`mmp_seq\` set to 0xE24D4D51" "a sequence without a meaning: refuse"
mkfs damaged-magic 1M -t ext2 -b 1024 -O mmp -E $E,mmp_update_interval=1
poke damaged-magic "$(mmp_byte damaged-magic)" 'Q'
keep damaged-magic "as \`ext2\`; first byte of the MMP block set to 0x51" "bad magic"
mkfs damaged-checksum 2M -t ext4 -b 4096 -O 'mmp,^has_journal' -E $E,mmp_update_interval=1
poke damaged-checksum $(($(mmp_byte damaged-checksum) + 0x200)) '\x01'
keep damaged-checksum "as \`interval-default\`, interval 1; byte 0x200 of the MMP block set to 1" "bad MMP checksum"
mkfs damaged-superblock 2M -t ext4 -b 4096 -O 'mmp,^has_journal' -E $E,mmp_update_interval=1
poke damaged-superblock $((1024 + 0x3A)) '\x03'
keep damaged-superblock "as \`interval-default\`, interval 1; \`s_state\` set to 3" "bad superblock checksum"

### The image of \`mmp demo\`, raw.
demo=(-t ext4 -b 1024 -N 16 -O "none,filetype,extent,sparse_super,metadata_csum,mmp" -E "$E,mmp_update_interval=1" -I 256)
mkfs demo 64k "${demo[@]}"
cp demo.img "$out/demo.img"
command="mke2fs ${demo[*]} demo.img 64k"

### README.md
version=$(mke2fs -V 2>&1 | sed -n '1s/mke2fs //p')
cat >"$out/README.md" <<README
# Golden images

Made by \`make.sh\` with e2fsprogs $version; nothing of mmpguard took part. \`NAME.img.gz\` is the image,
\`NAME.dumpe2fs.txt\` what \`dumpe2fs -h\` and \`debugfs -R dump_mmp\` print of it. \`tests/golden.rs\` compares them with
what this crate decodes, and has its own line of expectations for each.

Every mke2fs command also has \`-q -F -m 0 -U 6d6d7067-7561-7264-0000-\` and the image's number in twelve digits, and runs with
\`E2FSPROGS_FAKE_TIME=1700000000 MKE2FS_CONFIG=/nonexistent\` with libfaketime's \`FAKETIME='2023-11-14 22:13:20'\`, on the
host name \`golden\`. \`\$E\` is \`$E\`.
Running \`make.sh\` with the same e2fsprogs gives the same bytes, but for the \`kernel-\` images.

| image | made by | shows |
|---|---|---|
$table
\`demo.img\`, not compressed, is the image \`mmp demo\` carries: \`${command//$E/\$E}\`.
README
