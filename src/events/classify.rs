//! Which of the protocol's events are told, as what, and how much they matter.
//!
//! Does not decide when a guard begins, ends or is lost: who runs it knows, and tells these.

use super::{EventKind, Severity, Stage};
use crate::protocol::{Event, Peer, Resumption, describe};

/// What is told, of whomever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What happened.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// A sentence; names in it are escaped.
    pub text: String,
    /// The other party's node name, escaped.
    pub other: Option<String>,
    /// The other party's device name, escaped.
    pub other_device: Option<String>,
    /// Whether it begins or ends.
    pub stage: Option<Stage>,
}

impl Told {
    /// Without another party.
    #[must_use]
    pub fn new(kind: EventKind, severity: Severity, text: impl Into<String>) -> Self {
        Told { kind, severity, text: text.into(), other: None, other_device: None, stage: None }
    }

    /// Something that the administrator has to look at.
    #[must_use]
    pub fn alarm(text: impl Into<String>) -> Self {
        Self::new(EventKind::Alarm, Severity::Warning, text)
    }

    /// With the other party that the block names.
    #[must_use]
    pub fn by(self, peer: &Peer) -> Self {
        Told { other: Some(peer.node.to_string()), other_device: Some(peer.device.to_string()), ..self }
    }

    /// A device was taken over from `peer`, who had not left it clean.
    #[must_use]
    pub fn takeover(peer: &Peer) -> Self {
        let text = format!(
            "taken over after it was watched; it had not been left clean by {}",
            describe::peer(peer)
        );
        Self::new(EventKind::Takeover, Severity::Notice, text).by(peer)
    }

    fn staged(self, stage: Stage) -> Self {
        Told { stage: Some(stage), ..self }
    }
}

/// An event of the protocol's; none if it is on the way to something that is told by itself.
#[must_use]
pub fn classify(event: &Event) -> Option<Told> {
    let told = match event {
        Event::Intruder { by } => {
            let text = format!("somebody claimed over the block and was beaten over: {}", describe::peer(by));
            Told::new(EventKind::Intruder, Severity::Warning, text).by(by)
        }
        Event::Contested { by } => {
            let text = format!("another host uses the device at the same time: {}", describe::peer(by));
            Told { severity: Severity::Critical, ..Told::alarm(text).by(by) }
        }
        Event::LeftToOthers { by } => {
            let text = format!(
                "while it was released somebody wrote over the block, and it is left to them: {}",
                describe::peer(by)
            );
            Told::alarm(text).by(by)
        }
        Event::Cleared { by } => {
            let text = format!(
                "the live block was marked clean (by force, or by a kernel that lost it), and beaten over: {}",
                describe::peer(by)
            );
            Told::alarm(text).by(by)
        }
        Event::Repaired => Told::alarm("the block stood damaged, and was written anew"),
        Event::IoTrouble { what, .. } => Told::alarm(format!("a look or a beat failed: {what}")),
        Event::Resumed { why: Resumption::Stopped } => {
            Told::alarm("the kernel stopped the filesystem after an error; beating until it is unmounted")
        }
        Event::Bridging { silent } => {
            let text = format!(
                "the kernel has not beaten for {:.1} s (is the filesystem frozen?); beating in its stead",
                silent.as_secs_f64()
            );
            Told::new(EventKind::Bridged, Severity::Warning, text).staged(Stage::Begun)
        }
        Event::BridgeEnded => {
            Told::new(EventKind::Bridged, Severity::Notice, "the kernel beats again").staged(Stage::Ended)
        }
        Event::Watching { .. }
        | Event::Waiting { .. }
        | Event::WaitingHere { .. }
        | Event::Claiming { .. }
        | Event::LostRace { .. }
        | Event::TooSlow { .. }
        | Event::Held { .. }
        | Event::HandedOver { .. }
        | Event::Overtaken { .. }
        | Event::KernelBeats { .. }
        | Event::Resumed { .. }
        | Event::Unmounted
        | Event::NotMounted { .. }
        | Event::Lost { .. }
        | Event::Refused { .. }
        | Event::Watched { .. }
        | Event::Released => return None,
    };
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Mono, Wall};
    use crate::format::{DeviceName, NodeName};
    use std::time::Duration;

    fn peer() -> Peer {
        let (node, device) = (NodeName::new("be\x1bta"), DeviceName::new("sdb"));
        Peer { node, device, last_update: Wall(1), check_interval_s: 5, seq: 7 }
    }

    #[test]
    fn each_event_is_told_as_what_it_is() {
        let by = peer();
        let of = |event| classify(&event).map(|told| (told.kind, told.severity, told.stage, told.other));
        let other = Some("be\\x1bta".to_owned());
        let warning = Severity::Warning;
        let alarm = |other| Some((EventKind::Alarm, warning, None, other));
        assert_eq!(of(Event::Intruder { by }), Some((EventKind::Intruder, warning, None, other.clone())));
        let contested = Some((EventKind::Alarm, Severity::Critical, None, other.clone()));
        assert_eq!(of(Event::Contested { by }), contested);
        assert_eq!(of(Event::Cleared { by }), alarm(other.clone()));
        assert_eq!(of(Event::LeftToOthers { by }), alarm(other));
        assert_eq!(of(Event::Repaired), alarm(None));
        assert_eq!(of(Event::IoTrouble { what: "read: EIO".into(), lease_end: Mono(1) }), alarm(None));
        assert_eq!(of(Event::Resumed { why: Resumption::Stopped }), alarm(None));
        let silent = Duration::from_millis(3100);
        let begun = Some((EventKind::Bridged, warning, Some(Stage::Begun), None));
        assert_eq!(of(Event::Bridging { silent }), begun);
        let ended = Some((EventKind::Bridged, Severity::Notice, Some(Stage::Ended), None));
        assert_eq!(of(Event::BridgeEnded), ended);
        for quiet in [
            Event::Released,
            Event::Unmounted,
            Event::Resumed { why: Resumption::ReadOnly },
            Event::Held { lease_end: Mono(1), as_peer: by },
            Event::Claiming { until: Mono(1), total: silent },
        ] {
            assert_eq!(classify(&quiet), None, "{quiet:?}");
        }
    }

    #[test]
    fn a_takeover_names_the_one_before() {
        let told = Told::takeover(&peer());
        assert_eq!((told.other.as_deref(), told.other_device.as_deref()), (Some("be\\x1bta"), Some("sdb")));
        assert!(told.text.contains("be\\x1bta") && !told.text.contains('\x1b'), "{}", told.text);
    }
}
