//! The seam behind `annotate`: anything that gives a response a number.

use serde_json::{Map, Value};

use crate::error::Error;

/// A response to be scored, with everything a source may look at.
///
/// # Example
/// ```
/// use setpoint_reward::Scored;
///
/// let item = Scored { row: 3, prompt: "2 + 2 =", response: "4", ..Scored::default() };
/// assert!(item.response_ids.is_empty()); // fine for sources that do not ask for tokens
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Scored<'a> {
    /// Row of the data file, from 0.
    pub row: usize,
    /// The number of the response in that row, from 0.
    pub response_index: usize,
    /// The prompt as text.
    pub prompt: &'a str,
    /// The response as text, without template markers.
    pub response: &'a str,
    /// The prompt's tokens. Empty unless the source [needs tokens](RewardSource::needs_tokens).
    pub prompt_ids: &'a [u32],
    /// The response's tokens, its stop token included. Empty unless the source [needs tokens](RewardSource::needs_tokens).
    pub response_ids: &'a [u32],
    /// The reward that the data gives, where it gives one.
    pub recorded: Option<f64>,
    /// The columns of the row, where the data has any and the source [reads them](RewardSource::reads_fields).
    pub fields: Option<&'a Map<String, Value>>,
}

/// The largest magnitude of a reward.
const LARGEST: f64 = 1e30;

/// Gives every response a reward.
///
/// Implemented by a trained model ([`ModelSource`](crate::ModelSource)), by rules ([`RuleSource`](crate::RuleSource)) and by a column
/// of the file ([`ColumnSource`](crate::ColumnSource)). A source of your own, such as a judge behind an HTTP endpoint, implements
/// [`rate`](Self::rate) and reports its failures as [`Error::Source`]. The crate `setpoint` takes it wherever rewards are needed:
/// `annotate::run_with` gives a file's responses their rewards by it, and `eval::report_with` compares two models under it.
///
/// # Example
/// ```
/// use setpoint_reward::{Error, RewardSource, Scored};
///
/// /// Rewards brevity.
/// struct Brevity;
///
/// impl RewardSource for Brevity {
///     fn describe(&self) -> String {
///         "brevity".into()
///     }
///
///     fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
///         progress(items.len());
///         Ok(items.iter().map(|item| 1.0 / item.response.len() as f64).collect())
///     }
/// }
///
/// let good = Scored { response: "Yes.", ..Scored::default() };
/// assert_eq!(Brevity.score(&[good], &mut |_| ())?, [0.25]);
///
/// // 1/0 is no reward: `score` says where it came from.
/// let empty = Scored { row: 7, ..Scored::default() };
/// let error = Brevity.score(&[good, empty], &mut |_| ()).unwrap_err();
/// assert!(error.to_string().contains("row 7, response 0"));
/// # Ok::<(), Error>(())
/// ```
pub trait RewardSource {
    /// Describes the source of the rewards, in a few words, for reports and error messages.
    fn describe(&self) -> String;

    /// Returns whether [`Scored::prompt_ids`] and [`Scored::response_ids`] must be filled in.
    fn needs_tokens(&self) -> bool {
        false
    }

    /// Returns whether the source looks at [`Scored::fields`].
    fn reads_fields(&self) -> bool {
        false
    }

    /// Returns what decides the rewards. A job that goes on with an interrupted one refuses rewards of another identity.
    fn identity(&self) -> String {
        self.describe()
    }

    /// Returns the number of responses after which a job keeps the rewards it has, so that one that is interrupted loses no more. By
    /// default a source that reads no tokens scores all responses at once.
    fn part_size(&self) -> Option<usize> {
        None
    }

    /// Returns what the user can do about an item that the source could not score.
    fn remedy(&self) -> Option<String> {
        None
    }

    /// One number per item, in the order of the items. Callers use [`score`](Self::score), which checks them.
    ///
    /// `progress` is called with the number of items done so far, as often as the source sees fit.
    ///
    /// # Errors
    /// The reason why the source cannot score an item.
    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error>;

    /// [`rate`](Self::rate), with the promise that there is one number of an ordinary size per item.
    ///
    /// # Errors
    /// The errors of `rate`; [`Error::NotFinite`] with row and response where a reward is NaN, infinite or too large to be added up;
    /// [`Error::Count`] where there are more or fewer rewards than items.
    fn score(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        let rewards = self.rate(items, progress)?;
        if rewards.len() != items.len() {
            return Err(Error::Count { source_name: self.describe(), expected: items.len(), found: rewards.len() });
        }
        match items.iter().zip(&rewards).find(|(_, reward)| reward.is_nan() || reward.abs() > LARGEST) {
            Some((item, &value)) => Err(Error::NotFinite {
                source_name: self.describe(),
                row: item.row,
                response: item.response_index,
                value,
            }),
            None => Ok(rewards),
        }
    }

    /// [`score`](Self::score) for a source whose user chose to leave out what cannot be scored: `None` for such an item.
    ///
    /// Sources that score everything, or fail, need not implement it.
    ///
    /// # Errors
    /// The errors of `score`.
    fn score_available(
        &self,
        items: &[Scored<'_>],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Option<f64>>, Error> {
        Ok(self.score(items, progress)?.into_iter().map(Some).collect())
    }

    /// Learns that the rewards so far are about to be used, and that more responses may follow. Rounds call it before they keep a part.
    ///
    /// # Errors
    /// When the source notices that its rewards are wrong.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Learns that no more responses come. Jobs call it after the last of them, and keep no reward of the last part if it fails.
    ///
    /// # Errors
    /// When the source notices only now that its rewards are wrong.
    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl<S: RewardSource + ?Sized> RewardSource for &S {
    fn describe(&self) -> String {
        (**self).describe()
    }

    fn needs_tokens(&self) -> bool {
        (**self).needs_tokens()
    }

    fn reads_fields(&self) -> bool {
        (**self).reads_fields()
    }

    fn identity(&self) -> String {
        (**self).identity()
    }

    fn part_size(&self) -> Option<usize> {
        (**self).part_size()
    }

    fn remedy(&self) -> Option<String> {
        (**self).remedy()
    }

    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        (**self).rate(items, progress)
    }

    fn score(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        (**self).score(items, progress)
    }

    fn score_available(
        &self,
        items: &[Scored<'_>],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Option<f64>>, Error> {
        (**self).score_available(items, progress)
    }

    fn check(&self) -> Result<(), Error> {
        (**self).check()
    }

    fn finish(&self) -> Result<(), Error> {
        (**self).finish()
    }
}
