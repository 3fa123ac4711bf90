//! What a guard hands its events to: one writer thread a process, behind a channel that is never waited for.
//!
//! Protects: whoever tells an event is held up by nothing, neither a disk nor a journal nor a hook. What finds the channel full is lost,
//! and counted for the guard it belonged to. Does not protect an event from the death of the process: a guard that ends asks for what it
//! told to be written ([`Emitter::flush`]), for a moment.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{EventKind, EventRecord, Settings, Subject, Told, hooks, journal, log};
use crate::sys::realtime::remembered;

/// Events that may wait to be written.
const BACKLOG: usize = 1024;
/// The writer's stack.
const STACK_BYTES: usize = 256 * 1024;
/// How often hooks that have ended are collected.
const COLLECTED: Duration = Duration::from_secs(1);

/// The way to the writer of this process; none if it could not be started.
static WRITER: OnceLock<Option<SyncSender<Job>>> = OnceLock::new();
/// What became of a guard's events.
#[derive(Debug, Default)]
pub struct Counts {
    told: [AtomicU64; EventKind::ALL.len()],
    dropped: AtomicU64,
}

impl Counts {
    /// So many were told of each kind; those of which there was none are left out.
    pub fn told(&self) -> impl Iterator<Item = (EventKind, u64)> + '_ {
        let of = |kind: EventKind| (kind, self.told[kind.index()].load(SeqCst));
        EventKind::ALL.into_iter().map(of).filter(|(_, count)| *count > 0)
    }

    /// So many times a log line, a journal entry or a hook was lost.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(SeqCst)
    }

    fn dropped_one(&self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// Tells the events of one guard.
#[derive(Clone, Debug)]
pub struct Emitter {
    directory: PathBuf,
    settings: Arc<Settings>,
    counts: Arc<Counts>,
}

enum Job {
    Tell { record: Box<EventRecord>, emitter: Emitter },
    Flush(SyncSender<()>),
}

impl Emitter {
    /// With the log below `directory`.
    #[must_use]
    pub fn new(directory: &Path, settings: &Settings) -> Self {
        Emitter {
            directory: directory.to_owned(),
            settings: Arc::new(settings.clone()),
            counts: Arc::new(Counts::default()),
        }
    }

    /// What became of them.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Tells what has just happened. Never waits. Not in a process that forks: it may start a thread.
    pub fn tell(&self, subject: &Subject, told: &Told) {
        self.counts.told[told.kind.index()].fetch_add(1, SeqCst);
        let record = Box::new(EventRecord::now(subject, told));
        let sent = writer().map(|writer| writer.try_send(Job::Tell { record, emitter: self.clone() }));
        if !matches!(sent, Some(Ok(()))) {
            self.counts.dropped_one();
        }
    }

    /// Waits until what was told is written and its hooks are started; at most so long.
    pub fn flush(&self, patience: Duration) {
        let (done, wait) = sync_channel(1);
        if let Some(Some(writer)) = WRITER.get()
            && writer.try_send(Job::Flush(done)).is_ok()
        {
            let _ = wait.recv_timeout(patience);
        }
    }
}

fn writer() -> Option<&'static SyncSender<Job>> {
    let start = || {
        let (sender, jobs) = sync_channel(BACKLOG);
        let thread = std::thread::Builder::new().name("mmp-events".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || write(&jobs)).ok().map(|_| sender)
    };
    WRITER.get_or_init(start).as_ref()
}

fn write(jobs: &Receiver<Job>) {
    let mut running = Vec::new();
    loop {
        // As long as hooks run they are collected when they have ended.
        let job = if running.is_empty() {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(COLLECTED)
        };
        running.retain_mut(|child: &mut Child| matches!(child.try_wait(), Ok(None)));
        match job {
            Ok(Job::Tell { record, emitter }) => emitter.write(&record, &mut running),
            Ok(Job::Flush(done)) => {
                let _ = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Emitter {
    fn write(&self, record: &EventRecord, running: &mut Vec<Child>) {
        if log::append(&self.directory, record).is_err() {
            self.counts.dropped_one();
        }
        if journal::send(record).is_err() {
            self.counts.dropped_one();
        }
        for hook in self.settings.wanted(record.kind) {
            let protection = remembered().cloned().unwrap_or_default();
            match (running.len() < hooks::AT_ONCE).then(|| hooks::start(hook, record, &protection)) {
                Some(Ok(child)) => running.push(child),
                Some(Err(_)) | None => self.counts.dropped_one(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Severity;

    #[test]
    fn what_is_told_is_written_in_order_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let emitter = Emitter::new(dir.path(), &Settings::default());
        let subject = Subject::new(Path::new("/dev/sdx"), None);
        let told = |kind| Told::new(kind, Severity::Info, "as told");
        for kind in [EventKind::Held, EventKind::Bridged, EventKind::Bridged, EventKind::Released] {
            emitter.tell(&subject, &told(kind));
        }
        emitter.flush(Duration::from_secs(20));
        let read = log::Reader::new(dir.path()).read().unwrap();
        let kinds: Vec<_> = read.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [EventKind::Held, EventKind::Bridged, EventKind::Bridged, EventKind::Released]);
        let counted: Vec<_> = emitter.counts().told().collect();
        assert_eq!(counted, [(EventKind::Held, 1), (EventKind::Bridged, 2), (EventKind::Released, 1)]);
        assert_eq!(emitter.counts().dropped(), 0);
    }

    #[test]
    fn a_log_that_cannot_be_written_loses_events_which_are_counted() {
        let emitter = Emitter::new(Path::new("/nowhere/at/all"), &Settings::default());
        let subject = Subject::new(Path::new("/dev/sdx"), None);
        emitter.tell(&subject, &Told::alarm("lost to all"));
        emitter.flush(Duration::from_secs(20));
        assert_eq!(emitter.counts().dropped(), 1);
    }
}
