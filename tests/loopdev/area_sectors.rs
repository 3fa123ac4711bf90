//! Logical blocks of 4096 bytes, and files on a tmpfs.

use crate::Case;
use crate::harness::areas::{Content, Made};
use crate::harness::cleanup;
use crate::harness::guarded::{spoiled, write_files};
use crate::harness::lun::{DIRECTORY_PREFIX, Lun, must, text};
use crate::harness::{observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("area_8_a_device_with_logical_blocks_of_4096_bytes", || sectors(4096)),
    ("area_8_a_device_with_logical_blocks_of_512_bytes", || sectors(512)),
    ("area_8_files_on_a_tmpfs", tmpfs),
];

fn sectors(bytes: u32) {
    let case = format!("area 8, {bytes}");
    let options = ["--interval", "500ms"];
    let lun = Lun::protected(
        Content::Xfs,
        Made { options: &options, sector_bytes: Some(bytes), ..Made::default() },
    );
    let told = must("blockdev", &["--getss", lun.a.path()]);
    assert_eq!(told.trim(), bytes.to_string());
    lun.run_true(lun.a.path()).expect(0);
    let mounted = lun.guarded(&lun.a, &[]);
    write_files(&mounted.dir, "file", 10).expect("writes");
    lun.refuses_the_other_host(&case, 0.85);
    lun.host_dies(Content::Xfs, &mounted);
    let taken = lun.guarded(&lun.b, &[]);
    assert_eq!(spoiled(&taken.dir, "file", 10), 0);
    lun.released(&taken.dir);
    Content::Xfs.check(&case, lun.image());
    lun.verb(&["area", "destroy", lun.a.path()]).expect(0);
    lun.run_true(lun.a.path()).expect(120).says("it is not protected");
    lun.verb(&["enable", lun.a.path()]).expect(0);
}

fn tmpfs() {
    let lun = Lun::blank(1 << 20);
    let prefix = format!("{DIRECTORY_PREFIX}{}-shm", cleanup::run());
    let directory =
        tempfile::Builder::new().prefix(&prefix).tempdir_in("/dev/shm").expect("makes a directory");
    let control = directory.path().join("control");
    let path = text(&control);
    lun.verb(&["area", "create", "--slots", "4", "--interval", "500ms", path]).expect(0);
    for name in ["one", "two"] {
        lun.verb(&["area", "slot", "add", path, name]).expect(0);
    }
    let [one, two] = ["one", "two"].map(|slot| format!("{path}:{slot}"));
    let mut run = lun.mmp(&["run", "--node", "alpha", &one, "--", "sleep", "1000"]);
    run.says("held", seconds(30));
    lun.run_true(&one).expect(121);
    // Another slot of the same file is another thing.
    lun.run_true(&two).expect(0);
    lun.verb(&["area", "list", path]).expect(0).says("holding").says("alpha");
    drop(run);

    let image = directory.path().join("image");
    let file = std::fs::File::create(&image).expect("makes it");
    file.set_len(20 << 20).expect("has that length");
    drop(file);
    Content::Ext3.make(&image, None);
    let path = text(&image);
    lun.verb(&["area", "create", "--interval", "500ms", path]).expect(0).says("an area of 1 slot");
    for _ in 0..2 {
        lun.run_true(path).expect(0);
    }
    let shown = lun.shown(path);
    assert_eq!(
        (&shown["area"]["place"], &shown["slot"]["state"]),
        (&"tail".into(), &"released".into()),
        "{shown:#}"
    );
    lun.verb(&["check", path]).expect(0).says("free");
    Content::Ext3.check("area 8, tmpfs", &image);
    observed("area 8", "a control area and an image with a tail area on /dev/shm");
}
