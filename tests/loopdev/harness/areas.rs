//! LUNs that an area protects, and the filesystems before it.

use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};

use mmpguard::io::Device;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::guarded::{Guarded, LADDER};
use super::lun::{Loop, Lun, command, must, text};
use super::process::all_dead;
use super::started::{Ended, Started, patiently};
use super::{at_most_strictly, seconds};

const MIB: u64 = 1 << 20;
/// Behind the filesystem.
const ROOM: u64 = 4 * MIB;
/// The longest honest change of an area: two waits for the lock, and two for what is held.
const CHANGE_PATIENCE_S: u64 = 120;

/// What stands before the area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Xfs,
    Btrfs,
    /// Without MMP.
    Ext3,
}

/// How such a LUN is made: nothing of it is needed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made<'a> {
    /// Of `mmp enable`.
    pub(crate) options: &'a [&'a str],
    /// Where its image lies.
    pub(crate) place: Option<&'a Path>,
    /// Logical blocks of its loop devices.
    pub(crate) sector_bytes: Option<u32>,
}

impl Content {
    pub(crate) fn filesystem_bytes(self) -> u64 {
        match self {
            Content::Xfs => 300 * MIB,
            // The kernel resizes none to less than 256 MiB.
            Content::Btrfs => 260 * MIB,
            Content::Ext3 => 16 * MIB,
        }
    }

    pub(crate) fn make(self, image: &Path, sector_bytes: Option<u32>) {
        let mib = self.filesystem_bytes() / MIB;
        match self {
            Content::Xfs => {
                let sector = format!("size={}", sector_bytes.unwrap_or(512));
                must("mkfs.xfs", &["-q", "-f", "-s", &sector, "-d", &format!("size={mib}m"), text(image)]);
            }
            Content::Btrfs => {
                must("mkfs.btrfs", &["-q", "-f", "-b", &format!("{mib}m"), text(image)]);
            }
            Content::Ext3 => {
                must("mkfs.ext3", &["-q", "-F", text(image), &format!("{mib}m")]);
            }
        }
    }

    /// Nothing is wrong with the filesystem on an image, which nobody has mounted.
    pub(crate) fn check(self, case: &str, image: &Path) {
        let (program, arguments) = match self {
            Content::Xfs => ("xfs_repair", vec!["-n", "-f", text(image)]),
            Content::Btrfs => ("btrfs", vec!["check", text(image)]),
            Content::Ext3 => ("e2fsck", vec!["-fn", text(image)]),
        };
        let output = command(program, &arguments);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        assert!(!said.contains("would ") && !said.contains("ERROR"), "{program} {arguments:?}: {said}");
        super::observed(case, &format!("{program} finds nothing"));
    }
}

impl Lun {
    /// One with that filesystem, room behind it, and no protection.
    pub(crate) fn holding(content: Content, made: Made<'_>) -> Lun {
        Lun::made(content.filesystem_bytes() + ROOM, made.place, made.sector_bytes, |image| {
            content.make(image, made.sector_bytes);
        })
    }

    /// As long as that, with no filesystem yet.
    pub(crate) fn holding_nothing(content: Content) -> Lun {
        Lun::blank(content.filesystem_bytes() + ROOM)
    }

    /// One with that filesystem, and an area behind it.
    pub(crate) fn protected(content: Content, made: Made<'_>) -> Lun {
        let lun = Lun::holding(content, made);
        // What can have MMP of its own is asked to.
        let mut arguments = if content == Content::Ext3 { vec!["area", "create"] } else { vec!["enable"] };
        arguments.extend(made.options);
        arguments.push(lun.a.path());
        lun.verb(&arguments).expect(0).says("an area of 1 slot");
        lun
    }

    /// Nothing but zeroes.
    pub(crate) fn blank(bytes: u64) -> Lun {
        Lun::made(bytes, None, None, |_| ())
    }

    /// A control LUN: nothing but an area, that beats twice a second.
    pub(crate) fn control(slots: u32) -> Lun {
        let lun = Lun::blank((2 * u64::from(slots) + 4) * 4096);
        let slots = slots.to_string();
        let mut arguments = vec!["area", "create", "--blank", "--slots", &slots];
        arguments.extend(["--interval", "500ms", lun.a.path()]);
        lun.verb(&arguments).expect(0).says("an area of");
        lun
    }

    /// Adds a slot to a control LUN.
    pub(crate) fn slot(&self, name: &str) {
        self.verb(&["area", "slot", "add", self.a.path(), name]).expect(0).says("is \"");
    }

    /// The state of a slot, as the block says it.
    pub(crate) fn slot_state(&self, what: &str) -> String {
        self.shown(what)["slot"]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Runs `mmp` to its end.
    pub(crate) fn verb(&self, arguments: &[&str]) -> Ended {
        self.mmp(arguments).end(seconds(CHANGE_PATIENCE_S))
    }

    /// `mmp show --json`.
    pub(crate) fn shown(&self, what: &str) -> Value {
        let end = self.verb(&["show", "--json", what]);
        serde_json::from_str(&end.expect(0).out).unwrap_or_else(|error| panic!("{error}: {end:?}"))
    }

    /// As the other host reads it.
    pub(crate) fn generation(&self) -> u64 {
        let report = self.shown(self.b.path());
        report["generation"].as_u64().unwrap_or_else(|| panic!("no generation: {report:#}"))
    }

    /// `mmp run DEVICE -- true`.
    pub(crate) fn run_true(&self, on: &str) -> Ended {
        self.verb(&["run", on, "--", "true"])
    }

    /// `mmp mount`, which must fail.
    pub(crate) fn mount_fails(&self, on: &Loop, code: i32, told: &str) -> Ended {
        self.mount_with_fails(on, &[], code, told)
    }

    /// The same of the other host, with that slot.
    pub(crate) fn mount_fails_by(&self, slot: &str, code: i32, told: &str) -> Ended {
        self.mount_with_fails(&self.b, &["--area", slot], code, told)
    }

    fn mount_with_fails(&self, on: &Loop, options: &[&str], code: i32, told: &str) -> Ended {
        let (mut mounting, dir) = self.guard(on, options);
        let end = mounting.end(seconds(CHANGE_PATIENCE_S));
        end.expect(code).says(told);
        assert!(!is_mounted(&dir), "mounted all the same: {end:?}");
        end
    }

    /// `mmp umount`, which waits until all of it is released.
    pub(crate) fn released(&self, dir: &Path) {
        self.release(dir).says("unmounted and released");
    }

    /// `umount(8)`, and then until the guard is gone.
    pub(crate) fn unmount_and_wait(&self, on: &Loop, dir: &Path) {
        self.unmount_plainly(dir);
        self.gone(on);
    }

    /// `umount(8)`. Whoever looks through all processes has a hand on it in passing, as the guards of other cases do.
    pub(crate) fn unmount_plainly(&self, dir: &Path) {
        let tried = patiently(seconds(5), || {
            let ended = command("umount", &[text(dir)]);
            let busy = String::from_utf8_lossy(&ended.stderr).contains("busy");
            (!busy).then_some(ended)
        });
        let ended = tried.unwrap_or_else(|| panic!("{} stays busy", dir.display()));
        assert!(ended.status.success(), "{ended:?}");
        self.forget_mount(dir);
    }

    /// Waits until nothing is guarded there.
    pub(crate) fn gone(&self, on: &Loop) {
        let gone = patiently(seconds(20), || self.status(on).is_null().then_some(()));
        assert!(gone.is_some(), "still guarded: {:#}", self.status(on));
    }

    /// Mounts guarded, together with these.
    pub(crate) fn guard_together(&self, on: &Loop, with: &[&str], options: &[&str]) -> (Started, PathBuf) {
        let dir = self.mount_point();
        let mut arguments = vec!["mount"];
        arguments.extend(LADDER);
        arguments.extend(with.iter().flat_map(|other| ["--with", other]));
        arguments.extend(options);
        arguments.extend([on.path(), text(&dir)]);
        (self.mmp(&arguments), dir)
    }

    /// A host that dies: its guard is killed, and what it has mounted goes without a word to anybody. XFS goes with what is
    /// dirty in its log.
    pub(crate) fn host_dies(&self, content: Content, guard: &Guarded) {
        // Neither may replace the other.
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            guard.keeper.signal(signal);
            guard.driver.signal(signal);
        }
        let guards = [guard.keeper.clone(), guard.driver.clone()];
        assert!(all_dead(&guards, seconds(5)).is_some(), "they do not end: {guards:?}");
        if content == Content::Xfs {
            must("xfs_io", &["-x", "-c", "shutdown", text(&guard.dir)]);
        }
        self.unmount_plainly(&guard.dir);
    }

    /// The other host is refused, whatever it asks for, and soon.
    pub(crate) fn refuses_the_other_host(&self, case: &str, limit_s: f64) {
        let (mut mounting, dir) = self.guard(&self.b, &[]);
        let mount = mounting.end(seconds(30));
        mount.expect(1).says("in use elsewhere");
        assert!(!is_mounted(&dir));
        let check = self.verb(&["check", self.b.path()]);
        check.expect(1).says("in use elsewhere");
        let run = self.run_true(self.b.path());
        run.expect(121).says("in use elsewhere");
        for (what, end) in [("mmp mount", mount), ("mmp check", check), ("mmp run", run)] {
            at_most_strictly(case, &format!("the refusal of `{what}`"), end.took, limit_s, 10.5);
        }
    }

    /// Tells whether a byte of it was written.
    pub(crate) fn digest(&self) -> u64 {
        digest(self.image())
    }

    /// The image is put back as that file has it, under the loop devices.
    pub(crate) fn restore(&self, copy: &Path) {
        must(
            "dd",
            &[
                &format!("if={}", text(copy)),
                &format!("of={}", text(self.image())),
                "bs=1M",
                "conv=notrunc,fsync",
                "status=none",
            ],
        );
        for on in [&self.a, &self.b] {
            must("blockdev", &["--flushbufs", on.path()]);
        }
    }

    /// A copy of the image as it is now.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let to = self.file(name);
        must("sync", &[text(self.image())]);
        must("cp", &["--sparse=always", text(self.image()), text(&to)]);
        to
    }

    /// The array grows the LUN, and both hosts see it.
    pub(crate) fn grow(&self, by: u64) {
        let bytes = fs::metadata(self.image()).expect("is there").len();
        let file = fs::File::options().write(true).open(self.image()).expect("opens");
        file.set_len(bytes + by).expect("grows");
        for on in [&self.a, &self.b] {
            must("losetup", &["-c", on.path()]);
        }
    }

    /// Zeroes over one block of 4096 bytes, counted from the end.
    pub(crate) fn zero_block_from_end(&self, from_end: u64) {
        let bytes = fs::metadata(self.image()).expect("is there").len();
        let seek = format!("seek={}", bytes / 4096 - from_end);
        let of = format!("of={}", self.a.path());
        must("dd", &["if=/dev/zero", &of, "bs=4096", "count=1", &seek, "oflag=direct", "status=none"]);
        must("blockdev", &["--flushbufs", self.b.path()]);
    }
}

/// Of every byte, as it is on the disk.
pub(crate) fn digest(image: &Path) -> u64 {
    let device = Device::inspect(image).expect("inspects");
    let mut hasher = DefaultHasher::new();
    let mut bytes = vec![0; usize::try_from(MIB).expect("fits")];
    let mut at = 0;
    while at < device.size_bytes() {
        let length = usize::try_from(MIB.min(device.size_bytes() - at)).expect("fits");
        device.read_at(at, &mut bytes[..length]).expect("reads");
        hasher.write(&bytes[..length]);
        at += MIB;
    }
    hasher.finish()
}

fn is_mounted(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("reads");
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(text(dir)))
}
