//! Every rung of the ladder on a device that has it: protection is lost while megabytes are dirty and a writer writes, the path
//! stays open, and the emulator counts what still comes through it after the fence said that it is done.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::MmpBlock;
use mmpguard::format::name::Name;

use crate::book::{Book, Guarded};
use crate::harness::{Bus, Disk, Lab, Outcome, Spec, Vm, seconds};
use crate::scenarios::paths::{after, clean_marks, mapped, prepare_scsi, told, wait_for_fence};
use crate::scenarios::stage::{Kind, Writer, inspect};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "fence_dm", set: Set::Short, run: |book| fence(book, Rung::Dm) },
    Scenario { name: "fence_reboot", set: Set::Short, run: |book| fence(book, Rung::Reboot) },
    Scenario { name: "fence_scsi", set: Set::Long, run: |book| fence(book, Rung::Scsi) },
    Scenario { name: "fence_unbind_xfs", set: Set::Long, run: |book| fence(book, Rung::Unbind(Kind::Xfs)) },
    Scenario { name: "fence_unbind_ext4", set: Set::Long, run: |book| fence(book, Rung::Unbind(Kind::Ext4)) },
    Scenario { name: "fence_unbind_nvme", set: Set::Long, run: |book| fence(book, Rung::UnbindNvme) },
    Scenario { name: "fence_shutdown_xfs", set: Set::Long, run: |book| fence(book, Rung::Shutdown) },
];

/// How long after the fence it is watched: longer than dirty data stays in memory, which is 30 s and 5 s.
const WATCHED: Duration = Duration::from_secs(45);
/// A number no test of these waits longer for.
const PATIENCE: Duration = Duration::from_secs(90);
/// Writes megabytes again and again, and never makes them durable.
const DIRTY: &str = "n=0; while :; do n=$(((n + 1) % 6)); \
    dd if=/dev/urandom of=/mnt/a/dirty$n bs=1M count=3 conv=notrunc 2>/dev/null || exit 0; usleep 300000; done";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rung {
    Dm,
    Scsi,
    /// Of a virtio disk.
    Unbind(Kind),
    /// Of an NVMe, which takes nothing more with it.
    UnbindNvme,
    /// On XFS, where it is a fence.
    Shutdown,
    Reboot,
}

impl Rung {
    fn kind(self) -> Kind {
        match self {
            Rung::Unbind(kind) => kind,
            Rung::Shutdown => Kind::Xfs,
            _ => Kind::Ext4,
        }
    }

    /// As the fence's report calls it.
    fn name(self) -> &'static str {
        match self {
            Rung::Dm => "dm",
            Rung::Scsi => "scsi",
            Rung::Unbind(Kind::Xfs) | Rung::UnbindNvme => "unbind",
            Rung::Unbind(Kind::Ext4) => "no fence",
            Rung::Shutdown => "shutdown",
            Rung::Reboot => "reboot",
        }
    }

    /// Where `auto` would climb something else.
    fn arguments(self) -> &'static str {
        match self {
            Rung::Unbind(Kind::Ext4) => "--on-loss unbind --incomplete-fence",
            Rung::Shutdown => "--on-loss shutdown",
            _ => "",
        }
    }

    fn title(self) -> String {
        let kind = if self.kind() == Kind::Ext4 { "ext4" } else { "XFS" };
        match self {
            Rung::Unbind(Kind::Ext4) => "unbind of virtio on ext4, which `auto` leaves out".to_owned(),
            Rung::UnbindNvme => "fence by unbind of NVMe on ext4, the path open".to_owned(),
            _ => format!("fence by {} on {kind}, the path open", self.name()),
        }
    }

    fn prepare(self, vm: &Vm, disk: &Disk) -> Outcome<String> {
        match self {
            Rung::Dm => mapped(vm, "lun", &disk.node()),
            Rung::Scsi => prepare_scsi(vm),
            Rung::UnbindNvme => Ok("/dev/nvme0n1".to_owned()),
            _ => Ok(disk.node()),
        }
    }
}

/// A host, and what it has on its disk when the loss begins.
fn begin(lab: &Lab, rung: Rung) -> Outcome<(Disk, Vm, Writer)> {
    let disk = lab.disk("shared0", if rung.kind() == Kind::Ext4 { 96 } else { 320 })?;
    match rung.kind() {
        Kind::Ext4 => disk.make_ext4()?,
        Kind::Xfs => drop(disk.tool("mkfs.xfs", &["-q", "-d", "size=310m"])?),
    }
    let mut spec = Spec::new("alpha", &[&disk]);
    match rung {
        Rung::Scsi => spec = spec.on(Bus::Scsi),
        Rung::UnbindNvme => spec = spec.on(Bus::Nvme),
        _ => {}
    }
    let vm = Vm::boot(lab, spec)?;
    let device = rung.prepare(&vm, &disk)?;
    if rung.kind() == Kind::Xfs {
        vm.must(&format!("modprobe xfs && mmp enable {device}"))?;
    }
    vm.must(&Guarded::Mmp.mount_with(rung.arguments(), &device))?;
    let mut writer = Writer::start(&vm, 1, Duration::from_millis(200))?;
    vm.start(DIRTY)?;
    writer.wait_for(10, PATIENCE)?;
    clock::sleep(Duration::from_secs(3));
    Ok((disk, vm, writer))
}

/// Somebody else beats the block as a host that took over would, until the flag is set.
fn beat_as_another(disk: &Disk, stop: &AtomicBool) {
    let raw = disk.block();
    let mut seq = 0x0123_4567;
    while !stop.load(SeqCst) {
        let names = (Name::new("zeta"), Name::new("another"));
        let time_s = clock::wall().0;
        raw.write(&MmpBlock { seq, time_s, node: names.0, device: names.1, check_interval_s: 5 });
        seq += 1;
        clock::sleep(Duration::from_millis(300));
    }
}

/// Sets its flag when it is dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Makes the loss, waits for the fence: when the loss began, when the fence was known to be done, by what.
///
/// On ext4 another host beats. In an area that would take a whole claim: there the guard is stopped, as by a debugger, and
/// its lease runs out; its keeper fences.
fn lose(disk: &Disk, vm: &Vm, kind: Kind) -> Outcome<(f64, f64, String)> {
    let begun = seconds();
    let (done, by) = match kind {
        Kind::Ext4 => {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| beat_as_another(disk, &stop));
                // The scope waits for that thread, also when this one panics.
                let _stops = Stops(&stop);
                wait_for_fence(vm, PATIENCE)
            })?
        }
        Kind::Xfs => {
            vm.must(&format!("kill -STOP {}", told(vm)?.driver()?))?;
            wait_for_fence(vm, PATIENCE)?
        }
    };
    Ok((begun, done, by))
}

fn fence(book: &Book, rung: Rung) -> Outcome<()> {
    let lab = Lab::new()?;
    let (disk, vm, mut writer) = begin(&lab, rung)?;
    let promise = book.promise(
        &rung.title(),
        Guarded::Mmp,
        if rung.name() == "no fence" {
            "nothing: what reaches the disk is told"
        } else {
            "0 writes of this host once the fence is known to be done, the MMP block included, and 0 blocks changed outside it, also by a sync; no clean mark; nothing durable is lost"
        },
    );
    let (sampler, losing) = (disk.sampler(), clock::mono());
    let (begun, done, by) = lose(&disk, &vm, rung.kind())?;
    let at_once = disk.snapshot()?;
    let told = told(&vm)?;
    let durable = writer.durable();
    clock::sleep(Duration::from_secs(3));
    // The worst that can be done here now.
    vm.run("(timeout 20 sync) >/dev/null 2>&1 &")?;
    clock::sleep(WATCHED);
    let marks = clean_marks(&sampler.since(losing), clock::mono()).len();
    drop(sampler);
    let writes = vm.writes(&disk)?;
    let protection = disk.protection()?;
    let late = after(&writes, done).len();
    let changed = at_once.changed(&disk.snapshot()?, &[protection]).len();
    let meanwhile: Vec<_> =
        after(&writes, begun).into_iter().filter(|write| !write.inside(protection)).collect();
    let last_ms = meanwhile.last().map_or(0.0, |write| (write.at - begun) * 1e3);
    let mebibytes = final_mebibytes(&meanwhile);
    let vm = Vm::boot(&lab, vm.crash())?;
    let device = if rung == Rung::Dm { disk.node() } else { rung.prepare(&vm, &disk)? };
    if device != disk.node() {
        vm.must(&format!("ln -sf {device} {}", disk.node()))?;
    }
    if rung.kind() == Kind::Xfs {
        vm.must("modprobe xfs")?;
    }
    let mut verdict = inspect(&vm, &disk, rung.kind(), &durable)?;
    verdict.bad.retain(|name| !name.starts_with("dirty"));
    // The boot after a reboot knows nothing of the loss before it.
    let climb = if by == "reboot" {
        String::new()
    } else {
        format!("{}; {} ms for the climb; ", told.reason(), told.took_ms())
    };
    let words = format!(
        "{climb}known to be done by {by} {:.0} ms after the loss began; last write {last_ms:.0} ms after it, {mebibytes:.1} MiB in the 2 s before that; {late} writes and {changed} changed blocks from when that was known on; {marks} clean marks; {}",
        (done - begun) * 1e3,
        verdict.words()
    );
    if rung.name() == "no fence" {
        promise.measured(&words);
        return Ok(());
    }
    let kept = by == rung.name() && late == 0 && changed == 0 && marks == 0 && verdict.is_whole();
    promise.judge(kept, &words)
}

/// How much the last 2 s of these writes brought.
fn final_mebibytes(writes: &[crate::harness::Write]) -> f64 {
    let Some(last) = writes.last() else { return 0.0 };
    let of_them = writes.iter().filter(|write| write.at > last.at - 2.0);
    of_them.map(|write| write.span.bytes as f64).sum::<f64>() / f64::from(1 << 20)
}
