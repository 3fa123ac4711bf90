//! What a guard tells of itself: when it begins and ends, what it took over, what the protocol sees, beats that are late.
//!
//! Protects: all of it is handed to the writer of this process and never waited for, but for a moment at the very end. The thread that
//! beats knows nothing of it. Does not tell a loss: the keeper does, when it has fenced.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Adoption, Event, Guardian, Held, Mode, Task, clock, identity, render};
use crate::clock::Mono;
use crate::events::{Emitter, EventKind, Limiter, Severity, Subject, Told, classify};
use crate::protocol::{Peer, timing};

/// How long the last events of a guard may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// For how long a late beat counts as one of late.
const LATELY: Duration = Duration::from_secs(60);
/// How often it is looked for late beats.
const LOOK: Duration = Duration::from_secs(1);
/// How much sooner than the end of a watch a claim may be for the watch to have been through.
const MARGIN: Duration = Duration::from_secs(1);

/// What a guard keeps for that.
pub(super) struct Events {
    pub(super) emitter: Emitter,
    subject: Subject,
    limiter: Limiter,
    /// It goes on under the lease of a guard that died.
    succession: bool,
    /// Who had not left it clean, and when his watch is through.
    predecessor: Option<(Peer, Mono)>,
    /// Up to where beats were looked at.
    seen: Mono,
    next_look: Mono,
    /// When beats were late.
    late: VecDeque<Mono>,
}

impl Events {
    pub(super) fn of(task: &Task, adoption: Option<&Adoption>) -> Self {
        let subject = Subject {
            node: identity::kernel_node_name(),
            block_device: task.kernel_name.clone(),
            ..Subject::new(&task.device, Some(&task.dir))
        };
        Events {
            emitter: Emitter::new(&task.registry, &task.events),
            subject,
            limiter: Limiter::default(),
            succession: adoption.is_some_and(|adoption| adoption.left.is_some()),
            predecessor: None,
            seen: clock::mono(),
            next_look: Mono(0),
            late: VecDeque::new(),
        }
    }

    /// Tells it, unless the same was told a moment ago.
    fn tell(&mut self, told: &Told) {
        if self.limiter.allows(told, clock::mono()) {
            self.emitter.tell(&self.subject, told);
        }
    }

    /// So many beats were late within the last minute.
    pub(super) fn late_lately(&self) -> u64 {
        let now = clock::mono();
        self.late.iter().filter(|&&at| now.since(at) < LATELY).count() as u64
    }

    /// On the way to a guard: whether somebody is being taken over from.
    fn claims(&mut self, event: &Event) {
        match event {
            Event::Watching { of, until, .. } => self.predecessor = Some((*of, *until)),
            // He has left it clean meanwhile, or another one was faster.
            Event::Claiming { .. }
                if self.predecessor.is_some_and(|(_, until)| clock::mono() + MARGIN < until) =>
            {
                self.predecessor = None;
            }
            Event::Waiting { .. } | Event::LostRace { .. } => self.predecessor = None,
            Event::HandedOver { wait, predecessor } if !wait.is_zero() => {
                self.predecessor = predecessor.map(|peer| (peer, Mono(0)));
            }
            _ => {}
        }
    }
}

impl Guardian {
    /// Tells what the protocol does.
    pub(super) fn publish(&mut self, event: &Event) {
        self.events.claims(event);
        if let Some(told) = classify(event) {
            self.events.tell(&told);
        }
    }

    /// Something that the administrator has to look at.
    pub(super) fn alarm(&mut self, text: &str) {
        self.events.tell(&Told::alarm(text));
    }

    /// It is guarded from here on.
    pub(super) fn publish_beginning(&mut self, held: &Held) {
        let owner = held.place().medium().owner();
        self.events.subject.node = owner.node.to_string();
        self.events.subject.block_device = owner.device.to_string();
        self.events.subject.generation = held.generation();
        if self.events.succession && self.resident {
            return; // daemons come and go
        }
        if self.events.succession {
            return self.alarm("the guarding process died and was replaced; it is guarded again");
        }
        if let Some((peer, _)) = self.events.predecessor.take() {
            self.events.tell(&Told::takeover(&peer));
        }
        let dir = render::shown(&self.task.dir);
        let text = match held.mode() {
            Mode::Watching => format!("guarded on {dir}; the kernel beats, watched"),
            _ => format!("guarded on {dir}; beating"),
        };
        self.events.tell(&Told::new(EventKind::Held, Severity::Info, text));
    }

    /// It is guarded no more, and clean. Written when this returns, if it can be.
    pub(super) fn publish_end(&mut self) {
        self.events.tell(&Told::new(EventKind::Released, Severity::Info, "unmounted and released"));
        self.events.emitter.flush(LAST_WORDS);
    }

    /// Looks whether beats were late since the last time.
    pub(super) fn watch_lateness(&mut self, held: &Held) {
        let now = clock::mono();
        if now < self.events.next_look {
            return;
        }
        self.events.next_look = now + LOOK;
        let late_by = interval(held) / 2;
        let beats = held.history(self.events.seen);
        let late: Vec<_> = beats.iter().filter(|beat| beat.behind() > late_by).collect();
        self.events.seen = beats.last().map_or(self.events.seen, |beat| beat.at);
        self.events.late.retain(|&at| now.since(at) < LATELY);
        self.events.late.extend(late.iter().map(|beat| beat.at));
        if let Some(worst) = late.iter().max_by_key(|beat| beat.behind()) {
            let waited = worst.read + worst.write.unwrap_or_default();
            let text = format!(
                "{} late by more than {}: begun {} late, and then the device took {}",
                if worst.write.is_some() { "a beat was" } else { "a look was" },
                render::seconds(late_by),
                render::seconds(worst.late),
                render::seconds(waited)
            );
            self.events.tell(&Told::new(EventKind::Late, Severity::Warning, text));
        }
    }
}

/// How often it is beaten, or looked at.
pub(super) fn interval(held: &Held) -> Duration {
    held.place().medium().interval().unwrap_or(timing::DEFAULT_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::format::{DeviceName, NodeName};

    fn peer() -> Peer {
        let (node, device) = (NodeName::new("beta"), DeviceName::new("sdb"));
        Peer { node, device, last_update: Wall(1), check_interval_s: 5, seq: 7 }
    }

    fn events() -> Events {
        Events {
            emitter: Emitter::new(std::path::Path::new("/nowhere"), &crate::events::Settings::default()),
            subject: Subject::default(),
            limiter: Limiter::default(),
            succession: false,
            predecessor: None,
            seen: Mono(0),
            next_look: Mono(0),
            late: VecDeque::new(),
        }
    }

    #[test]
    fn a_takeover_is_one_whose_watch_was_through() {
        let (now, total) = (clock::mono(), Duration::from_secs(11));
        let claiming = Event::Claiming { until: now + total, total };
        let mut events = events();
        events.claims(&Event::Watching { of: peer(), until: now, total });
        events.claims(&claiming);
        assert!(events.predecessor.is_some());
        events.claims(&Event::Watching { of: peer(), until: now + total, total });
        events.claims(&claiming);
        assert!(events.predecessor.is_none(), "he has left meanwhile");
        events.claims(&Event::HandedOver { wait: total, predecessor: Some(peer()) });
        events.claims(&Event::HandedOver { wait: Duration::ZERO, predecessor: None });
        assert!(events.predecessor.is_some(), "the hand-over after a claim says nothing of him");
        events.claims(&Event::HandedOver { wait: total, predecessor: None });
        assert!(events.predecessor.is_none());
    }

    #[test]
    fn late_beats_count_for_a_minute() {
        let mut events = events();
        let now = clock::mono();
        events.late.extend([now - LATELY - LOOK, now - LOOK, now]);
        assert_eq!(events.late_lately(), 2);
    }
}
