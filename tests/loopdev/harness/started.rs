//! A program under way: what it said so far, how and when it ended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use mmpguard::clock::{self, Mono};

use super::cleanup;
use super::process::{MARK, Process};

/// A program that runs. Dropping kills it; what it started is found by its mark.
pub(crate) struct Started {
    child: Child,
    name: String,
    out: PathBuf,
    err: PathBuf,
    pub(crate) at: Mono,
    ended: Option<(Mono, ExitStatus)>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit status, or 128 + signal.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) at: Mono,
    pub(crate) took: Duration,
}

impl Started {
    /// Starts `program`. `stem` is where its output goes, without an extension.
    pub(crate) fn new<S: AsRef<OsStr>>(
        program: &str,
        arguments: impl IntoIterator<Item = S>,
        env: &[(&str, String)],
        mark: &str,
        stem: &std::path::Path,
    ) -> Started {
        let (out, err) = (stem.with_extension("out"), stem.with_extension("err"));
        let file = |path: &PathBuf| File::create(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
        command.env(MARK, mark).env("LC_ALL", "C").env_remove("MMP_NODE_NAME").env_remove("MMP_CONFIG");
        // No loss in a test may do more than shut a filesystem down, whatever else is not said.
        command.env("MMP_ON_LOSS", "shutdown").env("MMP_RUNTIME_DIR", cleanup::runtime());
        // Nor is the journal of the machine it runs on told of it.
        command.env("MMP_JOURNAL_SOCKET", "/nowhere/at/all");
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let at = clock::mono();
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        Started { child, name: program.to_owned(), out, err, at, ended: None }
    }

    pub(crate) fn process(&self) -> Process {
        Process::of(i32::try_from(self.child.id()).expect("fits")).expect("is not reaped yet")
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).expect("reads")).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).expect("reads")).into_owned()
    }

    /// Standard output and standard error so far, as they are.
    pub(crate) fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        (fs::read(&self.out).expect("reads"), fs::read(&self.err).expect("reads"))
    }

    /// The child of that name, waited for a moment.
    pub(crate) fn child(&self, comm: &str) -> Process {
        let find = || self.process().children().into_iter().find(|child| child.comm == comm);
        patiently(Duration::from_secs(5), find)
            .unwrap_or_else(|| panic!("{} has no child {comm}: {}", self.name, self.err()))
    }

    /// The command's processes: all below the keeper.
    pub(crate) fn tree(&self) -> Vec<Process> {
        self.child("mmp-keeper").descendants()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            let status = self.child.try_wait().expect("is a child of ours");
            self.ended = status.map(|status| (clock::mono(), status));
        }
        self.ended.is_some()
    }

    /// Waits until standard error says `text`; gives when that was seen.
    pub(crate) fn says(&mut self, text: &str, patience: Duration) -> Mono {
        let until = clock::mono() + patience;
        loop {
            let ended = self.has_ended();
            if self.err().contains(text) {
                return clock::mono();
            }
            assert!(!ended, "{} ended without saying {text:?}: {}{}", self.name, self.out(), self.err());
            assert!(clock::mono() < until, "{} does not say {text:?}: {}", self.name, self.err());
            clock::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self, patience: Duration) -> Ended {
        let until = clock::mono() + patience;
        while !self.has_ended() {
            assert!(
                clock::mono() < until,
                "{} has not ended after {patience:?}: {}{}",
                self.name,
                self.out(),
                self.err()
            );
            clock::sleep(Duration::from_millis(5));
        }
        let (at, status) = self.ended.expect("has ended");
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ended { code, out: self.out(), err: self.err(), at, took: at.since(self.at) }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    /// Both streams.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    pub(crate) fn expect(&self, code: i32) -> &Ended {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    pub(crate) fn says(&self, text: &str) -> &Ended {
        assert!(self.text().contains(text), "no {text:?} in: {}", self.text());
        self
    }
}

/// Asks until there is an answer or patience ends.
pub(crate) fn patiently<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = clock::mono() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if clock::mono() >= until {
            return None;
        }
        clock::sleep(Duration::from_millis(10));
    }
}
