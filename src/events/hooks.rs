//! Hooks: commands of the administrator's that are run when something happens.
//!
//! Protects: a hook is executed by itself, never through a shell, with an environment of its own, no descriptor of ours, and none of a
//! guard's scheduling, memory locks and OOM score. It runs below a supervising process, so that nobody waits for it: not the guard, which
//! may end before it, and not the keeper. With all it started (its process group) it is killed when its time is over. Does not protect
//! from what a hook does, nor from one that leaves its process group.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{EventKind, EventRecord, journal};
use crate::clock;
use crate::sys::process::signal_group;
use crate::sys::realtime::Protection;
use crate::sys::spawn::{alone_with, take_stdin};

/// The hidden verb that a hook's supervisor is started by.
pub const VERB: &str = "event-hook";
/// So many run at once for one process; what comes on top is not run, and counted.
pub const AT_ONCE: usize = 4;
/// Its name, as ps(1) shows it.
pub(super) const NAME: &std::ffi::CStr = c"mmp-hook";
/// What a hook finds its programs by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest time a hook may be given.
const LONGEST_S: u32 = 600;
const DEFAULT_S: u32 = 10;
/// How often a hook is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// A letter is far shorter.
const LETTER_BYTES: u64 = 1 << 18;

/// The table `[events]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `hooks`: what is run, in this order.
    #[serde(default)]
    pub hooks: Vec<Hook>,
}

impl Settings {
    /// Those that want to know of it.
    pub(super) fn wanted(&self, kind: EventKind) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |hook| hook.on.as_ref().is_none_or(|on| on.contains(&kind)))
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AsWritten")]
pub struct Hook {
    /// `command`: the program, by its absolute path, and its arguments.
    command: Vec<String>,
    /// `on`: of which events; without it of all.
    on: Option<Vec<EventKind>>,
    /// `time_limit_s`: it is killed after so many seconds.
    time_limit_s: u32,
}

/// As it stands in the file, before it was looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AsWritten {
    command: Vec<String>,
    on: Option<Vec<EventKind>>,
    time_limit_s: Option<u32>,
}

impl TryFrom<AsWritten> for Hook {
    type Error = String;

    fn try_from(written: AsWritten) -> Result<Self, String> {
        let AsWritten { command, on, time_limit_s } = written;
        let program = command.first().ok_or("a hook's command has at least one word, its program")?;
        if !Path::new(program).is_absolute() {
            return Err(format!(
                "a hook's program has an absolute path, not {program:?} (it is not run by a shell)"
            ));
        }
        if command.iter().any(|word| word.contains('\0')) {
            return Err("a hook's command cannot hold a NUL".to_owned());
        }
        if on.as_ref().is_some_and(Vec::is_empty) {
            return Err(
                "a hook that is run on nothing: leave `on` out to have it run on everything".to_owned()
            );
        }
        let time_limit_s = time_limit_s.unwrap_or(DEFAULT_S);
        if !(1..=LONGEST_S).contains(&time_limit_s) {
            return Err(format!("a hook's time_limit_s is 1 to {LONGEST_S}, not {time_limit_s}"));
        }
        Ok(Hook { command, on, time_limit_s })
    }
}

/// How long one that was killed may take to be gone.
const GRACE: Duration = Duration::from_secs(2);

/// How a hook ended.
#[derive(Debug, PartialEq, Eq)]
pub enum HookEnd {
    /// By itself.
    Ended,
    /// Killed at its time limit.
    Killed,
    /// It could not be run.
    NotRun,
}

/// What a supervisor is started with.
#[derive(Serialize, Deserialize)]
struct Letter {
    hook: Hook,
    record: EventRecord,
    protection: Protection,
}

/// Starts a supervisor for `hook` from a process with threads.
pub(super) fn start(hook: &Hook, record: &EventRecord, protection: &Protection) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(VERB).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let letter = Letter { hook: hook.clone(), record: record.clone(), protection: protection.clone() };
    let mut bytes = serde_json::to_vec(&letter)?;
    bytes.push(b'\n');
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(&bytes); // less than a pipe holds; one that has died is collected all the same
    }
    Ok(child)
}

/// The body of a supervisor that was started by exec.
///
/// # Errors
/// When it was not started by who has something to tell.
pub fn run_supervisor() -> io::Result<HookEnd> {
    let letter = std::fs::File::from(take_stdin()?);
    let letter: Letter = serde_json::from_reader(io::Read::take(letter, LETTER_BYTES))?;
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(NAME);
    alone_with(&[])?;
    letter.protection.undo_in_child();
    Ok(supervise(&letter.hook, &letter.record))
}

/// Runs `hook`, waits for it, and kills it when its time is over.
#[must_use]
pub fn supervise(hook: &Hook, record: &EventRecord) -> HookEnd {
    let until = clock::mono() + Duration::from_secs(hook.time_limit_s.into());
    let Ok(mut child) = execute(hook, record) else { return HookEnd::NotRun };
    loop {
        match child.try_wait() {
            Ok(None) if clock::mono() < until => clock::sleep(LOOK),
            Ok(Some(_)) => return HookEnd::Ended,
            _ => break,
        }
    }
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = signal_group(Pid::from_raw(group), Signal::SIGKILL as i32);
    }
    // One that hangs in a dead device ends when its I/O does: nobody waits for that.
    let gone = clock::mono() + GRACE;
    while matches!(child.try_wait(), Ok(None)) && clock::mono() < gone {
        clock::sleep(LOOK);
    }
    HookEnd::Killed
}

fn execute(hook: &Hook, record: &EventRecord) -> io::Result<Child> {
    let mut command = Command::new(&hook.command[0]);
    command.args(&hook.command[1..]).env_clear().env("PATH", PATH).envs(journal::variables(record));
    command.current_dir(PathBuf::from("/")).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(&line); // far less than a pipe holds; it need not be read
    }
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Severity, Subject, Told};
    use std::fs;

    fn parsed(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn shell(script: &str, time_limit_s: u32) -> Hook {
        let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        Hook { command, on: None, time_limit_s }
    }

    fn record() -> EventRecord {
        let subject = Subject { node: "alpha".into(), ..Subject::new(Path::new("/dev/sdx"), None) };
        let told = Told::new(EventKind::Lost, Severity::Critical, "it's gone; $(reboot) `reboot`");
        EventRecord::now(&subject, &Told { other: Some("beta".into()), ..told })
    }

    #[test]
    fn what_the_configuration_says_is_taken() {
        assert_eq!(parsed("").unwrap(), Settings::default());
        let text = "hooks = [ { command = [\"/bin/a\", \"b c\"], on = [\"lost\", \"fenced\"], time_limit_s = 3 }, \
                    { command = [\"/bin/all\"] } ]";
        let settings = parsed(text).unwrap();
        let programs = |kind| -> Vec<_> {
            settings.wanted(kind).map(|hook| (hook.command[0].clone(), hook.time_limit_s)).collect()
        };
        let (some, all) = (("/bin/a".to_owned(), 3), ("/bin/all".to_owned(), 10));
        assert_eq!(programs(EventKind::Lost), [some, all.clone()]);
        assert_eq!(programs(EventKind::Held), [all]);
        let again: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (bad, why) in [
            ("{ command = [] }", "at least one word"),
            ("{ command = [\"mail\"] }", "absolute"),
            ("{ command = \"/bin/mail root\" }", "sequence"),
            ("{ on = [\"lost\"] }", "command"),
            ("{ command = [\"/bin/a\"], on = [] }", "on nothing"),
            ("{ command = [\"/bin/a\"], on = [\"dead\"] }", "dead"),
            ("{ command = [\"/bin/a\"], time_limit_s = 0 }", "1 to 600"),
            ("{ command = [\"/bin/a\"], time_limit_s = 601 }", "1 to 600"),
            ("{ command = [\"/bin/a\"], timeout = 5 }", "timeout"),
        ] {
            let error = parsed(&format!("hooks = [ {bad} ]")).unwrap_err();
            assert!(error.contains(why) && error.contains("line 1"), "{bad}: {error}");
        }
        assert!(parsed("hook = []").is_err());
    }

    #[test]
    fn a_hook_is_told_by_variables_and_on_standard_input() {
        let dir = tempfile::tempdir().unwrap();
        let (variables, input) = (dir.path().join("variables"), dir.path().join("input"));
        let script = format!("env > {}; cat > {}; pwd >&2", variables.display(), input.display());
        assert_eq!(supervise(&shell(&script, 10), &record()), HookEnd::Ended);
        let variables = fs::read_to_string(variables).unwrap();
        for line in [
            "MMP_EVENT=lost",
            "MMP_DEVICE=/dev/sdx",
            "MMP_NODE=alpha",
            "MMP_OTHER=beta",
            "MMP_TEXT=it's gone; $(reboot) `reboot`",
            "PWD=/",
        ] {
            assert!(variables.lines().any(|found| found == line), "no {line} in {variables}");
        }
        assert!(!variables.contains("CARGO") && !variables.contains("HOME="), "{variables}");
        let read: EventRecord = serde_json::from_str(&fs::read_to_string(input).unwrap()).unwrap();
        assert_eq!((read.kind, read.text.as_str()), (EventKind::Lost, "it's gone; $(reboot) `reboot`"));
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 300 & echo $! $$ > {}; trap '' TERM; sleep 300", pids.display());
        let before = clock::mono();
        assert_eq!(supervise(&shell(&script, 1), &record()), HookEnd::Killed);
        let took = clock::mono().since(before);
        assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
        for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
            let lives = || {
                let stat = crate::sys::process::Stat::of(pid.parse().unwrap());
                stat.is_some_and(|stat| stat.state != 'Z')
            };
            let until = clock::mono() + Duration::from_secs(5);
            while lives() && clock::mono() < until {
                clock::sleep(LOOK);
            }
            assert!(!lives(), "{pid} lives");
        }
    }

    #[test]
    fn one_that_cannot_be_run_is_said_so() {
        let hook = Hook { command: vec!["/nowhere/at/all".into()], ..shell("", 1) };
        assert_eq!(supervise(&hook, &record()), HookEnd::NotRun);
        let ignores = shell("exec <&-; exit 3", 10);
        assert_eq!(supervise(&ignores, &record()), HookEnd::Ended);
    }
}
