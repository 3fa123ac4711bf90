//! The layouts that are tried: block sizes, features, many groups, full ones, and ones without a bitmap.

use std::path::{Path, PathBuf};

use crate::images::{Folder, good, put};

/// A filesystem that mke2fs makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    size: &'static str,
    args: &'static [&'static str],
    /// What is done to it before.
    fill: Fill,
    /// tune2fs takes the same block: it would also take one of a group without a bitmap.
    pub(crate) same_block: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fill {
    /// One file, by which a loss would be seen.
    File,
    /// The first group is full, and others have no bitmap yet.
    FirstGroup,
    /// Of four groups, only this one has a free block, and it has no bitmap yet.
    OnlyUnwritten(usize),
}

const fn layout(name: &'static str, size: &'static str, args: &'static [&'static str]) -> Layout {
    Layout { name, size, args, fill: Fill::File, same_block: true }
}

const fn filled(
    name: &'static str,
    size: &'static str,
    args: &'static [&'static str],
    fill: Fill,
    same_block: bool,
) -> Layout {
    Layout { name, size, args, fill, same_block }
}

/// All of them.
pub(crate) const LAYOUTS: [Layout; 30] = [
    layout("ext2-1k", "40M", &["-t", "ext2", "-b", "1024"]),
    layout("ext2-1k-every-copy", "40M", &["-t", "ext2", "-b", "1024", "-O", "^sparse_super,^resize_inode"]),
    layout("ext2-4k", "20M", &["-t", "ext2", "-b", "4096", "-g", "512"]),
    layout("ext2-revision-0", "24M", &["-t", "ext2", "-r", "0", "-b", "1024", "-O", "none"]),
    layout("ext3-1k", "40M", &["-t", "ext3", "-b", "1024"]),
    layout("ext3-2k", "64M", &["-t", "ext3", "-b", "2048", "-g", "4096"]),
    layout("ext4-1k", "40M", &["-t", "ext4", "-b", "1024"]),
    layout("ext4-2k", "64M", &["-t", "ext4", "-b", "2048", "-g", "2048"]),
    layout("ext4-4k", "48M", &["-t", "ext4", "-b", "4096", "-g", "512"]),
    layout("ext4-4k-one-group", "16M", &["-t", "ext4", "-b", "4096"]),
    layout("ext4-64k", "96M", &["-t", "ext4", "-b", "65536", "-g", "256", "-O", "^has_journal"]),
    layout(
        "ext4-64k-narrow",
        "64M",
        &["-t", "ext4", "-b", "65536", "-g", "512", "-O", "^64bit,^has_journal"],
    ),
    layout("no-journal", "40M", &["-t", "ext4", "-b", "1024", "-O", "^has_journal"]),
    layout("narrow", "40M", &["-t", "ext4", "-b", "1024", "-O", "^64bit"]),
    layout("no-checksums", "40M", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"]),
    layout("no-checksums-narrow", "40M", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"]),
    layout("uninit-bg", "40M", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg"]),
    layout("uninit-bg-narrow", "40M", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg,^64bit"]),
    layout("csum-seed", "40M", &["-t", "ext4", "-b", "1024", "-O", "metadata_csum_seed"]),
    layout("no-flex-bg", "40M", &["-t", "ext4", "-b", "1024", "-O", "^flex_bg"]),
    layout("flex-bg-4", "48M", &["-t", "ext4", "-b", "1024", "-G", "4", "-g", "1024"]),
    layout("meta-bg", "40M", &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"]),
    layout(
        "meta-bg-many",
        "48M",
        &["-t", "ext4", "-b", "1024", "-g", "512", "-O", "meta_bg,^resize_inode,^flex_bg"],
    ),
    layout(
        "bigalloc-4k",
        "80M",
        &["-t", "ext4", "-b", "4096", "-C", "16384", "-g", "1024", "-O", "bigalloc"],
    ),
    layout(
        "bigalloc-1k",
        "64M",
        &["-t", "ext4", "-b", "1024", "-C", "16384", "-g", "1024", "-O", "bigalloc"],
    ),
    layout("sparse-super2", "48M", &["-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode"]),
    layout(
        "orphan-file",
        "40M",
        &["-t", "ext4", "-b", "1024", "-O", "orphan_file,inline_data,ea_inode,large_dir"],
    ),
    filled("first-full", "40M", &["-t", "ext4", "-b", "1024"], Fill::FirstGroup, false),
    filled(
        "only-unwritten",
        "16M",
        &["-t", "ext4", "-b", "1024", "-g", "4096", "-O", "^has_journal"],
        Fill::OnlyUnwritten(2),
        true,
    ),
    filled(
        "only-unwritten-crc16",
        "32M",
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg,^flex_bg,^has_journal"],
        Fill::OnlyUnwritten(1),
        true,
    ),
];

/// The file that every one has: what a cut must not lose.
pub(crate) const KEPT: &str = "kept";

impl Layout {
    /// Makes it, as `base`.
    pub(crate) fn make(&self, folder: &Folder) -> PathBuf {
        let image = folder.mke2fs("base", self.size, self.args);
        let kept = folder.path("kept");
        std::fs::write(&kept, contents(self.name, 70_001)).unwrap();
        debugfs(&image, &format!("write {} {KEPT}", kept.display()));
        match self.fill {
            Fill::File => {}
            Fill::FirstGroup => {
                let free = groups(&image)[0];
                self.write(folder, &image, "low", free);
                assert_eq!(groups(&image)[0], 0, "the first group is full");
            }
            Fill::OnlyUnwritten(hole) => self.leave_one_unwritten(folder, &image, hole),
        }
        image
    }

    /// The kept file stands in an image as it was made.
    pub(crate) fn has_kept(&self, image: &Path, folder: &Folder, name: &str) {
        let to = folder.path(name);
        debugfs(image, &format!("dump {KEPT} {}", to.display()));
        assert!(std::fs::read(&to).unwrap() == contents(self.name, 70_001), "{name}: the file is another");
    }
}

impl Layout {
    /// A file that takes exactly so many blocks of 1 KiB.
    fn write(&self, folder: &Folder, image: &Path, name: &str, blocks: usize) {
        let path = folder.path(name);
        std::fs::write(&path, contents(name, blocks * 1024)).unwrap();
        debugfs(image, &format!("write {} {name}", path.display()));
    }

    /// All groups are full but one, which is empty and says that it never had a bitmap. What stands in place of that is
    /// none.
    fn leave_one_unwritten(&self, folder: &Folder, image: &Path, hole: usize) {
        let free = groups(image);
        assert_eq!(free.len(), 4, "{free:?}");
        self.write(folder, image, "low", free[..hole].iter().sum());
        self.write(folder, image, "hole", free[hole]);
        self.write(folder, image, "high", free[hole + 1..].iter().sum());
        assert_eq!(groups(image), [0; 4]);
        debugfs(image, "rm hole");
        let mut left = [0; 4];
        left[hole] = free[hole];
        assert_eq!(groups(image), left);
        // At once: what has a wrong checksum is not opened again.
        let requests = folder.path("requests");
        std::fs::write(&requests, format!("set_bg {hole} flags 0x7\nset_bg {hole} checksum calc\n")).unwrap();
        good("debugfs", &["-w", "-f", requests.to_str().unwrap(), image.to_str().unwrap()]);
        let text = good("dumpe2fs", &[image.to_str().unwrap()]);
        let mut bitmaps = text.lines().filter_map(|line| line.trim().strip_prefix("Block bitmap at "));
        let block: u64 = bitmaps.nth(hole).unwrap().split([' ', ',']).next().unwrap().parse().unwrap();
        put(image, block * 1024, &[0xA5; 1024]);
    }
}

fn contents(name: &str, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(name.bytes().map(u64::from).sum());
    (0..length).map(|_| random.u8(1..)).collect()
}

fn debugfs(image: &Path, request: &str) {
    let mode = if request.starts_with("dump ") { "-R" } else { "-wR" };
    good("debugfs", &[mode, request, image.to_str().unwrap()]);
}

/// How many blocks each group has free, as dumpe2fs says.
fn groups(image: &Path) -> Vec<usize> {
    let text = good("dumpe2fs", &[image.to_str().unwrap()]);
    let free = text.lines().filter_map(|line| line.trim().split_once(" free blocks"));
    free.map(|(count, _)| count.parse().unwrap()).collect()
}
