//! Keeps one thing that happens again and again from filling the log and starting hooks without end.
//!
//! Does not lose the first of it, nor anything that differs: only what was told already, a moment ago.

use std::time::Duration;

use super::{EventKind, Told};
use crate::clock::Mono;

/// The same of anybody is told once in this time.
const AGAIN: Duration = Duration::from_secs(60);
/// So many different things are remembered.
const REMEMBERED: usize = 32;

/// What was told lately.
#[derive(Debug, Default)]
pub struct Limiter(Vec<(Told, Mono)>);

impl Limiter {
    /// Whether it is to be told: what marks a beginning or an end always is.
    pub fn allows(&mut self, told: &Told, now: Mono) -> bool {
        let repeats = matches!(told.kind, EventKind::Intruder | EventKind::Late | EventKind::Alarm);
        if !repeats {
            return true;
        }
        self.0.retain(|(_, at)| now.since(*at) < AGAIN);
        if self.0.iter().any(|(other, _)| same(other, told)) || self.0.len() >= REMEMBERED {
            return false;
        }
        self.0.push((told.clone(), now));
        true
    }
}

/// A late beat is like every other, an intruder is whoever he is, and an alarm is what it says.
fn same(one: &Told, other: &Told) -> bool {
    one.kind == other.kind
        && match one.kind {
            EventKind::Alarm => one.text == other.text,
            _ => (&one.other, &one.other_device) == (&other.other, &other.other_device),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Severity;

    #[test]
    fn the_same_is_told_once_a_minute_and_the_rest_always() {
        let mut limiter = Limiter::default();
        let late = |text: &str| Told::new(EventKind::Late, Severity::Warning, text);
        let at = |seconds| Mono(0) + Duration::from_secs(seconds);
        assert!(limiter.allows(&late("by 1 s"), at(1)));
        assert!(!limiter.allows(&late("by 2 s"), at(2)));
        assert!(limiter.allows(&Told::alarm("one"), at(2)) && limiter.allows(&Told::alarm("two"), at(2)));
        assert!(!limiter.allows(&Told::alarm("one"), at(3)));
        let bridged = Told::new(EventKind::Bridged, Severity::Warning, "again");
        assert!(limiter.allows(&bridged, at(3)) && limiter.allows(&bridged, at(3)));
        assert!(limiter.allows(&late("by 3 s"), at(61)));
        for number in 0..REMEMBERED * 2 {
            let _ = limiter.allows(&Told::alarm(number.to_string()), at(62));
        }
        assert_eq!(limiter.0.len(), REMEMBERED, "bounded");
    }
}
