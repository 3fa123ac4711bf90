//! `mmp daemon` of one LUN's host, and whoever talks to it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::lun::{Lun, RUNTIME, text};
use super::process::Process;
use super::seconds;
use super::started::{Ended, Started, patiently};

/// A daemon that runs.
pub(crate) struct Daemon {
    started: Started,
    pub(crate) directory: PathBuf,
}

impl Daemon {
    /// Starts one in the LUN's own directory, or the one that `env` names, and waits until it listens.
    pub(crate) fn of(lun: &Lun) -> Daemon {
        Daemon::with(lun, env!("CARGO_BIN_EXE_mmp"), &[])
    }

    pub(crate) fn with(lun: &Lun, program: &str, env: &[(&str, String)]) -> Daemon {
        let moved =
            env.iter().find(|(name, _)| *name == "MMP_RUNTIME_DIR").map(|(_, value)| PathBuf::from(value));
        let directory = moved.unwrap_or_else(|| lun.file(RUNTIME));
        for socket in ["daemon.sock", "monitor.sock"] {
            let _ = std::fs::remove_file(directory.join(socket));
        }
        let mut all = vec![("MMP_LOG", "info".to_owned())];
        all.extend_from_slice(env);
        let mut daemon = Daemon { started: lun.start_with(program, ["daemon"], &all), directory };
        let listens = patiently(seconds(20), || daemon.connect("monitor.sock"));
        assert!(listens.is_some(), "it does not listen: {:?}", daemon.started.end(seconds(0)));
        daemon
    }

    pub(crate) fn process(&self) -> Process {
        self.started.process()
    }

    pub(crate) fn said(&self) -> String {
        self.started.err()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        self.process().signal(Signal::SIGKILL);
        self.started.end(seconds(10));
    }

    /// Ends it as systemd does.
    pub(crate) fn stop(mut self) -> Ended {
        self.process().signal(Signal::SIGTERM);
        self.started.end(seconds(10))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.started.has_ended()
    }

    pub(crate) fn connect(&self, socket: &str) -> Option<UnixStream> {
        connect(&self.directory.join(socket)).ok()
    }

    /// One call, one reply.
    pub(crate) fn call(&self, socket: &str, method: &str, parameters: &Value) -> Value {
        let reply = self.try_call(socket, method, parameters);
        let alive = || if self.process().is_alive() { "lives" } else { "has died" };
        reply.unwrap_or_else(|error| {
            panic!("no reply to {method}: {error}; the daemon {}, and said: {}", alive(), self.said())
        })
    }

    pub(crate) fn try_call(&self, socket: &str, method: &str, parameters: &Value) -> io::Result<Value> {
        let mut stream = connect(&self.directory.join(socket))?;
        let call = json!({ "method": format!("org.mmpguard.{method}"), "parameters": parameters });
        say(&mut stream, call.to_string().as_bytes());
        try_reply(&mut stream)
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(seconds(30)))?;
    Ok(stream)
}

/// Sends a message, whatever it is.
pub(crate) fn say(stream: &mut UnixStream, message: &[u8]) {
    // One that is not served is closed: the reply tells.
    let _ = stream.write_all(message).and_then(|()| stream.write_all(b"\0"));
}

/// The next message; none if there is none any more.
pub(crate) fn reply(stream: &mut UnixStream) -> Option<Value> {
    try_reply(stream).ok()
}

fn try_reply(stream: &mut UnixStream) -> io::Result<Value> {
    let mut message = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == 0 {
            return Ok(serde_json::from_slice(&message).expect("is JSON"));
        }
        message.push(byte[0]);
    }
}

/// The directory that several LUNs' guards share, as an environment.
pub(crate) fn together(lun: &Lun) -> [(&'static str, String); 1] {
    [("MMP_RUNTIME_DIR", text(&lun.file(RUNTIME)).to_owned())]
}
