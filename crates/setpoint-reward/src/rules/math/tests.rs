//! Answers that are equal, and such that are not.

use serde_json::json;

use super::super::{Rule, RuleSource, problems_of};
use super::are_equal;
use crate::source::{RewardSource, Scored};

#[test]
fn the_same_answer_is_written_in_many_ways() {
    for ways in [
        &["1/2", "0.5", ".50", "\\frac{1}{2}", "\\dfrac12", "$\\frac{2}{4}$", "2^{-1}", "\\frac{1}{2}.", "x = 1/2"][..],
        &[
            "1234",
            "1,234",
            "1{,}234",
            "1\\,234",
            "1234.0",
            "1.234*10^3",
            "1.234e3",
            "1.234 \\times 10^{3}",
            "\\$1,234",
            "1234\\text{ cm}",
        ],
        &["-3", "\u{2212}3", "-\\frac{6}{2}", "(-3)", "0 - 3"],
        &["2\\frac{1}{2}", "2.5", "5/2", "\\left(\\frac{5}{2}\\right)"],
        &["\\sqrt{8}", "2\\sqrt{2}", "2\\sqrt2", "2√2", "2*sqrt(2)", "8^{1/2}", "\\frac{4}{\\sqrt{2}}"],
        &["\\sqrt{16}", "4", "|-4|", "2^2"],
        &["\\sqrt[3]{-8}", "-2"],
        &["\\pi/4", "\\frac{\\pi}{4}", "pi/4", "0.25π", "\\arctan 1"],
        &["(x+1)^2", "x^2+2x+1", "x^{2} + 2 x + 1", "(1+x)(x+1)", "y = x^2 + 2x + 1"],
        &["\\frac{x^2-1}{x-1}", "x+1"],
        &["2 \\sin x \\cos x", "sin(2x)", "\\sin 2x"],
        &["\\sin^2 x + \\cos^2 x", "1"],
        &["xy", "y x", "x \\cdot y"],
        &["(1, 2)", "\\left(1,\\, \\frac{4}{2}\\right)"],
        &["[0, \\infty)", "[0,∞)"],
        &["(-\\infty, 1) \\cup (2, 3]", "(-∞,1)∪(2,3]"],
        &["\\{1, 2, 3\\}", "{3, 2, 1}", "\\left\\{2,1,3\\right\\}"],
        &["2, 3", "3,2", "3, 2"],
        &["3 \\pm \\sqrt{2}", "3+\\sqrt2, 3-\\sqrt2"],
        &["50\\%", "50%", "50"],
        &["90^\\circ", "90^{\\circ}", "90°", "90"],
        &["5!", "120"],
        &["\\text{even}", "Even", " even."],
        &["no real solution", "No real solution"],
        &["\\text{(B)}", "(B)", "( b )"],
    ] {
        for a in ways {
            for b in ways {
                assert!(are_equal(a, b), "{a} and {b}");
            }
        }
    }
}

#[test]
fn other_answers_differ() {
    for (a, b) in [
        ("1/3", "0.333333333333"),
        ("0.1", "0.10000000000000001"),
        ("9007199254740993", "9007199254740992"),
        ("\\sqrt{2}", "1.41421356"),
        ("\\pi", "3.14159"),
        ("3", "-3"),
        ("9^9^9^9^9", "\\infty"),
        ("9^9^9^9^9", "8^9^9^9^9"),
        ("3e", "3e1"),
        ("x", "\\sqrt{x^2}"),
        ("x^2", "x^3"),
        ("xy", "xz"),
        ("cat", "act"),
        ("(1, 2)", "(2, 1)"),
        ("[0, 1)", "(0, 1)"),
        ("\\{1, 2\\}", "\\{1, 2, 3\\}"),
        ("\\{1, 1\\}", "\\{1, 2\\}"),
        ("1", "1, 2"),
        ("1/0", "2/0"),
        ("0/0", "0"),
        ("", "0"),
        ("2 +", "2"),
        ("(2", "2"),
        ("1.2.3", "1.23"),
        ("even", "odd"),
        ("A", "B"),
    ] {
        assert!(!are_equal(a, b) && !are_equal(b, a), "{a} and {b}");
    }
}

/// Compares with math-verify's verdicts on the same answers (`tests/golden/make_math_answers.py`).
#[test]
fn math_verify_agrees() {
    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        a: String,
        b: String,
        equal: bool,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/math_answers.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(golden.cases.len() >= 74);
    for Case { a, b, equal } in golden.cases {
        assert_eq!((are_equal(&a, &b), are_equal(&b, &a)), (equal, equal), "{a} and {b}");
    }
}

/// Texts of models are no reason to run out of stack or time.
#[test]
fn hostile_answers_are_only_wrong() {
    for text in [
        "(".repeat(1900),
        "(".repeat(450),
        format!("{}1{}", "(".repeat(900), ")".repeat(900)),
        format!("{}1", "-".repeat(450)),
        format!("{}1", "1+".repeat(240)),
        format!("{}1", "2^".repeat(900)),
        format!("5{}", "!".repeat(450)),
        "\\sqrt".repeat(300),
        "\\frac".repeat(300),
        format!("{}1", "sin ".repeat(400)),
        format!("{}1", "|".repeat(1900)),
        "9^9^9^9^9".to_owned(),
        "1e".repeat(900),
        "é\\".to_owned(),
        "\\text{".to_owned(),
        "1,".repeat(900),
        format!("{}1", "1,".repeat(200)),
        format!("3{}", "\\pm 1".repeat(100)),
        "9".repeat(100_000),
    ] {
        assert!(!are_equal(&text, "7"), "{}", &text[..text.floor_char_boundary(20)]);
    }
}

fn score(rule: &str, row: &serde_json::Value, response: &str) -> Result<f64, String> {
    let rule: Rule = toml::from_str(&format!("kind = 'math_answer'\n{rule}")).unwrap();
    let item = Scored { row: 8, response, fields: row.as_object(), ..Scored::default() };
    RuleSource::new(rule).unwrap().score(&[item], &mut |_| ()).map(|rewards| rewards[0]).map_err(|e| e.to_string())
}

#[test]
fn the_answer_is_boxed_or_marked_or_all_there_is() {
    let row = json!({"answer": "\\frac{3}{4}"});
    for response in
        ["So \\boxed{0.75}, not \\boxed{", "Three quarters.\n#### 3/4", "3/4", "\\boxed{1} no, \\boxed{\\frac34}"]
    {
        assert_eq!(score("", &row, response), Ok(1.0), "{response}");
    }
    for response in ["so 3/4", "\\boxed{3}/4", "#### 0.7", "\\boxed{}"] {
        assert_eq!(score("else = -1.0", &row, response), Ok(-1.0), "{response}");
    }
    let tag = "tag = 'answer'";
    assert_eq!(score(tag, &row, "<think>0.7?</think><answer>0.75</answer>"), Ok(1.0));
    assert_eq!(score(tag, &row, "<answer>It is \\boxed{3/4}.</answer>"), Ok(1.0));
    assert_eq!(score(tag, &row, "0.75"), Ok(0.0));
}

#[test]
fn the_reference_is_a_number_or_a_text() {
    for reference in [json!(0.75), json!("3/4"), json!("Let us see.\n#### 3/4"), json!("So \\boxed{3/4}")] {
        assert_eq!(score("", &json!({ "answer": reference }), "0.75"), Ok(1.0), "{reference}");
    }
    for (row, found) in
        [(json!({"other": 1}), "no such column"), (json!({"answer": null}), "null"), (json!({"answer": " "}), "\" \"")]
    {
        let message = score("", &row, "1").unwrap_err();
        assert!(message.contains("row 8") && message.contains("`answer`") && message.ends_with(found), "{message}");
    }
}

#[test]
fn senseless_settings_are_named() {
    let problems = problems_of("kind = 'math_answer'\nfield = ''\ntag = '<answer>'\nelse = nan");
    assert_eq!(problems.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), ["else", "field", "tag"]);
}
