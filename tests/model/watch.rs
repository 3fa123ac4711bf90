//! Stands in for the library's `protocol::watch`: there is no kernel here that mounts, so there is never a watch of its beats. The
//! simulator has them (`tests/sim`, families Mounts).

use std::ops::ControlFlow;

use super::guard::{Context, Input, Mode};
use super::hold::Hold;
use super::lease::Lease;
use super::medium::Owner;
use crate::clock::{Mono, Now};
use crate::format::Image;

/// Never made.
#[derive(Clone, Debug)]
pub enum Watch {}

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
    pub(super) predecessor: Option<Owner>,
}

impl Watch {
    pub(super) fn expecting(_: Now, _: Handed, _: &mut Context) -> Self {
        unreachable!("nothing is handed over to a kernel")
    }

    pub(super) fn adopting(_: Now, _: Adoption, _: &mut Context) -> Self {
        unreachable!("nothing is adopted")
    }

    pub(super) fn handle(&mut self, _: Now, _: Input<'_>, _: &mut Context) -> ControlFlow<Watched> {
        match *self {}
    }

    pub(super) fn deadline(&self) -> Mono {
        match *self {}
    }

    pub(super) fn lease_end(&self) -> Option<Mono> {
        match *self {}
    }

    pub(super) fn mode(&self) -> Mode {
        match *self {}
    }

    pub(super) fn counted(&self) -> Option<(Mono, u32)> {
        match *self {}
    }

    pub(super) fn back(self: Box<Self>, _: Now) -> Self {
        match *self {}
    }

    pub(super) fn back_from(self: Box<Self>, _: Now, _: Mono, _: Lease) -> Self {
        match *self {}
    }
}
