//! Two hosts whose disk is a third one's: exported over AoE by vblade, or over iSCSI by the kernel's own target.
//!
//! The third host's emulator sees every write and cannot tell whose it was. So what a host has written after it was cut off
//! is found by comparing the disk with itself, at two moments between which nobody else writes.

use std::time::Duration;

use mmpguard::clock;

use crate::harness::{Disk, Lab, Outcome, Running, Spec, Vm};
use crate::scenarios::life::{self, Life};
use crate::scenarios::stage::{DIRECTORY, Kind, Verdict, inspect};

/// How the disk comes to the hosts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Export {
    Aoe,
    Iscsi,
}

/// The hosts and what they share.
pub(crate) struct Remote {
    pub(crate) lab: Lab,
    pub(crate) disk: Disk,
    pub(crate) target: Vm,
    pub(crate) a: Vm,
    pub(crate) b: Vm,
    export: Export,
}

/// For how long the layers below hold I/O back that gets no answer: shorter than a wait, as `mmp mount` asks for.
pub(crate) const HELD_BACK_SECONDS: u32 = 10;

const TARGET_ADDRESS: &str = "10.9.0.1";

/// LIO by its own filesystem: a block device, one portal, and whoever comes may write.
const SERVE_ISCSI: &str = "
set -e
for module in target_core_mod target_core_iblock iscsi_target_mod; do modprobe $module; done
mount -t configfs configfs /sys/kernel/config
core=/sys/kernel/config/target/core/iblock_0/lab
portals=/sys/kernel/config/target/iscsi/iqn.2026-01.lab:shared/tpgt_1
mkdir -p $core
echo udev_path=/dev/lab/shared0,readonly=0 >$core/control
echo 1 >$core/enable
mkdir -p $portals/lun/lun_0 $portals/np/10.9.0.1:3260
echo 1 >$portals/attrib/generate_node_acls
echo 0 >$portals/attrib/demo_mode_write_protect
echo 0 >$portals/attrib/authentication
ln -s $core $portals/lun/lun_0/lab
echo 1 >$portals/enable
";
/// Whatever is logged in is thrown out.
const WITHDRAW_ISCSI: &str = "
core=/sys/kernel/config/target/core/iblock_0/lab
portals=/sys/kernel/config/target/iscsi/iqn.2026-01.lab:shared/tpgt_1
echo 0 >$portals/enable
rm $portals/lun/lun_0/lab && rmdir $portals/lun/lun_0 && rmdir $core
";
const CONNECT_ISCSI: &str = "
set -e
modprobe sd_mod; modprobe iscsi_tcp
mkdir -p /etc/iscsi /run/lock/iscsi
echo InitiatorName=iqn.2026-01.lab:$(hostname) >/etc/iscsi/initiatorname.iscsi
echo iscsid.startup = /usr/sbin/iscsid >/etc/iscsi/iscsid.conf
echo node.session.timeo.replacement_timeout = HELD_BACK >>/etc/iscsi/iscsid.conf
echo node.conn[0].timeo.noop_out_interval = 2 >>/etc/iscsi/iscsid.conf
echo node.conn[0].timeo.noop_out_timeout = 3 >>/etc/iscsi/iscsid.conf
iscsid
iscsiadm -m discovery -t st -p 10.9.0.1
iscsiadm -m node -l
";

impl Export {
    fn serve(self) -> &'static str {
        match self {
            Export::Aoe => {
                "setsid vblade -d 0 0 eth0 /dev/lab/shared0 >/dev/null 2>&1 & echo $! >/run/vblade"
            }
            Export::Iscsi => SERVE_ISCSI,
        }
    }

    fn connect(self, held_back_seconds: u32) -> String {
        match self {
            Export::Aoe => {
                format!(
                    "modprobe aoe aoe_deadsecs={held_back_seconds}; sleep 0.2; echo >/dev/etherd/discover"
                )
            }
            Export::Iscsi => CONNECT_ISCSI.replace("HELD_BACK", &held_back_seconds.to_string()),
        }
    }

    fn withdraw(self) -> &'static str {
        match self {
            Export::Aoe => "kill $(pidof vblade)",
            Export::Iscsi => WITHDRAW_ISCSI,
        }
    }

    /// Its name on the hosts, which have no other disk.
    pub(crate) fn node(self) -> &'static str {
        match self {
            Export::Aoe => "/dev/etherd/e0.0",
            Export::Iscsi => "/dev/sda",
        }
    }
}

impl Remote {
    pub(crate) fn new(
        export: Export,
        held_back_seconds: u32,
        mebibytes: u64,
        prepare: impl FnOnce(&Disk) -> Outcome<()>,
    ) -> Outcome<Remote> {
        let lab = Lab::new()?;
        let disk = lab.disk("shared0", mebibytes)?;
        prepare(&disk)?;
        let host = |name: &str, address: &str| Spec::new(name, &[]).address(address);
        let [target, a, b] = Vm::boot_all(
            &lab,
            [
                Spec::new("target", &[&disk]).address(TARGET_ADDRESS),
                host("alpha", "10.9.0.2"),
                host("beta", "10.9.0.3"),
            ],
        )?;
        target.must(export.serve())?;
        let remote = Remote { lab, disk, target, a, b, export };
        for vm in [&remote.a, &remote.b] {
            remote.connect(vm, held_back_seconds)?;
        }
        Ok(remote)
    }

    /// Gives a host that has booted the disk.
    pub(crate) fn connect(&self, vm: &Vm, held_back_seconds: u32) -> Outcome<()> {
        vm.must(&self.export.connect(held_back_seconds))?;
        let node = self.export.node();
        vm.must(&format!(
            "for try in $(seq 100); do [ -b {node} ] && exit 0; sleep 0.1; done; ls /dev; exit 1"
        ))?;
        Ok(())
    }

    /// The life of the filesystem on it, and what is on it when its target is the only one that has it.
    pub(crate) fn live(self, kind: Kind) -> Outcome<(Life, Verdict)> {
        let Remote { lab, disk, target, a, b, export } = self;
        let life = life::live(kind, export.node(), &a, b)?;
        drop(a);
        target.must(export.withdraw())?;
        let end = inspect(&target, &disk, kind, &life.durable)?;
        drop(lab);
        Ok((life, end))
    }

    /// What is on the disk when its target is the only one that has it.
    pub(crate) fn inspect(&self, kind: Kind, durable: &[String]) -> Outcome<Verdict> {
        self.target.must(self.export.withdraw())?;
        inspect(&self.target, &self.disk, kind, durable)
    }

    /// How many blocks change within that time, the one that protects left out.
    pub(crate) fn blocks_written_in(&self, time: Duration) -> Outcome<usize> {
        let before = self.disk.snapshot()?;
        clock::sleep(time);
        Ok(before.changed(&self.disk.snapshot()?, &[self.disk.protection()?]).len())
    }
}

/// Leaves that many mebibytes in the memory of a host, which writes them out when it likes: later than it will be cut off.
pub(crate) fn make_dirty(vm: &Vm, mebibytes: u32) -> Outcome<Running> {
    vm.must("echo 60000 >/proc/sys/vm/dirty_expire_centisecs; echo 60 >/proc/sys/vm/dirty_background_ratio; echo 80 >/proc/sys/vm/dirty_ratio")?;
    vm.start(&format!("exec dd if=/dev/urandom of={DIRECTORY}/lost+found/dirty bs=1M count={mebibytes}"))
}

/// What a host has not written yet, in KiB.
pub(crate) fn dirty_kibibytes(vm: &Vm) -> Outcome<u64> {
    let said = vm.must("awk '/^Dirty:/ { print $2 }' /proc/meminfo")?;
    said.trim().parse().map_err(|_| format!("Dirty: is {said:?}"))
}
