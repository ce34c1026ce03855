//! Transforms of the rewards, fitted to the training data and applied to any.
//!
//! Point-wise targets take rewards at face value, so their level and scale matter: a transform
//! fixes both before training. Statistics come from the data it is fitted to, and evaluation data
//! go through the same [`FittedTransform`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::prompt_rewards::PromptRewards;
use crate::settings::{FINITE, NON_NEGATIVE, POSITIVE};
use crate::summary::mean_std;

/// The change of rewards before they become targets (`reward_transform`).
///
/// In a config file: `"none"`, `"center"`, `"zscore"`, `"center_per_prompt"`, `"quantile"`,
/// `{ clip = 5.0 }` or `{ clip = [-2.0, 8.0] }`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewardTransform {
    /// `r`
    #[default]
    None,
    /// `r − mean`, the mean over all responses.
    Center,
    /// `(r − mean)/std`, both over all responses, the standard deviation that of the population
    /// (divided by the count).
    Zscore,
    /// `r − mean of this prompt's responses`: removes the per-prompt offset that Bradley–Terry
    /// training leaves free, and with it every difference between prompts.
    CenterPerPrompt,
    /// The share of the fitted rewards that are at most `r`, in `[0, 1]`.
    Quantile,
    /// `r` limited to a range.
    Clip(ClipRange),
}

/// The range that rewards are limited to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number c (for -c to c) or a pair [low, high]")]
pub enum ClipRange {
    /// From minus to plus this number.
    Symmetric(f64),
    /// From the first to the second number.
    Between([f64; 2]),
}

impl ClipRange {
    /// The lower and the upper end.
    pub fn bounds(self) -> (f64, f64) {
        match self {
            Self::Symmetric(c) => (-c, c),
            Self::Between([low, high]) => (low, high),
        }
    }

    /// Checks the range.
    ///
    /// # Errors
    /// [`Error::Setting`] where it is none.
    pub fn validate(self) -> Result<(), Error> {
        const NAME: &str = "reward_transform.clip";
        match self {
            Self::Symmetric(c) => NON_NEGATIVE.check(NAME, &c),
            Self::Between([low, high]) => {
                FINITE.check(NAME, &low)?;
                FINITE.check(NAME, &high)?;
                if low <= high {
                    return Ok(());
                }
                Err(Error::Setting {
                    name: NAME,
                    expected: "a range [low, high] with low <= high",
                    found: format!("[{low}, {high}]"),
                })
            }
        }
    }
}

/// Rewards whose deviation is below this share of their largest magnitude do not differ by more
/// than rounding.
const DEGENERATE: f64 = 1e-12;

impl RewardTransform {
    /// Fits the transform to the training data. `scale` (`reward_scale`) multiplies the result.
    ///
    /// # Errors
    /// [`Error::Setting`] for a clip range or scale out of range; what
    /// [`PromptRewards::validate`] finds in a row; [`Error::Empty`] for a transform with
    /// statistics and no data; [`Error::DegenerateDeviation`] for `zscore` of equal rewards.
    ///
    /// ```
    /// use setpoint_align::{PromptRewards, RewardTransform};
    ///
    /// let train = [PromptRewards::new(0, vec![1.0, 3.0]), PromptRewards::new(1, vec![5.0])];
    /// let fitted = RewardTransform::Center.fit(&train, 2.0)?;
    /// assert_eq!(fitted.apply(&train[0])?.rewards, [-4.0, 0.0]);
    /// # Ok::<(), setpoint_align::Error>(())
    /// ```
    pub fn fit(self, data: &[PromptRewards], scale: f64) -> Result<FittedTransform, Error> {
        data.iter().try_for_each(PromptRewards::validate)?;
        self.fit_rewards(data.iter().flat_map(|prompt| prompt.rewards.iter().copied()).collect(), scale)
    }

    /// Fits the transform to the rewards of all responses of the training data, of which each row has been
    /// [validated](PromptRewards::validate).
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn fit_rewards(self, rewards: Vec<f64>, scale: f64) -> Result<FittedTransform, Error> {
        POSITIVE.check("reward_scale", &scale)?;
        let all = || match rewards.is_empty() {
            true => Err(Error::Empty { what: "fitting the reward transform" }),
            false => Ok(rewards.as_slice()),
        };
        let map = match self {
            Self::None => Map::Identity,
            Self::Center => Map::Affine { mean: mean_std(all()?).0, deviation: 1.0 },
            Self::Zscore => {
                let all = all()?;
                let (mean, deviation) = mean_std(all);
                let largest = all.iter().fold(0.0, |largest: f64, r| largest.max(r.abs()));
                if deviation <= DEGENERATE * largest {
                    let count = all.len();
                    return Err(Error::DegenerateDeviation { count, mean, deviation });
                }
                Map::Affine { mean, deviation }
            }
            Self::CenterPerPrompt => Map::CenterPerPrompt,
            Self::Quantile => {
                all()?;
                let mut sorted = rewards;
                sorted.sort_by(f64::total_cmp);
                Map::Quantile { sorted }
            }
            Self::Clip(range) => {
                range.validate()?;
                let (low, high) = range.bounds();
                Map::Clip { low, high }
            }
        };
        Ok(FittedTransform { map, scale })
    }
}

/// A [`RewardTransform`] with its statistics and scale, to be stored with the run and applied to
/// training and evaluation data alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FittedTransform {
    #[serde(flatten)]
    map: Map,
    scale: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "transform", rename_all = "snake_case")]
enum Map {
    Identity,
    Affine { mean: f64, deviation: f64 },
    CenterPerPrompt,
    Quantile { sorted: Vec<f64> },
    Clip { low: f64, high: f64 },
}

impl FittedTransform {
    /// The transformed rewards of one prompt; row and labels stay.
    ///
    /// # Errors
    /// The errors of [`PromptRewards::validate`]; [`Error::TransformedReward`] for a reward whose transform is not finite.
    pub fn apply(&self, prompt: &PromptRewards) -> Result<PromptRewards, Error> {
        prompt.validate()?;
        self.apply_to(prompt, &prompt.rewards).map(|rewards| PromptRewards {
            row: prompt.row,
            rewards,
            labels: prompt.labels.clone(),
        })
    }

    /// The transformed rewards of further responses to a prompt, such as samples of the reference model. What is
    /// subtracted per prompt is the mean of the prompt's own responses.
    ///
    /// # Errors
    /// [`Error::TransformedReward`] for a reward whose transform is not finite.
    pub fn apply_to(&self, prompt: &PromptRewards, further: &[f64]) -> Result<Vec<f64>, Error> {
        let own_mean = mean_std(&prompt.rewards).0;
        let transform = |&reward: &f64| {
            self.scale
                * match &self.map {
                    Map::Identity => reward,
                    Map::Affine { mean, deviation } => {
                        let difference = reward - mean;
                        // Of rewards at both ends of f64 the difference may be none, and its quotient one all the same.
                        if difference.is_finite() {
                            difference / deviation
                        } else {
                            reward / deviation - mean / deviation
                        }
                    }
                    Map::CenterPerPrompt => reward - own_mean,
                    Map::Quantile { sorted } => {
                        let at_most = sorted.partition_point(|&other| other <= reward);
                        at_most as f64 / sorted.len() as f64
                    }
                    Map::Clip { low, high } => reward.clamp(*low, *high),
                }
        };
        let rewards: Vec<f64> = further.iter().map(transform).collect();
        if let Some(response) = rewards.iter().position(|reward| !reward.is_finite()) {
            let (row, reward, found) = (prompt.row, further[response], rewards[response]);
            return Err(Error::TransformedReward { row, response, reward, found });
        }
        Ok(rewards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Vec<PromptRewards> {
        vec![
            PromptRewards::new(10, vec![1.0, 2.0, 6.0]),
            PromptRewards::new(11, vec![-4.0, 0.0]),
            PromptRewards::new(12, vec![7.0]),
        ]
    }

    fn transformed(transform: RewardTransform, scale: f64) -> Vec<Vec<f64>> {
        let data = data();
        let fitted = transform.fit(&data, scale).unwrap();
        // What is stored with a run and read again transforms alike.
        let stored = serde_json::to_string(&fitted).unwrap();
        assert_eq!(serde_json::from_str::<FittedTransform>(&stored).unwrap(), fitted);
        data.iter().map(|prompt| fitted.apply(prompt).unwrap().rewards).collect()
    }

    #[test]
    fn transforms_without_statistics() {
        assert_eq!(transformed(RewardTransform::None, 0.5)[0], [0.5, 1.0, 3.0]);
        let fitted = RewardTransform::CenterPerPrompt.fit(&data(), 2.0).unwrap();
        assert_eq!(
            fitted.apply_to(&data()[0], &[3.0, 5.0]),
            Ok(vec![0.0, 4.0]),
            "the mean is that of the prompt's own"
        );
        let per_prompt = transformed(RewardTransform::CenterPerPrompt, 1.0);
        assert_eq!(per_prompt, [vec![-2.0, -1.0, 3.0], vec![-2.0, 2.0], vec![0.0]]);
        let clip = RewardTransform::Clip(ClipRange::Symmetric(2.0));
        assert_eq!(transformed(clip, 10.0)[1], [-20.0, 0.0]);
        let clip = RewardTransform::Clip(ClipRange::Between([0.5, 6.5]));
        assert_eq!(transformed(clip, 1.0), [vec![1.0, 2.0, 6.0], vec![0.5, 0.5], vec![6.5]]);
    }

    #[test]
    fn center_and_zscore_have_mean_zero_and_population_deviation_one() {
        // Mean (1 + 2 + 6 − 4 + 0 + 7)/6 = 2.
        assert_eq!(transformed(RewardTransform::Center, 1.0)[0], [-1.0, 0.0, 4.0]);
        let all: Vec<f64> = transformed(RewardTransform::Zscore, 3.0).concat();
        let mean = all.iter().sum::<f64>() / 6.0;
        let variance = all.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 6.0;
        assert!(mean.abs() < 1e-12);
        assert!((variance - 9.0).abs() < 1e-12, "the scale comes after: {variance}");
    }

    #[test]
    fn quantile_is_the_share_at_most_as_large() {
        let sixths: Vec<Vec<f64>> = [vec![3, 4, 5], vec![1, 2], vec![6]]
            .iter()
            .map(|ranks| ranks.iter().map(|&rank| f64::from(rank) / 6.0).collect())
            .collect();
        assert_eq!(transformed(RewardTransform::Quantile, 1.0), sixths);

        let fitted = RewardTransform::Quantile.fit(&data(), 1.0).unwrap();
        let unseen = PromptRewards::new(0, vec![-9.0, 2.0, 2.5, 99.0]);
        assert_eq!(fitted.apply(&unseen).unwrap().rewards, [0.0, 4.0 / 6.0, 4.0 / 6.0, 1.0]);
    }

    #[test]
    fn bad_rewards_and_settings_are_named() {
        let bad = [PromptRewards::new(5, vec![1.0, f64::NAN])];
        let error = RewardTransform::Center.fit(&bad, 1.0).unwrap_err();
        assert!(matches!(error, Error::Reward { row: 5, response: 1, .. }), "{error}");
        let fitted = RewardTransform::None.fit(&[], 1.0).unwrap();
        assert!(matches!(fitted.apply(&bad[0]), Err(Error::Reward { row: 5, .. })));

        assert!(matches!(RewardTransform::Center.fit(&[], 1.0), Err(Error::Empty { .. })));
        let setting = |transform: RewardTransform, scale| match transform.fit(&data(), scale) {
            Err(Error::Setting { name, .. }) => name,
            other => panic!("expected a setting error, found {other:?}"),
        };
        assert_eq!(setting(RewardTransform::None, 0.0), "reward_scale");
        let clip = |range| RewardTransform::Clip(range);
        assert_eq!(setting(clip(ClipRange::Symmetric(-1.0)), 1.0), "reward_transform.clip");
        assert_eq!(setting(clip(ClipRange::Between([1.0, 0.0])), 1.0), "reward_transform.clip");
    }

    #[test]
    fn zscore_of_equal_rewards_is_an_error_even_after_rounding() {
        // 0.1 summed thirty times is not 3, so the computed deviation is not exactly 0.
        let equal = [PromptRewards::new(0, vec![0.1; 30])];
        let error = RewardTransform::Zscore.fit(&equal, 1.0).unwrap_err();
        assert!(matches!(error, Error::DegenerateDeviation { count: 30, .. }), "{error}");
        let zero = [PromptRewards::new(0, vec![0.0; 3])];
        assert!(RewardTransform::Zscore.fit(&zero, 1.0).is_err());
        // Small is not degenerate.
        let small = [PromptRewards::new(0, vec![1e-9, 2e-9])];
        assert!(RewardTransform::Zscore.fit(&small, 1.0).is_ok());
    }

    /// The squares of such rewards are no f64, nor are some of their sums and differences. Once every reward became 0.
    #[test]
    fn rewards_at_the_ends_of_f64_are_transformed_or_refused() {
        for scale in [1e300, 1.7e308] {
            let data =
                [PromptRewards::new(7, vec![scale, -scale]), PromptRewards::new(8, vec![-scale, scale, scale, -scale])];
            let applied = |transform: RewardTransform, factor| -> Result<Vec<f64>, Error> {
                let fitted = transform.fit(&data, factor)?;
                Ok(data.iter().map(|p| Ok(fitted.apply(p)?.rewards)).collect::<Result<Vec<_>, Error>>()?.concat())
            };
            let signs = [1.0, -1.0, -1.0, 1.0, 1.0, -1.0];
            for transform in [RewardTransform::Zscore, RewardTransform::Clip(ClipRange::Symmetric(1.0))] {
                let found = applied(transform, 1.0).unwrap();
                assert!(found.iter().zip(signs).all(|(z, sign)| (z - sign).abs() < 1e-12), "{transform:?}: {found:?}");
            }
            assert_eq!(applied(RewardTransform::Quantile, 1.0).unwrap()[..2], [1.0, 0.5]);
            for transform in [RewardTransform::None, RewardTransform::Center, RewardTransform::CenterPerPrompt] {
                let found = applied(transform, 1.0).unwrap();
                assert!(found.iter().zip(signs).all(|(r, sign)| (r / scale - sign).abs() < 1e-12), "{found:?}");
                let error = applied(transform, 1e10).unwrap_err();
                assert!(matches!(error, Error::TransformedReward { row: 7, response: 0, .. }), "{error}");
            }
        }
        // One far from the others: its distance from their mean is no f64, its z-score is √3.
        let data = [PromptRewards::new(0, vec![1.7e308, -1.7e308, -1.7e308, -1.7e308])];
        let zscores = RewardTransform::Zscore.fit(&data, 1.0).unwrap().apply(&data[0]).unwrap().rewards;
        assert!((zscores[0] - 3f64.sqrt()).abs() < 1e-12, "{zscores:?}");
        let error = RewardTransform::Center.fit(&data, 1.0).unwrap().apply(&data[0]).unwrap_err();
        assert!(error.to_string().starts_with("row 0, response 0: the reward 1.7e308 becomes inf"), "{error}");
    }

    #[test]
    fn names_in_config_files() {
        #[derive(Debug, Deserialize)]
        struct Config {
            reward_transform: RewardTransform,
        }
        let parse = |value: &str| {
            toml::from_str::<Config>(&format!("reward_transform = {value}")).map(|config| config.reward_transform)
        };
        assert_eq!(parse("\"none\"").unwrap(), RewardTransform::None);
        assert_eq!(parse("\"center\"").unwrap(), RewardTransform::Center);
        assert_eq!(parse("\"zscore\"").unwrap(), RewardTransform::Zscore);
        assert_eq!(parse("\"center_per_prompt\"").unwrap(), RewardTransform::CenterPerPrompt);
        assert_eq!(parse("\"quantile\"").unwrap(), RewardTransform::Quantile);
        let clip = |range| RewardTransform::Clip(range);
        assert_eq!(parse("{ clip = 5 }").unwrap(), clip(ClipRange::Symmetric(5.0)));
        assert_eq!(parse("{ clip = [-1, 2.5] }").unwrap(), clip(ClipRange::Between([-1.0, 2.5])));
        let error = parse("{ clip = \"big\" }").unwrap_err().to_string();
        assert!(error.contains("a pair [low, high]"), "{error}");
        assert!(parse("\"z-score\"").is_err());
    }
}
