//! Stands in for the library's `protocol::watch`: there is no kernel here that mounts, so there is never a watch of its beats. The
//! simulator has them (`tests/sim`, families Mounts).

use std::ops::ControlFlow;

use super::foreign::Predecessor;
use super::guard::{Context, Input, Mode};
use super::hold::Hold;
use super::lease::Lease;
use crate::clock::{Mono, Now};
use crate::format::Image;

const NEVER: &str = "no kernel mounts anything here";

/// Never made.
#[derive(Clone, Debug)]
pub struct Watch(());

#[allow(clippy::large_enum_variant)] // as in the library
pub(super) enum Watched {
    WeBeat(Hold),
    Over,
}

#[derive(Clone, Copy, Debug)]
pub struct Adoption;

pub(super) struct Handed {
    pub(super) base: Image,
    pub(super) kernel_waits: bool,
    pub(super) ours_until: Option<Mono>,
    pub(super) lease: Option<Lease>,
    pub(super) predecessor: Option<Predecessor>,
}

impl Watch {
    pub(super) fn expecting(_: Now, _: Handed, _: &mut Context) -> Self {
        unreachable!("{NEVER}")
    }

    pub(super) fn adopting(_: Now, _: Adoption, _: &mut Context) -> Self {
        unreachable!("{NEVER}")
    }

    pub(super) fn handle(&mut self, _: Now, _: Input<'_>, _: &mut Context) -> ControlFlow<Watched> {
        unreachable!("{NEVER}")
    }

    pub(super) fn deadline(&self) -> Mono {
        unreachable!("{NEVER}")
    }

    pub(super) fn lease_end(&self) -> Option<Mono> {
        unreachable!("{NEVER}")
    }

    pub(super) fn mode(&self) -> Mode {
        unreachable!("{NEVER}")
    }

    pub(super) fn succeeds_a_holder(&self) -> bool {
        unreachable!("{NEVER}")
    }

    pub(super) fn counted(&self) -> Option<(Mono, u32)> {
        unreachable!("{NEVER}")
    }

    pub(super) fn back(self, _: Now) -> Self {
        unreachable!("{NEVER}")
    }

    pub(super) fn back_from(self, _: Now, _: Mono, _: Lease) -> Self {
        unreachable!("{NEVER}")
    }
}
