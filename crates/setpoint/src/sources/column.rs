//! A column of the file that holds the rewards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_reward::{ColumnSource, RewardSource};

use super::{Opening, SourceSettings};
use crate::config::Problems;
use crate::failure::{Failure, Outcome};

/// `column`: its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ColumnSettings(pub Option<String>);

impl SourceSettings for ColumnSettings {
    fn advice(&self, key: &str) -> String {
        format!("the name of a `{key}`")
    }

    fn is_given(&self) -> bool {
        self.0.is_some()
    }

    fn validate(&self, _: &str, _: &mut Problems<'_>) {}

    fn scores_samples(&self) -> bool {
        false
    }

    fn is_free(&self) -> bool {
        true
    }

    fn open(&self, _: &Opening<'_>) -> Outcome<Box<dyn RewardSource>> {
        let column = self.0.clone().ok_or_else(|| Failure::usage("column", "no source of rewards"))?;
        Ok(Box::new(ColumnSource::new(column)))
    }
}
