//! A rule: what can be checked without a model.

use setpoint_reward::{RewardSource, Rule, RuleSource};

use super::{Opening, SourceSettings};
use crate::config::Problems;
use crate::failure::{Failure, Outcome};

impl SourceSettings for Option<Rule> {
    fn advice(&self, key: &str) -> String {
        format!("a `[{key}]`")
    }

    fn is_given(&self) -> bool {
        self.is_some()
    }

    fn validate(&self, key: &str, problems: &mut Problems<'_>) {
        let Some(rule) = self else { return };
        if let Err(setpoint_reward::Error::Rule { problems: found }) = RuleSource::new(rule.clone()) {
            for problem in found {
                // A term of a sum has no place of its own in the file.
                let name = problem.key.split('[').next().unwrap_or_default();
                problems.add(&format!("{key}.{name}"), format!("`{key}.{}` {}", problem.key, problem.message));
            }
        }
    }

    fn token_use(&self) -> Option<&'static str> {
        let source = RuleSource::new(self.clone()?).ok()?;
        source.needs_tokens().then_some("this rule counts tokens")
    }

    fn open(&self, _: &Opening<'_>) -> Outcome<Box<dyn RewardSource>> {
        let rule = self.clone().ok_or_else(|| Failure::usage("rule", "no source of rewards"))?;
        Ok(Box::new(RuleSource::new(rule)?))
    }
}
