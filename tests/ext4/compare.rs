//! Ours and tune2fs's from the same input, byte by byte. What may differ is listed here; any other byte fails.

use std::ops::Range;
use std::path::Path;
use std::slice::from_ref;

use crate::images::{
    Change, Folder, clean, differences, for_each, get, good, has_tools, header, said, shows,
};
use crate::layouts::{LAYOUTS, Layout};

/// What e2fsprogs renews in a superblock and we leave: `s_wtime`, `s_kbytes_written`, and so the checksum.
const LEFT: [Range<u64>; 4] = [0x30..0x34, 0x178..0x180, 0x274..0x275, 0x3FC..0x400];
/// What differs in a clean MMP block: time, node, device, and so the checksum.
const STAMPED: [Range<u64>; 2] = [0x08..0x70, 0x3FC..0x400];

/// Where all superblocks of an image begin, as dumpe2fs says.
fn superblocks(image: &Path) -> Vec<u64> {
    let block: u64 = header(image, "Block size").unwrap().parse().unwrap();
    let text = good("dumpe2fs", &[image.to_str().unwrap()]);
    let mut found = vec![1024];
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("Backup superblock at ")) {
        let number: u64 = line.split([',', ' ']).next().unwrap().parse().unwrap();
        found.push(number * block);
    }
    found
}

/// Where the copies of the descriptors stand beside one of the superblock, without those of the group of block `mmp`: of
/// the others we leave what stood there, and tune2fs renews it.
fn others_copies(image: &Path, mmp: u64) -> impl Fn(u64) -> bool {
    let number = |key| header(image, key).map(|text| text.parse::<u64>().unwrap());
    let [block, first, per_group] =
        ["Block size", "First block", "Blocks per group"].map(|key| number(key).unwrap());
    let descriptor = number("Group descriptor size").unwrap_or(32);
    let own = (mmp - first) / per_group % (block / descriptor);
    let text = good("dumpe2fs", &[image.to_str().unwrap()]);
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.trim().starts_with("Backup superblock at ")) {
        let Some((_, blocks)) = line.split_once(" descriptors at ") else { continue };
        let (from, to) = blocks.trim().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| text.parse::<u64>().unwrap());
        found.push(from * block..(to + 1) * block);
    }
    move |at| found.iter().any(|range| range.contains(&at)) && at % block / descriptor != own
}

/// Two images differ in nothing but these places, and in the descriptors' copies, of which the first has what `base` has.
fn only(base: &Path, mmp: u64, one: &Path, other: &Path, allowed: &[Range<u64>]) {
    let differences = differences(one, other);
    let is_others_copy = others_copies(base, mmp);
    for (at, left, right) in differences {
        let stays = is_others_copy(at) && get(base, at, 1) == [left];
        assert!(
            stays || allowed.iter().any(|range| range.contains(&at)),
            "byte {at:#x}: {left:#04x} in {}, {right:#04x} in {}",
            one.display(),
            other.display()
        );
    }
}

/// The places in each of the superblocks, and in the MMP block.
fn places(image: &Path, mmp: Option<(u64, &[Range<u64>])>) -> Vec<Range<u64>> {
    let within = |start: u64, fields: &[Range<u64>]| {
        fields.iter().map(|field| start + field.start..start + field.end).collect::<Vec<_>>()
    };
    let mut places: Vec<_> = superblocks(image).into_iter().flat_map(|start| within(start, &LEFT)).collect();
    if let Some((start, fields)) = mmp {
        places.extend(within(start, fields));
    }
    places
}

struct Images<'a> {
    folder: &'a Folder,
    layout: &'a Layout,
    block_bytes: u64,
}

impl Images<'_> {
    fn mmp_offset(&self, image: &Path) -> u64 {
        shows(image).unwrap().0 * self.block_bytes
    }

    /// Enabled by both: the same, and e2fsck, dumpe2fs and debugfs agree.
    fn enabled(&self, base: &Path, ours: &Path, theirs: &Path) {
        Change::Enable(5).by_us(ours);
        Change::Enable(5).by_tune2fs(theirs);
        clean(ours);
        self.layout.has_kept(ours, self.folder, "kept-on");
        let offset = self.mmp_offset(ours);
        assert_eq!(shows(ours).map(|(_, interval)| interval), Some(5));
        if self.layout.same_block {
            only(base, offset / self.block_bytes, ours, theirs, &places(base, Some((offset, &STAMPED))));
        } else {
            assert_ne!(shows(ours), shows(theirs));
        }
        let dumped = good("debugfs", &["-R", "dump_mmp", ours.to_str().unwrap()]);
        for line in ["node_name: alpha", "device_name: sdb1", "check_interval: 5", "sequence: ff4d4d50"] {
            assert!(dumped.contains(line), "{line}: {dumped}");
        }
    }

    /// Off again by us, whoever switched it on: as tune2fs leaves it, but for the block, of which we leave zeroes.
    fn disabled(&self, base: &Path, on: &[&Path], by_tune2fs: &Path) {
        let whole = 0..self.block_bytes;
        for on in on {
            let places = places(base, Some((self.mmp_offset(on), from_ref(&whole))));
            let off = self.folder.copy(on, "off");
            Change::Disable.by_us(&off);
            clean(&off);
            assert_eq!(shows(&off), None);
            assert!(get(&off, self.mmp_offset(on), 1024).iter().all(|&byte| byte == 0));
            self.layout.has_kept(&off, self.folder, "kept-off");
            if self.layout.same_block {
                only(base, self.mmp_offset(on) / self.block_bytes, &off, by_tune2fs, &places);
            }
        }
    }

    /// Another interval.
    fn set(&self, base: &Path, ours: &Path, by_tune2fs: &Path) {
        let set = self.folder.copy(ours, "set");
        Change::Set(30).by_us(&set);
        clean(&set);
        assert_eq!(shows(&set).map(|(_, interval)| interval), Some(30));
        // tune2fs also claims the block, and leaves its own mark.
        let offset = self.mmp_offset(ours);
        let places = places(base, Some((offset, from_ref(&(0..0x400)))));
        only(base, offset / self.block_bytes, &set, by_tune2fs, &places);
    }
}

fn case(layout: &Layout) {
    let folder = Folder::new();
    let base = layout.make(&folder);
    clean(&base);
    let block_bytes = header(&base, "Block size").unwrap().parse().unwrap();
    let images = Images { folder: &folder, layout, block_bytes };
    let (ours, theirs) = (folder.copy(&base, "ours"), folder.copy(&base, "theirs"));
    images.enabled(&base, &ours, &theirs);
    // Each of these takes tune2fs 11 s or more of sleep.
    let (undone, gone, reset) =
        (folder.copy(&ours, "undone"), folder.copy(&theirs, "gone"), folder.copy(&ours, "reset"));
    std::thread::scope(|scope| {
        scope.spawn(|| Change::Disable.by_tune2fs(&undone));
        scope.spawn(|| Change::Disable.by_tune2fs(&gone));
        scope.spawn(|| Change::Set(30).by_tune2fs(&reset));
    });
    clean(&undone);
    assert_eq!(shows(&undone), None, "tune2fs undoes ours");
    images.disabled(&base, &[&ours, &theirs], &gone);
    images.set(&base, &ours, &reset);
}

#[test]
fn ours_and_tune2fs_s_are_the_same_but_for_what_is_listed() {
    if has_tools() {
        for_each(&LAYOUTS, |layout| layout.name.to_owned(), case);
    }
}

#[test]
fn what_is_on_or_off_already_is_told_with_its_interval() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let image = folder.mke2fs("already", "8M", &["-t", "ext4", "-b", "1024", "-O", "mmp"]);
    let before = std::fs::read(&image).unwrap();
    let mut editor =
        mmpguard::io::Editor::open_to_plan(&mmpguard::io::Device::inspect(&image).unwrap()).unwrap();
    let mut planned = |change: Change| format!("{:?}", change.plan(&image, &mut editor).unwrap());
    assert_eq!(planned(Change::Enable(9)), "Already { interval_s: 5 }");
    assert_eq!(planned(Change::Set(5)), "Already { interval_s: 5 }");
    let output = crate::images::run("tune2fs", &["-f", "-O", "^mmp", image.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(planned(Change::Disable), "Already { interval_s: 0 }");
    assert_eq!(before.len(), std::fs::read(&image).unwrap().len());
}
