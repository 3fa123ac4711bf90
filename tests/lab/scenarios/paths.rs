//! Devices whose path one host can lose while the other keeps it, and what a guard tells about its fence.

use std::time::Duration;

use mmpguard::clock::{self, Mono};
use mmpguard::protocol::Sequence;
use serde_json::Value;

use crate::harness::block::Sample;
use crate::harness::{Disk, Doing, Ended, Outcome, Vm, Write, seconds};

/// What a host is asked about its guard.
const ASK: &str = "mmp status --json";

/// How a host's path to its disk is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A device mapper layer below what is mounted answers everything with an error.
    Error,
    /// That layer holds everything back, and lets it go when the path is there again.
    Suspend,
    /// The SCSI disk is set offline.
    Offline,
}

/// What `mmp status` says of a host's only guard.
pub(crate) struct Told(Value);

impl Way {
    /// In the table's words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Way::Error => "error table below",
            Way::Suspend => "suspended below",
            Way::Offline => "SCSI offline",
        }
    }

    /// Makes the device that is mounted, and gives its name. A layer of device mapper stands above the path, too, so that a
    /// path which comes back does not undo what a fence did to what is mounted.
    pub(crate) fn prepare(self, vm: &Vm, disk: &Disk) -> Outcome<String> {
        if self == Way::Offline {
            return prepare_scsi(vm);
        }
        mapped(vm, "path", &disk.node())?;
        mapped(vm, "top", "/dev/mapper/path")
    }

    /// The path is gone.
    pub(crate) fn lose(self, vm: &Vm) -> Outcome<()> {
        let script = match self {
            Way::Error => {
                "dmsetup load path --table \"0 $(blockdev --getsz /dev/mapper/path) error\" \
                 && dmsetup suspend --noflush --nolockfs path && dmsetup resume path"
            }
            Way::Suspend => "dmsetup suspend --noflush --nolockfs path",
            Way::Offline => "echo offline >/sys/block/sda/device/state",
        };
        vm.must(script).map(drop)
    }

    /// It is there again. What the fence took away stays away, and a machine that has booted since has no such layer.
    pub(crate) fn restore(self, vm: &Vm, disk: &Disk) -> Outcome<()> {
        let script = match self {
            Way::Error => format!(
                "dmsetup load path --table \"0 $(blockdev --getsz {0}) linear {0} 0\" \
                 && dmsetup suspend --noflush --nolockfs path && dmsetup resume path",
                disk.node()
            ),
            Way::Suspend => "dmsetup resume path".to_owned(),
            Way::Offline => {
                "if [ -e /sys/block/sda/device/state ]; then echo running >/sys/block/sda/device/state; \
                             else for host in /sys/class/scsi_host/*/scan; do echo '- - -' >$host; done; fi"
                    .to_owned()
            }
        };
        vm.run(&script).map(drop)
    }
}

/// A linear device mapper device over the whole of another.
pub(crate) fn mapped(vm: &Vm, name: &str, below: &str) -> Outcome<String> {
    // There is no udev here: mknodes makes the node.
    vm.must(&format!(
        "dmsetup create {name} --table \"0 $(blockdev --getsz {below}) linear {below} 0\" && dmsetup mknodes"
    ))?;
    Ok(format!("/dev/mapper/{name}"))
}

/// Brings a machine's only SCSI disk up, and gives its name.
pub(crate) fn prepare_scsi(vm: &Vm) -> Outcome<String> {
    vm.must(
        "modprobe virtio_scsi && modprobe sd_mod; for n in $(seq 100); do [ -b /dev/sda ] && exit 0; usleep 50000; done; exit 1",
    )?;
    Ok("/dev/sda".to_owned())
}

/// Asks a host about its guard.
pub(crate) fn told(vm: &Vm) -> Outcome<Told> {
    read(&vm.run(ASK)?)
}

fn read(ended: &Ended) -> Outcome<Told> {
    let report: Value = serde_json::from_str(&ended.stdout).doing(&ended.said())?;
    Ok(Told(report["guards"][0].clone()))
}

/// Waits until a host's fence is done, or it boots again, and gives when that was by this machine's wall clock, and
/// what did it. The boot is over then.
pub(crate) fn wait_for_fence(vm: &Vm, patience: Duration) -> Outcome<(f64, String)> {
    let until = clock::mono() + patience;
    // A machine that ends answers nothing: its console tells at once that it is reset, and the agent much later.
    let begun = || {
        let log = vm.kernel_log();
        log.matches("sysrq: Resetting").count() + log.matches("Linux version").count()
    };
    let (before, boots) = (begun(), vm.boots());
    let mut asked = vm.start(ASK)?;
    while clock::mono() < until {
        if begun() > before {
            let at = seconds();
            vm.wait_for_boot(boots + 1)?;
            return Ok((at, "reboot".to_owned()));
        }
        if let Some(ended) = asked.poll()? {
            if let Some(by) = read(&ended)?.fenced_by() {
                return Ok((seconds(), by));
            }
            asked = vm.start(ASK)?;
        }
        clock::sleep(Duration::from_millis(100));
    }
    Err(format!("{}: no fence within {patience:?}", vm.spec.host))
}

impl Told {
    pub(crate) fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or("nothing")
    }

    /// Which process beats or watches.
    pub(crate) fn driver(&self) -> Outcome<i64> {
        self.0["driver_pid"].as_i64().ok_or_else(|| format!("no driver: {}", self.0))
    }

    /// The rungs that the fence had, once it has ended: what did it, or what was allowed to be none.
    pub(crate) fn fenced_by(&self) -> Option<String> {
        let fence = self.0["lost"]["fence"].as_object()?;
        let by = fence["by"].as_str().map(str::to_owned);
        Some(by.unwrap_or_else(|| "no fence".to_owned()))
    }

    /// Why it was lost.
    pub(crate) fn reason(&self) -> &str {
        self.0["lost"]["reason"].as_str().unwrap_or("not lost")
    }

    /// How long the fence took.
    pub(crate) fn took_ms(&self) -> u64 {
        self.0["lost"]["fence"]["took_ms"].as_u64().unwrap_or_default()
    }
}

/// Those of the writes that began after that moment.
pub(crate) fn after(writes: &[Write], at: f64) -> Vec<Write> {
    writes.iter().filter(|write| write.at > at).copied().collect()
}

/// How long each clean mark stood, in seconds.
pub(crate) fn clean_marks(samples: &[Sample], now: Mono) -> Vec<f64> {
    let ends = samples.iter().skip(1).map(|sample| sample.at).chain([now]);
    let with_ends = samples.iter().zip(ends);
    with_ends
        .filter(|(sample, _)| Sequence::from(sample.block.seq) == Sequence::Clean)
        .map(|(sample, end)| end.since(sample.at).as_secs_f64())
        .collect()
}
