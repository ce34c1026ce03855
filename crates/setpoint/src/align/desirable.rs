//! Checks of data for objectives whose rows are good or bad.

use setpoint_align::{Desirable, Role};
use setpoint_data::{Example, ExampleStore};
use setpoint_eval::mean;
use setpoint_train::OnDemand;

use crate::failure::{Failure, Outcome};
use crate::tasks::stages::RowPrompt;

/// Checks that some responses are desirable and some are not, since the objective learns their difference, and that none is desirable only because
/// its prompt has nothing to compare it with.
pub fn good_and_bad(
    prompts: &OnDemand<RowPrompt>,
    rows: &ExampleStore,
    path: &str,
    rule: Desirable,
    method: &str,
) -> Outcome {
    let (mut all, mut good) = (0, 0);
    for prompt in prompts.iter() {
        for role in prompt?.roles.into_iter().flatten() {
            all += 1;
            good += usize::from(role == Role::Chosen);
        }
    }
    // Without any, the message about missing labels and rewards follows.
    if all == 0 {
        return Ok(());
    }
    let (kind, other) = match good {
        0 => ("undesirable", "desirable"),
        good if good == all => ("desirable", "undesirable"),
        _ if rule == Desirable::Best => return compared(rows),
        _ => return Ok(()),
    };
    let failure = Failure::run(format!(
        "{path}: all {all} responses count as {kind}, none as {other}; {} learns the difference between the two",
        method.to_uppercase()
    ));
    let (rewards, is_labelled) = rewards(rows)?;
    if is_labelled {
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

/// Returns the rewards of all responses that have one, and whether any has a label.
fn rewards(rows: &ExampleStore) -> Outcome<(Vec<f64>, bool)> {
    let (mut rewards, mut is_labelled) = (Vec::new(), false);
    for example in rows.iter() {
        for response in example?.responses {
            rewards.extend(response.reward);
            is_labelled |= response.label.is_some();
        }
    }
    Ok((rewards, is_labelled))
}

/// Checks that no bad response is the best of its prompt because it is the only one.
fn compared(rows: &ExampleStore) -> Outcome {
    let rewards = rewards(rows)?.0;
    let mean = mean(&rewards);
    let lone = |example: &Example| match example.responses.as_slice() {
        [only] => only.label.is_none() && only.reward.is_some_and(|reward| reward < mean),
        _ => false,
    };
    let (mut first, mut others) = (None, 0);
    for example in rows.iter() {
        let example = example?;
        if lone(&example) {
            others += usize::from(first.is_some());
            first.get_or_insert(example);
        }
    }
    let Some(example) = first else { return Ok(()) };
    let others = match others {
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
        threshold(&rewards)
    )))
}

/// Tells how to draw the line by reward.
fn threshold(rewards: &[f64]) -> String {
    let (least, most) = rewards.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &r| (a.min(r), b.max(r)));
    format!(
        "say above which reward a response is desirable, as in align.desirable = {{ above = 0 }} (the rewards are {least} to {most})"
    )
}
