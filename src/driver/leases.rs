//! The lease cells of everything that is used together: of one device, or of a set.
//!
//! Protects: what one of them has lost, all have lost; the earliest end counts. Does not protect: which cell moves when is each
//! driver thread's business ([`super::cell`]).

use super::cell::{CellState, LeaseCell};
use crate::clock::Mono;

/// One cell a member.
#[derive(Clone, Debug)]
pub struct Leases(Vec<LeaseCell>);

impl From<LeaseCell> for Leases {
    fn from(cell: LeaseCell) -> Self {
        Leases(vec![cell])
    }
}

impl From<Vec<LeaseCell>> for Leases {
    fn from(cells: Vec<LeaseCell>) -> Self {
        assert!(!cells.is_empty(), "nothing is used without protection");
        Leases(cells)
    }
}

impl Leases {
    /// What they say together: lost if one is lost; unarmed as long as one is; released when all are. The end is the earliest of
    /// those that are not released.
    #[must_use]
    pub fn state(&self) -> CellState {
        let states = || self.0.iter().map(LeaseCell::state);
        if states().any(|state| state == CellState::Lost) {
            CellState::Lost
        } else if states().any(|state| state == CellState::Unarmed) {
            CellState::Unarmed
        } else {
            self.earliest().map_or(CellState::Released, CellState::Until)
        }
    }

    /// The earliest end of a lease that runs.
    #[must_use]
    pub fn earliest(&self) -> Option<Mono> {
        let ends = self.0.iter().map(LeaseCell::state).filter_map(|state| match state {
            CellState::Until(end) => Some(end),
            CellState::Unarmed | CellState::Released | CellState::Lost => None,
        });
        ends.min()
    }

    /// Takes every cell away whose end is not after `now`. If one is lost, by this call or an earlier one, so are the others then,
    /// except those that were released.
    #[must_use]
    pub fn expire(&self, now: Mono) -> bool {
        let lost = self.0.iter().filter(|cell| cell.expire(now)).count() > 0;
        if lost {
            self.lose();
        }
        lost
    }

    /// Declares all of them lost that were not released.
    pub fn lose(&self) {
        for cell in &self.0 {
            cell.lose();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(count: usize) -> (Vec<LeaseCell>, Leases) {
        let cells: Vec<_> = (0..count).map(|_| LeaseCell::new().unwrap()).collect();
        (cells.clone(), cells.into())
    }

    #[test]
    fn the_earliest_end_counts_and_nothing_runs_before_all_do() {
        let (cells, leases) = leases(3);
        assert_eq!((leases.state(), leases.earliest()), (CellState::Unarmed, None));
        cells[1].arm(Mono(30)).unwrap();
        assert_eq!((leases.state(), leases.earliest()), (CellState::Unarmed, Some(Mono(30))));
        cells[0].arm(Mono(20)).unwrap();
        cells[2].arm(Mono(40)).unwrap();
        assert_eq!(leases.state(), CellState::Until(Mono(20)));
        cells[0].release().unwrap();
        assert_eq!(leases.state(), CellState::Until(Mono(30)));
        cells[1].release().unwrap();
        cells[2].release().unwrap();
        assert_eq!(leases.state(), CellState::Released);
        assert!(!leases.expire(Mono(100)));
    }

    #[test]
    fn what_one_has_lost_all_have() {
        let (cells, leases) = leases(3);
        cells[0].arm(Mono(20)).unwrap();
        cells[1].arm(Mono(30)).unwrap();
        assert!(!leases.expire(Mono(19)));
        assert!(leases.expire(Mono(20)), "also while one is not armed yet");
        assert!(cells.iter().all(|cell| cell.state() == CellState::Lost));
        assert_eq!(leases.state(), CellState::Lost);
        assert!(leases.expire(Mono(0)), "and stays so");
    }
}
