//! The limit on the answers in work and waiting at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts answers that are in work or wait.
#[derive(Debug)]
pub(super) struct Gate {
    taken: Mutex<usize>,
    /// The greatest number.
    pub(super) most: usize,
}

/// The right of one answer to be in work; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Gate>);

impl Gate {
    /// Creates a gate for at most this many answers.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::new(0), most })
    }

    fn taken(&self) -> MutexGuard<'_, usize> {
        // A number is whole whoever panicked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes tickets for all answers of a request, or none if there are not enough.
    pub(super) fn enter(self: &Arc<Self>, answers: usize) -> Option<Vec<Ticket>> {
        let mut taken = self.taken();
        *taken = taken.checked_add(answers).filter(|&sum| sum <= self.most)?;
        Some((0..answers).map(|_| Ticket(self.clone())).collect())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        *self.0.taken() -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_enters_as_a_whole_or_not_at_all() {
        let gate = Gate::new(3);
        let two = gate.enter(2).unwrap();
        assert!(gate.enter(2).is_none());
        let one = gate.enter(1).unwrap();
        assert!(gate.enter(1).is_none() && gate.enter(usize::MAX).is_none());
        drop(two);
        assert_eq!(gate.enter(2).map(|tickets| tickets.len()), Some(2));
        drop(one);
        assert_eq!(*gate.taken(), 0);
    }
}
