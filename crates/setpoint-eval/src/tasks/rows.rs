//! A row of a task's data as an example: the columns as published and as LLM-Adapters re-wraps them.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::doc::{Gold, Task};

/// Question, choices and what is right.
pub(super) type Parsed = (String, Vec<String>, Gold);

/// The columns without which a published row is no example.
pub(super) fn columns(task: Task) -> &'static [&'static str] {
    match task {
        Task::Mmlu => &["question", "subject", "choices", "answer"],
        Task::Gsm8k => &["question", "answer"],
        Task::ArcEasy | Task::ArcChallenge => &["question", "choices", "answerKey"],
        Task::Mathqa => &["Problem", "options", "correct"],
        Task::SocialIqa => &["context", "question", "answerA", "answerB", "answerC", "label"],
    }
}

/// Reads a row; `None` where it does not tell which choice is right.
pub(super) fn parse(task: Task, row: &Map<String, Value>) -> Result<Option<Parsed>, String> {
    match task {
        Task::Mmlu => mmlu(row).map(Some),
        Task::Gsm8k => gsm8k(row).map(Some),
        Task::ArcEasy | Task::ArcChallenge => arc(row).map(Some),
        Task::SocialIqa => social_iqa(row).map(Some),
        Task::Mathqa => mathqa(row),
    }
}

pub(super) fn text<'a>(row: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    row.get(key).and_then(Value::as_str).ok_or_else(|| format!("expected a text in `{key}`"))
}

fn texts(value: Option<&Value>, key: &str) -> Result<Vec<String>, String> {
    let list =
        value.and_then(Value::as_array).and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    list.ok_or_else(|| format!("expected a list of texts in `{key}`"))
}

/// The choice that equals `answer`.
fn position(choices: &[String], answer: &str) -> Result<usize, String> {
    let found = choices.iter().position(|c| c == answer);
    found.ok_or_else(|| format!("the answer `{answer}` is none of the choices {choices:?}"))
}

/// As published: `question`, four `choices`, and the index of the right one in `answer`.
fn mmlu(row: &Map<String, Value>) -> Result<Parsed, String> {
    let choices = texts(row.get("choices"), "choices")?;
    if choices.len() != 4 {
        return Err(format!("expected four `choices`, found {}", choices.len()));
    }
    let answer = row.get("answer").unwrap_or(&Value::Null);
    let letter = || ["A", "B", "C", "D"].iter().position(|letter| answer == letter);
    let index = (0..4).find(|i| answer.as_u64() == Some(*i as u64)).or_else(letter);
    let index = index.ok_or_else(|| format!("expected `answer` to be 0 to 3 or A to D, found {answer}"))?;
    Ok((text(row, "question")?.to_owned(), choices, Gold::Choice(index)))
}

fn gsm8k(row: &Map<String, Value>) -> Result<Parsed, String> {
    let answer = text(row, "answer")?;
    if !answer.contains("#### ") {
        return Err("expected `answer` to end in `#### number`".to_owned());
    }
    Ok((text(row, "question")?.to_owned(), Vec::new(), Gold::Solution(answer.to_owned())))
}

/// As published: `question`, `choices.text`, `choices.label`, `answerKey`. Re-wrapped: one text in `instruction`, `answer3` in `answer`.
fn arc(row: &Map<String, Value>) -> Result<Parsed, String> {
    if let Some(choices) = row.get("choices") {
        let options = texts(choices.get("text"), "choices.text")?;
        let labels = texts(choices.get("label"), "choices.label")?;
        let at = position(&labels, text(row, "answerKey")?)?;
        return Ok((text(row, "question")?.to_owned(), options, Gold::Choice(at)));
    }
    let wrapped = text(row, "instruction")?;
    let expected = || "expected `question: …`, then `Answer1: … Answer2: …`, then `Answer format: …`".to_owned();
    let (_, rest) = wrapped.split_once("the correct answer to the question: ").ok_or_else(expected)?;
    let (question, rest) = rest.rsplit_once("\n\nAnswer1: ").ok_or_else(expected)?;
    let (mut rest, format) = rest.rsplit_once("\n\nAnswer format: ").ok_or_else(expected)?;
    let mut choices = Vec::new();
    for number in 2..=format.split('/').count() {
        let (choice, after) = rest.split_once(&format!(" Answer{number}: ")).ok_or_else(expected)?;
        choices.push(choice.to_owned());
        rest = after;
    }
    choices.push(rest.to_owned());
    let number = text(row, "answer")?.strip_prefix("answer").and_then(|n| n.parse::<usize>().ok());
    match number.filter(|n| (1..=choices.len()).contains(n)) {
        Some(number) => Ok((question.to_owned(), choices, Gold::Choice(number - 1))),
        None => Err(format!("expected `answer` to be answer1 to answer{}", choices.len())),
    }
}

/// `context`, `question`, and `answerA` … with `label` from 1 as published, or `options` with the right one in `answer`.
fn social_iqa(row: &Map<String, Value>) -> Result<Parsed, String> {
    let question = format!("{} {}", text(row, "context")?, text(row, "question")?);
    if row.contains_key("options") {
        let choices = texts(row.get("options"), "options")?;
        let gold = position(&choices, text(row, "answer")?)?;
        return Ok((question, choices, Gold::Choice(gold)));
    }
    let choices: Vec<String> =
        ["answerA", "answerB", "answerC"].iter().map(|k| text(row, k).map(str::to_owned)).collect::<Result<_, _>>()?;
    match text(row, "label")?.trim() {
        label @ ("1" | "2" | "3") => Ok((question, choices, Gold::Choice(usize::from(label.as_bytes()[0] - b'1')))),
        other => Err(format!("expected `label` to be 1, 2 or 3, found {other}")),
    }
}

/// As published: `Problem`, `options`, `correct`. Re-wrapped: one text in `instruction`, and in `answer` the number that the right option
/// holds; `None` where no option, or more than one, holds it.
fn mathqa(row: &Map<String, Value>) -> Result<Option<Parsed>, String> {
    if row.contains_key("Problem") {
        let choices = options(text(row, "options")?)?;
        let letter = text(row, "correct")?;
        let index = ["a", "b", "c", "d", "e"].iter().position(|l| *l == letter);
        let index = index.ok_or_else(|| format!("expected `correct` to be a letter from a to e, found {letter}"))?;
        return Ok(Some((text(row, "Problem")?.to_owned(), choices, Gold::Choice(index))));
    }
    let (problem, rest) = text(row, "instruction")?
        .rsplit_once(", The options: ")
        .ok_or_else(|| "expected a problem, then `, The options: a ) …`".to_owned())?;
    let choices = options(rest)?;
    let answer: f64 = text(row, "answer")?.parse().map_err(|_| "expected a number in `answer`".to_owned())?;
    let holds = |choice: &String| numbers(choice).iter().any(|n| (n - answer).abs() <= 1e-9 * answer.abs().max(1.0));
    let right: Vec<usize> = (0..choices.len()).filter(|&i| holds(&choices[i])).collect();
    Ok(match right[..] {
        [index] => Some((problem.to_owned(), choices, Gold::Choice(index))),
        _ => None,
    })
}

/// The harness's `doc_to_choice`.
fn options(list: &str) -> Result<Vec<String>, String> {
    static OPTION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[abcd] \) .*?, |e \) .*?$").ok());
    let found = OPTION.iter().flat_map(|r| r.find_iter(list));
    let choices: Vec<String> = found.map(|m| m.as_str()[4..].trim_end_matches([' ', ',']).to_owned()).collect();
    if choices.len() == 5 { Ok(choices) } else { Err(format!("expected five options from a to e, found {list}")) }
}

/// What an option may stand for: its first number with and without digit groups, and a ratio.
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
    use super::*;
    use serde_json::json;

    fn row(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn published_and_re_wrapped_rows_are_the_same_example() {
        let published = row(
            json!({"question": "Why: so?", "choices": {"text": ["one", "two."], "label": ["A", "B"]}, "answerKey": "B"}),
        );
        let wrapped = row(json!({
            "instruction": "Please choose the correct answer to the question: Why: so?\n\nAnswer1: one Answer2: two.\n\nAnswer format: answer1/answer2",
            "answer": "answer2"
        }));
        assert_eq!(arc(&published), arc(&wrapped));
        assert_eq!(arc(&wrapped).unwrap().2, Gold::Choice(1));
        assert!(arc(&row(json!({"instruction": "?", "answer": "answer1"}))).is_err());

        let published = row(
            json!({"Problem": "half of 9 ?", "options": "a ) 4 , b ) 4.5 , c ) 5 , d ) 1 / 9 , e ) none", "correct": "d"}),
        );
        let wrapped = row(
            json!({"instruction": "half of 9 ?, The options: a ) 4 , b ) 4.5 , c ) 5 , d ) 1 / 9 , e ) none", "answer": "0.1111111111111111"}),
        );
        assert_eq!(mathqa(&published), mathqa(&wrapped));
        assert_eq!(mathqa(&published).unwrap().unwrap().1, ["4", "4.5", "5", "1 / 9", "none"]);

        let published = row(
            json!({"context": "A met B.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"}),
        );
        let wrapped =
            row(json!({"context": "A met B.", "question": "Why?", "options": ["x", "y", "z"], "answer": "z"}));
        assert_eq!(social_iqa(&published), social_iqa(&wrapped));
    }

    #[test]
    fn a_number_that_two_options_hold_decides_nothing() {
        let of = |options: &str, answer: &str| {
            mathqa(&row(json!({"instruction": format!("x ?, The options: {options}"), "answer": answer})))
        };
        assert_eq!(of("a ) 20 % , b ) 20 , c ) 3 , d ) 4 , e ) 5", "20.0"), Ok(None));
        assert_eq!(of("a ) 21 , b ) 20 , c ) 3 , d ) 4 , e ) 5", "7.0"), Ok(None));
        let negative = of("a ) - 2 , b ) 2 , c ) 3 , d ) 4 , e ) 5", "-2").unwrap().unwrap();
        assert_eq!(negative.2, Gold::Choice(0));
        assert!(of("a ) 1 , b ) 2", "1").is_err());
    }
}
