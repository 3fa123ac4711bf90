//! One clear sentence for every refusal and every loss.

use super::{LoserRule, Loss, Peer, Refusal};

/// What a refusal means, without the path, and whom the block names.
#[must_use]
pub fn refusal(refusal: &Refusal) -> String {
    match refusal.peer() {
        Some(by) => format!("{}; {}", reason(refusal), peer(by)),
        None => reason(refusal),
    }
}

/// What a refusal means, without the path and without the peer, for whoever shows [`Refusal::peer`] in his own way.
#[must_use]
pub fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::InUse { after, .. } => {
            format!("in use elsewhere: its MMP block changed after {:.1} s", after.as_secs_f64())
        }
        Refusal::Fsck { .. } => "e2fsck is at work on it, or died at it".to_owned(),
        Refusal::NoBeat { .. } => {
            "it is mounted here, but its kernel does not beat the MMP block (is it frozen?)".to_owned()
        }
        Refusal::Damaged { damage } => format!("the MMP block is damaged: {damage}"),
        Refusal::UnknownSequence { seq } => format!("the MMP block has an unknown sequence {seq:#010x}"),
        Refusal::Changed { what, .. } => format!("the filesystem changed under the watch: {what}"),
        Refusal::Io { what, .. } => what.clone(),
        Refusal::Withdrawn { claim_left_standing: false } => {
            "the claim was withdrawn; nothing was written".to_owned()
        }
        Refusal::Withdrawn { claim_left_standing: true } => {
            "the claim was withdrawn; its mark stands in the block and the next claimer has to watch it out"
                .to_owned()
        }
    }
}

/// Why protection ended.
#[must_use]
pub fn loss(loss: &Loss) -> String {
    match loss {
        Loss::LeaseExpired => {
            "no beat was acknowledged for a whole lease (the device hung, or this host did)".to_owned()
        }
        Loss::Stolen { by, because } => format!("another host beats ({}); {}", rule(*because), peer(by)),
        Loss::Fsck { by } => format!("an e2fsck took the device over; {}", peer(by)),
        Loss::ForeignClean { by } => format!("another host came, worked and left; {}", peer(by)),
        Loss::Unreadable => "the MMP block was overwritten with something unreadable".to_owned(),
        Loss::CellLost => "the keeper declared it lost".to_owned(),
        Loss::NoKernelBeat => "the kernel mounted it, but does not beat its MMP block".to_owned(),
    }
}

/// Whom a block names.
#[must_use]
pub fn peer(peer: &Peer) -> String {
    format!("last named node {:?}, device {:?}", peer.node, peer.device)
}

fn rule(rule: LoserRule) -> &'static str {
    match rule {
        LoserRule::Slept => "this host slept longer than a check interval",
        LoserRule::ClockStoodStill => "this host's clock stood still",
        LoserRule::LowerName => "both were awake, and the lower name stops",
        LoserRule::OtherDidNotStop => "both were awake, and the other did not stop",
        LoserRule::Generation => "it took over, by its generation",
        LoserRule::EqualNames => "both carry the same names, so both stop",
    }
}
