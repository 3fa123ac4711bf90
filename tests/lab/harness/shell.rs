//! Commands in a machine: asked over its virtio port, answered by the agent in it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mmpguard::clock::{self, Mono};

use super::vm::connect;
use super::wire::{Reply, Request};
use super::{Doing, Outcome};

/// How long a command may take that says nothing else.
const PATIENCE: Duration = Duration::from_secs(180);

/// The connection to the agent, over all boots of its machine.
pub(crate) struct Shell {
    stream: Mutex<UnixStream>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    waiting: Mutex<Waiting>,
    /// The boot ids of every agent that has said hello.
    boots: Mutex<Vec<String>>,
    booted: Condvar,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    senders: HashMap<u64, Sender<Reply>>,
}

/// A command that runs.
pub(crate) struct Running {
    replies: Receiver<Reply>,
    script: String,
    /// Of the shell that runs it, and of its process group. Some once it is known.
    pid: Option<u32>,
    lines: Vec<String>,
    ended: Option<Ended>,
    /// When it was asked for, by this machine's clock.
    pub(crate) begun: Mono,
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// How long it took by the clock of its machine.
    pub(crate) seconds: f64,
}

impl Shell {
    pub(super) fn connect(path: &Path) -> Outcome<Shell> {
        let stream = connect(path)?;
        let reader = stream.try_clone().doing("the shell's socket")?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if let Ok(reply) = serde_json::from_str(&line) {
                    shared.take(reply);
                }
            }
            // The machine has ended: nothing that waits will hear anything.
            shared.waiting.lock().expect("no panic").senders.clear();
        });
        Ok(Shell { stream: Mutex::new(stream), state })
    }

    /// How many agents have said hello: one a boot.
    pub(crate) fn boots(&self) -> usize {
        self.state.boots.lock().expect("no panic").len()
    }

    /// Waits until so many have.
    pub(crate) fn wait_for_boot(&self, count: usize, patience: Duration) -> Outcome<()> {
        let boots = self.state.boots.lock().expect("no panic");
        let waited = self.state.booted.wait_timeout_while(boots, patience, |boots| boots.len() < count);
        let (boots, _) = waited.expect("no panic");
        if boots.len() >= count { Ok(()) } else { Err(format!("no shell within {patience:?}")) }
    }

    pub(crate) fn start(&self, script: &str, trigger: Option<u64>, stream: bool) -> Outcome<Running> {
        let (sender, replies) = channel();
        let (id, boot_id) = {
            let mut waiting = self.state.waiting.lock().expect("no panic");
            waiting.next += 1;
            let id = waiting.next;
            waiting.senders.insert(id, sender);
            // Under the same lock as a hello: what is meant for a boot does not outlive it.
            (id, self.state.boots.lock().expect("no panic").last().cloned().unwrap_or_default())
        };
        let request = Request { id, boot_id, script: script.to_owned(), trigger, stream };
        let mut line = serde_json::to_string(&request).expect("is plain");
        line.push('\n');
        let begun = clock::mono();
        self.stream.lock().expect("no panic").write_all(line.as_bytes()).doing("the shell's socket")?;
        Ok(Running { replies, script: script.to_owned(), pid: None, lines: Vec::new(), ended: None, begun })
    }
}

impl State {
    fn take(&self, reply: Reply) {
        if let Some(boot_id) = reply.hello {
            // What ran in the boot before has ended without a word.
            let mut waiting = self.waiting.lock().expect("no panic");
            waiting.senders.clear();
            self.boots.lock().expect("no panic").push(boot_id);
            self.booted.notify_all();
            return;
        }
        let mut waiting = self.waiting.lock().expect("no panic");
        let (id, last) = (reply.id, reply.code.is_some());
        if let Some(sender) = waiting.senders.get(&id) {
            let _ = sender.send(reply);
        }
        if last {
            waiting.senders.remove(&id);
        }
    }
}

impl Running {
    /// Waits for its end.
    pub(crate) fn wait(self) -> Outcome<Ended> {
        self.wait_for(PATIENCE)
    }

    /// Waits for its end, not longer than that.
    pub(crate) fn wait_for(mut self, patience: Duration) -> Outcome<Ended> {
        let until = clock::mono() + patience;
        loop {
            if let Some(ended) = self.ended.take() {
                return Ok(ended);
            }
            match self.replies.recv_timeout(until.since(clock::mono())) {
                Ok(reply) => self.take(reply),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("`{}` has not ended in {patience:?}", self.script));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("`{}`: its machine has ended", self.script));
                }
            }
        }
    }

    /// What it ended with, if it has. An error: its machine has ended, or booted again, and it with it.
    pub(crate) fn poll(&mut self) -> Outcome<Option<Ended>> {
        loop {
            match self.replies.try_recv() {
                Ok(reply) => self.take(reply),
                Err(TryRecvError::Disconnected) if self.ended.is_none() => {
                    return Err(format!("`{}`: its machine has ended", self.script));
                }
                Err(_) => return Ok(self.ended.clone()),
            }
        }
    }

    /// The lines that it has printed so far, if it was started to be listened to.
    pub(crate) fn lines(&mut self) -> &[String] {
        while let Ok(reply) = self.replies.try_recv() {
            self.take(reply);
        }
        &self.lines
    }

    /// The process that runs it, its group's first. Waits until it is known.
    pub(crate) fn pid(&mut self) -> Outcome<u32> {
        while self.pid.is_none() && self.ended.is_none() {
            let reply = self.replies.recv_timeout(PATIENCE).doing(&self.script)?;
            self.take(reply);
        }
        self.pid.ok_or_else(|| format!("`{}` has ended", self.script))
    }

    fn take(&mut self, reply: Reply) {
        self.pid = reply.pid.or(self.pid);
        self.lines.extend(reply.line);
        let Reply { code, stdout, stderr, seconds, .. } = reply;
        let ended = code.map(|code| Ended { code, stdout, stderr, seconds });
        self.ended = ended.or(self.ended.take());
    }
}

impl Ended {
    pub(crate) fn ok(&self) -> bool {
        self.code == 0
    }

    /// All that it said.
    pub(crate) fn said(&self) -> String {
        format!("exit status {}: {}{}", self.code, self.stdout, self.stderr)
    }
}
