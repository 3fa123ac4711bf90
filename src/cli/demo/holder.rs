//! A holder of the demo: `mmp run` of this very program, as a process of its own.
//!
//! Protects: it is ended with everything it started when it is dropped, whatever the reason.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::render;
use super::stage::{Stage, Stop};
use crate::clock::{self, Mono};
use crate::error::Error;
use crate::format::name::escape;
use crate::sys::process::{self, Stat};

/// This program, also if its file was replaced meanwhile.
const MYSELF: &str = "/proc/self/exe";
/// How long a holder that is asked to end may take: it withdraws or releases first.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// How often an end is looked for.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// A process of `mmp run` and its command.
pub(super) struct Holder {
    node: &'static str,
    shown: String,
    program: &'static str,
    started: Mono,
    front: Child,
    running: Option<Stat>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    errors: String,
    said: String,
}

impl Holder {
    /// Starts it.
    pub(super) fn start(node: &'static str, image: &Path, command: &[&'static str]) -> Result<Self, Stop> {
        let program = command.first().expect("a command has a name");
        let shown = format!(
            "$ mmp run --pretend-another-host --node {node} {} -- {}",
            render::shown(image),
            command.join(" ")
        );
        let started = clock::mono();
        let mut front = Command::new(MYSELF)
            .arg0("mmp")
            .args(["run", "--pretend-another-host", "--node", node])
            .arg(image)
            .arg("--")
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the demo alone, which ends its holders in order.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::io("start", Path::new(MYSELF), source))?;
        let stdout = lines(front.stdout.take());
        let stderr = lines(front.stderr.take());
        let (errors, said) = (String::new(), String::new());
        Ok(Holder { node, shown, program, started, front, running: None, stdout, stderr, errors, said })
    }

    /// How a shell would start it.
    pub(super) fn command_line(&self) -> String {
        self.shown.clone()
    }

    /// All that it said on standard error.
    pub(super) fn errors(&self) -> &str {
        &self.errors
    }

    /// All that its command said on standard output.
    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// Waits until its command runs, which is not before the disk is held; gives the time since the start.
    pub(super) fn until_command_runs(
        &mut self,
        stage: &mut Stage,
        expected: Duration,
        patience: Duration,
    ) -> Result<Duration, Stop> {
        let mut countdown = stage.count_down(self.started, expected);
        loop {
            self.listen(stage)?;
            if let Some(stat) = self.find_command() {
                self.running = Some(stat);
                stage.counted();
                self.listen(stage)?;
                return Ok(self.age());
            }
            if let Some(code) = self.ended()? {
                self.listen_to_the_end(stage)?;
                return Err(Stop::Failed(format!(
                    "{} ended with {code:?} instead of holding the disk",
                    self.node
                )));
            }
            if self.age() > patience {
                return Err(Stop::Failed(format!(
                    "{} does not hold the disk after {}",
                    self.node,
                    render::seconds(self.age())
                )));
            }
            stage.tick(&mut countdown)?;
        }
    }

    /// Waits until it ended by itself; gives its exit code, none if a signal ended it, and the time since the start.
    pub(super) fn until_it_ends(
        &mut self,
        stage: &mut Stage,
        patience: Duration,
    ) -> Result<(Option<i32>, Duration), Stop> {
        let begun = clock::mono();
        let mut countdown = stage.count_down(begun, patience);
        loop {
            if let Some(code) = self.ended()? {
                let age = self.age();
                self.listen_to_the_end(stage)?;
                return Ok((code, age));
            }
            self.listen(stage)?;
            if clock::mono().since(begun) > patience {
                return Err(Stop::Failed(format!(
                    "{} did not end within {}",
                    self.node,
                    render::seconds(patience)
                )));
            }
            stage.tick(&mut countdown)?;
        }
    }

    /// Kills the process that the user sees, and nothing else; gives the time until its command was dead. Returns when
    /// the other processes of the holder are, too: from then on nobody can beat in its name.
    pub(super) fn kill_and_wait(&mut self, stage: &mut Stage, limit: Duration) -> Result<Duration, Stop> {
        let Some(command) = self.running.take() else {
            return Err(Stop::Failed(format!("{}'s command is not known", self.node)));
        };
        if !is_alive(&command) {
            return Err(Stop::Failed(format!("{}'s command ended too early", self.node)));
        }
        let others = self.processes();
        let killed_at = clock::mono();
        self.front.kill().map_err(|source| Error::io("kill", Path::new(self.node), source))?;
        while is_alive(&command) {
            if clock::mono().since(killed_at) > limit {
                return Err(Stop::Failed(format!(
                    "{}'s command (process {}) still runs {} after its holder was killed",
                    self.node,
                    command.pid,
                    render::seconds(limit)
                )));
            }
            clock::sleep(LOOK_PERIOD);
        }
        let took = clock::mono().since(killed_at);
        while others.iter().any(is_alive) {
            if clock::mono().since(killed_at) > limit {
                return Err(Stop::Failed(format!("processes of {} outlive it", self.node)));
            }
            clock::sleep(LOOK_PERIOD);
        }
        let status =
            self.front.wait().map_err(|source| Error::io("wait for", Path::new(self.node), source))?;
        self.listen_to_the_end(stage)?;
        match status.signal() {
            Some(libc::SIGKILL) => Ok(took),
            _ => Err(Stop::Failed(format!("{} was to be killed, but ended with {status}", self.node))),
        }
    }

    fn age(&self) -> Duration {
        clock::mono().since(self.started)
    }

    /// Its command, once that has replaced the keeper's fork.
    fn find_command(&self) -> Option<Stat> {
        self.processes().into_iter().find(|stat| stat.comm == self.program && !stat.is_over())
    }

    /// All that descends from the process that the user sees.
    fn processes(&self) -> Vec<Stat> {
        let front = i32::try_from(self.front.id()).map(Pid::from_raw);
        front.ok().and_then(|front| process::descendants(front, &[]).ok()).unwrap_or_default()
    }

    /// Its exit code, once it ended; `Some(None)` if a signal ended it.
    fn ended(&mut self) -> Result<Option<Option<i32>>, Stop> {
        let ended =
            self.front.try_wait().map_err(|source| Error::io("wait for", Path::new(self.node), source))?;
        Ok(ended.map(|status| status.code()))
    }

    /// Passes on what it said meanwhile.
    fn listen(&mut self, stage: &mut Stage) -> Result<(), Stop> {
        self.said.extend(self.stdout.try_iter());
        let heard: Vec<_> = self.stderr.try_iter().collect();
        heard.iter().try_for_each(|line| self.pass_on(stage, line))
    }

    /// Passes on the rest: both ends are closed when the last of its processes has ended.
    fn listen_to_the_end(&mut self, stage: &mut Stage) -> Result<(), Stop> {
        stage.counted();
        while let Ok(line) = self.stderr.recv_timeout(END_PATIENCE) {
            self.pass_on(stage, &line)?;
        }
        while let Ok(line) = self.stdout.recv_timeout(END_PATIENCE) {
            self.said.push_str(&line);
        }
        Ok(())
    }

    fn pass_on(&mut self, stage: &mut Stage, line: &str) -> Result<(), Stop> {
        self.errors.push_str(line);
        stage.explain(&format!("{} says: {line}", self.node))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let until = clock::mono() + END_PATIENCE;
        let over = |front: &mut Child| !matches!(front.try_wait(), Ok(None));
        if !over(&mut self.front)
            && let Ok(pid) = i32::try_from(self.front.id())
        {
            // It is not reaped, so the number is still its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        while !over(&mut self.front) && clock::mono() < until {
            clock::sleep(LOOK_PERIOD);
        }
        let _ = self.front.kill();
        let _ = self.front.wait();
    }
}

/// What this program prints when it is called so.
pub(super) fn output_of(arguments: &[&OsStr]) -> Result<String, Stop> {
    let output = Command::new(MYSELF)
        .arg0("mmp")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::io("start", Path::new(MYSELF), source))?;
    if !output.status.success() {
        let said = escape(&output.stderr);
        return Err(Stop::Failed(format!(
            "mmp {} ended with {}: {said}",
            escape(arguments[0].as_encoded_bytes()),
            output.status
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_alive(process: &Stat) -> bool {
    Stat::of(process.pid).is_some_and(|now| now.start_time == process.start_time && !now.is_over())
}

/// The lines of `stream`, read by a thread of its own that ends with the stream.
fn lines(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    let stream = stream.expect("it was asked for as a pipe");
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
