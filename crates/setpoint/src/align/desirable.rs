//! Checks of data for objectives whose rows are good or bad.

use setpoint_align::{Desirable, Role};
use setpoint_data::Example;
use setpoint_eval::mean;

use crate::failure::{Failure, Outcome};
use crate::tasks::stages::RowPrompt;

/// Checks that some responses are desirable and some are not, since the objective learns their difference, and that none is desirable only because
/// its prompt has nothing to compare it with.
pub fn good_and_bad(prompts: &[RowPrompt], examples: &[Example], path: &str, rule: Desirable, method: &str) -> Outcome {
    let roles: Vec<Role> = prompts.iter().flat_map(|prompt| prompt.roles.iter().flatten().copied()).collect();
    // Without any, the message about missing labels and rewards follows.
    if roles.is_empty() {
        return Ok(());
    }
    let responses = || examples.iter().flat_map(|example| &example.responses);
    let rewards: Vec<f64> = responses().filter_map(|response| response.reward).collect();
    let good = roles.iter().filter(|role| **role == Role::Chosen).count();
    let (kind, other) = match good {
        0 => ("undesirable", "desirable"),
        all if all == roles.len() => ("desirable", "undesirable"),
        _ if rule == Desirable::Best => return compared(examples, &rewards),
        _ => return Ok(()),
    };
    let failure = Failure::run(format!(
        "{path}: all {} responses count as {kind}, none as {other}; {} learns the difference between the two",
        roles.len(),
        method.to_uppercase()
    ));
    if responses().any(|response| response.label.is_some()) {
        return Err(failure.hint(format!(
            "all labels are alike: add {other} rows, or leave the labels out and let align.desirable tell good from bad by reward"
        )));
    }
    let why = match rule {
        Desirable::Best => "by default the best response of each prompt is desirable, and so is one alone",
        Desirable::Above(_) => "align.desirable puts all rewards on one side",
    };
    Err(failure.hint(format!("{why}: {}", threshold(&rewards))))
}

/// Checks that no bad response is the best of its prompt because it is the only one.
fn compared(examples: &[Example], rewards: &[f64]) -> Outcome {
    let mean = mean(rewards);
    let lone = |example: &&Example| match example.responses.as_slice() {
        [only] => only.label.is_none() && only.reward.is_some_and(|reward| reward < mean),
        _ => false,
    };
    let Some(example) = examples.iter().find(lone) else { return Ok(()) };
    let others = match examples.iter().filter(lone).count() - 1 {
        0 => String::new(),
        others => format!(" (and so in {others} more rows)"),
    };
    let reward = example.responses[0].reward.unwrap_or_default();
    Err(Failure::run(format!(
        "{}: a response with the reward {reward} counts as desirable, since its prompt has no other one, although the mean reward is \
         {mean:.4}{others}",
        example.source
    ))
    .hint(format!(
        "by default the best response of each prompt is desirable, and so is one alone: {}, or leave out prompts with one response",
        threshold(rewards)
    )))
}

/// Tells how to draw the line by reward.
fn threshold(rewards: &[f64]) -> String {
    let (least, most) = rewards.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &r| (a.min(r), b.max(r)));
    format!(
        "say above which reward a response is desirable, as in align.desirable = {{ above = 0 }} (the rewards are {least} to {most})"
    )
}
