//! MT-Bench's files and scores against those of FastChat.

use setpoint_eval::{
    MtPrompt, is_pairwise, parse_rating, read_answers, read_questions, read_single_judgments, single_scores,
};

use crate::test_data::test_data;

#[test]
fn scores_are_those_of_fastchats_script() {
    let Some(dir) = test_data("eval/mt_bench") else { return };
    let file = dir.join("gpt-4_single.jsonl");
    assert!(!is_pairwise(&file).unwrap());
    let judgments = read_single_judgments(&file).unwrap();
    let questions = read_questions(&dir.join("mtbench_question.jsonl")).unwrap();
    let got = &single_scores(&judgments, &questions)[0];
    // show_result.py on the same file.
    assert_eq!(got.model, "Meta-Llama-3-8B-Instruct-Griffin");
    assert_eq!(got.first_turn.map(|s| (s.score, s.n)), Some((3.1375, 80)));
    assert_eq!(got.second_turn.map(|s| (s.score, s.n)), Some((2.2625, 80)));
    assert_eq!(got.average.map(|s| (s.score, s.n)), Some((2.7, 160)));
    assert_eq!((got.errors, got.unrated), (0, 0));
    assert_eq!(got.categories.len(), 8);
    assert_eq!(single_scores(&judgments, &[])[0].categories, got.categories, "the blocks of ten are the categories");
    // Every rating was parsed from its judgment as FastChat parsed it.
    for judgment in &judgments {
        assert_eq!(parse_rating(&judgment.judgment), Some(judgment.score), "question {}", judgment.question_id);
    }
}

#[test]
fn files_come_out_as_they_went_in() {
    let Some(dir) = test_data("eval/mt_bench") else { return };
    for (i, row) in read_single_judgments(&dir.join("gpt-4_single.jsonl")).unwrap().iter().enumerate() {
        same(&dir.join("gpt-4_single.jsonl"), i, &serde_json::to_value(row).unwrap());
    }
    for (i, row) in read_answers(&dir.join("Meta-Llama-3-8B-Instruct-Griffin.jsonl")).unwrap().iter().enumerate() {
        same(&dir.join("Meta-Llama-3-8B-Instruct-Griffin.jsonl"), i, &serde_json::to_value(row).unwrap());
    }
}

fn same(path: &std::path::Path, row: usize, value: &serde_json::Value) {
    let text = std::fs::read_to_string(path).unwrap();
    let expected: serde_json::Value = serde_json::from_str(text.lines().nth(row).unwrap()).unwrap();
    assert_eq!(*value, expected, "row {row} of {}", path.display());
}

#[test]
fn prompts_are_those_that_the_judgments_were_made_with() {
    let Some(dir) = test_data("eval/mt_bench") else { return };
    let questions = read_questions(&dir.join("mtbench_question.jsonl")).unwrap();
    let answers = read_answers(&dir.join("Meta-Llama-3-8B-Instruct-Griffin.jsonl")).unwrap();
    let references = read_answers(&dir.join("mtbench_gpt-4.jsonl")).unwrap();
    let mut same = 0;
    for judgment in read_single_judgments(&dir.join("gpt-4_single.jsonl")).unwrap() {
        let question = questions.iter().find(|q| q.question_id == judgment.question_id).unwrap();
        let answer = answers.iter().find(|a| a.question_id == judgment.question_id).unwrap();
        let reference = references.iter().find(|a| a.question_id == judgment.question_id);
        let math = judgment.judge.1.contains("math");
        let prompt = MtPrompt::choose(false, math, judgment.turn == 2);
        assert_eq!(prompt.name, judgment.judge.1);
        let text = prompt.user_prompt(|name| {
            let turn = usize::from(name.ends_with("_2"));
            Some(match name.split('_').next()? {
                "question" => &question.turns[turn],
                "ref" => &reference?.choices[0].turns[turn],
                _ => &answer.choices[0].turns[turn],
            })
        });
        assert_eq!(text, judgment.user_prompt, "question {}", judgment.question_id);
        same += 1;
    }
    assert_eq!(same, 160);
}
