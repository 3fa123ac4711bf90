//! What is waited for, for how long and who is in the way: a countdown on a terminal, plain lines otherwise.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::render;
use crate::clock::{self, Mono};
use crate::protocol::{Event, describe};

/// Tells on standard error.
pub(super) struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    until: Option<(Mono, Duration)>,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        let on_terminal = !quiet && std::io::stderr().is_terminal();
        let bar = on_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{msg} {bar:24} {prefix}");
            bar.set_style(style.expect("a fixed template"));
            bar
        });
        Progress { quiet, bar, until: None }
    }

    /// Says `line`, above the countdown if there is one.
    pub(super) fn line(&self, line: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("mmp: {line}")),
            // A closed standard error must not end a holder.
            None => drop(writeln!(std::io::stderr(), "mmp: {line}")),
        }
    }

    /// Tells an event, and counts down to its end if it has one.
    pub(super) fn event(&mut self, event: &Event) {
        self.show(&told(event));
    }

    /// As [`Progress::event`], for one that comes from another process.
    pub(super) fn show(&mut self, told: &Told) {
        match &told.countdown {
            Some(countdown) => {
                self.until = Some((Mono(countdown.until_ns), countdown.total));
                if let Some(bar) = &self.bar {
                    bar.set_length(millis(countdown.total));
                    bar.set_message(countdown.message.clone());
                    self.tick();
                    return;
                }
            }
            None => self.clear(),
        }
        if let Some(line) = &told.line {
            self.line(line);
        }
    }

    /// Redraws the countdown.
    pub(super) fn tick(&self) {
        if let (Some(bar), Some((until, total))) = (&self.bar, self.until) {
            let left = until.since(clock::mono());
            bar.set_position(millis(total.saturating_sub(left)));
            bar.set_prefix(format!("{:.0} s left", left.as_secs_f64().ceil()));
            bar.tick();
        }
    }

    /// Takes the countdown away.
    pub(super) fn clear(&mut self) {
        self.until = None;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            bar.reset();
        }
    }
}

/// What an event is told as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    line: Option<String>,
    countdown: Option<Countdown>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Countdown {
    until_ns: u64,
    total: Duration,
    message: String,
}

/// Renders an event. What ends a verb is not told here but as its result.
pub(super) fn told(event: &Event) -> Told {
    let line = |line: String| Told { line: Some(line), countdown: None };
    let counting = |until: Mono, total: Duration, message: String, line: String| Told {
        line: Some(line),
        countdown: Some(Countdown { until_ns: until.0, total, message }),
    };
    match event {
        Event::Watching { of, until, total } => counting(
            *until,
            *total,
            format!("not clean; watching {}", describe::peer(of)),
            format!(
                "not clean; watching it for {}; last named: {}",
                render::seconds(*total),
                render::peer(of)
            ),
        ),
        Event::Claiming { until, total } => counting(
            *until,
            *total,
            "claimed; watching for rivals".to_owned(),
            format!("claimed; watching for {} that nobody else claims", render::seconds(*total)),
        ),
        Event::Waiting { of, patience_until } => {
            let left = patience_until.since(clock::mono());
            let text = format!("in use elsewhere; waiting up to {} for it to end", render::seconds(left));
            let message = format!("in use; waiting for {}", describe::peer(of));
            counting(*patience_until, left, message, format!("{text}; last named: {}", render::peer(of)))
        }
        Event::WaitingHere { users, patience_until } => {
            let left = patience_until.since(clock::mono());
            let users = users.join(", ");
            let text = format!(
                "in use on this host; waiting up to {} for it to end: {users}",
                render::seconds(left)
            );
            counting(*patience_until, left, format!("in use on this host: {users}"), text)
        }
        Event::LostRace { to, .. } => {
            line(format!("another claimer was faster; looking again; last named: {}", render::peer(to)))
        }
        Event::TooSlow { took, limit, check_interval_s } => line(format!(
            "a write took {}, more than the {} that can count; again with a check interval of {check_interval_s} s",
            render::seconds(*took),
            render::seconds(*limit)
        )),
        Event::Held { .. } => line("held".to_owned()),
        Event::Intruder { by } => line(format!(
            "warning: somebody claimed over our beat; beaten over; it named: {}",
            render::peer(by)
        )),
        Event::Cleared { by } => line(format!(
            "warning: our live block was marked clean by force; beaten over; it named: {}",
            render::peer(by)
        )),
        Event::Repaired => line("warning: the MMP block stood damaged; written anew".to_owned()),
        Event::IoTrouble { what, lease_end } => {
            let left = render::seconds(lease_end.since(clock::mono()));
            line(format!("warning: {what}; trying again, {left} of the lease left"))
        }
        Event::Lost { .. } | Event::Refused { .. } | Event::Watched { .. } | Event::Released => {
            Told::default()
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
