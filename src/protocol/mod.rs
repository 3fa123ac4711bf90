//! Claim, hold and release as sans-IO machines.
pub mod describe;
pub mod event;
pub use event::{Event, LoserRule, Loss, Peer, Quiet, Refusal};
