//! What can be wrong with the numbers handed to a statistic.

/// An input from which the statistic cannot be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fewer observations than the statistic needs.
    #[error("{what}: {found} observation(s), at least {needed} needed")]
    TooFew {
        /// Which input.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// Two inputs that belong together pairwise differ in length.
    #[error(
        "{left_name} has {left} entries and {right_name} has {right}: they are compared pairwise and must be as many"
    )]
    LengthMismatch {
        /// Name of the first input.
        left_name: &'static str,
        /// Its length.
        left: usize,
        /// Name of the second input.
        right_name: &'static str,
        /// Its length.
        right: usize,
    },
    /// A NaN or an infinity among the observations.
    #[error("{what}: entry {index} is {value}, a finite number was expected")]
    NotFinite {
        /// Which input.
        what: &'static str,
        /// Its position, from 0.
        index: usize,
        /// What stands there.
        value: f64,
    },
    /// A setting outside of its range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range it must lie in.
        expected: &'static str,
    },
}

/// Fails unless there are at least `needed` values and all of them are finite.
pub(crate) fn check_sample(what: &'static str, values: &[f64], needed: usize) -> Result<(), Error> {
    if values.len() < needed {
        return Err(Error::TooFew { what, found: values.len(), needed });
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(Error::NotFinite { what, index, value: values[index] }),
        None => Ok(()),
    }
}

/// Fails unless both slices are equally long.
pub(crate) fn check_paired(
    left_name: &'static str,
    left: usize,
    right_name: &'static str,
    right: usize,
) -> Result<(), Error> {
    if left == right { Ok(()) } else { Err(Error::LengthMismatch { left_name, left, right_name, right }) }
}

/// Fails unless `level` lies strictly between 0 and 1.
pub(crate) fn check_level(level: f64) -> Result<(), Error> {
    if level > 0.0 && level < 1.0 {
        Ok(())
    } else {
        Err(Error::Setting { name: "level", value: level, expected: "a share between 0 and 1, both excluded" })
    }
}
