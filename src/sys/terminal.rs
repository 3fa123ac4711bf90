//! Who may read from the terminal: the front, or the command it runs.
//!
//! The command has a process group of its own (a signal to it must reach all of it, and nothing else), so under job
//! control it can use the terminal only if it is given the foreground. That is done only where a shell would do it: not when
//! we are part of a pipeline, whose other members would lose the terminal.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgid, getpgrp, getsid, tcgetpgrp, tcsetpgrp};

use super::process::{self, Stat};

/// The terminal on standard input, whose foreground is ours to pass on.
#[derive(Debug)]
pub struct Terminal {
    home: Pid,
    modes: Option<Termios>,
}

impl Terminal {
    /// The terminal, if the command should get its foreground: standard input is one, our process group is in its
    /// foreground, and no process is in our group but `ours`, we, and our ancestors (a script that waits for us).
    #[must_use]
    pub fn to_pass_on(ours: &[Pid]) -> Option<Terminal> {
        let stdin = io::stdin();
        let home = getpgrp();
        if !stdin.is_terminal() || tcgetpgrp(stdin.as_fd()) != Ok(home) {
            return None;
        }
        let processes = process::processes().ok()?;
        let alone = in_a_pipeline(&processes, Pid::this().as_raw(), home.as_raw(), ours).is_none();
        alone.then(|| Terminal { home, modes: tcgetattr(stdin.as_fd()).ok() })
    }

    /// True if somebody above us could continue our process group: a process of our session outside it, a shell with
    /// job control. Without one the group is orphaned, and a terminal's stop does not stop it (setpgid(2)).
    #[must_use]
    pub fn has_a_shell(&self) -> bool {
        let session = getsid(None);
        process::ancestors().into_iter().map(Pid::from_raw).any(|above| {
            getsid(Some(above)) == session && getpgid(Some(above)).is_ok_and(|group| group != self.home)
        })
    }

    /// True while our own process group has the foreground: after `fg`, not after `bg`.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(io::stdin().as_fd()) == Ok(self.home)
    }

    /// Gives the foreground to a process group: the command's, after it was stopped and continued.
    ///
    /// # Errors
    /// What tcsetpgrp(3) says, for instance that the terminal is gone.
    pub fn give(&self, group: Pid) -> io::Result<()> {
        set_foreground(group)
    }

    /// Takes the foreground back. With `restore_modes` also echo, line mode and so on as they were at first: for a command
    /// that was killed and had no chance to do it.
    ///
    /// # Errors
    /// As [`Terminal::give`].
    pub fn take_back(&self, restore_modes: bool) -> io::Result<()> {
        set_foreground(self.home)?;
        if let (true, Some(modes)) = (restore_modes, &self.modes) {
            // At once: draining waits for ever on a terminal whose output is held (Ctrl-S).
            tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, modes)?;
        }
        Ok(())
    }
}

/// Sets the foreground group of the terminal on standard input. SIGTTOU is blocked meanwhile: from the background
/// it would stop us otherwise (tcsetpgrp(3)).
///
/// # Errors
/// What tcsetpgrp(3) says.
pub fn set_foreground(group: Pid) -> io::Result<()> {
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&ttou), Some(&mut before))?;
    let result = tcsetpgrp(io::stdin().as_fd(), group);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(result?)
}

/// A process in `group` that is neither we, nor ours, nor an ancestor of ours.
fn in_a_pipeline<'a>(processes: &'a [Stat], me: i32, group: i32, ours: &[Pid]) -> Option<&'a Stat> {
    let parent = |pid| processes.iter().find(|stat| stat.pid == pid).map(|stat| stat.parent);
    // Bounded, since a list of processes is not read in one instant and may hold a circle.
    let line: Vec<i32> = std::iter::successors(Some(me), |&pid| parent(pid)).take(processes.len()).collect();
    processes.iter().find(|stat| {
        stat.group == group
            && !stat.is_over()
            && !line.contains(&stat.pid)
            && !ours.contains(&Pid::from_raw(stat.pid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32, group: i32, state: char) -> Stat {
        Stat { pid, comm: "x".into(), state, parent, group, threads: 1, start_time: 1 }
    }

    #[test]
    fn a_script_above_us_is_no_pipeline_and_a_sibling_is() {
        let script = stat(10, 1, 10, 'S');
        let me = stat(11, 10, 10, 'R');
        let driver = stat(12, 11, 10, 'S');
        let others = [stat(1, 0, 1, 'S'), stat(90, 1, 90, 'S'), stat(13, 10, 10, 'Z')];
        let mut all = vec![script, me, driver];
        all.extend(others);
        let found = |all: &[Stat]| in_a_pipeline(all, 11, 10, &[Pid::from_raw(12)]).map(|stat| stat.pid);
        assert_eq!(found(&all), None);
        all.push(stat(14, 10, 10, 'S'));
        assert_eq!(found(&all), Some(14));
    }
}
