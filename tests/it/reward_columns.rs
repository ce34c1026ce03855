//! Rewards from a column of the rows.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{file, setpoint};
use super::judges::lines;

#[test]
fn any_column_can_hold_the_rewards() {
    let base = |extra: Value| {
        let mut row = json!({"prompt": "p", "completion": "c"});
        row.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        row.to_string() + "\n"
    };
    let pair = json!({"prompt": "p", "chosen": "a", "rejected": "b"});
    for (rows, column, settings, expected) in [
        (base(json!({"score": 2.5})), "score", "", json!([2.5])),
        (base(json!({"reward": -1})), "reward", "", json!([-1.0])),
        (base(json!({"label": true})), "label", "", json!([1.0])),
        (base(json!({"label": false, "reward": 3, "score": 4})), "score", "", json!([4.0])),
        (base(json!({"helpful": 0.5})), "helpful", "", json!([0.5])),
        (json!({"prompt": "p", "responses": ["a", "b"], "rewards": [1, 2]}).to_string(), "rewards", "", json!([1.0, 2.0])),
        (json!({"prompt": "p", "responses": ["a", "b"], "score": [5, 6]}).to_string(), "score", "", json!([5.0, 6.0])),
        (json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "score": 7}).to_string(), "score", "", json!([7.0])),
        (json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "label": true}).to_string(), "label", "", json!([1.0])),
        (base(json!({"stars": 3})), "stars", "data.columns.reward=stars", json!([3.0])),
        (base(json!({"stars": 3})), "reward", "data.columns.reward=stars", json!([3.0])),
        (json!({"prompt": "p", "chosen": "a", "rejected": "b", "score": [3, 4]}).to_string(), "score", "", json!([3.0, 4.0])),
    ] {
        let (dir, data) = file("rows.jsonl", &rows);
        let output = dir.path().join("out.jsonl");
        let named = format!("column={column}");
        let out = output.display().to_string();
        let mut arguments = vec!["annotate", "--data", &data, "--output", &out, "--set", &named];
        if !settings.is_empty() {
            arguments.extend(["--set", settings]);
        }
        setpoint(&arguments).ok();
        assert_eq!(lines(&output)[0]["rewards"], expected, "{column} of {rows}");
    }
    // A column that holds no number says so instead of being missing; one that is missing is.
    let (dir, data) = file("rows.jsonl", &pair.to_string());
    let out = dir.path().join("out.jsonl").display().to_string();
    setpoint(&["annotate", "--data", &data, "--output", &out, "--set", "column=absent"])
        .fails(1, &["`absent`", "no such column"]);
    let (_keep, data) = file("rows.jsonl", &base(json!({"verdict": "good"})));
    setpoint(&["annotate", "--data", &data, "--output", &out, "--set", "column=verdict"])
        .fails(1, &["`verdict`", "a number", "good"]);
    // A rule compares with any column too.
    let (_keep, data) =
        file("rows.jsonl", &json!({"prompt": "p", "completion": "It is 4.", "label": true, "score": 4}).to_string());
    let (_rule, rule) =
        file("rule.toml", "[rule]\nkind = \"numeric_answer\"\nfield = \"score\"\nscore_if_equal = 1.0\nelse = 0.0\n");
    setpoint(&["annotate", &rule, "--data", &data, "--output", &out]).ok();
    assert_eq!(lines(Path::new(&out))[0]["rewards"], json!([1.0]));
}
