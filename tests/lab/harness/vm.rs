//! One machine.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use mmpguard::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::lab::{KERNEL, QEMU};
use super::qmp::Qmp;
use super::shell::{Ended, Running, Shell};
use super::writes::{self, Write};
use super::{Disk, Doing, Lab, Outcome};

/// How long a boot may take beside others on a busy machine.
const BOOT: Duration = Duration::from_secs(300);
/// Kills its child, the emulator, when it hears the end of its input: also when the test process is killed.
const GUARDIAN: &str =
    r#"exec 3<&0; "$@" </dev/null 3<&- & q=$!; (read -r _ <&3; kill -9 $q 2>/dev/null) & wait $q"#;

/// What a disk hangs on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    Virtio,
    Scsi,
    Nvme,
}

/// What a machine is like.
#[derive(Clone)]
pub(crate) struct Spec {
    /// Its node name.
    pub(crate) host: String,
    pub(crate) kernel: &'static str,
    pub(crate) disks: Vec<(Disk, Bus)>,
    /// Its address on the lab's network, if it is on one.
    pub(crate) address: Option<String>,
}

/// A machine that runs. It ends when this is dropped.
pub(crate) struct Vm {
    pub(crate) spec: Spec,
    guardian: Child,
    ended: bool,
    /// Its closing ends the guardian.
    _lifeline: Option<ChildStdin>,
    pid: Pid,
    qmp: Qmp,
    shell: Shell,
    /// QEMU's traces: what it wrote to the disks, a file for each emulator that this host has had.
    traces: Vec<PathBuf>,
    console: PathBuf,
}

impl Spec {
    /// A machine of that name with these disks on virtio.
    pub(crate) fn new(host: &str, disks: &[&Disk]) -> Spec {
        let disks = disks.iter().map(|disk| ((*disk).clone(), Bus::Virtio)).collect();
        Spec { host: host.to_owned(), kernel: KERNEL, disks, address: None }
    }

    pub(crate) fn kernel(mut self, kernel: &'static str) -> Spec {
        self.kernel = kernel;
        self
    }

    pub(crate) fn scsi(self) -> Spec {
        self.on(Bus::Scsi)
    }

    /// With all of its disks on that bus.
    pub(crate) fn on(mut self, wanted: Bus) -> Spec {
        for (_, bus) in &mut self.disks {
            *bus = wanted;
        }
        self
    }

    pub(crate) fn address(mut self, address: &str) -> Spec {
        self.address = Some(address.to_owned());
        self
    }
}

impl Vm {
    /// Boots it, up to the agent's hello.
    pub(crate) fn boot(lab: &Lab, spec: Spec) -> Outcome<Vm> {
        let vm = Vm::power_on(lab, spec)?;
        vm.shell
            .wait_for_boot(1, BOOT)
            .map_err(|error| format!("{}: {error}: {}", vm.spec.host, vm.console_tail()))?;
        Ok(vm)
    }

    /// Boots several side by side.
    pub(crate) fn boot_all<const N: usize>(lab: &Lab, specs: [Spec; N]) -> Outcome<[Vm; N]> {
        let mut vms = Vec::new();
        for spec in specs {
            vms.push(Vm::power_on(lab, spec)?);
        }
        for vm in &vms {
            vm.shell
                .wait_for_boot(1, BOOT)
                .map_err(|error| format!("{}: {error}: {}", vm.spec.host, vm.console_tail()))?;
        }
        Ok(vms.try_into().unwrap_or_else(|_| unreachable!("one for each")))
    }

    /// Begins its boot.
    pub(crate) fn power_on(lab: &Lab, spec: Spec) -> Outcome<Vm> {
        let name = |what: &str| lab.folder().join(format!("{}-{what}", spec.host));
        let (trace, console, pid_file) = (name("trace"), name("console"), name("pid"));
        let (qmp, shell) =
            (lab.socket(&format!("{}-qmp", spec.host)), lab.socket(&format!("{}-sh", spec.host)));
        for old in [&qmp, &shell, &pid_file] {
            let _ = fs::remove_file(old);
        }
        let before = (0..).take_while(|number| trace.with_extension(number.to_string()).exists()).count();
        let traces: Vec<_> = (0..=before).map(|number| trace.with_extension(number.to_string())).collect();
        let mut command = Command::new("sh");
        command.args(["-c", GUARDIAN, "guardian", QEMU]).args(arguments(lab, &spec)?);
        command.arg("-D").arg(&traces[before]).arg("-pidfile").arg(&pid_file);
        command.arg("-serial").arg(format!("file:{}", console.display().to_string().replace(',', ",,")));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", qmp.display()));
        command.arg("-chardev").arg(format!("socket,id=sh,path={},server=on,wait=off", shell.display()));
        let errors = fs::File::create(name("qemu")).doing("a file")?;
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors).spawn();
        let mut guardian = spawned.doing(QEMU)?;
        let lifeline = guardian.stdin.take();
        let connected = Qmp::connect(&qmp).and_then(|qmp| Ok((qmp, Shell::connect(&shell)?)));
        let (qmp, shell) = connected.map_err(|error| {
            format!("{}: {error}: {}", spec.host, fs::read_to_string(name("qemu")).unwrap_or_default())
        })?;
        let pid = fs::read_to_string(&pid_file).doing("qemu's process")?;
        let pid = Pid::from_raw(pid.trim().parse().doing("qemu's process")?);
        Ok(Vm { spec, guardian, ended: false, _lifeline: lifeline, pid, qmp, shell, traces, console })
    }

    /// Runs a script to its end.
    pub(crate) fn run(&self, script: &str) -> Outcome<Ended> {
        self.start(script)?.wait().doing(&self.spec.host)
    }

    /// Runs a script that has to end with 0, and gives what it printed.
    pub(crate) fn must(&self, script: &str) -> Outcome<String> {
        let ended = self.run(script)?;
        if ended.ok() {
            Ok(ended.stdout)
        } else {
            Err(format!("{}: `{script}`: {}", self.spec.host, ended.said()))
        }
    }

    /// Starts a script.
    pub(crate) fn start(&self, script: &str) -> Outcome<Running> {
        self.shell.start(script, None, false)
    }

    /// Starts a script when the lab's trigger of this number is fired.
    pub(crate) fn start_at(&self, trigger: u64, script: &str) -> Outcome<Running> {
        self.shell.start(script, Some(trigger), false)
    }

    /// Starts a script and listens to its lines.
    pub(crate) fn listen(&self, script: &str) -> Outcome<Running> {
        self.shell.start(script, None, true)
    }

    /// It hangs, and its clock jumps when it goes on: SIGSTOP of the emulator.
    pub(crate) fn hang(&self) -> Outcome<()> {
        kill(self.pid, Signal::SIGSTOP).doing("SIGSTOP")
    }

    /// It goes on after [`Vm::hang`].
    pub(crate) fn resume(&self) -> Outcome<()> {
        kill(self.pid, Signal::SIGCONT).doing("SIGCONT")
    }

    /// It is paused, and its clock stands still meanwhile.
    pub(crate) fn pause(&self) -> Outcome<()> {
        self.qmp.execute("stop", &json!({})).map(drop)
    }

    /// It goes on after [`Vm::pause`].
    pub(crate) fn unpause(&self) -> Outcome<()> {
        self.qmp.execute("cont", &json!({})).map(drop)
    }

    /// Pulls its network cable out, or puts it back.
    pub(crate) fn connect_network(&self, connected: bool) -> Outcome<()> {
        self.qmp.execute("set_link", &json!({ "name": "net0", "up": connected })).map(drop)
    }

    /// Resets it, as its button would; its next boot begins. Does not wait for it.
    pub(crate) fn reset(&self) -> Outcome<()> {
        self.qmp.execute("system_reset", &json!({})).map(drop)
    }

    /// How often it has booted.
    pub(crate) fn boots(&self) -> usize {
        self.shell.boots()
    }

    /// Waits for its boot of that number, the first being 1.
    pub(crate) fn wait_for_boot(&self, count: usize) -> Outcome<()> {
        self.shell.wait_for_boot(count, BOOT).doing(&self.spec.host)
    }

    /// Its power is cut: nothing that it has not written yet will be. Gives what [`Vm::boot`] takes to start it again.
    pub(crate) fn crash(mut self) -> Spec {
        self.end();
        self.spec.clone()
    }

    /// What this host has written to that disk, in this life and those before.
    pub(crate) fn writes(&self, disk: &Disk) -> Outcome<Vec<Write>> {
        let lives: Outcome<Vec<_>> =
            self.traces.iter().map(|trace| writes::read(trace, &disk.path)).collect();
        Ok(lives?.concat())
    }

    /// The kernel's log, also of a machine that hangs.
    pub(crate) fn kernel_log(&self) -> String {
        fs::read(&self.console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn console_tail(&self) -> String {
        let log = self.kernel_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn end(&mut self) {
        // Its number may be another's by now.
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let _ = kill(self.pid, Signal::SIGKILL);
        // The guardian waits for its child, and ends.
        let _ = self.guardian.wait();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.end();
    }
}

/// Connects to a socket that QEMU is about to make.
pub(super) fn connect(path: &Path) -> Outcome<UnixStream> {
    let until = clock::mono() + Duration::from_secs(30);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if clock::mono() >= until => return Err(format!("{}: {error}", path.display())),
            Err(_) => clock::sleep(Duration::from_millis(20)),
        }
    }
}

/// Stands for a blank that does not separate.
const BLANK: char = '\u{1f}';

/// A path as one word.
fn unsplit(path: &Path) -> String {
    path.display().to_string().replace(' ', &BLANK.to_string())
}

/// A path in one of QEMU's lists, where a comma separates and two are one.
fn in_a_list(path: &Path) -> String {
    unsplit(path).replace(',', ",,")
}

/// QEMU's arguments that only name what the machine is made of.
fn arguments(lab: &Lab, spec: &Spec) -> Outcome<Vec<String>> {
    let cache = super::lab::cache();
    let initramfs = Lab::initramfs(spec.kernel)?;
    let (memory, memory_bytes) = lab.shared_memory();
    let mut line = format!("console=ttyS0 loglevel=6 panic=1 mitigations=off lab.host={}", spec.host);
    if let Some(address) = &spec.address {
        line += &format!(" lab.address={address}");
    }
    let mut words = vec![
        "-nodefaults -no-user-config -display none -machine q35 -cpu max -m 384 -smp 1".to_owned(),
        "-accel tcg,thread=multi -action watchdog=reset".to_owned(),
        format!(
            "-kernel {} -initrd {}",
            unsplit(&cache.join(format!("vmlinuz-{}", spec.kernel))),
            unsplit(&initramfs)
        ),
        "-device virtio-serial-pci -device virtserialport,chardev=sh,name=labsh".to_owned(),
        format!(
            "-object memory-backend-file,id=shm,mem-path={},size={memory_bytes},share=on",
            in_a_list(&memory)
        ),
        "-device ivshmem-plain,memdev=shm".to_owned(),
        "-msg timestamp=on -trace bdrv_open_common -trace blk_co_pwritev -trace bdrv_co_pwrite_zeroes"
            .to_owned(),
    ];
    if spec.disks.iter().any(|(_, bus)| *bus == Bus::Scsi) {
        words.push("-device virtio-scsi-pci,id=scsi0".to_owned());
    }
    for (at, (disk, bus)) in spec.disks.iter().enumerate() {
        let path = in_a_list(&disk.path);
        words.push(format!(
            "-blockdev driver=file,node-name=f{at},filename={path},locking=off,cache.direct=on,aio=threads \
             -blockdev driver=raw,node-name=d{at},file=f{at},cache.direct=on"
        ));
        let device = match bus {
            Bus::Virtio => "virtio-blk-pci",
            Bus::Scsi => "scsi-hd,bus=scsi0.0",
            Bus::Nvme => "nvme",
        };
        words.push(format!("-device {device},drive=d{at},share-rw=on,serial={}", disk.serial));
    }
    if spec.address.is_some() {
        let [a, b, c, d] = crc32c::crc32c(spec.host.as_bytes()).to_be_bytes();
        words.push(format!("-netdev {}", lab.network()));
        words.push(format!(
            "-device virtio-net-pci,netdev=net0,romfile=,host_mtu=9000,mac=52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}"
        ));
    }
    let mut arguments: Vec<String> =
        words.iter().flat_map(|word| word.split(' ')).map(|word| word.replace(BLANK, " ")).collect();
    arguments.retain(|word| !word.is_empty());
    arguments.push("-append".to_owned());
    arguments.push(line);
    Ok(arguments)
}
