//! A list of which each value is made when it is needed.

use std::fmt;
use std::sync::Arc;

use crate::Error;

type Make<T> = Arc<dyn Fn(usize) -> Result<T, Error> + Send + Sync>;

/// A list whose values are made when they are needed, and the same whenever they are: read from a file, say, so that not all of them are in
/// memory. A [`Vec`] becomes one that returns clones of its values.
///
/// ```
/// # fn main() -> Result<(), setpoint_train::Error> {
/// use setpoint_train::OnDemand;
///
/// let squares = OnDemand::new(4, |i| Ok(i * i)).map(|i, square| Ok(format!("{i}² = {square}")));
/// assert_eq!(squares.get(3)?, "3² = 9");
/// assert_eq!(OnDemand::from(vec![7, 8]).iter().collect::<Result<Vec<_>, _>>()?, [7, 8]);
/// # Ok(())
/// # }
/// ```
pub struct OnDemand<T> {
    len: usize,
    make: Make<T>,
}

impl<T> OnDemand<T> {
    /// Creates a list of `len` values, of which `make` returns that at a place.
    pub fn new(len: usize, make: impl Fn(usize) -> Result<T, Error> + Send + Sync + 'static) -> Self {
        Self { len, make: Arc::new(make) }
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the value at a place.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn get(&self, place: usize) -> Result<T, Error> {
        assert!(place < self.len, "place {place} of {}", self.len);
        (self.make)(place)
    }

    /// Makes all values in their order, one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Result<T, Error>> + '_ {
        (0..self.len).map(|place| self.get(place))
    }

    /// Returns the list of what `change` makes of each value and its place.
    #[must_use]
    pub fn map<U>(self, change: impl Fn(usize, T) -> Result<U, Error> + Send + Sync + 'static) -> OnDemand<U>
    where
        T: 'static,
    {
        OnDemand::new(self.len, move |place| change(place, self.get(place)?))
    }
}

impl<T: Clone + Send + Sync + 'static> From<Vec<T>> for OnDemand<T> {
    fn from(values: Vec<T>) -> Self {
        Self::new(values.len(), move |place| Ok(values[place].clone()))
    }
}

impl<T> Clone for OnDemand<T> {
    fn clone(&self) -> Self {
        Self { len: self.len, make: self.make.clone() }
    }
}

impl<T> fmt::Debug for OnDemand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemand").field("len", &self.len).finish_non_exhaustive()
    }
}
