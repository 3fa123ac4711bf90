//! Layers below a device that hold I/O back for longer than a wait.
//!
//! Protects: what such a layer holds back it may let go when another host uses the device already, and a fence that waits for
//! it does not end in time; so it is found before anything is mounted. Does not protect: a target, a fabric or a hypervisor
//! that queues shows nothing here (a virtio disk waits for its host for ever), and settings may be changed later. Without root
//! only multipathd's own maps are known as multipaths, and that their tables were not read is said.
//!
//! Sources: Linux `Documentation/admin-guide/device-mapper/dm-mpath` and `drivers/md/dm-mpath.c` (`parse_features`),
//! `drivers/scsi/scsi_transport_iscsi.c` (`recovery_tmo`: -1 shows as `off`, and 0 fails at once),
//! `drivers/scsi/scsi_transport_fc.c`, `drivers/nvme/host/sysfs.c` (`ctrl_loss_tmo`, `fast_io_fail_tmo`),
//! `drivers/block/aoe/aoecmd.c` (`aoe_deadsecs`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use nix::libc;

use super::device_mapper::{self, Line};
use super::stack::{Bus, Disk, Layer, attribute};
use super::sysfs::{Sysfs, file_name};
use super::target::{Target, TargetKind};

/// So many waits are too long for anybody.
const REFUSED_FROM: u32 = 2;

/// The target that queues.
const MULTIPATH: &str = "multipath";

/// One layer that holds I/O back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueFinding {
    /// Which, and what it does. One line.
    pub what: String,
    /// For how long; `None` for ever, or where it could not be found out.
    pub seconds: Option<u64>,
    /// The command or the file that changes it.
    pub advice: String,
    /// Nothing should be mounted on it as it is.
    pub refuse: bool,
}

/// Finds them below `target`. Empty if every layer gives up within `wait`.
#[must_use]
pub fn check(target: &Target, wait: Duration) -> Vec<QueueFinding> {
    let control = device_mapper::open();
    let table = |device| match &control {
        Ok(control) => device_mapper::table_with(control, device, MULTIPATH),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    };
    check_in(Sysfs::host(), &table, target.kind, wait)
}

/// The table of a device mapper device, if it is a multipath's.
type Table<'a> = &'a dyn Fn(TargetKind) -> io::Result<Vec<Line>>;

fn check_in(sysfs: Sysfs<'_>, table: Table<'_>, device: TargetKind, wait: Duration) -> Vec<QueueFinding> {
    let Some(stack) = sysfs.stack(device) else { return Vec::new() };
    let mut found: Vec<_> = stack.layers.iter().filter_map(|it| multipath(it, table)).collect();
    for disk in &stack.disks {
        match &disk.bus {
            Bus::Scsi(device) => scsi(disk, device, wait, &mut found),
            Bus::Nvme(controllers) => found.extend(controllers.iter().filter_map(|it| nvme(it, wait))),
            Bus::Other(None) if disk.name.starts_with("etherd/") => found.extend(aoe(sysfs, disk, wait)),
            Bus::Virtio(_) | Bus::Other(_) => {}
        }
    }
    found.dedup();
    found
}

/// A map that queues while no path is left does so for ever; `no_path_retry` shows as the same feature as long as it lasts.
/// The table tells what a map is: its UUID says `mpath-` only where multipathd has made it, not where dmsetup has.
fn multipath(layer: &Layer, table: Table<'_>) -> Option<QueueFinding> {
    let (name, _) = layer.device_mapper()?;
    let lines = match table(layer.kind) {
        Ok(lines) => lines,
        // Most of what is not multipathd's is no multipath: without root, or when it is gone, that is nothing to tell.
        Err(error) if !layer.is_multipath() && nobody_answers(&error) => return None,
        Err(error) => {
            return Some(QueueFinding {
                what: format!(
                    "multipath map {name} ({}) may queue, its table cannot be read: {error}",
                    layer.name
                ),
                seconds: None,
                advice: format!("as root: dmsetup table {name}"),
                refuse: false,
            });
        }
    };
    let by_multipathd =
        format!("multipathd disablequeueing map {name}; for good: no_path_retry fail in /etc/multipath.conf");
    let by_hand =
        format!("dmsetup message {name} 0 fail_if_no_path; for good: a table without queue_if_no_path");
    let queues = |line: &Line| line.target == MULTIPATH && queues_if_no_path(&line.parameters);
    lines.iter().any(queues).then(|| QueueFinding {
        what: format!(
            "multipath map {name} ({}) queues I/O while it has no path (queue_if_no_path)",
            layer.name
        ),
        seconds: None,
        advice: if layer.is_multipath() { by_multipathd } else { by_hand },
        refuse: true,
    })
}

/// The device mapper refuses us, is not there, or has no such device any more.
fn nobody_answers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound)
        || error.raw_os_error() == Some(libc::ENXIO)
}

/// `COUNT FEATURE... ` begins a multipath's parameters.
fn queues_if_no_path(parameters: &str) -> bool {
    let mut words = parameters.split_ascii_whitespace();
    let count = words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    words.take(count).any(|word| word == "queue_if_no_path")
}

fn scsi(disk: &Disk, device: &Path, wait: Duration, found: &mut Vec<QueueFinding>) {
    let timeout = device.join("timeout");
    if let Some(seconds) = attribute(&timeout).and_then(|text| text.parse().ok())
        && Duration::from_secs(seconds) > wait
    {
        found.push(QueueFinding {
            what: format!("a SCSI command to {} may take {seconds} s before it is given up", disk.name),
            seconds: Some(seconds),
            advice: format!("echo {} >{}", whole(wait), timeout.display()),
            refuse: false,
        });
    }
    for ancestor in device.ancestors() {
        let name = file_name(ancestor);
        if name.starts_with("session") {
            let file = ancestor.join("iscsi_session").join(&name).join("recovery_tmo");
            let what = format!("iSCSI {name} of {} holds I/O back while it has no connection", disk.name);
            let advice = format!(
                "echo {} >{}; for good: node.session.timeo.replacement_timeout in iscsid.conf",
                whole(wait),
                file.display()
            );
            found.extend(limit(&file).and_then(|limit| judge(limit, wait, what, advice)));
        }
        if name.starts_with("rport-") {
            let of_port = ancestor.join("fc_remote_ports").join(&name);
            let file = of_port.join("fast_io_fail_tmo");
            // Off, the port's loss ends it.
            let fast = limit(&file).filter(|limit| *limit != Limit::Never);
            let effective = fast.or_else(|| limit(&of_port.join("dev_loss_tmo")));
            let what = format!("Fibre Channel port {name} of {} holds I/O back while it is lost", disk.name);
            let advice = format!(
                "echo {} >{}; for good: fast_io_fail_tmo in /etc/multipath.conf",
                whole(wait),
                file.display()
            );
            found.extend(effective.and_then(|limit| judge(limit, wait, what, advice)));
        }
    }
}

/// Over fabrics a controller that is lost holds I/O back until the first of two times.
fn nvme(controller: &Path, wait: Duration) -> Option<QueueFinding> {
    let file = controller.join("fast_io_fail_tmo");
    let fast = limit(&file).filter(|limit| *limit != Limit::Never);
    let effective = fast.or_else(|| limit(&controller.join("ctrl_loss_tmo")))?;
    let name = file_name(controller);
    let what = format!("NVMe controller {name} holds I/O back while it is lost");
    let advice = format!(
        "echo {} >{}; for good: nvme connect --fast_io_fail_tmo={}",
        whole(wait),
        file.display(),
        whole(wait)
    );
    judge(effective, wait, what, advice)
}

fn aoe(sysfs: Sysfs<'_>, disk: &Disk, wait: Duration) -> Option<QueueFinding> {
    let file: PathBuf = sysfs.0.join("module/aoe/parameters/aoe_deadsecs");
    let what = format!("AoE retries for {} before it gives a target up", disk.name);
    let advice = format!("echo {} >{}; for good: modprobe option aoe_deadsecs", whole(wait), file.display());
    judge(limit(&file)?, wait, what, advice)
}

/// How long an attribute lets I/O wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Seconds(u64),
    Never,
}

/// `off` and numbers below zero are "never".
fn limit(file: &Path) -> Option<Limit> {
    let text = attribute(file)?;
    match text.parse::<i64>() {
        Ok(seconds) => Some(u64::try_from(seconds).map_or(Limit::Never, Limit::Seconds)),
        Err(_) if text == "off" => Some(Limit::Never),
        Err(_) => None,
    }
}

fn judge(limit: Limit, wait: Duration, what: String, advice: String) -> Option<QueueFinding> {
    let (seconds, refuse) = match limit {
        Limit::Never => (None, true),
        Limit::Seconds(seconds) => {
            let span = Duration::from_secs(seconds);
            if span <= wait {
                return None;
            }
            (Some(seconds), span > wait * REFUSED_FROM)
        }
    };
    let how_long = seconds.map_or("for ever".to_owned(), |seconds| format!("for {seconds} s"));
    Some(QueueFinding { what: format!("{what}, {how_long}"), seconds, advice, refuse })
}

/// The longest time in whole seconds that is no finding.
fn whole(wait: Duration) -> u64 {
    wait.as_secs().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_sysfs::FakeSysfs;

    const WAIT: Duration = Duration::from_secs(11);

    fn found_with(fake: &FakeSysfs, number: (u32, u32), parameters: &str) -> Vec<QueueFinding> {
        let device = TargetKind::Block { major: number.0, minor: number.1 };
        // The first one is the multipath, what stands on it is not.
        let table = |of| {
            let multipath = of == TargetKind::Block { major: 253, minor: 0 };
            let target = if multipath { "multipath" } else { "linear" }.to_owned();
            Ok(vec![Line { target, parameters: if multipath { parameters } else { "253:0 0" }.to_owned() }])
        };
        check_in(fake.sysfs(), &table, device, WAIT)
    }

    fn found(fake: &FakeSysfs, number: (u32, u32)) -> Vec<QueueFinding> {
        found_with(fake, number, "0 0 1 1 service-time 0 1 2 8:0 1 1")
    }

    /// One SCSI disk whose commands end in time.
    fn scsi_disk() -> (FakeSysfs, String) {
        let fake = FakeSysfs::new();
        fake.scsi("sda", (8, 0), "3:0:0:0");
        let session = "devices/platform/host3/session3".to_owned();
        fake.set(&format!("{session}/target/3:0:0:0/timeout"), "5\n");
        (fake, session)
    }

    #[test]
    fn a_multipath_that_queues_is_refused_wherever_it_stands() {
        let (fake, _) = scsi_disk();
        fake.device_mapper("dm-0", (253, 0), ("mpatha", "mpath-3600"), &["sda"]);
        fake.device_mapper("dm-1", (253, 1), ("vg-lv", "LVM-1"), &["dm-0"]);
        let rest = "0 1 1 service-time 0 1 2 8:0 1 1";
        for features in ["1 queue_if_no_path", "3 queue_mode mq queue_if_no_path"] {
            let found = found_with(&fake, (253, 1), &format!("{features} {rest}"));
            assert_eq!(found.len(), 1);
            assert!(found[0].refuse && found[0].seconds.is_none() && found[0].what.contains("mpatha (dm-0)"));
            assert!(found[0].advice.contains("disablequeueing map mpatha"));
        }
        for features in ["0", "2 queue_mode mq", "1 retain_attached_hw_handler queue_if_no_path"] {
            assert_eq!(found_with(&fake, (253, 1), &format!("{features} {rest}")), [], "{features}");
        }
        assert!(!queues_if_no_path("") && !queues_if_no_path("x queue_if_no_path"));
    }

    #[test]
    fn a_multipath_that_was_made_without_multipathd_is_found() {
        let (fake, _) = scsi_disk();
        fake.device_mapper("dm-0", (253, 0), ("by-hand", ""), &["sda"]);
        let found = found_with(&fake, (253, 0), "1 queue_if_no_path 0 1 1 round-robin 0 1 1 8:0 1");
        assert!(found.len() == 1 && found[0].refuse && found[0].what.contains("by-hand (dm-0)"), "{found:?}");
        assert!(found[0].advice.contains("message by-hand 0 fail_if_no_path"), "{found:?}");
        let device = TargetKind::Block { major: 253, minor: 0 };
        let with = |errno: i32| {
            let failed = |_| Err(io::Error::from_raw_os_error(errno));
            check_in(fake.sysfs(), &failed, device, WAIT)
        };
        for errno in [libc::EACCES, libc::EPERM, libc::ENOENT, libc::ENXIO] {
            assert_eq!(with(errno), [], "most of what has no such UUID is none");
        }
        assert!(with(libc::EIO)[0].what.contains("cannot be read"), "a device mapper that fails is told");
    }

    #[test]
    fn a_table_that_cannot_be_read_is_said() {
        let (fake, _) = scsi_disk();
        fake.device_mapper("dm-0", (253, 0), ("mpatha", "mpath-3600"), &["sda"]);
        let denied = |_| Err(io::Error::from_raw_os_error(libc::EACCES));
        let found = check_in(fake.sysfs(), &denied, TargetKind::Block { major: 253, minor: 0 }, WAIT);
        assert!(
            found.len() == 1 && !found[0].refuse && found[0].what.contains("cannot be read"),
            "{found:?}"
        );
    }

    #[test]
    fn an_iscsi_session_is_measured_against_the_wait() {
        let (fake, session) = scsi_disk();
        let judged = |text: &str| {
            fake.set(&format!("{session}/iscsi_session/session3/recovery_tmo"), text);
            found(&fake, (8, 0)).into_iter().map(|it| (it.seconds, it.refuse)).collect::<Vec<_>>()
        };
        assert_eq!(judged("11\n"), []);
        assert_eq!(judged("0\n"), [], "fails at once");
        assert_eq!(judged("12\n"), [(Some(12), false)]);
        assert_eq!(judged("22\n"), [(Some(22), false)]);
        assert_eq!(judged("120\n"), [(Some(120), true)]);
        assert_eq!(judged("off\n"), [(None, true)]);
        assert_eq!(judged("-1\n"), [(None, true)]);
        let advice = &found(&fake, (8, 0))[0].advice;
        assert!(advice.starts_with("echo 11 >") && advice.contains("session3/recovery_tmo"), "{advice}");
    }

    #[test]
    fn a_command_that_may_take_long_is_told_and_not_refused() {
        let (fake, session) = scsi_disk();
        fake.set(&format!("{session}/target/3:0:0:0/timeout"), "180\n");
        let found = found(&fake, (8, 0));
        assert_eq!((found.len(), found[0].seconds, found[0].refuse), (1, Some(180), false));
        assert!(found[0].advice.ends_with("3:0:0:0/timeout"), "{}", found[0].advice);
    }

    #[test]
    fn a_fibre_channel_port_gives_up_at_the_first_of_its_times() {
        let fake = FakeSysfs::new();
        let disk = fake.bare("sda", (8, 0));
        let port = "devices/pci/host1/rport-1:0-2";
        fake.set(&format!("{port}/target/1:0:2:0/timeout"), "5\n");
        std::fs::create_dir_all(fake.path("bus/scsi")).unwrap();
        let device = fake.path(&format!("{port}/target/1:0:2:0"));
        std::os::unix::fs::symlink(&device, disk.join("device")).unwrap();
        std::os::unix::fs::symlink(fake.path("bus/scsi"), device.join("subsystem")).unwrap();
        let judged = |fast: &str, lost: &str| {
            let attributes = format!("{port}/fc_remote_ports/rport-1:0-2");
            fake.set(&format!("{attributes}/fast_io_fail_tmo"), fast);
            fake.set(&format!("{attributes}/dev_loss_tmo"), lost);
            found(&fake, (8, 0)).into_iter().map(|it| (it.seconds, it.refuse)).collect::<Vec<_>>()
        };
        assert_eq!(judged("5\n", "600\n"), []);
        assert_eq!(judged("off\n", "600\n"), [(Some(600), true)]);
        assert_eq!(judged("off\n", "10\n"), []);
        assert_eq!(judged("15\n", "600\n"), [(Some(15), false)]);
    }

    #[test]
    fn nvme_over_fabrics_gives_up_at_the_first_of_its_times() {
        let fake = FakeSysfs::new();
        fake.nvme_multipath("nvme0n1", (259, 0), &[("nvme0", "a"), ("nvme1", "b")]);
        assert_eq!(found(&fake, (259, 0)), [], "PCI has neither");
        let set = |fast: &str, lost: &str| {
            fake.set("devices/pci/b/nvme/nvme1/fast_io_fail_tmo", fast);
            fake.set("devices/pci/b/nvme/nvme1/ctrl_loss_tmo", lost);
            found(&fake, (259, 0))
        };
        assert_eq!(
            set("off\n", "600\n").iter().map(|it| (it.seconds, it.refuse)).collect::<Vec<_>>(),
            [(Some(600), true)]
        );
        assert_eq!(set("off\n", "off\n")[0].seconds, None);
        assert_eq!(set("5\n", "600\n"), []);
        assert!(set("20\n", "600\n")[0].what.contains("nvme1"));
    }

    #[test]
    fn aoe_has_one_time_for_all() {
        let fake = FakeSysfs::new();
        fake.bare("etherd!e0.0", (152, 0));
        assert_eq!(found(&fake, (152, 0)), []);
        fake.set("module/aoe/parameters/aoe_deadsecs", "180\n");
        let found = found(&fake, (152, 0));
        assert!(found[0].refuse && found[0].what.contains("etherd/e0.0"), "{found:?}");
    }

    #[test]
    fn a_device_that_is_not_known_has_no_findings() {
        let fake = FakeSysfs::new();
        assert_eq!(found(&fake, (9, 9)), []);
    }
}
