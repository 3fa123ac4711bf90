//! `mmp run` around a command, on image files, as an ordinary user. A claim takes 11 s, so cases run side by side.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::{MmpBlock, NodeName};
use mmpguard::protocol::Sequence;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{OrdinaryUser, Ran, Scratch, finished, layout, patch_block};

/// A clean claim, C = 5 s.
const WAIT: Duration = Duration::from_secs(11);

/// An image of the ordinary user's, and a `run` on it.
struct Case {
    scratch: Scratch,
    command: Command,
}

impl Case {
    fn new(user: &OrdinaryUser, options: &[&str], command: &[&str]) -> Self {
        Self::on(Scratch::new(), user, options, command)
    }

    fn on(scratch: Scratch, user: &OrdinaryUser, options: &[&str], command: &[&str]) -> Self {
        user.owns(scratch.dir());
        user.owns(&scratch.image);
        let mut run = user.mmp();
        run.args(["run", "--node", "alpha"]).args(options).arg(&scratch.image).arg("--").args(command);
        run.env_remove("MMP_NODE_NAME").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Case { scratch, command: run }
    }

    fn spawn(&mut self) -> Child {
        self.command.spawn().expect("starts")
    }

    /// To the end, with this on standard input.
    fn run(&mut self, input: &[u8]) -> Ran {
        let start = clock::mono();
        let mut child = self.command.stdin(Stdio::piped()).spawn().expect("starts");
        child.stdin.take().expect("is a pipe").write_all(input).expect("fits into a pipe");
        let output = child.wait_with_output().expect("ends");
        finished(&output, clock::mono().since(start))
    }

    /// Left clean under our name, and not one byte changed but in the block.
    fn is_clean(&self) {
        let block = self.scratch.block();
        assert_eq!(Sequence::from(block.seq), Sequence::Clean, "{block:?}");
        assert_eq!(block.node, NodeName::new("alpha"), "{block:?}");
        let (mut now, mut fresh) = (self.scratch.bytes(), Scratch::new().bytes());
        let at = layout().at;
        for bytes in [&mut now, &mut fresh] {
            bytes[at..][..1024].fill(0);
        }
        assert!(now == fresh, "something outside of the MMP block changed");
    }
}

#[test]
fn the_exit_status_of_the_command_is_passed_on() {
    let user = OrdinaryUser::new();
    let cases: [(&[&str], i32); 6] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 128 + 9),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["/nowhere/no-such-command"], 127),
        (&["/etc"], 126),
    ];
    thread::scope(|scope| {
        for (command, code) in cases {
            let user = &user;
            scope.spawn(move || {
                let mut case = Case::new(user, &[], command);
                let ran = case.run(b"");
                assert_eq!(ran.code, Some(code), "{command:?}: {ran:?}");
                assert!(ran.took >= WAIT, "{command:?} did not wait: {ran:?}");
                assert!(ran.err.contains("claimed") && ran.err.contains("held"), "{ran:?}");
                case.is_clean();
            });
        }
    });
}

#[test]
fn the_command_finds_its_streams_and_its_environment() {
    let user = OrdinaryUser::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut case = Case::new(&user, &["-q"], &["cat"]);
            let text = "a line\n".repeat(2000);
            let ran = case.run(text.as_bytes());
            assert_eq!((ran.code, ran.out == text, ran.err.as_str()), (Some(0), true, ""), "{:?}", ran.err);
            case.is_clean();
        });
        scope.spawn(|| {
            let script = "echo \"$MMP_DEVICE $MMP_NODE $MMP_BLOCK\"; echo told >&2";
            let mut case = Case::new(&user, &["--quiet"], &["sh", "-c", script]);
            let ran = case.run(b"");
            let expected = format!("{} alpha 22\n", case.scratch.image.display());
            assert_eq!((ran.code, ran.out, ran.err.as_str()), (Some(0), expected, "told\n"));
        });
        scope.spawn(|| {
            // The name from the environment, and the block while it is held: live, and beating.
            let mut case = Case::new(&user, &[], &["sh", "-c", "echo up; exec sleep 3"]);
            let mut child = case.spawn();
            let mut out = BufReader::new(child.stdout.take().expect("is a pipe"));
            let mut line = String::new();
            out.read_line(&mut line).expect("reads");
            let first = case.scratch.block();
            clock::sleep(Duration::from_millis(1500));
            let second = case.scratch.block();
            for block in [first, second] {
                assert!(matches!(Sequence::from(block.seq), Sequence::Live(_)), "{block:?}");
                assert_eq!((block.node, block.check_interval_s), (NodeName::new("alpha"), 5));
            }
            assert_ne!(first.seq, second.seq, "no beat within 1.5 s");
            assert_eq!(child.wait().expect("ends").code(), Some(0));
            case.is_clean();
        });
        scope.spawn(|| {
            let mut case = Case::new(&user, &["--tolerate", "12s"], &["sh", "-c", "echo $MMP_NODE"]);
            let ran = case.run(b"");
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), "alpha\n"), "{ran:?}");
            assert_eq!(case.scratch.block().check_interval_s, 6, "an outage of 12 s takes C = 6 s");
        });
    });
}

#[test]
fn signals_reach_the_command_and_end_a_claim() {
    let user = OrdinaryUser::new();
    thread::scope(|scope| {
        for (signal, name, code) in [(Signal::SIGTERM, "TERM", 42), (Signal::SIGUSR1, "USR1", 43)] {
            let user = &user;
            scope.spawn(move || {
                let script =
                    format!("trap 'echo caught; exit {code}' {name}; echo up; while :; do sleep 0.1; done");
                let mut case = Case::new(user, &[], &["sh", "-c", &script]);
                let mut child = case.spawn();
                let mut out = BufReader::new(child.stdout.take().expect("is a pipe"));
                let mut line = String::new();
                out.read_line(&mut line).expect("reads");
                assert_eq!(line, "up\n");
                send(&child, signal);
                out.read_to_string(&mut line).expect("reads");
                assert_eq!((line.as_str(), child.wait().expect("ends").code()), ("up\ncaught\n", Some(code)));
                case.is_clean();
            });
        }
        scope.spawn(|| {
            // While it claims: withdrawn at once, the command never runs, and the block is clean again.
            let scratch = Scratch::new();
            let used = scratch.file("used");
            let mut case = Case::on(scratch, &user, &[], &["touch", used.to_str().expect("is UTF-8")]);
            let mut child = case.spawn();
            let mut err = BufReader::new(child.stderr.take().expect("is a pipe"));
            let mut line = String::new();
            err.read_line(&mut line).expect("reads");
            assert!(line.contains("claimed"), "{line}");
            let start = clock::mono();
            send(&child, Signal::SIGINT);
            assert_eq!(child.wait().expect("ends").code(), Some(120));
            assert!(clock::mono().since(start) < Duration::from_secs(3));
            assert!(!used.exists(), "the command ran");
            assert_eq!(Sequence::from(case.scratch.block().seq), Sequence::Clean);
        });
        scope.spawn(|| {
            // Killed the hard way: the command dies with it, and the sequence stands.
            let mut case = Case::new(&user, &[], &["sh", "-c", "echo $$; exec sleep 100"]);
            let mut child = case.spawn();
            let mut out = BufReader::new(child.stdout.take().expect("is a pipe"));
            let mut line = String::new();
            out.read_line(&mut line).expect("reads");
            let command = line.trim().to_owned();
            send(&child, Signal::SIGKILL);
            let start = clock::mono();
            // The pipe ends when the last process that holds it does.
            out.read_to_string(&mut line).expect("reads");
            assert!(clock::mono().since(start) < Duration::from_secs(2), "outlived its holder");
            child.wait().expect("ends");
            // It closes its descriptors a moment before it counts as dead.
            let lives = || {
                let stat = fs::read_to_string(format!("/proc/{command}/stat")).unwrap_or_default();
                !stat.is_empty() && !stat.contains(") Z ")
            };
            while lives() {
                assert!(clock::mono().since(start) < Duration::from_secs(2), "outlived its holder");
                clock::sleep(Duration::from_millis(10));
            }
            assert!(matches!(Sequence::from(case.scratch.block().seq), Sequence::Live(_)));
        });
    });
}

#[test]
fn a_live_peer_is_refused_soon_and_awaited_when_asked() {
    let user = OrdinaryUser::new();
    thread::scope(|scope| {
        for (options, code) in
            [(&["--pretend-another-host"][..], 121), (&["--pretend-another-host", "-E", "7"], 7)]
        {
            let user = &user;
            scope.spawn(move || {
                let mut case = Case::on(peers(), user, options, &["echo", "ran"]);
                let peer = Peer::beat(&case.scratch, None);
                let ran = case.run(b"");
                drop(peer);
                assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{ran:?}");
                assert!(ran.took < Duration::from_secs(5), "{ran:?}");
                for told in [
                    "in use elsewhere",
                    "node \"peer\\x1b[2J\"",
                    "device \"sdp1\"",
                    "last update",
                    "stop it on",
                ] {
                    assert!(ran.err.contains(told), "does not tell {told:?}: {ran:?}");
                }
                assert!(!ran.err.contains('\x1b'), "an escape sequence came through: {ran:?}");
                assert_eq!(
                    case.scratch.block().node,
                    NodeName::new("peer\x1b[2J"),
                    "written over a live peer"
                );
            });
        }
        scope.spawn(|| {
            let options = ["--pretend-another-host", "--wait", "60s"];
            let mut case = Case::on(peers(), &user, &options, &["echo", "ran"]);
            let peer = Peer::beat(&case.scratch, Some(Duration::from_secs(4)));
            let ran = case.run(b"");
            drop(peer);
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), "ran\n"), "{ran:?}");
            assert!(ran.err.contains("waiting up to"), "{ran:?}");
            assert!(
                ran.took >= Duration::from_secs(4) + WAIT && ran.took < Duration::from_secs(25),
                "{ran:?}"
            );
            case.is_clean();
        });
    });
}

/// The sequence that the tests' peer begins with.
const FIRST: u32 = 1000;

fn peers() -> Scratch {
    Scratch::with(|bytes| {
        patch_block(bytes, |block| {
            *block = MmpBlock {
                seq: FIRST,
                time_s: clock::wall().0,
                node: NodeName::new("peer\x1b[2J"),
                device: mmpguard::format::DeviceName::new("sdp1"),
                check_interval_s: 5,
            };
        });
    })
}

/// Another host that beats, until it is dropped or, if told so, leaves after a while with a clean mark.
struct Peer {
    stop: std::sync::mpsc::Sender<()>,
    beating: Option<thread::JoinHandle<()>>,
}

impl Peer {
    fn beat(scratch: &Scratch, leaves_after: Option<Duration>) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let image = scratch.image.clone();
        let mut block = scratch.block();
        let beating = thread::spawn(move || {
            let start = clock::mono();
            while stopped
                .recv_timeout(Duration::from_millis(500))
                .is_err_and(|why| why == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let leaves = leaves_after.is_some_and(|after| clock::mono().since(start) >= after);
                block.seq = if leaves { 0xFF4D_4D50 } else { block.seq + 1 };
                crate::support::write_block(&image, &block);
                if leaves {
                    return;
                }
            }
        });
        Peer { stop, beating: Some(beating) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        self.beating.take().map(thread::JoinHandle::join);
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("is a pid")), signal).expect("signals");
}

/// Where little memory may be locked none is, instead of failing in the middle.
#[test]
fn a_limit_of_locked_memory_is_borne() {
    let user = OrdinaryUser::new();
    let (_, hard_limit) = getrlimit(Resource::RLIMIT_MEMLOCK).expect("is known");
    thread::scope(|scope| {
        for kib in [0, 64, 2 << 10, 4 << 10, 6 << 10, 7 << 10, 8 << 10] {
            if kib * 1024 > hard_limit {
                continue; // nobody may raise his own
            }
            let user = &user;
            scope.spawn(move || {
                let mut case = Case::new(user, &[], &["sh", "-c", "ulimit -l"]);
                let mut limited = Command::new("sh");
                limited.args(["-c", &format!("ulimit -l {kib} && exec \"$@\""), "sh"]);
                limited.arg(case.command.get_program()).args(case.command.get_args());
                limited.stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("MMP_NODE_NAME");
                case.command = limited;
                let ran = case.run(b"");
                assert_eq!((ran.code, ran.out), (Some(0), format!("{kib}\n")), "{kib} KiB: {}", ran.err);
                case.is_clean();
            });
        }
    });
}

/// A file that cannot be executed is told apart from one that is not there.
#[test]
fn the_mode_of_the_program_decides() {
    let user = OrdinaryUser::new();
    let scratch = Scratch::new();
    let program = scratch.file("program");
    fs::write(&program, "#!/bin/sh\nexit 5\n").expect("writes");
    let path = program.to_str().expect("is UTF-8").to_owned();
    thread::scope(|scope| {
        for (mode, code) in [(0o644, 126), (0o755, 5)] {
            let (user, copy) = (&user, format!("{path}-{mode:o}"));
            fs::copy(&program, &copy).expect("copies");
            fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).expect("changes the mode");
            scope.spawn(move || {
                let mut case = Case::new(user, &[], &[&copy]);
                let ran = case.run(b"");
                assert_eq!(ran.code, Some(code), "{mode:o}: {ran:?}");
                case.is_clean();
            });
        }
    });
}
