//! Small virtual machines with kernels of their own on one disk (QEMU, software emulation): started, stopped, paused in both
//! ways, crashed; commands run in them; what they write to the disk seen from outside.
//!
//! Nothing here takes root, and nothing is left: a machine ends with its [`Vm`], with the test process, and its files with
//! their folder. See `tests/lab/setup` for what the machines are made of.

/// The very one of the tests on loop devices, which use more of it.
#[allow(dead_code)]
#[path = "../../loopdev/harness/block.rs"]
pub(crate) mod block;
pub(crate) mod disk;
mod folder;
pub(crate) mod lab;
pub(crate) mod qmp;
pub(crate) mod shell;
pub(crate) mod vm;
pub(crate) mod wire;
pub(crate) mod writes;

pub(crate) use disk::Disk;
pub(crate) use lab::Lab;
pub(crate) use shell::{Ended, Running};
pub(crate) use vm::{Bus, Spec, Vm};
pub(crate) use writes::{Span, Turn, Write, seconds, turns};

/// What went wrong, in words: a scenario says it and fails.
pub(crate) type Outcome<T> = Result<T, String>;

/// Adds what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: &str) -> Outcome<T>;
}

impl<T, E: std::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Outcome<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}
