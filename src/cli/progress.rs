//! What is waited for, for how long and who is in the way: a countdown on a terminal, plain lines otherwise.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
        let (line, until) = told(event);
        if let Some((until, total, message)) = until {
            self.until = Some((until, total));
            if let Some(bar) = &self.bar {
                bar.set_length(millis(total));
                bar.set_message(message);
                self.tick();
                return;
            }
        } else {
            self.clear();
        }
        if let Some(line) = line {
            self.line(&line);
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

type Countdown = (Mono, Duration, String);

fn told(event: &Event) -> (Option<String>, Option<Countdown>) {
    match event {
        Event::Watching { of, until, total } => {
            let text = format!("not clean; watching for signs of life; last named: {}", render::peer(of));
            let short = format!("watching {}", describe::peer(of));
            (Some(format!("{text}; {} to go", render::seconds(*total))), Some((*until, *total, short)))
        }
        Event::Claiming { until, total } => {
            let text = "claimed; watching that nobody else claims";
            (
                Some(format!("{text}; {} to go", render::seconds(*total))),
                Some((*until, *total, "claimed; watching for rivals".to_owned())),
            )
        }
        Event::Waiting { of, patience_until } => {
            let left = patience_until.since(clock::mono());
            let text = format!("in use elsewhere; waiting for it to end; last named: {}", render::peer(of));
            let short = format!("in use; waiting for {}", describe::peer(of));
            (
                Some(format!("{text}; giving up after {}", render::seconds(left))),
                Some((*patience_until, left, short)),
            )
        }
        Event::LostRace { to, .. } => (
            Some(format!("another claimer was faster; looking again; last named: {}", render::peer(to))),
            None,
        ),
        Event::TooSlow { took, limit, check_interval_s } => (
            Some(format!(
                "a write took {}, more than the {} that can count; starting again with a check interval of {check_interval_s} s",
                render::seconds(*took),
                render::seconds(*limit)
            )),
            None,
        ),
        Event::Held { .. } => (Some("held".to_owned()), None),
        Event::Intruder { by } => (
            Some(format!(
                "warning: somebody claimed over our beat; beaten over; block named: {}",
                render::peer(by)
            )),
            None,
        ),
        Event::Cleared { by } => (
            Some(format!(
                "warning: our live block was marked clean by force; beaten over; mark named: {}",
                render::peer(by)
            )),
            None,
        ),
        Event::Repaired => (Some("warning: the MMP block stood damaged; written anew".to_owned()), None),
        Event::IoTrouble { what, lease_end } => {
            let left = render::seconds(lease_end.since(clock::mono()));
            (Some(format!("warning: {what}; trying again, {left} of the lease left")), None)
        }
        // The verbs say these themselves, as their result.
        Event::Lost { .. } | Event::Refused { .. } | Event::Watched { .. } | Event::Released => (None, None),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
