//! The responses of a row that SFT trains on.

use crate::config::Responses;
use crate::error::RowProblem;
use crate::format::REWARDS;
use crate::record::{Label, Record, Response};

/// Removes the responses of a record that are not to be trained on; false where none is left, which only [`Responses::Above`] allows.
///
/// # Errors
/// [`RowProblem::NoSelection`], [`RowProblem::NoneChosen`] or [`RowProblem::MissingReward`] when the record does not say what the rule
/// needs to know.
pub fn select_responses(record: &mut Record, rule: Responses) -> Result<bool, RowProblem> {
    let responses = &record.responses;
    let chosen: Vec<usize> = (0..responses.len())
        .filter(|&j| matches!(responses[j].label, Some(Label::Chosen | Label::Desirable)))
        .collect();
    let all: Vec<usize> = (0..responses.len()).collect();
    let kept = match rule {
        Responses::All => all,
        _ if responses.is_empty() => all,
        Responses::Chosen if chosen.is_empty() => {
            return Err(RowProblem::NoneChosen { responses: responses.len() });
        }
        Responses::Auto | Responses::Chosen if !chosen.is_empty() => {
            vec![best(responses, &chosen).unwrap_or(chosen[0])]
        }
        Responses::Auto | Responses::Best if responses.len() == 1 => all,
        Responses::Auto | Responses::Chosen => match best(responses, &all) {
            Some(best) => vec![best],
            None => return Err(RowProblem::NoSelection { responses: responses.len() }),
        },
        Responses::Best => match best(responses, &all) {
            Some(best) => vec![best],
            None => return Err(missing_reward(responses)),
        },
        Responses::Above(least) => {
            if responses.iter().any(|r| r.reward.is_none()) {
                return Err(missing_reward(responses));
            }
            all.into_iter().filter(|&j| responses[j].reward.is_some_and(|reward| reward > least)).collect()
        }
    };
    let mut at = 0..;
    record.responses.retain(|_| at.next().is_some_and(|j| kept.contains(&j)));
    Ok(!record.responses.is_empty() || rule == Responses::All)
}

/// The first with the greatest reward among some responses, all of which have one.
fn best(responses: &[Response], among: &[usize]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for &j in among {
        let reward = responses[j].reward?;
        if best.is_none_or(|(_, greatest)| reward > greatest) {
            best = Some((j, reward));
        }
    }
    best.map(|(j, _)| j)
}

fn missing_reward(responses: &[Response]) -> RowProblem {
    let index = responses.iter().position(|r| r.reward.is_none()).unwrap_or(0);
    RowProblem::MissingReward { column: format!("{REWARDS}[{index}]") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Prompt;

    fn record(responses: &[(Option<f64>, Option<Label>)]) -> Record {
        let response = |(j, &(reward, label)): (usize, &(Option<f64>, Option<Label>))| Response {
            reward,
            label,
            ..Response::new(j.to_string())
        };
        Record::new(Prompt::Text("p".into()), responses.iter().enumerate().map(response).collect())
    }

    fn kept(responses: &[(Option<f64>, Option<Label>)], rule: Responses) -> Result<Vec<usize>, RowProblem> {
        let mut record = record(responses);
        let any = select_responses(&mut record, rule)?;
        assert_eq!(any, !record.responses.is_empty());
        Ok(record.responses.iter().map(|r| r.text().parse().unwrap()).collect())
    }

    #[test]
    fn the_chosen_the_best_or_the_only_one() {
        use Label::{Chosen, Desirable, Rejected, Undesirable};
        use Responses::{All, Auto, Best};
        let rewards = [(Some(1.0), None), (Some(3.0), None), (Some(3.0), None), (Some(-2.0), None)];
        let none = [(None, None), (None, None)];
        let pair = [(None, Some(Rejected)), (None, Some(Chosen))];
        // The label wins over the reward.
        let both = [(Some(2.0), Some(Rejected)), (Some(1.0), Some(Chosen))];
        let judged = [(Some(2.0), Some(Undesirable)), (Some(1.0), Some(Desirable)), (Some(1.5), Some(Desirable))];
        assert_eq!(kept(&rewards, Auto), Ok(vec![1]));
        assert_eq!(kept(&pair, Auto), Ok(vec![1]));
        assert_eq!(kept(&both, Auto), Ok(vec![1]));
        assert_eq!(kept(&judged, Auto), Ok(vec![2]), "the best of the good ones");
        assert_eq!(kept(&none[..1], Auto), Ok(vec![0]));
        assert_eq!(kept(&none, Auto), Err(RowProblem::NoSelection { responses: 2 }));
        assert_eq!(kept(&[(Some(1.0), None), (None, None)], Auto), Err(RowProblem::NoSelection { responses: 2 }));

        assert_eq!(kept(&both, Responses::Chosen), Ok(vec![1]));
        assert_eq!(kept(&rewards, Responses::Chosen), Err(RowProblem::NoneChosen { responses: 4 }));
        assert_eq!(kept(&both, Best), Ok(vec![0]));
        assert_eq!(kept(&none[..1], Best), Ok(vec![0]));
        assert_eq!(kept(&pair, Best), Err(RowProblem::MissingReward { column: "rewards[0]".into() }));
        assert_eq!(kept(&none, All), Ok(vec![0, 1]));

        assert_eq!(kept(&rewards, Responses::Above(0.5)), Ok(vec![0, 1, 2]));
        assert_eq!(kept(&rewards, Responses::Above(3.0)), Ok(vec![]));
        assert_eq!(
            kept(&[(Some(1.0), None), (None, None)], Responses::Above(0.0)),
            Err(RowProblem::MissingReward { column: "rewards[1]".into() })
        );
    }

    #[test]
    fn settings_are_names_or_a_bound() {
        let parse = |json: &str| serde_json::from_str::<Responses>(json).unwrap();
        assert_eq!(parse("\"auto\""), Responses::Auto);
        assert_eq!(parse("{\"above\": 1}"), Responses::Above(1.0));
        assert!(serde_json::from_str::<Responses>("\"worst\"").is_err());
    }
}
