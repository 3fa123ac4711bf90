//! What is waited for, for how long and who is in the way: a countdown on a terminal, plain lines otherwise.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{output, render};
use crate::clock::{self, Mono};
use crate::protocol::{Event, Resumption, describe, timing};

/// Tells on standard error.
pub(super) struct Progress {
    quiet: bool,
    on_terminal: bool,
    bar: Option<Bar>,
}

/// A countdown being drawn.
struct Bar {
    drawn: ProgressBar,
    until: Mono,
    total: Duration,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        Progress { quiet, on_terminal: !quiet && std::io::stderr().is_terminal(), bar: None }
    }

    /// Says `line`, above the countdown if there is one.
    pub(super) fn line(&self, line: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.drawn.suspend(|| output::complain(line)),
            None => output::complain(line),
        }
    }

    /// Tells an event, and counts down to its end if it has one.
    pub(super) fn event(&mut self, event: &Event) {
        self.show(&told(event));
    }

    /// As [`Progress::event`], for one that comes from another process.
    pub(super) fn show(&mut self, told: &Told) {
        self.clear();
        match (&told.countdown, &told.line) {
            (Some(countdown), _) if self.on_terminal => {
                self.bar = Some(Bar::begin(countdown));
                self.tick();
            }
            (_, Some(line)) => self.line(line),
            (_, None) => {}
        }
    }

    /// Redraws the countdown.
    pub(super) fn tick(&self) {
        if let Some(bar) = &self.bar {
            let left = bar.until.since(clock::mono());
            bar.drawn.set_position(millis(bar.total.saturating_sub(left)));
            bar.drawn.set_prefix(format!("{:.0} s left", left.as_secs_f64().ceil()));
            bar.drawn.tick();
        }
    }

    /// Takes the countdown away.
    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.drawn.finish_and_clear();
        }
    }
}

impl Bar {
    fn begin(countdown: &Countdown) -> Self {
        let drawn =
            ProgressBar::with_draw_target(Some(millis(countdown.total)), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("mmp: {msg} {bar:24} {prefix}");
        drawn.set_style(style.expect("a fixed template"));
        drawn.set_message(countdown.message.clone());
        Bar { drawn, until: Mono(countdown.until_ns), total: countdown.total }
    }
}

/// What an event is told as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    line: Option<String>,
    countdown: Option<Countdown>,
}

impl Told {
    /// A line alone.
    pub(super) fn line(line: String) -> Self {
        Told { line: Some(line), countdown: None }
    }

    /// The same, said of one of several devices.
    pub(super) fn about(self, device: &Path) -> Self {
        let device = render::shown(device);
        let named = |text: String| format!("{device}: {text}");
        let countdown =
            self.countdown.map(|countdown| Countdown { message: named(countdown.message), ..countdown });
        Told { line: self.line.map(named), countdown }
    }

    /// What it says, if anything.
    pub(super) fn text(&self) -> Option<&str> {
        self.line.as_deref()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Countdown {
    until_ns: u64,
    total: Duration,
    message: String,
}

/// Renders an event. What ends a verb is not told here but as its result.
pub(super) fn told(event: &Event) -> Told {
    let line = Told::line;
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
        Event::Contested { by } => line(format!(
            "warning: another host uses the device at the same time; beating over it, so that it stops; it named: {}",
            render::peer(by)
        )),
        Event::LeftToOthers { by } => line(format!(
            "warning: while it was released somebody wrote over our block; it is left to them; it named: {}",
            render::peer(by)
        )),
        Event::Cleared { by } => line(format!(
            "warning: our live block was marked clean (by force, or by a kernel that lost it); beaten over; it named: {}",
            render::peer(by)
        )),
        Event::Repaired => line("warning: the MMP block stood damaged; written anew".to_owned()),
        Event::IoTrouble { what, lease_end } => {
            let left = render::seconds(lease_end.since(clock::mono()));
            line(format!("warning: {what}; trying again, {left} of the lease left"))
        }
        other => told_of_kernel(other),
    }
}

/// What concerns a mount. The rest says nothing.
fn told_of_kernel(event: &Event) -> Told {
    let line = Told::line;
    match event {
        Event::HandedOver { wait, predecessor } if !wait.is_zero() => {
            let left = predecessor.as_ref().map_or_else(
                || "clean".to_owned(),
                |was| format!("not clean; last named: {}", render::peer(was)),
            );
            let text = format!("{left}; the kernel mounts, and waits {} to be sure", render::seconds(*wait));
            let message = "the kernel mounts and waits; watching for others".to_owned();
            let until_ns = (clock::mono() + *wait).0;
            Told { line: Some(text), countdown: Some(Countdown { until_ns, total: *wait, message }) }
        }
        Event::HandedOver { .. } => line("handed over to the kernel".to_owned()),
        Event::Overtaken { refusal: None } => line("it was left cleanly just now; again".to_owned()),
        Event::Overtaken { refusal: Some(refusal) } => {
            line(format!("stopping the mount: {}", describe::refusal(refusal)))
        }
        Event::KernelBeats { .. } => line("the kernel beats; watching it".to_owned()),
        // Over what was written there instead of its beat.
        Event::Bridging { silent } if *silent < timing::DEFAULT_INTERVAL => {
            line("beating in the kernel's stead until it beats again".to_owned())
        }
        Event::Bridging { silent } => line(format!(
            "the kernel has not beaten for {} (is the filesystem frozen?); beating in its stead",
            render::seconds(*silent)
        )),
        Event::BridgeEnded => line("the kernel beats again".to_owned()),
        Event::Resumed { why } => line(match why {
            Resumption::ReadOnly => "remounted read-only; beating by ourselves".to_owned(),
            Resumption::Stopped => {
                "warning: the kernel stopped the filesystem after an error; beating by ourselves".to_owned()
            }
            Resumption::Unmounted => "unmounted without a clean mark; releasing".to_owned(),
            Resumption::NotMounted => "taking the claim back".to_owned(),
        }),
        _ => Told::default(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
