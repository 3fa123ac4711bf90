//! What `clear` says: what stands there, what a word for it risks, and why it ended.
//!
//! Names come escaped, and what is to be typed is one word of a shell, whatever a disk says.

use super::args::Clear;
use super::ask;
use super::{Found, Stopped};
use crate::cli::{exit, render};
use crate::driver::Place;
use crate::error::Error;
use crate::protocol::{Peer, Refusal};

/// What leaves that mark (e2fsprogs 1.47).
const MARKING: &str = "e2fsck, tune2fs, resize2fs or debugfs";

/// Nothing to do.
pub(super) fn clean_already(arguments: &Clear, place: &Place, by: &Peer) -> String {
    format!(
        "{}: clean already; nothing to clear; last named: {}{}",
        render::shown(&arguments.device),
        render::peer(by),
        recovery(place)
    )
}

/// The same, while somebody was asked.
pub(super) fn clean_meanwhile(arguments: &Clear) -> String {
    format!("{}: left cleanly meanwhile; nothing to clear", render::shown(&arguments.device))
}

/// Done.
pub(super) fn cleared(arguments: &Clear, place: &Place, found: &Found) -> String {
    let by =
        found.peer().map(|by| format!("; it was last named by: {}", render::peer(by))).unwrap_or_default();
    format!("{}: cleared{by}{}", render::shown(&arguments.device), recovery(place))
}

/// What else is wrong with what was found, and is not ours to mend.
fn recovery(place: &Place) -> &'static str {
    match place.superblock() {
        Some(superblock) if superblock.in_use_or_unclean() => {
            "\n  its filesystem was not left cleanly (needs_recovery): a mount replays its journal, or e2fsck does; `mmp` watches such a \
             mark for 45 s or more before it believes it"
        }
        _ => "",
    }
}

/// Before e2fsck's mark is asked about.
pub(super) fn mark(arguments: &Clear, found: &Found) -> String {
    let message = format!(
        "{}: e2fsck is at work on it, or died at it; no watching proves that it is dead",
        render::shown(&arguments.device)
    );
    let look = found
        .peer()
        .map(|by| format!("look on node {} first: no {MARKING} may run there on this device", shown(by)));
    render::lines(&message, found.peer(), look.as_deref())
}

/// What `--force` leaves out.
pub(super) fn risk(arguments: &Clear, found: &Found) -> String {
    let what = match found {
        Found::Damaged(damage) => format!("the MMP block is damaged: {damage}"),
        Found::Fsck(_) => "marked by e2fsck".to_owned(),
        Found::Unknown(_) => "the MMP block has an unknown sequence".to_owned(),
        Found::Clean(_) | Found::Live(_) => "the MMP block looks live".to_owned(),
    };
    let message = format!(
        "{}: {what}; it is cleared without a watch, so nothing shows whether somebody uses the device",
        render::shown(&arguments.device)
    );
    let risk = "if somebody does, two hosts may be in at once, and destroy what is on it: a kernel mounts what is marked clean without \
                any wait. A holder that beats writes over the mark within an interval, and `mmp` tells of it, but who was let in before \
                stays in; one whose I/O stalls, or an e2fsck, goes on without noticing";
    render::lines(&message, found.peer(), Some(risk))
}

/// What is asked on a terminal.
pub(super) fn question(found: &Found) -> &'static str {
    match found.peer() {
        Some(by) if by.node.is_empty() => "it names no node; type (none) to confirm",
        Some(_) => "type the node's name, as it is shown, to confirm",
        None => "it names nobody; type yes to confirm that no host uses the device",
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped { text: render::error(&error), code: exit::code(&error) }
    }
}

impl Stopped {
    /// The claim ended without the device. `answered`: for bytes that were seen before.
    pub(super) fn watching(error: &Error, answered: bool) -> Self {
        let advice = match error {
            Error::Refused { refusal: Refusal::Fsck { by }, .. } if answered => Some(format!(
                "its mark has changed since it was looked at: an e2fsck is at work on node {}, and nothing was cleared",
                shown(by)
            )),
            Error::Refused { refusal: Refusal::InUse { by, .. }, .. } => Some(format!(
                "somebody is alive there, so there is nothing to clear: stop it on node {} first",
                shown(by)
            )),
            Error::Refused { refusal: Refusal::Withdrawn { claim_left_standing: true }, .. } => Some(
                "it is not clean: what stood there is replaced by a claim of this host's; run `mmp clear` again to clear that".to_owned(),
            ),
            Error::UsedHere { .. } => Some(
                "it came while it was claimed: end that use and try again; our claim stands, and others have to watch it out".to_owned(),
            ),
            other => render::advice(other),
        };
        let text = render::lines(&render::headline(error), render::named(error), advice.as_deref());
        Stopped { text, code: exit::code(error) }
    }

    /// Nobody vouches: for the end of an e2fsck, or for clearing without a watch.
    pub(super) fn unconfirmed(arguments: &Clear, found: &Found) -> Self {
        let Found::Fsck(by) = found else {
            let advice = found.peer().map(|by| {
                format!(
                    "there is no terminal to ask on; if nobody uses it there, say so with --yes-node {}",
                    ask::typed(&by.node)
                )
            });
            let Stopped { text, code } = Stopped::withdrawn(arguments);
            return Stopped { text: render::lines(&text, None, advice.as_deref()), code };
        };
        let error = Error::Refused { path: arguments.device.clone(), refusal: Refusal::Fsck { by: *by } };
        let advice = format!(
            "no watching proves it dead: look on node {}; if no {MARKING} runs there on this device, say so with --yes-node {}",
            shown(by),
            ask::typed(&by.node)
        );
        let text = render::lines(&render::headline(&error), Some(by), Some(&advice));
        Stopped { text, code: exit::code(&error) }
    }

    /// `--yes-node` is about another one.
    pub(super) fn other_node(arguments: &Clear, found: &Found, by: &Peer) -> Self {
        let message = format!(
            "{}: its MMP block does not name the node that --yes-node does; nothing was written",
            render::shown(&arguments.device)
        );
        let code = if matches!(found, Found::Fsck(_)) { exit::FSCK } else { exit::USAGE };
        let advice = format!("look there; its name is given as --yes-node {}", ask::typed(&by.node));
        Stopped { text: render::lines(&message, Some(by), Some(&advice)), code: code.into() }
    }

    /// `--yes-node` is about a block that cannot say whose it is.
    pub(super) fn names_nobody(arguments: &Clear) -> Self {
        let message = format!(
            "{}: its MMP block is damaged and names nobody; leave --yes-node out",
            render::shown(&arguments.device)
        );
        Stopped { text: message, code: exit::USAGE.into() }
    }

    /// Asked, and not confirmed.
    pub(super) fn withdrawn(arguments: &Clear) -> Self {
        let text = format!("{}: not confirmed; nothing was written", render::shown(&arguments.device));
        Stopped { text, code: exit::INTERRUPTED.into() }
    }

    /// What is no more than a claim anyway.
    pub(super) fn in_area(arguments: &Clear) -> Self {
        let message = format!(
            "{}: it is a slot of an area, which is neither cleared by force nor written over when it is damaged",
            render::shown(&arguments.device)
        );
        let advice = "whoever claims it next watches it by himself, and no kernel takes its clean mark for leave, so a forced one would save \
                      one wait at the price of the holder's time to stop; `mmp area repair` mends what is damaged";
        Stopped { text: render::lines(&message, None, Some(advice)), code: exit::UNSUPPORTED.into() }
    }
}

fn shown(by: &Peer) -> String {
    if by.node.is_empty() { "(none)".to_owned() } else { format!("\"{}\"", by.node) }
}
