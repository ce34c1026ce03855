//! MathQA: word problems with five choices (Amini et al. 2019).

use std::sync::LazyLock;

use regex::Regex;
use setpoint_data::Row;

use super::definition::{Definition, Files, Parsed, Published, text};
use super::doc::Gold;

pub(super) struct Mathqa;

impl Definition for Mathqa {
    fn name(&self) -> &'static str {
        "mathqa"
    }

    fn title(&self) -> &'static str {
        "MathQA"
    }

    fn about(&self) -> &'static str {
        "word problems, five choices (Amini et al. 2019)"
    }

    fn by_default(&self) -> bool {
        true
    }

    fn published(&self) -> Published {
        // A copy as Parquet of allenai/math_qa, which is a script.
        Published { id: "regisss/math_qa", folders: &["math_qa"], subset: None, split: "test", shots: "train" }
    }

    fn files(&self) -> Files {
        Files::Split { stem: "mathqa", split: "test" }
    }

    fn columns(&self) -> &'static [&'static str] {
        &["Problem", "options", "correct"]
    }

    /// As published: `Problem`, `options`, `correct`. Re-wrapped: one text in `instruction`, and in `answer` the number that the right option
    /// holds; `None` if no option, or more than one, holds it.
    fn parse(&self, row: &Row) -> Result<Option<Parsed>, String> {
        if row.contains_key("Problem") {
            let choices = options(text(row, "options")?)?;
            let letter = text(row, "correct")?;
            let index = ["a", "b", "c", "d", "e"].iter().position(|l| *l == letter);
            let index =
                index.ok_or_else(|| format!("expected `correct` to be a letter from a to e, found {letter}"))?;
            return Ok(Some(Parsed { question: text(row, "Problem")?.to_owned(), choices, gold: Gold::Choice(index) }));
        }
        let (problem, rest) = text(row, "instruction")?
            .rsplit_once(", The options: ")
            .ok_or_else(|| "expected a problem, then `, The options: a ) …`".to_owned())?;
        let choices = options(rest)?;
        let answer: f64 = text(row, "answer")?.parse().map_err(|_| "expected a number in `answer`".to_owned())?;
        let holds =
            |choice: &String| numbers(choice).iter().any(|n| (n - answer).abs() <= 1e-9 * answer.abs().max(1.0));
        let right: Vec<usize> = (0..choices.len()).filter(|&i| holds(&choices[i])).collect();
        Ok(match right[..] {
            [index] => Some(Parsed { question: problem.to_owned(), choices, gold: Gold::Choice(index) }),
            _ => None,
        })
    }

    fn has_normalized_accuracy(&self) -> bool {
        true
    }
}

/// The harness's `doc_to_choice`.
fn options(list: &str) -> Result<Vec<String>, String> {
    static OPTION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[abcd] \) .*?, |e \) .*?$").ok());
    let found = OPTION.iter().flat_map(|r| r.find_iter(list));
    let choices: Vec<String> = found.map(|m| m.as_str()[4..].trim_end_matches([' ', ',']).to_owned()).collect();
    if choices.len() == 5 { Ok(choices) } else { Err(format!("expected five options from a to e, found {list}")) }
}

/// The possible values of an option: its first number with and without digit groups, and a ratio.
fn numbers(option: &str) -> Vec<f64> {
    static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?:- ?)?(?:\d+(?:\.\d+)?|\.\d+)").ok());
    static RATIO: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(\d+(?:\.\d+)?)\s*[/:]\s*(\d+(?:\.\d+)?)").ok());
    let first = |s: &str| NUMBER.as_ref()?.find(s)?.as_str().replace(' ', "").parse::<f64>().ok();
    let ratio = RATIO.as_ref().and_then(|r| r.captures(option)).and_then(|c| {
        let part = |i| c.get(i)?.as_str().parse::<f64>().ok();
        Some(part(1)? / part(2).filter(|d| *d != 0.0)?)
    });
    [first(option), first(&option.replace(',', "")), ratio].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: serde_json::Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn published_and_re_wrapped_rows_are_the_same_example() {
        let published = row(
            json!({"Problem": "half of 9 ?", "options": "a ) 4 , b ) 4.5 , c ) 5 , d ) 1 / 9 , e ) none", "correct": "d"}),
        );
        let wrapped = row(
            json!({"instruction": "half of 9 ?, The options: a ) 4 , b ) 4.5 , c ) 5 , d ) 1 / 9 , e ) none", "answer": "0.1111111111111111"}),
        );
        assert_eq!(Mathqa.parse(&published), Mathqa.parse(&wrapped));
        assert_eq!(Mathqa.parse(&published).unwrap().unwrap().choices, ["4", "4.5", "5", "1 / 9", "none"]);
    }

    #[test]
    fn a_number_that_two_options_hold_decides_nothing() {
        let of = |options: &str, answer: &str| {
            Mathqa.parse(&row(json!({"instruction": format!("x ?, The options: {options}"), "answer": answer})))
        };
        assert_eq!(of("a ) 20 % , b ) 20 , c ) 3 , d ) 4 , e ) 5", "20.0"), Ok(None));
        assert_eq!(of("a ) 21 , b ) 20 , c ) 3 , d ) 4 , e ) 5", "7.0"), Ok(None));
        let negative = of("a ) - 2 , b ) 2 , c ) 3 , d ) 4 , e ) 5", "-2").unwrap().unwrap();
        assert_eq!(negative.gold, Gold::Choice(0));
        assert!(of("a ) 1 , b ) 2", "1").is_err());
    }
}
