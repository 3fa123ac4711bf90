//! The edits of `ext4` on real devices: sectors of 512 and 4096 bytes, and what the kernel says of the result.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use mmpguard::Error;
use mmpguard::ext4::{self, Bytes, Planned, Wanted};
use mmpguard::format::superblock::SUPERBLOCK_BYTES;
use mmpguard::format::{DeviceName, Image, MmpBlock, NodeName, Superblock};
use mmpguard::io::{Device, Editor};
use mmpguard::protocol::sequence::{SEQ_CLEAN, Sequence};

use crate::disks::{Loop, Mount, image, must, ready, run, scratch};

#[test]
fn an_edit_changes_what_was_meant_in_sectors_of_any_size() {
    if !ready("an_edit_changes_what_was_meant_in_sectors_of_any_size") {
        return;
    }
    for sector in [512, 4096] {
        let (_dir, path, mut bytes) = image();
        let disk = Loop::new(&path, sector, &[]);
        let mut editor = Editor::open(&Device::inspect(disk.path()).expect("inspects")).expect("opens");
        // Somebody's page cache, that would show the old bytes.
        let cached = File::open(disk.path()).expect("opens");
        let mut old = [0; 8192];
        cached.read_exact_at(&mut old, 0).expect("reads");
        for (at, length) in [(1024_usize, 1024_usize), (2048, 1024), (5000, 1), (8192, 65_536)] {
            editor.write_at(at as u64, &vec![0xEE; length]).expect("writes");
            bytes[at..at + length].fill(0xEE);
            assert!(fs::read(&path).expect("reads") == bytes, "{length} bytes at {at}, sector {sector}");
        }
        editor.finish().expect("drops the cache");
        let mut now = [0; 8192];
        cached.read_exact_at(&mut now, 0).expect("reads");
        assert!(now[..] == bytes[..8192]);
    }
}

struct Filesystem {
    disk: Loop,
    folder: tempfile::TempDir,
}

impl Filesystem {
    fn change(&self, plan: impl Fn(&Path, &mut dyn Bytes) -> Result<Planned, Error>) {
        let mut editor = Editor::open(&Device::inspect(self.disk.path()).expect("inspects")).expect("opens");
        match plan(self.disk.path(), &mut editor).expect("is in order") {
            Planned::Do(plan) => plan.carry_out(&mut editor, &mut |_| Ok(())).expect("writes"),
            already => panic!("{already:?}"),
        }
        editor.finish().expect("drops the cache");
    }

    /// What stands in the MMP block; nothing if MMP is off.
    fn block(&self) -> Option<MmpBlock> {
        let device = Device::inspect(self.disk.path()).expect("inspects");
        let mut superblock = [0; SUPERBLOCK_BYTES];
        device.read_at(1024, &mut superblock).expect("reads");
        let superblock = Superblock::decode(&superblock).expect("decodes");
        let offset = superblock.mmp_offset_bytes().ok()?;
        let mut image: Image = [0; 1024];
        device.read_at(offset, &mut image).expect("reads");
        Some(MmpBlock::decode(&image, superblock.checksum_seed).expect("decodes"))
    }

    /// Mounts it, and does something with it.
    fn mounted(&self, what: impl Fn(&Path)) {
        let point = self.folder.path().join("mnt");
        fs::create_dir_all(&point).expect("makes a directory");
        let device = self.disk.path().to_str().expect("UTF-8");
        must("mount", &["-t", "ext4", device, point.to_str().expect("UTF-8")]);
        let mount = Mount(point.clone());
        what(&point);
        must("sync", &["-f", point.to_str().expect("UTF-8")]);
        drop(mount);
        let looked = run("e2fsck", &["-fn", device]);
        assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stdout));
    }
}

/// The kernel mounts what we switched on, beats in the block, and leaves it clean; it mounts what we switched off.
#[test]
fn the_kernel_uses_what_was_switched_on_and_what_was_switched_off_again() {
    if !ready("the_kernel_uses_what_was_switched_on_and_what_was_switched_off_again") {
        return;
    }
    for (sector, args) in [
        (512, &["-b", "1024"][..]),
        (512, &["-b", "1024", "-O", "^has_journal,^metadata_csum,uninit_bg"]),
        (512, &["-b", "4096", "-g", "512", "-O", "meta_bg,^resize_inode"]),
        (4096, &["-b", "4096", "-g", "512"]),
        (4096, &["-b", "4096", "-C", "16384", "-g", "512", "-O", "bigalloc"]),
    ] {
        let folder = scratch().expect("makes a directory");
        let image = folder.path().join("disk.img");
        File::create(&image).and_then(|file| file.set_len(48 << 20)).expect("makes it");
        let disk = Loop::new(&image, sector, &[]);
        must("mkfs.ext4", &[&["-q", "-F"], args, &[disk.path().to_str().expect("UTF-8")]].concat());
        let filesystem = Filesystem { disk, folder };
        filesystem.mounted(|point| fs::write(point.join("kept"), vec![7; 100_000]).expect("writes"));
        assert_eq!(filesystem.block(), None);

        filesystem.change(|path, bytes| {
            let (node, device) = (NodeName::new("alpha"), DeviceName::new("sdb1"));
            ext4::enable(path, bytes, &Wanted { interval_s: 1, node, device, time_s: 1 })
        });
        let block = filesystem.block().expect("is on");
        assert_eq!((block.seq, block.node), (SEQ_CLEAN, NodeName::new("alpha")));
        filesystem.mounted(|point| {
            let block = filesystem.block().expect("is on");
            assert!(matches!(Sequence::from(block.seq), Sequence::Live(_)), "the kernel beats: {block:?}");
            assert!(fs::read(point.join("kept")).expect("reads") == vec![7; 100_000]);
            fs::write(point.join("more"), vec![8; 3_000_000]).expect("writes");
        });
        assert_eq!(filesystem.block().expect("is on").seq, SEQ_CLEAN, "{args:?}");

        filesystem.change(|path, bytes| ext4::set_interval(path, bytes, 3));
        filesystem.change(|path, bytes| ext4::disable(path, bytes));
        assert_eq!(filesystem.block(), None);
        filesystem.mounted(|point| {
            assert!(fs::read(point.join("more")).expect("reads") == vec![8; 3_000_000]);
            fs::write(point.join("again"), vec![9; 3_000_000]).expect("writes");
        });
    }
}
