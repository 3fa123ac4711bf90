//! Claim, hold and release: the rules by which no two hosts use a device at once, as sans-IO machines.
//!
//! [`Guard`] is the machine; `claim`, `hold`, `watch` and `foreign` are its parts; [`medium`] says what a block means,
//! [`timing`] has every formula. Protects the time between [`Event::Held`] and the end of the lease; does not stop the user of the device
//! (the keeper does), and not against what stands under *What is not promised*. The argument, from `docs/safety.md`:
//!
#![doc = include_str!("../../docs/safety.md")]
mod claim;
pub mod describe;
pub mod event;
mod foreign;
pub mod guard;
mod hold;
mod lease;
pub mod medium;
mod mode;
pub mod sequence;
mod standby;
#[cfg(test)]
mod tests;
pub mod timing;
mod watch;

pub use event::{Change, Event, FailureKind, LoserRule, Loss, Peer, Quiet, Refusal, Resumption, Standing};
pub use guard::{Activity, Failure, Guard, GuardOptions, Input, Mode, Output, Write};
pub use medium::{Area, Medium, Native, Owner};
pub use sequence::Sequence;
pub use standby::{Credit, Standby};
pub use watch::{Adoption, Left};
