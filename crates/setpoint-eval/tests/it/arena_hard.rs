//! Arena-Hard's scores against those of its own scripts, and its judge on loopback.

use std::path::Path;

use serde_json::{Value, json};
use setpoint_eval::{
    ArenaAnswer, ArenaJudge, ArenaJudging, ArenaJudgment, ArenaQuestion, ArenaStyle, ArenaVerdict, JudgeClient,
    JudgeSettings, arena_preference, arena_scores, arena_style_scores,
};

use crate::server::{Action, Server};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/arena_hard.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn judgments(golden: &Value) -> Vec<ArenaJudgment> {
    let row = |row: &Value| {
        let games = row["games"].as_array().unwrap().iter();
        let games: Vec<Value> =
            games.map(|score| json!({"score": score, "judgment": {"answer": ""}, "prompt": []})).collect();
        let row = json!({"uid": row["uid"], "category": golden["category"], "judge": "judge", "model": row["model"],
            "baseline": golden["baseline"], "games": games});
        serde_json::from_value(row).unwrap()
    };
    golden["judgments"].as_array().unwrap().iter().map(row).collect()
}

fn answers(golden: &Value) -> Vec<ArenaAnswer> {
    let of_model = |(model, styles): (&String, &Value)| -> Vec<ArenaAnswer> {
        let answer = |(uid, style): (&String, &Value)| {
            let row = json!({"uid": uid, "ans_id": "", "model": model, "metadata": style,
                "messages": [{"role": "assistant", "content": {"answer": ""}}]});
            serde_json::from_value(row).unwrap()
        };
        styles.as_object().unwrap().iter().map(answer).collect()
    };
    golden["styles"].as_object().unwrap().iter().flat_map(of_model).collect()
}

#[test]
fn scores_are_those_of_show_result() {
    let golden = golden();
    let category = golden["category"].as_str().unwrap();
    let scores = &arena_scores(&judgments(&golden)).unwrap()[category];
    assert_eq!(scores.len(), 3);
    assert_eq!(scores[0].model, "org/strong", "the best is the first");
    for score in scores {
        let wanted = golden["means"][&score.model].as_f64().unwrap();
        assert!((score.score.value - wanted).abs() < 1e-12, "{}: {:?} against {wanted}", score.model, score.score);
        assert!(score.score.low < wanted && wanted < score.score.high && score.score.level == 0.9);
        assert_eq!(score.judgments + score.failed, 70);
    }
    assert_eq!(scores.iter().map(|score| score.failed).sum::<usize>(), 4);
}

#[test]
fn scores_at_equal_styles_are_those_of_show_result() {
    let golden = golden();
    let category = golden["category"].as_str().unwrap();
    let (judgments, answers) = (judgments(&golden), answers(&golden));
    let scores = arena_style_scores(&judgments, &answers, category).unwrap();
    for (model, score) in &scores.models {
        let name = model.rsplit('/').next().unwrap();
        let of = |kind: &str| golden["winrates"][kind][name].as_f64().unwrap();
        // The published script has styles in f32, and stops its optimizer early.
        assert!((score.value - of("exact")).abs() < 1e-6, "{model}: {score:?} against {}", of("exact"));
        assert!((score.value - of("published")).abs() < 0.005, "{model}: {score:?} against {}", of("published"));
        assert!(score.low < score.value && score.value < score.high && score.high - score.low < 0.2, "{score:?}");
    }
    let weights: [f64; 4] = serde_json::from_value(golden["weights"].clone()).unwrap();
    for (got, wanted) in scores.weights.iter().zip(weights) {
        assert!((got - wanted).abs() < 1e-5, "{:?} against {weights:?}", scores.weights);
    }

    let message = |answers: &[ArenaAnswer]| arena_style_scores(&judgments, answers, category).unwrap_err().to_string();
    let mut bare = answers.clone();
    bare[0].metadata = None;
    assert_eq!(message(&bare), "no style control: org/strong's answer to the question q0 has no `metadata`");
    assert!(message(&answers[1..]).ends_with("org/strong's answer to the question q0 is missing"));
    let mut same = answers.clone();
    same.iter_mut().for_each(|answer| answer.metadata = Some(ArenaStyle::of("a", 1)));
    assert!(message(&same).contains("all answers differ equally from the baseline's in the length"));
    assert!(arena_style_scores(&judgments, &answers, "creative_writing").is_err());
}

#[test]
fn labels_and_markdown_are_found_as_in_the_scripts() {
    let golden = golden();
    for row in golden["labels"].as_array().unwrap() {
        let (text, label) = (row["text"].as_str().unwrap(), &row["score"]);
        // A label outside the table of scores has none.
        let wanted: Option<ArenaVerdict> = serde_json::from_value(label.clone()).unwrap_or_default();
        assert_eq!(ArenaVerdict::parse(text), wanted, "{text}");
    }
    for row in golden["markdown"].as_array().unwrap() {
        let style = serde_json::to_value(ArenaStyle::of(row["text"].as_str().unwrap(), 7)).unwrap();
        for (name, counts) in row["counts"].as_object().unwrap() {
            assert_eq!(style[name], *counts, "{name} of {}", row["text"]);
        }
        assert_eq!(style["token_len"], 7);
    }
}

fn answer(model: &str, uid: &str, text: &str) -> ArenaAnswer {
    let row = json!({"uid": uid, "ans_id": "", "model": model,
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": {"answer": text}}]});
    serde_json::from_value(row).unwrap()
}

#[test]
fn each_pair_is_judged_in_both_orders_against_the_baseline_of_its_category() {
    let question = |uid: &str, category: &str| -> ArenaQuestion {
        serde_json::from_value(json!({"uid": uid, "category": category, "prompt": format!("{category}?")})).unwrap()
    };
    let questions = [question("a", "hard_prompt"), question("b", "creative_writing"), question("c", "hard_prompt")];
    let own = [answer("m", "a", "good"), answer("m", "b", "good"), answer("m", "c", "unclear")];
    let baselines = [
        answer("o3-mini-2025-01-31", "a", "bad"),
        answer("o3-mini-2025-01-31", "c", "bad"),
        answer("gemini-2.0-flash-001", "b", "bad"),
    ];
    let server = Server::start(|_, request| {
        assert_eq!((&request.body["temperature"], &request.body["max_tokens"]), (&json!(0.0), &json!(16000)));
        let (system, text) =
            (&request.body["messages"][0]["content"], request.body["messages"][1]["content"].as_str().unwrap());
        let hard = system.as_str().unwrap().contains("generating your own answer");
        assert_eq!(hard, text.contains("hard_prompt?"), "each category has its prompt");
        if text.contains("unclear") {
            return Action::Say("I cannot tell.".into());
        }
        let first = text.find("good") < text.find("bad");
        Action::Say(if first { "So [[A>>B]]" } else { "So [[B>>A]]" }.into())
    });
    let settings = JudgeSettings {
        model: Some("judge-1".into()),
        base_url: server.base_url.clone(),
        api_key_env: String::new(),
        retries: 0,
        ..JudgeSettings::default()
    };
    let client = JudgeClient::open(&settings).unwrap();
    let judge = ArenaJudge::new(&client, &questions, ArenaJudging::default());
    let rows = judge.judge("m", &own, &baselines, None, &mut |_| ()).unwrap();
    assert_eq!(server.count(), 6);
    let labels = |row: &ArenaJudgment| row.games.iter().map(|game| game.as_ref().unwrap().score).collect::<Vec<_>>();
    assert_eq!(labels(&rows[0]), [Some(ArenaVerdict::MuchWorse), Some(ArenaVerdict::MuchBetter)]);
    assert_eq!((rows[1].baseline.as_str(), arena_preference(&rows[1])), ("gemini-2.0-flash-001", Some(1.0)));
    assert_eq!((labels(&rows[2]), arena_preference(&rows[2])), (vec![None, None], None));
    let scores = arena_scores(&rows).unwrap();
    assert_eq!((scores["hard_prompt"][0].judgments, scores["hard_prompt"][0].failed), (1, 1));

    let missing = judge.judge("m", &own[..2], &baselines, None, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(missing, "m has no answer to the question c");
    let missing = judge.judge("m", &own, &baselines, Some("other"), &mut |_| ()).unwrap_err().to_string();
    assert_eq!(missing, "other has no answer to the question a");
    assert_eq!(server.count(), 6, "nothing is sent before everything is there");
}
