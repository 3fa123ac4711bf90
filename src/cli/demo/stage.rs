//! What the audience sees: steps with their time since the start, and a countdown while something is waited for.
//!
//! Protects: an interruption or a closed output ends the demo at the next line or within a tick of a wait.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::interrupt::Interrupt;
use crate::clock::{self, Mono};
use crate::error::Error;

/// How often a wait looks for what it waits for.
const TICK: Duration = Duration::from_millis(50);
/// How often the time left is told where no bar can be drawn.
const PLAIN_PERIOD: Duration = Duration::from_secs(5);
/// What is not a step stands below its text.
const INDENT: &str = "             ";

/// Why the demo ends early.
pub(super) enum Stop {
    /// A step did not come out as told.
    Failed(String),
    /// The system refused something.
    Error(Error),
    /// A signal.
    Interrupted,
    /// Standard output is a pipe that was closed.
    NobodyReads,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

/// Where it is told.
pub(super) struct Stage {
    start: Mono,
    interrupt: Interrupt,
    bar: Option<ProgressBar>,
}

/// A wait that is shown.
pub(super) struct Countdown {
    start: Mono,
    total: Duration,
    told_at: Mono,
}

impl Stage {
    pub(super) fn new(interrupt: Interrupt) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("             {bar:40} {msg}");
            bar.set_style(style.expect("a fixed template"));
            bar
        });
        Stage { start: clock::mono(), interrupt, bar }
    }

    /// Since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        clock::mono().since(self.start)
    }

    /// A paragraph of its own.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Stop> {
        self.write(&format!("{text}\n\n"))
    }

    /// What happens now, with the time.
    pub(super) fn step(&mut self, what: &str) -> Result<(), Stop> {
        self.write(&format!("[{:7.1} s]  {what}\n", self.elapsed().as_secs_f64()))
    }

    /// What the last step means.
    pub(super) fn explain(&mut self, why: &str) -> Result<(), Stop> {
        self.write(&format!("{INDENT}   {why}\n"))
    }

    /// Begins to count down `total`.
    pub(super) fn count_down(&self, start: Mono, total: Duration) -> Countdown {
        if let Some(bar) = &self.bar {
            bar.set_length(millis(total));
        }
        Countdown { start, total, told_at: clock::mono() }
    }

    /// Lets a tick of a wait pass.
    pub(super) fn tick(&mut self, countdown: &mut Countdown) -> Result<(), Stop> {
        if self.interrupt.came() {
            return Err(Stop::Interrupted);
        }
        let passed = clock::mono().since(countdown.start);
        let left = countdown.total.saturating_sub(passed);
        match &self.bar {
            Some(bar) => {
                bar.set_position(millis(passed.min(countdown.total)));
                bar.set_message(format!("{:.0} s left", left.as_secs_f64().ceil()));
            }
            None if clock::mono().since(countdown.told_at) >= PLAIN_PERIOD && !left.is_zero() => {
                countdown.told_at = clock::mono();
                self.explain(&format!("... {:.0} s left", left.as_secs_f64()))?;
            }
            None => {}
        }
        clock::sleep(TICK);
        Ok(())
    }

    /// Takes the countdown away.
    pub(super) fn counted(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            bar.reset();
        }
    }

    /// Lets `span` pass.
    pub(super) fn pause(&mut self, span: Duration) -> Result<(), Stop> {
        let until = clock::mono() + span;
        let mut countdown = self.count_down(clock::mono(), span);
        while clock::mono() < until {
            self.tick(&mut countdown)?;
        }
        self.counted();
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), Stop> {
        let write = || {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        let written = match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Stop::NobodyReads),
            Err(error) => Err(Stop::Failed(format!("cannot write what happens: {error}"))),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
