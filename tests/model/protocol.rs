//! The library's own protocol, every file as it stands, compiled once more so that three of its neighbours can be
//! others: the clock, the random numbers, and the jump of a sequence. What is left out is told for people only
//! (`describe`), and the unit tests.

// The library uses all of it, and from outside.
#![allow(dead_code, unreachable_pub, unused_imports)]

#[path = "../../src/protocol/claim/mod.rs"]
mod claim;
#[path = "../../src/protocol/event.rs"]
pub mod event;
#[path = "../../src/protocol/foreign.rs"]
mod foreign;
#[path = "../../src/protocol/guard.rs"]
pub mod guard;
#[path = "../../src/protocol/hold/mod.rs"]
mod hold;
#[path = "../../src/protocol/lease.rs"]
mod lease;
#[path = "../../src/protocol/medium/mod.rs"]
pub mod medium;
#[path = "../../src/protocol/mode.rs"]
mod mode;
#[path = "../../src/protocol/sequence.rs"]
mod numbers;
#[path = "stand_in/sequence.rs"]
pub mod sequence;
#[path = "../../src/protocol/standby.rs"]
mod standby;
#[path = "../../src/protocol/timing/mod.rs"]
pub mod timing;
#[path = "stand_in/watch.rs"]
mod watch;

pub use event::{Change, Event, FailureKind, LoserRule, Loss, Peer, Quiet, Refusal, Resumption, Standing};
pub use guard::{Activity, Failure, Guard, GuardOptions, Input, Mode, Output, Write};
pub use medium::{Area, Medium, Native, Owner};
pub use standby::{Credit, Standby};
pub use watch::Adoption;
