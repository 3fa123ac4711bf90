//! Step 0 as an error: a device that this host uses is refused, with who uses it.
//!
//! Protects what [`users`] protects. Does not protect once the answer is old: only what is held keeps others away.

use std::path::Path;
use std::time::Duration;

use super::exclusive::ExclusiveHold;
use super::target::Target;
use super::users::{self, User};
use crate::Error;
use crate::clock;

/// Who has the device open for a moment, as udev has what a writer has closed, is waited for so long.
pub const PASSING: Duration = Duration::from_secs(2);
/// How often that is asked.
const PERIOD: Duration = Duration::from_millis(100);

/// Nobody on this host uses it in a way that endangers a claim; `path` is what the error names.
///
/// # Errors
/// [`Error::UsedHere`]; as [`users::users_before_claim`].
pub fn check(path: &Path, target: &Target) -> Result<(), Error> {
    refuse(path, &users::users_before_claim(target, &[])?)
}

/// Nobody on this host uses it but the processes `ignore_pids`, and nobody begins to as long as this is kept.
///
/// # Errors
/// [`Error::UsedHere`]; as [`users::claim_unused`].
pub fn claim(path: &Path, target: &Target, ignore_pids: &[i32]) -> Result<ExclusiveHold, Error> {
    users::claim_unused(target, ignore_pids)?.map_err(|used| used_here(path, &used))
}

/// Asks again for `patience`, as long as the answer is that somebody uses it here.
///
/// # Errors
/// What `ask` says in the end; [`Error::Interrupted`] if `interrupted` says so meanwhile.
pub fn patiently<T>(
    patience: Duration,
    interrupted: &mut dyn FnMut() -> bool,
    mut ask: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let until = clock::mono() + patience;
    loop {
        match ask() {
            Err(Error::UsedHere { .. }) if clock::mono() < until => {}
            answer => return answer,
        }
        if interrupted() {
            return Err(Error::Interrupted);
        }
        clock::sleep(PERIOD);
    }
}

/// Refuses it if anybody uses it.
///
/// # Errors
/// [`Error::UsedHere`].
pub fn refuse(path: &Path, used: &[User]) -> Result<(), Error> {
    if used.is_empty() { Ok(()) } else { Err(used_here(path, used)) }
}

fn used_here(path: &Path, used: &[User]) -> Error {
    Error::UsedHere { path: path.to_owned(), users: used.iter().map(ToString::to_string).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used() -> Error {
        used_here(Path::new("/dev/x"), &[User::Swap])
    }

    #[test]
    fn a_passing_user_is_waited_for_and_nobody_else() {
        let (mut asked, mut never) = (0, || false);
        let answer = patiently(PASSING, &mut never, || {
            asked += 1;
            if asked < 3 { Err(used()) } else { Ok(asked) }
        });
        assert_eq!(answer.expect("is free in the end"), 3);
        let stays = patiently(PERIOD, &mut never, || Err::<(), _>(used()));
        assert!(matches!(stays, Err(Error::UsedHere { .. })));
        let other = patiently(PASSING, &mut never, || Err::<(), _>(Error::Argument("no".to_owned())));
        assert!(matches!(other, Err(Error::Argument(_))));
        let stopped = patiently(PASSING, &mut || true, || Err::<(), _>(used()));
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
}
