//! The metrics of training as the report explains them.

/// A metric: its name in `metrics.jsonl`, and what a chart of it says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name in `metrics.jsonl`.
    pub name: &'static str,
    /// The title of its chart.
    pub title: &'static str,
    /// The title of its axis, with the unit.
    pub axis: &'static str,
    /// The look of a good curve, in one sentence.
    pub good: &'static str,
}

const fn metric(name: &'static str, title: &'static str, axis: &'static str, good: &'static str) -> Metric {
    Metric { name, title, axis, good }
}

/// The metrics in the order of their charts.
pub const METRICS: &[Metric] = &[
    metric("reward", "Reward of the sampled responses", "reward", "Good: rises and levels off."),
    metric(
        "objective/kl",
        "KL of the policy that samples from the reference",
        "nats per response",
        "Good: grows slowly; above 50 nats the policy has left what the reward was made for.",
    ),
    metric(
        "completions/mean_length",
        "Length of the sampled responses",
        "tokens",
        "Good: level; if it grows with the reward, the reward may pay for length.",
    ),
    metric(
        "completions/clipped_ratio",
        "Sampled responses that were cut",
        "share of responses",
        "Good: near 0; otherwise raise `rollout.max_new_tokens`.",
    ),
    metric(
        "rewards/accuracies",
        "Pairs in the right order",
        "share of pairs",
        "Good: rises from 0.5, which is chance, towards 1.",
    ),
    metric(
        "accuracy",
        "Pairs in the right order",
        "share of pairs",
        "Good: rises from 0.5, which is chance, towards 1.",
    ),
    metric("rewards/margins", "Margin of the implicit rewards", "β × nats", "Good: rises above 0 and levels off."),
    metric("margin", "Margin of the rewards", "reward", "Good: rises above 0 and levels off."),
    metric(
        "dro/residual",
        "Distance from the target",
        "reward (β × nats)",
        "Good: moves towards 0, where each response has exactly the log-ratio that its reward asks for.",
    ),
    metric(
        "logratios/chosen",
        "Log-ratio of the chosen responses",
        "nats per response",
        "Good: stays near 0 or rises; far below 0, training makes good responses less likely as well.",
    ),
    metric(
        "logratios/rejected",
        "Log-ratio of the rejected responses",
        "nats per response",
        "Good: falls below the log-ratio of the chosen responses.",
    ),
    metric(
        "entropy",
        "Entropy of the policy",
        "nats per token",
        "Good: changes slowly; a collapse towards 0 means that the model knows only a few answers.",
    ),
    metric(
        "kl",
        "KL of the policy from the reference",
        "nats per response",
        "Good: grows slowly; a large value means that the policy has moved far from the reference.",
    ),
    metric(
        "nll_loss",
        "Negative log-likelihood of the chosen responses",
        "nats per token",
        "Good: falls, or at least does not rise.",
    ),
    metric("dro_v/value", "Value of the prompts", "reward", "Good: approaches the mean reward of the responses."),
    metric("dro_v/residual", "Distance from the target", "reward", "Good: moves towards 0."),
    metric(
        "dro/infeasible_frac",
        "Prompts whose target is out of reach",
        "share of prompts",
        "Good: near 0; otherwise raise the level (`align.log_z0`, `align.break_even_reward`) or β (`align.beta`, \
         `align.beta_sigma`).",
    ),
    metric(
        "grad_norm",
        "Norm of the gradient",
        "norm before clipping",
        "Good: falls or stays level; if it keeps growing, the learning rate is too high.",
    ),
    metric(
        "learning_rate",
        "Learning rate",
        "learning rate",
        "Good: as planned; it rises during the warm-up, then it follows the schedule.",
    ),
    metric("rewards/chosen", "Implicit reward of the chosen responses", "β × nats", "Good: stays near 0 or rises."),
    metric("rewards/rejected", "Implicit reward of the rejected responses", "β × nats", "Good: falls."),
    metric(
        "logps/chosen",
        "Log-probability of the chosen responses",
        "nats per response",
        "Good: no steady fall; batches with longer responses lie lower.",
    ),
    metric(
        "logps/rejected",
        "Log-probability of the rejected responses",
        "nats per response",
        "Good: falls; batches with longer responses lie lower.",
    ),
    metric(
        "frac_reward_zero_std",
        "Prompts whose responses have equal rewards",
        "share of prompts",
        "Good: near 0; such prompts teach nothing.",
    ),
    metric(
        "objective/entropy",
        "Negative log-probability of the sampled responses",
        "nats per response",
        "Good: changes slowly; a collapse means that the policy knows only a few answers.",
    ),
    metric(
        "sampling/sampling_logp_difference/mean",
        "Difference between generator and training",
        "nats per token",
        "Good: near 0; a large one means that the policy that samples is not the one that is trained.",
    ),
    metric("rollout/unscored", "Responses without a reward", "responses", "Good: 0, or few."),
    metric("rollout/examples", "Examples of a round", "examples", "Good: level; ties leave pairs out."),
    metric("dro/target", "Target of the log-ratio", "nats per response", "Good: level; it follows from the rewards."),
    metric("dro/log_z", "log Z of the prompts", "nats", "Good: level, near `log_z0`."),
    metric("dro/prompt_logratio", "Log-ratio of the prompts", "nats per prompt", "Good: stays near 0."),
    metric("log_odds_ratio", "Log-sigmoid of the log odds ratio", "nats", "Good: rises towards 0."),
    metric("log_odds_chosen", "Log odds ratio of chosen to rejected", "nats", "Good: rises."),
    metric("dpo_shift/factor", "Factor of the rejected term", "factor", "Good: as set by `align.shift`."),
    metric("beta_dpo/beta", "β of the batch", "β", "Good: stays positive; it follows the margin of the batch."),
    metric("mean_reward", "Mean reward", "reward", "Good: level; only differences of rewards matter."),
    metric("min_reward", "Least reward", "reward", "Good: no drift; a run-away value points at an odd response."),
    metric("max_reward", "Greatest reward", "reward", "Good: no drift; a run-away value points at an odd response."),
    metric("step_seconds", "Time of a step", "seconds", "Good: level; steps with longer responses take longer."),
    metric("tokens_per_second", "Speed", "tokens per second", "Good: level."),
];

/// The metrics that a reader looks at first; the others are folded away.
const MAIN: usize = 19;

/// The ending of a metric, and what it adds to its title.
const ENDINGS: [(&str, &str); 2] = [("_std", "standard deviation"), ("_max", "greatest value")];

/// A chart's words for a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Words {
    /// The title.
    pub title: String,
    /// The title of the axis, with the unit.
    pub axis: String,
    /// The look of a good curve.
    pub good: String,
    /// The place among the charts.
    pub place: usize,
    /// True if a reader looks at it first.
    pub main: bool,
}

/// Returns the words for a metric. An unknown one is shown under its own name.
pub fn words(name: &str) -> Words {
    let find = |name: &str| METRICS.iter().position(|metric| metric.name == name);
    let of = |place: usize, suffix: &str| {
        let Metric { title, axis, good, .. } = METRICS[place];
        match suffix {
            "" => Words {
                title: title.to_owned(),
                axis: axis.to_owned(),
                good: good.to_owned(),
                place,
                main: place < MAIN,
            },
            suffix => Words {
                title: format!("{title}: {suffix}"),
                axis: axis.to_owned(),
                good: "Good: no sudden change.".to_owned(),
                place: METRICS.len() + place,
                main: false,
            },
        }
    };
    if let Some(place) = find(name) {
        return of(place, "");
    }
    for (ending, suffix) in ENDINGS {
        if let Some(place) = name.strip_suffix(ending).and_then(find) {
            return of(place, suffix);
        }
    }
    // Of several losses (`method = "mix"`) each logs its own.
    let (title, good) = match name.strip_prefix("loss/") {
        Some(part) => (format!("Loss of {part}"), "Good: falls and levels off."),
        None => (name.to_owned(), "Good: no sudden change."),
    };
    Words { title, axis: name.to_owned(), good: good.to_owned(), place: 2 * METRICS.len(), main: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_explained_in_one_sentence() {
        for Metric { name, title, axis, good } in METRICS {
            // The axis is 180 pixels high.
            assert!(!title.is_empty() && (1..=32).contains(&axis.chars().count()), "{name}");
            assert!(good.starts_with("Good: ") && good.ends_with('.') && good.matches(". ").count() == 0, "{name}");
            assert_eq!(METRICS.iter().filter(|metric| metric.name == *name).count(), 1, "{name}");
        }
        assert_eq!(METRICS[MAIN - 1].name, "learning_rate");
    }

    #[test]
    fn spreads_belong_to_their_metric_and_strangers_keep_their_names() {
        let spread = words("dro/residual_std");
        assert_eq!(spread.title, "Distance from the target: standard deviation");
        assert!(!spread.main && words("dro/residual").main);
        assert_eq!((words("min_reward").title.as_str(), words("<odd>").title.as_str()), ("Least reward", "<odd>"));
        assert_eq!(words("loss/dpo").title, "Loss of dpo");
    }
}
