//! Both benchmarks through a judge on loopback.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, json};
use setpoint_eval::{
    AlpacaExample, AlpacaJudge, JudgeClient, JudgeSettings, MtAnswer, MtChoice, MtContestant, MtJudge, MtQuestion,
    MtWinner, alpaca_swapped, alpaca_win_rate, pair_scores, read_annotations, single_scores,
};

use crate::server::{Action, Server};
use crate::test_data::test_data;

fn client(server: &Server) -> JudgeClient {
    let settings = JudgeSettings {
        model: Some("judge-1".into()),
        base_url: server.base_url.clone(),
        api_key_env: String::new(),
        retries: 0,
        ..JudgeSettings::default()
    };
    JudgeClient::open(&settings).unwrap()
}

fn example(instruction: &str, baseline: &str, model: &str) -> AlpacaExample {
    AlpacaExample {
        instruction: instruction.into(),
        output_1: baseline.into(),
        generator_1: "baseline".into(),
        output_2: model.into(),
        generator_2: "model".into(),
        annotator: None,
        preference: None,
        extra: Map::new(),
    }
}

/// A judge that prefers whichever output says "good", by 0.8 to 0.2.
fn honest(request: &crate::server::Arrived) -> Action {
    let text = request.body["messages"][1]["content"].as_str().unwrap();
    assert_eq!((&request.body["max_tokens"], &request.body["top_logprobs"]), (&json!(1), &json!(5)));
    let (first, second) = text.split_once("\"model_identifier\": \"M\"").unwrap();
    let (m, big) = if first.contains("good") { (0.8_f64, 0.2_f64) } else { (0.2, 0.8) };
    assert!(first.contains("good") != second.contains("good"));
    if text.contains("unclear") {
        return Action::Say("Both".into());
    }
    Action::Json(json!({
        "choices": [{"message": {"content": "m"}, "logprobs": {"content": [{"token": "m", "logprob": m.ln(), "top_logprobs": [
            {"token": "m", "logprob": m.ln()}, {"token": "M", "logprob": big.ln()}]}]}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1}
    }))
}

#[test]
fn equal_outputs_are_a_draw_without_an_answer() {
    // It fails if neither or both of the outputs are good.
    let server = Server::start(|_, request| honest(request));
    let mut examples = vec![
        example("task", "good", "good"),
        example("task", "bad", "good"),
        example("other", "bad", "bad"),
        example("task", "bad", "good"),
    ];
    let mut reached = 0;
    let failed = AlpacaJudge::new(&client(&server)).annotate(&mut examples, &mut |done| reached = done).unwrap();
    assert_eq!((failed, reached), (0, 4));
    let preferences: Vec<f64> = examples.iter().map(|example| example.preference.unwrap()).collect();
    assert!((preferences[1] - 1.8).abs() < 1e-12 && preferences[1] == preferences[3], "{preferences:?}");
    assert_eq!((preferences[0], preferences[2]), (1.5, 1.5));
    assert!(examples.iter().all(|example| example.annotator.is_some()));
}

#[test]
fn the_order_in_which_outputs_are_shown_does_not_change_who_is_preferred() {
    let server = Server::start(|_, request| honest(request));
    let client = client(&server);
    let mut examples: Vec<AlpacaExample> = (0..20).map(|i| example(&format!("task {i}"), "bad", "good")).collect();
    examples.push(example("unclear task", "bad", "good"));
    let swapped = examples.iter().filter(|e| alpaca_swapped(&e.instruction)).count();
    assert!(swapped > 3 && swapped < 17, "both orders occur: {swapped}");
    let failed = AlpacaJudge::new(&client).annotate(&mut examples, &mut |_| ()).unwrap();
    assert_eq!(failed, 1);
    assert!(examples[..20].iter().all(|e| (e.preference.unwrap() - 1.8).abs() < 1e-12), "{examples:?}");
    assert_eq!(examples[20].preference, None);

    // What is written is read again, with the same scores.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("annotations.json");
    std::fs::write(&path, serde_json::to_string(&examples).unwrap()).unwrap();
    let scores = alpaca_win_rate(&read_annotations(&path).unwrap()).unwrap();
    assert_eq!((scores.n_wins, scores.n_failed), (20, 1));
    assert!((scores.win_rate - 80.0).abs() < 1e-9);
}

#[test]
fn recorded_answers_of_gpt_4_give_the_recorded_preferences() {
    let Some(path) = test_data("alpaca_eval/raw_annotations_vicuna-13b-v1.5_first40.json") else { return };
    let recorded: Vec<AlpacaExample> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    // Some raw answers are JSON, some are Python's `repr` of the same.
    let raw: Vec<serde_json::Value> = recorded
        .iter()
        .map(|e| match &e.extra["raw_completion"] {
            serde_json::Value::String(text) => {
                serde_json::from_str(&text.replace('\'', "\"").replace("None", "null")).unwrap()
            }
            other => other.clone(),
        })
        .collect();
    let prompts: Vec<String> = recorded.iter().map(|e| e.output_2.clone()).collect();
    let answers = raw.clone();
    let server = Server::start(move |_, request| {
        let text = request.body["messages"][1]["content"].as_str().unwrap();
        let i = prompts.iter().position(|p| text.contains(p.as_str())).unwrap();
        Action::Json(json!({ "choices": [answers[i]] }))
    });
    let mut examples = recorded.clone();
    examples.iter_mut().for_each(|e| e.preference = None);
    assert_eq!(AlpacaJudge::new(&client(&server)).annotate(&mut examples, &mut |_| ()).unwrap(), 0);
    for (got, expected) in examples.iter().zip(&recorded) {
        let (got, wanted) = (got.preference.unwrap(), expected.preference.unwrap());
        assert!((got - wanted).abs() < 1e-8, "{got} against {wanted}: {}", expected.instruction);
    }
}

fn question(question_id: u64, category: &str) -> MtQuestion {
    MtQuestion { question_id, category: category.into(), turns: vec!["First?".into(), "Second?".into()] }
}

fn answer(question_id: u64, model: &str, turns: [&str; 2]) -> MtAnswer {
    MtAnswer {
        question_id,
        answer_id: "x".into(),
        model_id: model.into(),
        choices: vec![MtChoice { index: 0, turns: turns.map(String::from).to_vec() }],
        extra: Map::new(),
    }
}

#[test]
fn failed_judgments_are_marked_and_not_averaged() {
    let questions = [question(81, "writing"), question(111, "math")];
    let answers = [answer(81, "m", ["one", "two"]), answer(111, "m", ["three", "four"])];
    let references = [answer(111, "ref", ["right", "also right"])];
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&asked);
    let server = Server::start(move |_, request| {
        let text = request.body["messages"][1]["content"].as_str().unwrap();
        seen.fetch_add(1, Ordering::SeqCst);
        assert_eq!(text.contains("right"), text.contains("three"), "maths comes with its reference: {text}");
        match (text.contains("two"), text.contains("four")) {
            (true, _) => Action::Status(500, String::new(), String::new()),
            (_, true) => Action::Say("I cannot rate this.".into()),
            _ => Action::Say("Good. Rating: [[8]]".into()),
        }
    });
    let client = client(&server);
    let judge = MtJudge::new(&client, &questions, &references);
    let rows = judge.single(&MtContestant::new("m", &answers), &mut |_| ()).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    let scores = &single_scores(&rows, &questions)[0];
    assert_eq!((scores.errors, scores.unrated), (1, 1));
    assert_eq!(scores.average.map(|s| (s.score, s.n)), Some((8.0, 2)));
    assert_eq!(scores.second_turn, None);
    assert_eq!(rows[3].judge, ("judge-1".to_owned(), "single-math-v1-multi-turn".to_owned()));

    let missing = MtJudge::new(&client, &questions, &[]).single(&MtContestant::new("m", &answers), &mut |_| ());
    assert!(missing.is_err_and(|e| e.to_string().contains("question 111")));
    assert_eq!(asked.load(Ordering::SeqCst), 4, "nothing is sent before everything is there");
}

#[test]
fn a_judge_that_always_prefers_the_first_answer_decides_nothing() {
    let questions = [question(81, "writing")];
    let (a, b) = ([answer(81, "a", ["good", "good"])], [answer(81, "b", ["bad", "bad"])]);
    let always_a = Server::start(|_, _| Action::Say("[[A]]".into()));
    let honest = Server::start(|_, request| {
        let text = request.body["messages"][1]["content"].as_str().unwrap();
        Action::Say(if text.find("good") < text.find("bad") { "[[A]]" } else { "[[B]]" }.into())
    });
    let judged = |server: &Server| {
        let client = client(server);
        let judge = MtJudge::new(&client, &questions, &[]);
        judge.pairs(&MtContestant::new("a", &a), &MtContestant::new("b", &b), &mut |_| ()).unwrap()
    };
    let rows = judged(&always_a);
    assert_eq!((rows[0].g1_winner, rows[0].g2_winner), (MtWinner::Model1, MtWinner::Model2));
    assert_eq!(pair_scores(&rows, None).0[0].tie, 2);
    let rows = judged(&honest);
    let scores = pair_scores(&rows, Some("b")).0;
    assert_eq!((scores[0].model.as_str(), scores[0].win, rows.len()), ("a", 2, 2));
}
