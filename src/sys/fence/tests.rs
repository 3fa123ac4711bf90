//! Ladders prepared over trees that look like sysfs. Nothing here is climbed.

use super::*;
use crate::sys::fake_sysfs::FakeSysfs;

fn prepared(fake: &FakeSysfs, (major, minor): (u32, u32), filesystem: &str, ladder: &str) -> Summary {
    let target = Target { canonical: "/dev/x".into(), kind: TargetKind::Block { major, minor } };
    let target = FenceTarget { target, filesystem: filesystem.to_owned(), spare: Vec::new() };
    prepare_in(fake.sysfs(), &ladder.parse().unwrap(), &target).summary()
}

fn rung(summary: &Summary, rung: RungSpec) -> RungSummary {
    summary.rungs.iter().find(|it| it.rung == rung).unwrap().clone()
}

#[test]
fn a_scsi_disk_is_cut_off_for_every_filesystem() {
    let fake = FakeSysfs::new();
    fake.scsi("sda", (8, 0), "3:0:0:0");
    for filesystem in ["ext4", "xfs", "btrfs", ""] {
        let summary = prepared(&fake, (8, 0), filesystem, "auto");
        assert_eq!((summary.complete, summary.only_reboot), (true, false), "{filesystem}");
        assert_eq!(summary.first_complete, Some(RungSpec::Scsi));
        let scsi = rung(&summary, RungSpec::Scsi);
        assert!(scsi.possible && scsi.cut && scsi.complete && scsi.lacks.is_none(), "{scsi:?}");
        let dm = rung(&summary, RungSpec::Dm);
        assert_eq!((dm.possible, dm.what.as_str()), (false, "sda is no device mapper device"));
        assert!(rung(&summary, RungSpec::Unbind).what.contains("rung scsi"));
        assert!(rung(&summary, RungSpec::Kill).possible, "a cut may need it");
    }
}

#[test]
fn a_shutdown_is_complete_on_xfs_alone() {
    let fake = FakeSysfs::new();
    fake.bare("loop0", (7, 0));
    let xfs = prepared(&fake, (7, 0), "xfs", "shutdown");
    assert_eq!((xfs.complete, xfs.first_complete), (true, Some(RungSpec::Shutdown)));
    assert!(!xfs.rungs[0].cut);
    let ext4 = prepared(&fake, (7, 0), "ext4", "shutdown,kill");
    assert!(!ext4.complete && !ext4.only_reboot && ext4.rungs[0].possible);
    assert!(ext4.rungs[0].lacks.as_deref().unwrap().contains("after a cut only"));
    assert!(!prepared(&fake, (7, 0), "btrfs", "shutdown").rungs[0].possible);
}

#[test]
fn where_io_is_not_counted_a_cut_is_no_fence_and_a_vouch_is() {
    let fake = FakeSysfs::new();
    fake.scsi("sda", (8, 0), "3:0:0:0");
    fake.set("devices/block/sda/queue/iostats", "0\n");
    let summary = prepared(&fake, (8, 0), "xfs", "scsi,shutdown");
    assert!(!summary.complete && summary.rungs.iter().all(|rung| rung.possible));
    assert!(summary.rungs[0].lacks.as_deref().unwrap().contains("iostats is off"));
    let vouched = prepared(&fake, (8, 0), "xfs", "scsi,exec:/bin/sh");
    assert_eq!(vouched.first_complete, Some(RungSpec::Exec("/bin/sh".into())));
}

#[test]
fn auto_leaves_out_what_does_harm_or_only_delays_a_reboot() {
    let fake = FakeSysfs::new();
    fake.virtio("vda", (4000, 0), "virtio7");
    let ext4 = prepared(&fake, (4000, 0), "ext4", "auto");
    let unbind = rung(&ext4, RungSpec::Unbind);
    assert!(!unbind.possible && unbind.what.contains("auto leaves it out"), "{unbind:?}");
    // Whether a reboot is possible depends on who runs the test.
    if rung(&ext4, RungSpec::Reboot).possible {
        assert!(ext4.complete && ext4.only_reboot);
        for idle in [RungSpec::Shutdown, RungSpec::Kill] {
            assert!(rung(&ext4, idle).what.contains("only delays the reboot"));
        }
    } else {
        assert!(!ext4.complete && !ext4.only_reboot);
    }
    let asked = prepared(&fake, (4000, 0), "ext4", "unbind");
    assert!(asked.rungs[0].possible && asked.rungs[0].cut && !asked.complete);
    let xfs = prepared(&fake, (4000, 0), "xfs", "auto");
    assert_eq!(xfs.first_complete, Some(RungSpec::Unbind));
}

#[test]
fn an_unknown_device_and_a_file_have_reasons() {
    let fake = FakeSysfs::new();
    let summary = prepared(&fake, (9, 9), "xfs", "dm,scsi,unbind");
    assert!(summary.rungs.iter().all(|rung| rung.what == "sysfs does not know the device"));
    let target = Target { canonical: "/x".into(), kind: TargetKind::File { device: 1, inode: 2 } };
    let target = FenceTarget { target, filesystem: "xfs".to_owned(), spare: Vec::new() };
    let file = prepare_in(fake.sysfs(), &"dm,shutdown".parse().unwrap(), &target).summary();
    assert!(file.rungs[0].what.contains("image file") && file.rungs[1].what.contains("loop device"));
}

#[test]
fn a_summary_is_plain_json() {
    let fake = FakeSysfs::new();
    fake.scsi("sda", (8, 0), "3:0:0:0");
    let json = serde_json::to_value(prepared(&fake, (8, 0), "ext4", "scsi,dm")).unwrap();
    assert_eq!(json["ladder"], "scsi,dm");
    assert_eq!(json["first_complete"], "scsi");
    assert_eq!(json["rungs"][0]["complete"], true);
    assert_eq!(json["rungs"][1]["possible"], false);
}

#[test]
fn what_is_kept_open_is_named_for_a_fork() {
    let fake = FakeSysfs::new();
    fake.scsi("sda", (8, 0), "3:0:0:0");
    let target = Target { canonical: "/dev/x".into(), kind: TargetKind::Block { major: 8, minor: 0 } };
    let target = FenceTarget { target, filesystem: "xfs".to_owned(), spare: Vec::new() };
    let prepared = prepare_in(fake.sysfs(), &"scsi,shutdown".parse().unwrap(), &target);
    // The state and the removal of one path; its count, and whether it counts.
    assert_eq!(prepared.descriptors().len(), 4);
}
