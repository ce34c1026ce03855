//! Tests of lines, of what is read from them, and of their tables.

use super::*;
use crate::session::TextTable;

fn model(method: &str, settings: &str, seed: u32, kl: f64, rewards: &[f64]) -> Model {
    let values = BTreeMap::from([
        (KL.to_owned(), vec![kl; rewards.len()]),
        (REWARD.to_owned(), rewards.to_vec()),
        ("tokens".to_owned(), vec![4.0; rewards.len()]),
    ]);
    let name = format!("{method}-{settings}-seed{seed}");
    Model { method: method.to_owned(), settings: settings.to_owned(), name, values, trend: None }
}

fn bootstrap() -> Bootstrap {
    Bootstrap { resamples: 200, ..Bootstrap::default() }
}

fn models() -> Vec<Model> {
    vec![
        // Two seeds of one choice of settings: KL 2, rewards 2, 4, 6 by prompt.
        model("dro", "b", 0, 1.5, &[1.0, 3.0, 5.0]),
        model("dro", "a", 0, 1.0, &[0.0, 1.0, 2.0]),
        model("dro", "b", 1, 2.5, &[3.0, 5.0, 7.0]),
        // At KL 1.5 it is exactly one less than DRO on every prompt.
        model("dpo", "a", 0, 0.5, &[0.0, 1.5, 3.0]),
        model("dpo", "b", 0, 2.5, &[0.0, 1.5, 3.0]),
    ]
}

#[test]
fn seeds_are_averaged_and_lines_go_by_kl() {
    let found = Frontier::of(&models(), &[], "dro", &bootstrap()).unwrap();
    assert_eq!(found.metrics.iter().map(|metric| metric.metric.as_str()).collect::<Vec<_>>(), [REWARD, "tokens"]);
    let lines = &found.metrics[0].lines;
    assert_eq!(lines.iter().map(|line| line.method.as_str()).collect::<Vec<_>>(), ["dro", "dpo"]);
    let points = |line: &MethodLine| line.points.iter().map(|p| (p.kl, p.value, p.models.len())).collect::<Vec<_>>();
    assert_eq!(points(&lines[0]), [(1.0, 1.0, 1), (2.0, 4.0, 2)]);
    assert_eq!(points(&lines[1]), [(0.5, 1.5, 1), (2.5, 1.5, 1)]);
    assert_eq!(lines[0].points[1].models, ["dro-b-seed0", "dro-b-seed1"]);
    assert!(found.has_lines() && found.metrics[0].at.is_empty());
    assert!(!Frontier::of(&models()[..1], &[], "dro", &bootstrap()).unwrap().has_lines());
}

#[test]
fn methods_are_read_at_a_kl_and_compared_prompt_by_prompt() {
    let found = Frontier::of(&models(), &[1.5, 0.7, 9.0], "dpo", &bootstrap()).unwrap();
    let at = |kl: f64, method: &str| {
        found.metrics[0].at.iter().find(|at| at.kl == kl && at.method == method).unwrap().clone()
    };
    // Halfway from (0, 1, 2) to (2, 4, 6): 1, 2.5, 4; DPO is 0, 1.5, 3 everywhere.
    let dro = at(1.5, "dro");
    assert_eq!(dro.estimate.unwrap().value, 2.5);
    let difference = dro.difference.unwrap();
    assert!((difference.value - 1.0).abs() < 1e-12 && difference.high - difference.low < 1e-9, "{difference:?}");
    let dpo = at(1.5, "dpo");
    assert_eq!((dpo.estimate.unwrap().value, dpo.difference), (1.5, None));
    // Below DRO's models and within DPO's; beyond both.
    assert_eq!((at(0.7, "dro").estimate, at(0.7, "dro").difference), (None, None));
    assert_eq!(at(0.7, "dpo").estimate.unwrap().value, 1.5);
    assert_eq!(at(9.0, "dpo").estimate, None);
    // It is written and read back.
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Frontier>(&text).unwrap(), found);
}

#[test]
fn a_metric_of_some_models_has_a_line_through_these() {
    let mut models = models();
    for model in &mut models[3..] {
        model.values.insert("gold".to_owned(), vec![1.0, 2.0, 3.0]);
    }
    let found = Frontier::of(&models, &[1.0], "dro", &bootstrap()).unwrap();
    assert_eq!(found.metrics.iter().map(|m| m.metric.as_str()).collect::<Vec<_>>(), [REWARD, "gold", "tokens"]);
    let gold = &found.metrics[1];
    assert_eq!(gold.lines.iter().map(|line| line.method.as_str()).collect::<Vec<_>>(), ["dpo"]);
    assert_eq!((gold.at[0].estimate.unwrap().value, gold.at[0].difference), (2.0, None));
    // Without a KL there is nothing to draw it against.
    models.iter_mut().for_each(|model| drop(model.values.remove(KL)));
    assert!(Frontier::of(&models, &[1.0], "dro", &bootstrap()).unwrap().metrics.is_empty());
}

#[test]
fn models_of_other_prompts_are_refused() {
    let mut models = models();
    models[2] = model("dro", "b", 1, 2.5, &[3.0, 5.0]);
    let failure = Frontier::of(&models, &[], "dro", &bootstrap()).unwrap_err().to_string();
    assert!(failure.contains("dro-b-seed0 has `kl` for 3 prompts, and dro-b-seed1 for 2"), "{failure}");
    models.truncate(2);
    models.push(model("dpo", "a", 0, 1.5, &[0.0, 1.0]));
    let failure = Frontier::of(&models, &[1.2], "dpo", &bootstrap()).unwrap_err().to_string();
    assert!(failure.contains("must be as many"), "{failure}");
}

#[test]
fn tables_fit_80_columns_and_say_what_was_not_measured() {
    let mut models = models();
    let trend = |slope: f64| Some(Trend { slope, std_error: 0.1, points: 5 });
    (models[0].trend, models[1].trend, models[3].trend) = (trend(-1.0), trend(0.0), trend(-1.0));
    let found = Frontier::of(&models, &[0.7, 1.5], "dpo", &bootstrap()).unwrap();
    let [lines, reward]: [TextTable; 2] = found.tables().try_into().unwrap();
    assert_eq!(lines.rows[1], ["dro", "3", "1.00", "2.00", "still falling in 1 of 2"]);
    assert_eq!(lines.rows[2], ["dpo", "2", "0.50", "2.50", "still falling"]);
    assert_eq!(reward.rows[0], ["KL", "method", "reward", "less dpo"]);
    assert_eq!(reward.rows[1], ["0.7", "dro", "—", "—"]);
    assert_eq!(reward.rows[4][..2], ["1.5", "dpo"]);
    assert!(reward.rows[3][3].starts_with("+1.00 [+1.00, "), "{:?}", reward.rows[3]);
    assert_eq!(reward.rows[4][3], "");
    for table in [&lines, &reward] {
        let widest = |column: usize| table.rows.iter().map(|row| row[column].chars().count()).max().unwrap();
        // Each cell has a line and two blanks around it.
        let width: usize = (0..table.rows[0].len()).map(|column| widest(column) + 3).sum::<usize>() + 1;
        assert!(width <= 80, "{width}");
    }
    assert!(found.legend("the prompts of the selection, seed 0").lines().all(|line| line.chars().count() <= 80));
}
