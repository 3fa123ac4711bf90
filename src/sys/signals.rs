//! Which signals are to be heeded.
//!
//! Protects: whoever started us with a signal ignored (nohup, `&` in a script) is not asked again; blocking such a
//! signal and reading it from a descriptor would heed it all the same. Does not protect: what is ignored later.

use std::mem::MaybeUninit;
use std::ptr;

use nix::libc;
use nix::sys::signal::{SigSet, Signal};

/// Those of `signals` that are not ignored at this moment.
#[must_use]
pub fn heeded(signals: &[Signal]) -> SigSet {
    signals.iter().copied().filter(|&signal| !is_ignored(signal)).collect()
}

fn is_ignored(signal: Signal) -> bool {
    let mut found = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action sigaction(2) changes nothing; it fills `found`, which is of its type, when it gives 0.
    let found = unsafe {
        if libc::sigaction(signal as libc::c_int, ptr::null(), found.as_mut_ptr()) != 0 {
            return false;
        }
        found.assume_init()
    };
    found.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime of every Rust program ignores SIGPIPE, and nobody here touches SIGWINCH.
    #[test]
    fn what_is_ignored_is_left_out() {
        let heeded = heeded(&[Signal::SIGPIPE, Signal::SIGWINCH]);
        assert!(!heeded.contains(Signal::SIGPIPE) && heeded.contains(Signal::SIGWINCH));
    }
}
