//! Rows in exactly the columns of published data sets, with texts of our own.

use serde_json::{Value, json};

use super::Format;
use super::testing::parse;
use crate::record::{Label, Message, Prompt, Record, Response};

fn turns(user: &str, assistant: &str) -> Value {
    json!([{"content": user, "role": "user"}, {"content": assistant, "role": "assistant"}])
}

fn read(format: &str, row: &Value) -> Record {
    parse(format, &row.to_string()).unwrap()
}

fn asked(user: &str) -> Prompt {
    Prompt::Messages(vec![Message::user(user)])
}

fn extra(record: &Record) -> Vec<&str> {
    record.extra.keys().map(String::as_str).collect()
}

/// The two answers that every preference here has.
fn pair(rewards: Option<[f64; 2]>) -> Vec<Response> {
    let response = |text, label| Response::new(text).labelled(label);
    let [mut chosen, mut rejected] = [response("Blue.", Label::Chosen), response("Green.", Label::Rejected)];
    if let Some([better, worse]) = rewards {
        (chosen, rejected) = (chosen.rewarded(better), rejected.rewarded(worse));
    }
    vec![chosen, rejected]
}

#[test]
fn tulu_3_and_tulu_2() {
    // allenai/tulu-3-sft-mixture; tulu-v2-sft-mixture has `dataset` instead of `source`.
    for source in ["source", "dataset"] {
        let record = read("messages", &json!({"id": "a_1", "messages": turns("Sky?", "Blue."), source: "ai2/x"}));
        assert_eq!((&record.prompt, &record.responses[..]), (&asked("Sky?"), &[Response::new("Blue.")][..]));
        assert_eq!(extra(&record), ["id", source]);
    }
    // allenai/llama-3.1-tulu-3-8b-preference-mixture: the prompt once more as text.
    let row = json!({"id": "a_1", "prompt": "Sky?", "chosen": turns("Sky?", "Blue."), "rejected": turns("Sky?", "Green."), "source": "x"});
    let record = read("preference", &row);
    assert_eq!((&record.prompt, &record.responses), (&asked("Sky?"), &pair(None)));
    assert_eq!(extra(&record), ["id", "source"]);
    // allenai/RLVR-GSM-MATH-IF-Mixed-Constraints, whose messages hold no answer: prompts, by `data.columns.prompt = "messages"`.
    let row = json!({"prompt": [{"content": "2 + 2?", "role": "user"}], "ground_truth": "4", "dataset": "gsm8k", "constraint_type": "", "constraint": ""});
    let record = read("prompts", &row);
    assert_eq!((&record.prompt, record.responses.len()), (&asked("2 + 2?"), 0));
    assert_eq!(record.extra["ground_truth"], "4");
}

#[test]
fn ultrafeedback_binarized_by_others() {
    let [chosen, rejected] = ["Blue.", "Green."].map(|answer| turns("Sky?", answer));
    // HuggingFaceH4/ultrafeedback_binarized; allenai/ultrafeedback_binarized_cleaned has `source` as well.
    let row = json!({"prompt": "Sky?", "prompt_id": "0a", "chosen": chosen, "rejected": rejected, "messages": chosen, "score_chosen": 8.5,
        "score_rejected": 3.0, "source": "x"});
    let record = read("preference", &row);
    assert_eq!((&record.prompt, &record.responses), (&asked("Sky?"), &pair(Some([8.5, 3.0]))));
    assert_eq!(extra(&record), ["prompt_id", "messages", "source"]);
    // argilla/ultrafeedback-binarized-preferences-cleaned and -multi-binarized-preferences-cleaned.
    let row = json!({"source": "x", "prompt": "Sky?", "chosen": chosen, "chosen-rating": 5.0, "chosen-model": "a", "rejected": rejected,
        "rejected-rating": 3.75, "rejected-model": "b"});
    let record = read("preference", &row);
    assert_eq!((&record.prompt, &record.responses), (&asked("Sky?"), &pair(Some([5.0, 3.75]))));
    assert_eq!(extra(&record), ["source", "chosen-model", "rejected-model"]);
    // trl-lib/ultrafeedback_binarized: the prompt is the turns that both have.
    let row = json!({"chosen": chosen, "rejected": rejected, "score_chosen": 8.5, "score_rejected": 3.0});
    assert_eq!(read("preference", &row).responses, pair(Some([8.5, 3.0])));
}

#[test]
fn ultrafeedback_itself() {
    let aspect = json!({"Rating": "5", "Rationale": "Good."});
    let completion = |text: &str, score: f64| {
        json!({"annotations": {"helpfulness": aspect, "honesty": aspect, "instruction_following": aspect, "truthfulness": aspect},
            "custom_system_prompt": "Be helpful.", "model": "m", "principle": "helpfulness", "response": text, "critique": "Fine.",
            "overall_score": score, "fine-grained_score": 4.5})
    };
    let row = json!({"source": "x", "instruction": "Sky?", "models": ["m", "m"],
        "completions": [completion("Blue.", 8.5), completion("Green.", 3.0)], "correct_answers": ["None"], "incorrect_answers": ["None"]});
    let record = read("ultrafeedback", &row);
    let expected = [("Blue.", 8.5), ("Green.", 3.0)].map(|(text, score)| Response::new(text).rewarded(score));
    assert_eq!((&record.prompt, &record.responses[..]), (&asked("Sky?"), &expected[..]));
    assert_eq!(extra(&record), ["source", "models", "correct_answers", "incorrect_answers"]);
}

#[test]
fn thoughts_are_a_field_of_the_answer() {
    let row = json!({"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "reasoning_content": "Two and two.", "content": "4."}]});
    let record = read("messages", &row);
    assert_eq!(record.responses[0].message.extra["reasoning_content"], "Two and two.");
    assert_eq!(record.responses[0].text(), "4.");
}

#[test]
fn more_specific_formats_win() {
    for (columns, format) in [
        (&["prompt", "chosen", "rejected", "response_a", "response_b", "label"][..], "preference"),
        (&["prompt", "response", "reward"], "prompt_completion"),
        (&["prompt", "answers"], "prompts"),
    ] {
        assert_eq!(Format::detect(columns.iter().copied()), Format::named(format), "{columns:?}");
    }
}
