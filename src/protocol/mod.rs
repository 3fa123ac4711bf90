//! Claim, hold and release as sans-IO machines.
mod claim;
pub mod describe;
pub mod event;
mod foreign;
pub mod guard;
mod hold;
pub mod medium;
pub mod sequence;
pub mod timing;

pub use event::{Event, LoserRule, Loss, Peer, Quiet, Refusal};
pub use guard::{Failure, Guard, GuardOptions, Input, Output, Write};
pub use medium::{Medium, Native, Owner};
pub use sequence::Sequence;
