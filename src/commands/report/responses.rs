//! The numbers of single responses that a run has logged (`responses.jsonl`), as histograms of its beginning and its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::{chart, collect, page};
use setpoint::Outcome;

/// What a response is to its prompt, in the order of the colours.
const SIDES: [&str; 3] = ["chosen", "rejected", "other responses"];

/// What is drawn, in this order: a series' name, what it is called, and whether training moves it. A residual is the way to the target.
const SERIES: [(&str, &str, bool); 6] = [
    ("reward", "reward", false),
    ("tokens", "tokens of a response", false),
    ("log_ratio", "log_ratio, nats", true),
    ("logp", "logp, nats", true),
    ("target", "target of the log_ratio, nats", true),
    (RESIDUAL, "target − log_ratio, nats", true),
];
const RESIDUAL: &str = "residual";

/// The log of a run.
#[derive(Default)]
pub struct Responses {
    train: Vec<Line>,
    eval: Vec<Line>,
}

/// A step or an evaluation.
#[derive(Deserialize)]
struct Line {
    data: String,
    step: u64,
    epoch: f64,
    /// As many numbers under every name as there are responses; `null` where one is not known.
    #[serde(flatten)]
    series: BTreeMap<String, Vec<Option<f32>>>,
}

/// Steps or evaluations that are drawn as one.
struct Span<'a> {
    title: &'static str,
    lines: Vec<&'a Line>,
}

impl Responses {
    /// Reads the log of a run.
    pub fn read(path: &Path) -> Outcome<Self> {
        let mut found = Self::default();
        collect::each_line(path, |line: Line| {
            let eval = line.data == "eval";
            if eval { &mut found.eval } else { &mut found.train }.push(line);
        })?;
        Ok(found)
    }

    /// Histograms of everything, below the run's name; nothing where nothing was logged.
    pub fn section(&self, run: &str) -> String {
        let charts = charts("", &steps(&self.train)) + &charts("eval ", &evaluations(&self.eval));
        if charts.is_empty() {
            return charts;
        }
        let sided = self.train.iter().chain(&self.eval).any(|line| line.series.contains_key("chosen"));
        let legend = if sided { page::legend(&SIDES) } else { String::new() };
        format!("<h3>{}: response by response</h3>{legend}{charts}", page::escape(run))
    }
}

/// The first and the last epoch; of a run that is shorter than two, its first and its second half.
fn steps(lines: &[Line]) -> Vec<Span<'_>> {
    let (Some(first), Some(last)) = (lines.first(), lines.iter().map(|line| line.step).max()) else {
        return Vec::new();
    };
    let epoch = (first.step as f64 / first.epoch).round() as u64;
    let (length, titles) = match epoch <= last / 2 {
        true => (epoch, ["first epoch", "last epoch"]),
        false => (last / 2, ["first half of the steps", "second half of the steps"]),
    };
    let beginning = lines.iter().filter(|line| line.step <= length).collect();
    let end = lines.iter().filter(|line| line.step > last - length).collect();
    spans(lines, titles, [beginning, end])
}

/// The first and the last evaluation.
fn evaluations(lines: &[Line]) -> Vec<Span<'_>> {
    let steps = || lines.iter().map(|line| line.step);
    let of = |step: Option<u64>| lines.iter().filter(|line| Some(line.step) == step).collect();
    match steps().min() == steps().max() {
        true => spans(lines, ["", ""], [Vec::new(), Vec::new()]),
        false => spans(lines, ["first evaluation", "last evaluation"], [of(steps().min()), of(steps().max())]),
    }
}

/// Beginning and end, or all in one where one of the two is not there.
fn spans<'a>(lines: &'a [Line], titles: [&'static str; 2], parts: [Vec<&'a Line>; 2]) -> Vec<Span<'a>> {
    if parts.iter().any(Vec::is_empty) {
        let lines: Vec<&Line> = lines.iter().collect();
        return if lines.is_empty() { Vec::new() } else { vec![Span { title: "", lines }] };
    }
    titles.into_iter().zip(parts).map(|(title, lines)| Span { title, lines }).collect()
}

fn charts(prefix: &str, spans: &[Span<'_>]) -> String {
    // Where a policy is trained the data give the rewards; a reward model's own scores move.
    let policy = spans.iter().any(|span| ["log_ratio", "logp"].iter().any(|name| !sides(span, name).is_empty()));
    let (mut still, mut moving) = (String::new(), String::new());
    for (name, title, moves) in SERIES {
        let title = format!("{prefix}{title}");
        if !moves && (policy || name == "tokens") {
            still += &spans.last().map_or_else(String::new, |span| chart::histogram(&title, &sides(span, name)));
            continue;
        }
        let series: Vec<_> = spans.iter().map(|span| (span.title, sides(span, name))).collect();
        // One axis, so that side by side shows the movement.
        let all = series.iter().flat_map(|(_, sides)| sides.iter()).flat_map(|(_, values)| values.iter().copied());
        let Some(bounds) = chart::bounds(all) else { continue };
        let pair: String = series
            .iter()
            .map(|(span, sides)| {
                let title = if span.is_empty() { title.clone() } else { format!("{title}: {span}") };
                chart::histogram_within(&title, sides, bounds)
            })
            .collect();
        let _ = write!(moving, "<div class=\"charts\">{pair}</div>");
    }
    if still.is_empty() { moving } else { format!("<div class=\"charts\">{still}</div>{moving}") }
}

/// The finite numbers of a name, side by side; a side without any is left out.
fn sides(span: &Span<'_>, name: &str) -> Vec<(usize, Vec<f64>)> {
    let mut found: Vec<(usize, Vec<f64>)> = (0..SIDES.len()).map(|side| (side, Vec::new())).collect();
    for line in &span.lines {
        let numbers = |name: &str| line.series.get(name).map(Vec::as_slice).unwrap_or_default();
        let values: Vec<Option<f32>> = match name {
            RESIDUAL => {
                let way = |(target, log_ratio): (&Option<f32>, &Option<f32>)| Some((*target)? - (*log_ratio)?);
                numbers("target").iter().zip(numbers("log_ratio")).map(way).collect()
            }
            name => numbers(name).to_vec(),
        };
        let chosen = numbers("chosen");
        for (i, value) in values.into_iter().enumerate() {
            let Some(value) = value else { continue };
            let side = match chosen.get(i).copied().flatten() {
                Some(1.0) => 0,
                Some(_) => 1,
                None => 2,
            };
            found[side].1.push(f64::from(value));
        }
    }
    found.retain(|(_, values)| !values.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &str) -> Responses {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("responses.jsonl");
        std::fs::write(&path, lines).unwrap();
        Responses::read(&path).unwrap()
    }

    fn line(data: &str, step: u64, epoch: f64, values: &str) -> String {
        format!("{{\"data\":\"{data}\",\"step\":{step},\"epoch\":{epoch},\"example\":[0,0,0],{values}}}\n")
    }

    fn run(steps: u64, steps_per_epoch: u64) -> Responses {
        let each = |step: u64| {
            let values = format!("\"chosen\":[1,0,null],\"log_ratio\":[{step},-{step},null],\"target\":[4,null,7]");
            line("train", step, step as f64 / steps_per_epoch as f64, &values)
        };
        log(&(1..=steps).map(each).collect::<String>())
    }

    fn of(spans: &[Span<'_>]) -> Vec<(&'static str, Vec<u64>)> {
        spans.iter().map(|span| (span.title, span.lines.iter().map(|line| line.step).collect())).collect()
    }

    #[test]
    fn a_long_run_shows_its_epochs_and_a_short_one_its_halves() {
        assert_eq!(of(&steps(&run(8, 3).train)), [("first epoch", vec![1, 2, 3]), ("last epoch", vec![6, 7, 8])]);
        let halves = [("first half of the steps", vec![1, 2]), ("second half of the steps", vec![4, 5])];
        assert_eq!(of(&steps(&run(5, 3).train)), halves);
        assert_eq!(of(&steps(&run(1, 3).train)), [("", vec![1])]);
        assert!(steps(&[]).is_empty());
        // Of the steps between the first and the last pass nothing may have been logged.
        let ends = [2, 9].map(|step| line("train", step, step as f64 / 2.0, "\"logp\":[1,2,3]")).concat();
        assert_eq!(of(&steps(&log(&ends).train)), [("first epoch", vec![2]), ("last epoch", vec![9])]);
    }

    #[test]
    fn evaluations_are_the_first_and_the_last() {
        let lines = |steps: &[u64]| -> Responses {
            log(&steps.iter().map(|&step| line("eval", step, 0.5, "\"logp\":[1,2,3]")).collect::<String>())
        };
        let three = lines(&[0, 5, 9]);
        assert_eq!(of(&evaluations(&three.eval)), [("first evaluation", vec![0]), ("last evaluation", vec![9])]);
        assert!(three.train.is_empty());
        assert_eq!(of(&evaluations(&lines(&[4]).eval)), [("", vec![4])]);
    }

    #[test]
    fn numbers_go_to_their_sides_and_a_residual_needs_both_of_its_parts() {
        let run = run(4, 2);
        let spans = steps(&run.train);
        assert_eq!(sides(&spans[0], "log_ratio"), [(0, vec![1.0, 2.0]), (1, vec![-1.0, -2.0])]);
        assert_eq!(sides(&spans[1], "target"), [(0, vec![4.0, 4.0]), (2, vec![7.0, 7.0])]);
        assert_eq!(sides(&spans[1], RESIDUAL), [(0, vec![1.0, 0.0])]);
        assert!(sides(&spans[0], "reward").is_empty());
    }

    #[test]
    fn both_ends_are_drawn_on_one_axis() {
        let text = run(4, 2).section("a <run>");
        assert!(text.starts_with("<h3>a &lt;run&gt;: response by response</h3><p class=\"legend\">"), "{text}");
        // log_ratio, target and residual, twice each; no rewards and no lengths.
        assert_eq!(text.matches("<svg").count(), 6, "{text}");
        let chart = |title: &str| {
            let from =
                text.find(&format!("<figcaption>{title}</figcaption>")).unwrap_or_else(|| panic!("{title}: {text}"));
            &text[from..from + text[from..].find("</figure>").unwrap()]
        };
        // From -4 to 4 in 24 bars of a third: one begins at 2, and 4 ends the last.
        for (title, bar) in [
            ("log_ratio, nats: first epoch", "<title>2 to 2.333: 50.0 %</title>"),
            ("log_ratio, nats: last epoch", "<title>3.667 to 4: 50.0 %</title>"),
        ] {
            assert!(chart(title).contains(bar), "{bar}: {}", chart(title));
        }
    }

    #[test]
    fn a_log_without_sides_has_no_legend_and_one_without_lines_no_section() {
        let text = log(&line("train", 1, 1.0, "\"logp\":[-1,-2,-3]")).section("sft");
        assert!(text.contains("<figcaption>logp, nats</figcaption>") && !text.contains("legend"), "{text}");
        assert_eq!(log("").section("old"), "");
        // A reward model's scores move, those that are data do not.
        let scores = |more: &str| {
            let each =
                |step: u64| line("train", step, step as f64, &format!("\"chosen\":[1,0,1],\"reward\":[1,2,3]{more}"));
            log(&(1..=2).map(each).collect::<String>()).section("run").matches("<figcaption>reward").count()
        };
        assert_eq!((scores(""), scores(",\"logp\":[0,0,0]")), (2, 1));
    }
}
