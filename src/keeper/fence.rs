//! What the keeper does to make sure that nothing uses the device any more.
//!
//! A [`Ladder`] holds rungs in the order in which they are climbed: the next one runs only if those before it could
//! not finish. For `mmp run` there is one, [`KillTree`]: the only user of the device is the command, and what
//! is killed uses nothing. It does not cut off what is in the kernel's hands already (page cache, queued I/O).

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::sys::cgroup::Cgroup;
use crate::sys::process::{self, Left};

/// How long a rung waits for processes that SIGKILL does not end at once (uninterruptible sleep).
const PATIENCE: Duration = Duration::from_secs(2);
/// So often again while something that *can* run is left: it forked faster than it was found.
const TRIES: u32 = 3;
/// So many of those left are named; a message has to fit into a packet.
const NAMED_AT_MOST: usize = 64;

/// What a rung achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceReport {
    /// The last rung that ran.
    pub rung: String,
    /// At least so many processes were killed, by all rungs together.
    pub killed: usize,
    /// What is still there, at most 64 of them.
    pub still_there: Vec<Left>,
    /// How many those are in all.
    pub still_there_count: usize,
    /// How long it took.
    pub took_ms: u64,
}

impl FenceReport {
    /// Nothing is left that could use the device.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.still_there_count == 0
    }
}

/// One way to stop the use of the device, prepared beforehand: running it needs no memory, file or device that
/// might not be there then.
pub trait Fence {
    /// Its name, for reports.
    fn name(&self) -> &'static str;

    /// Runs it, within a time of its own. May be run again.
    fn run(&mut self) -> FenceReport;
}

/// Rungs, climbed from the first until one reports that it is done.
pub struct Ladder {
    rungs: Vec<Box<dyn Fence>>,
}

impl Ladder {
    /// A ladder of these rungs, the mildest first.
    #[must_use]
    pub fn new(rungs: Vec<Box<dyn Fence>>) -> Self {
        Ladder { rungs }
    }

    /// Climbs it.
    pub fn run(&mut self) -> FenceReport {
        let begin = clock::mono();
        let mut whole = FenceReport::default();
        for rung in &mut self.rungs {
            let report = rung.run();
            let killed = whole.killed + report.killed;
            whole = FenceReport { rung: rung.name().to_owned(), killed, ..report };
            if whole.is_done() {
                break;
            }
        }
        whole.took_ms = u64::try_from(clock::mono().since(begin).as_millis()).unwrap_or(u64::MAX);
        whole
    }
}

/// SIGKILL to every descendant of this process, at once, and by the cgroup where there is one.
#[derive(Debug)]
pub struct KillTree {
    cgroup: Option<Rc<Cgroup>>,
}

impl KillTree {
    /// Of this process's descendants, and of this cgroup.
    #[must_use]
    pub fn new(cgroup: Option<Rc<Cgroup>>) -> Self {
        KillTree { cgroup }
    }
}

impl Fence for KillTree {
    fn name(&self) -> &'static str {
        "kill-tree"
    }

    fn run(&mut self) -> FenceReport {
        let mut killed = 0;
        let mut left = Vec::new();
        for _ in 0..TRIES {
            if let Some(cgroup) = &self.cgroup {
                let _ = cgroup.kill(); // the walk follows in any case
            }
            let report = process::kill_tree(&[], PATIENCE, &mut |_, _| {});
            killed += report.killed;
            left = report.still_there;
            if left.iter().all(Left::is_stuck) {
                break;
            }
        }
        let still_there_count = left.len();
        left.truncate(NAMED_AT_MOST);
        FenceReport { killed, still_there: left, still_there_count, ..FenceReport::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Rung(&'static str, usize, Rc<RefCell<Vec<&'static str>>>);

    impl Fence for Rung {
        fn name(&self) -> &'static str {
            self.0
        }
        fn run(&mut self) -> FenceReport {
            self.2.borrow_mut().push(self.0);
            FenceReport { killed: 2, still_there_count: self.1, ..FenceReport::default() }
        }
    }

    #[test]
    fn a_ladder_is_climbed_until_a_rung_is_done() {
        let ran = Rc::default();
        let rungs = [("a", 3), ("b", 0), ("c", 0)]
            .map(|(name, left)| Box::new(Rung(name, left, Rc::clone(&ran))) as Box<dyn Fence>);
        let report = Ladder::new(rungs.into()).run();
        assert_eq!(*ran.borrow(), ["a", "b"]);
        assert!(report.is_done());
        assert_eq!((report.rung.as_str(), report.killed), ("b", 4));
    }
}
