//! The library as an application uses it: acquire, ask, listen, release; and what a crash leaves behind. A claim takes
//! 11 s by its nature, so the cases run side by side.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use mmpguard::error::Kind;
use mmpguard::format::NodeName;
use mmpguard::protocol::Sequence;
use mmpguard::{Error, Event, Held, Options, Place, Quiet, Refusal, Released, clock, watch};

const DEMO: &[u8] = include_bytes!("../testimages/demo.img");
const WAIT: Duration = Duration::from_secs(11);

struct Image {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn image() -> Image {
    let dir = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
    let path = dir.path().join("disk.img");
    std::fs::write(&path, DEMO).expect("writes the image");
    Image { _dir: dir, path }
}

impl Image {
    fn options(&self, node: &str) -> Options {
        // Each holder stands for a host of its own.
        Options::new(&self.path).node(node).pretend_another_host(true)
    }

    /// The sequence and the node that stand in the block.
    fn block(&self) -> (Sequence, NodeName) {
        let place = Place::find(&self.path, None).expect("has MMP");
        let block = place.medium().decode(&place.read_block().expect("reads")).expect("decodes");
        (block.seq.into(), block.node)
    }
}

fn events(held: &mut Held, during: Duration) -> Vec<Event> {
    let until = clock::mono() + during;
    let mut heard = Vec::new();
    while clock::mono() < until {
        heard.extend(held.next_event(until.since(clock::mono())));
    }
    heard
}

#[test]
fn acquire_use_release() {
    let image = image();
    let mut heard = Vec::new();
    let start = clock::mono();
    let mut held = image
        .options("alpha")
        .acquire_with(|event| {
            heard.extend(event.cloned());
            ControlFlow::Continue(())
        })
        .expect("holds it");
    assert!(clock::mono().since(start) >= WAIT, "held too soon");
    assert!(matches!(heard[..], [Event::Claiming { total: WAIT, .. }, Event::Held { .. }]), "{heard:?}");
    assert!(held.is_held() && !held.is_over());
    assert_eq!(held.place().medium().owner().node, NodeName::new("alpha"));

    let before = held.status();
    assert!(before.held && before.lease_left <= WAIT && before.lease_left > WAIT / 2, "{before:?}");
    assert_eq!(events(&mut held, Duration::from_millis(2500)), [], "nothing happens to a holder left alone");
    let after = held.status();
    assert!((before.beats + 2..=before.beats + 3).contains(&after.beats), "{before:?}, then {after:?}");
    assert!(after.held && after.last_beat_age < Duration::from_millis(1500), "{after:?}");
    assert_eq!(after.events_lost, 0);
    let (seq, node) = image.block();
    assert!(matches!(seq, Sequence::Live(_)) && node == NodeName::new("alpha"), "{seq:?} {node:?}");

    // A second one is refused within 1.4 s of watching, told who, and nothing of ours is touched.
    let start = clock::mono();
    let refused = image.options("beta").acquire().map(drop).expect_err("is refused");
    assert!(clock::mono().since(start) < Duration::from_secs(4), "refused too late");
    assert_eq!(refused.kind(), Kind::InUse);
    let Error::Refused { refusal: Refusal::InUse { by, .. }, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(by.node, NodeName::new("alpha"));
    let watched = watch(&image.path, |_| ControlFlow::Continue(())).expect_err("is in use");
    assert_eq!(watched.kind(), Kind::InUse);
    assert!(held.is_held());
    assert_eq!(events(&mut held, Duration::from_millis(1200)), [], "a refused claimer disturbed the holder");

    assert_eq!(held.release().expect("releases"), Released::Clean);
    assert!(!held.is_held() && held.is_over());
    assert_eq!(held.next_event(Duration::ZERO), None);
    assert_eq!(image.block(), (Sequence::Clean, NodeName::new("alpha")));
    let quiet = watch(&image.path, |_| ControlFlow::Continue(())).expect("is free");
    assert!(matches!(quiet, Quiet::Clean { by } if by.node == NodeName::new("alpha")), "{quiet:?}");
}

#[test]
fn dropping_is_crashing() {
    let image = image();
    let held = image.options("alpha").acquire().expect("holds it");
    let place = held.place().clone();
    drop(held);
    clock::sleep(Duration::from_millis(500)); // a beat that was under way may land
    let block = place.read_block().expect("reads");
    let (seq, node) = image.block();
    assert!(matches!(seq, Sequence::Live(_)), "a drop wrote {seq:?}");
    assert_eq!(node, NodeName::new("alpha"));
    // Another may have it, but not before two waits.
    let start = clock::mono();
    let mut seen = Vec::new();
    let mut beta = image
        .options("beta")
        .acquire_with(|event| {
            seen.extend(event.cloned());
            if matches!(event, Some(Event::Claiming { .. })) {
                return ControlFlow::Continue(());
            }
            if clock::mono().since(start) < WAIT {
                assert!(place.read_block().expect("reads") == block, "it beats on, or was claimed too soon");
            }
            ControlFlow::Continue(())
        })
        .expect("takes over");
    assert!(clock::mono().since(start) >= WAIT * 2, "took over after {:?}", clock::mono().since(start));
    assert!(
        matches!(seen[..], [Event::Watching { .. }, Event::Claiming { .. }, Event::Held { .. }]),
        "{seen:?}"
    );
    beta.release().expect("releases");
    assert_eq!(image.block(), (Sequence::Clean, NodeName::new("beta")));
}

/// The caller learns that somebody has come while he used it, and nothing is written over that one.
#[test]
fn what_a_release_leaves_to_others_is_told() {
    use std::os::unix::fs::FileExt as _;
    let image = image();
    let mut held = image.options("alpha").acquire().expect("holds it");
    let place = held.place().clone();
    let mut theirs = mmpguard::format::MmpBlock::fields(&place.read_block().expect("reads"));
    (theirs.node, theirs.seq) = (NodeName::new("zeta"), 0x0100_0000);
    let mut bytes = place.read_block().expect("reads");
    theirs.encode_into(&mut bytes, place.superblock().expect("is native").checksum_seed);
    let file = std::fs::OpenOptions::new().write(true).open(&image.path).expect("opens");
    file.write_all_at(&bytes, place.offset_bytes()).expect("writes");
    drop(file);
    let left = held.release().expect("releases");
    assert!(matches!(left, Released::LeftToOthers { by } if by.node == theirs.node), "{left:?}");
    assert_eq!(image.block(), (Sequence::Live(theirs.seq), theirs.node));
}

#[test]
fn a_claim_can_be_withdrawn() {
    let image = image();
    let start = clock::mono();
    let refused = image
        .options("alpha")
        .acquire_with(|event| match event {
            Some(Event::Claiming { .. }) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .map(drop)
        .expect_err("is withdrawn");
    assert!(clock::mono().since(start) < Duration::from_secs(3));
    assert_eq!(refused.kind(), Kind::Interrupted);
    let taken_back = Refusal::Withdrawn { claim_left_standing: false };
    assert!(matches!(&refused, Error::Refused { refusal, .. } if *refusal == taken_back), "{refused:?}");
    assert_eq!(image.block().0, Sequence::Clean, "as it was before");
}

/// Somebody else's beats over ours, which do not stop: the holder is told and stops using the device.
#[test]
fn a_thief_is_told() {
    use std::os::unix::fs::FileExt as _;
    let image = image();
    let mut held = image.options("alpha").acquire().expect("holds it");
    let place = held.place().clone();
    let file = std::fs::OpenOptions::new().write(true).open(&image.path).expect("opens");
    let mut theirs = mmpguard::format::MmpBlock::fields(&place.read_block().expect("reads"));
    theirs.node = NodeName::new("zeta"); // the higher name wins
    theirs.seq = 5;
    let mut lost = None;
    let until = clock::mono() + WAIT;
    while lost.is_none() && clock::mono() < until {
        theirs.seq += 1;
        theirs.time_s = clock::wall().0;
        let mut bytes = place.read_block().expect("reads");
        theirs.encode_into(&mut bytes, place.superblock().expect("is native").checksum_seed);
        file.write_all_at(&bytes, place.offset_bytes()).expect("writes");
        lost = held.next_event(Duration::from_millis(200)).and_then(|event| match event {
            Event::Lost { loss, .. } => Some(loss),
            _ => None,
        });
    }
    assert!(matches!(lost, Some(mmpguard::Loss::Stolen { by, .. }) if by.node == theirs.node), "{lost:?}");
    assert!(!held.is_held());
    assert_eq!(held.release().expect_err("has nothing to release").kind(), Kind::Lost);
    assert_eq!(image.block().1, theirs.node, "a loser wrote over the winner");
}

#[test]
fn a_claim_withdrawn_in_its_last_moment_is_given_back_clean() {
    let image = image();
    let refused = image.options("alpha").acquire_with(|event| match event {
        Some(Event::Held { .. }) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(refused.expect_err("withdrawn").kind(), Kind::Interrupted);
    assert_eq!(image.block(), (Sequence::Clean, NodeName::new("alpha")));
}
