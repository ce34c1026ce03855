//! The numbers of single responses that a run has logged (`responses.jsonl`), as histograms of its beginning and its end.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::chart::{self, Chart, Look, Values, Words};
use super::read;
use crate::failure::Outcome;

/// The ways of drawing chosen, rejected and other responses.
const SIDES: [(Look, &str); 3] =
    [(Look::Solid, "chosen"), (Look::Outline, "rejected"), (Look::Grey, "other responses")];

/// A series: its name in the log, its title, its axis, whether training moves it, and what good looks like, with sides and without.
struct Series {
    name: &'static str,
    title: &'static str,
    axis: &'static str,
    moves: bool,
    good: &'static str,
    alone: &'static str,
}

/// The series in the order of their charts. A residual is the way to the target.
const SERIES: [Series; 6] = [
    Series {
        name: "log_ratio",
        title: "Log-ratio",
        axis: "log-ratio, nats",
        moves: true,
        good: "Good: chosen responses end to the right of rejected ones.",
        alone: "Good: good responses end further to the right.",
    },
    Series {
        name: RESIDUAL,
        title: "Distance from the target",
        axis: "target − log-ratio, nats",
        moves: true,
        good: "Good: narrower around 0 at the end.",
        alone: "Good: narrower around 0 at the end.",
    },
    Series {
        name: "target",
        title: "Target of the log-ratio",
        axis: "target, nats",
        moves: true,
        good: "Good: within some tens of nats of 0; a target far away is never reached.",
        alone: "Good: within some tens of nats of 0; a target far away is never reached.",
    },
    Series {
        name: "logp",
        title: "Log-probability",
        axis: "log-probability, nats",
        moves: true,
        good: "Good: chosen responses move to the right.",
        alone: "Good: moves to the right.",
    },
    Series {
        name: "reward",
        title: "Reward",
        axis: "reward",
        moves: false,
        good: "Good: chosen responses lie to the right of rejected ones.",
        alone: "For comparison with the rewards that you expect.",
    },
    Series {
        name: "tokens",
        title: "Length",
        axis: "tokens of a response",
        moves: false,
        good: "Good: both sides have similar lengths; if not, training also teaches a length.",
        alone: "For comparison with the lengths that you expect of the model.",
    },
];
const RESIDUAL: &str = "residual";

/// The log of a run.
#[derive(Debug, Default)]
pub struct Responses {
    train: Vec<Line>,
    eval: Vec<Line>,
}

/// A step or an evaluation.
#[derive(Debug, Deserialize)]
struct Line {
    data: String,
    step: u64,
    epoch: f64,
    /// As many numbers under every name as there are responses; `null` if one is not known.
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
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn read(path: &Path) -> Outcome<Self> {
        let mut found = Self::default();
        read::each_line(path, |line: Line| {
            let eval = line.data == "eval";
            if eval { &mut found.eval } else { &mut found.train }.push(line);
        })?;
        Ok(found)
    }

    /// Returns whether the responses are chosen and rejected ones.
    pub fn has_sides(&self) -> bool {
        self.train.iter().chain(&self.eval).any(|line| line.series.contains_key("chosen"))
    }

    /// Returns the legend of the sides.
    pub fn legend(subject: usize) -> Vec<chart::Key> {
        SIDES
            .iter()
            .map(|(look, name)| chart::Key { subject: Some(subject), look: *look, name: (*name).to_owned() })
            .collect()
    }

    /// Returns histograms of everything; charts on one axis are in one row. None if nothing was logged.
    pub fn charts(&self, subject: usize) -> Vec<Vec<Chart>> {
        let mut rows = charts(subject, "", &steps(&self.train));
        rows.extend(charts(subject, "Evaluation data: ", &evaluations(&self.eval)));
        // Charts without a counterpart share a row.
        let (mut rows, single): (Vec<Vec<Chart>>, Vec<Vec<Chart>>) = rows.into_iter().partition(|row| row.len() > 1);
        rows.extend(Some(single.concat()).filter(|row| !row.is_empty()));
        rows
    }
}

/// Returns the first and the last epoch; of a run that is shorter than two, its first and its second half.
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

/// Returns the first and the last evaluation.
fn evaluations(lines: &[Line]) -> Vec<Span<'_>> {
    let steps = || lines.iter().map(|line| line.step);
    let of = |step: Option<u64>| lines.iter().filter(|line| Some(line.step) == step).collect();
    match steps().min() == steps().max() {
        true => spans(lines, ["", ""], [Vec::new(), Vec::new()]),
        false => spans(lines, ["first evaluation", "last evaluation"], [of(steps().min()), of(steps().max())]),
    }
}

/// Returns beginning and end, or all in one if one of the two is empty.
fn spans<'a>(lines: &'a [Line], titles: [&'static str; 2], parts: [Vec<&'a Line>; 2]) -> Vec<Span<'a>> {
    if parts.iter().any(Vec::is_empty) {
        let lines: Vec<&Line> = lines.iter().collect();
        return if lines.is_empty() { Vec::new() } else { vec![Span { title: "", lines }] };
    }
    titles.into_iter().zip(parts).map(|(title, lines)| Span { title, lines }).collect()
}

fn charts(subject: usize, prefix: &str, spans: &[Span<'_>]) -> Vec<Vec<Chart>> {
    // If a policy is trained, the rewards are data; a reward model's own scores move.
    let policy =
        spans.iter().any(|span| ["log_ratio", "logp"].iter().any(|name| !sides(subject, span, name).is_empty()));
    let (mut still, mut moving) = (Vec::new(), Vec::new());
    let sided = spans.iter().flat_map(|span| &span.lines).any(|line| line.series.contains_key("chosen"));
    for Series { name, title, axis, moves, good, alone } in SERIES {
        let good = if sided { good } else { alone };
        let title = format!("{prefix}{title}");
        if !moves && (policy || name == "tokens") {
            let Some(span) = spans.last() else { continue };
            let words = Words { title: &title, x: axis, y: "share of responses, %", good };
            still.extend(chart::histogram(&words, &sides(subject, span, name), None));
            continue;
        }
        let series: Vec<_> = spans.iter().map(|span| (span.title, sides(subject, span, name))).collect();
        // One pair of axes, so that side by side shows the movement.
        let all = series.iter().flat_map(|(_, sides)| sides).flat_map(|side| side.values.iter().copied());
        let Some(bounds) = chart::bounds(all) else { continue };
        let top = series.iter().map(|(_, sides)| chart::highest(sides, bounds)).fold(0.0, f64::max);
        let row = series.iter().filter_map(|(span, sides)| {
            let title = if span.is_empty() { title.clone() } else { format!("{title}, {span}") };
            let words = Words { title: &title, x: axis, y: "share of responses, %", good };
            chart::histogram(&words, sides, Some((bounds, top)))
        });
        moving.push(row.collect());
    }
    moving.extend(still.into_iter().map(|chart| vec![chart]));
    moving
}

/// Returns the finite numbers of a name, side by side; a side without any is left out.
fn sides(subject: usize, span: &Span<'_>, name: &str) -> Vec<Values> {
    let mut found = SIDES.map(|(look, _)| Values { subject, look, values: Vec::new() });
    let sided = span.lines.iter().any(|line| line.series.contains_key("chosen"));
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
            let Some(value) = value.filter(|value| value.is_finite()) else { continue };
            let side = match chosen.get(i).copied().flatten() {
                Some(1.0) => 0,
                Some(_) => 1,
                // Without sides all responses are drawn in the run's colour.
                None if !sided => 0,
                None => 2,
            };
            found[side].values.push(f64::from(value));
        }
    }
    found.into_iter().filter(|side| !side.values.is_empty()).collect()
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

    fn titles(responses: &Responses) -> Vec<String> {
        responses.charts(0).into_iter().flatten().map(|chart| chart.title).collect()
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
        let of = |span, name| -> Vec<(Look, Vec<f64>)> {
            sides(3, span, name).into_iter().map(|side| (side.look, side.values)).collect()
        };
        assert_eq!(of(&spans[0], "log_ratio"), [(Look::Solid, vec![1.0, 2.0]), (Look::Outline, vec![-1.0, -2.0])]);
        assert_eq!(of(&spans[1], "target"), [(Look::Solid, vec![4.0, 4.0]), (Look::Grey, vec![7.0, 7.0])]);
        assert_eq!(of(&spans[1], RESIDUAL), [(Look::Solid, vec![1.0, 0.0])]);
        assert!(of(&spans[0], "reward").is_empty());
        assert!(sides(3, &spans[0], "log_ratio").iter().all(|side| side.subject == 3));
    }

    #[test]
    fn both_ends_are_drawn_on_one_axis() {
        let run = run(4, 2);
        // log_ratio, residual and target, twice each; no rewards and no lengths.
        assert_eq!(run.charts(0).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        let text = |title: &str| {
            let chart = run.charts(0).into_iter().flatten().find(|chart| chart.title == title);
            serde_json::to_string(&chart.unwrap_or_else(|| panic!("no {title}: {:?}", titles(&run)))).unwrap()
        };
        // From -4 to 4 in 24 bars of a third: one begins at 2, and 4 ends the last.
        for (title, bar) in [
            ("Log-ratio, first epoch", "2 to 2.333: 50.0\u{a0}%"),
            ("Log-ratio, last epoch", "3.667 to 4: 50.0\u{a0}%"),
        ] {
            assert!(text(title).contains(bar), "{bar}: {}", text(title));
        }
    }

    #[test]
    fn a_log_without_sides_is_drawn_in_one_colour_and_one_without_lines_not_at_all() {
        let sft = log(&line("train", 1, 1.0, "\"logp\":[-1,-2,-3]"));
        assert_eq!((titles(&sft), sft.has_sides()), (vec!["Log-probability".to_owned()], false));
        assert_eq!(sides(0, &steps(&sft.train)[0], "logp").len(), 1);
        assert!(log("").charts(0).is_empty());
        // A reward model's scores move, those that are data do not.
        let scores = |more: &str| {
            let each =
                |step: u64| line("train", step, step as f64, &format!("\"chosen\":[1,0,1],\"reward\":[1,2,3]{more}"));
            let run = log(&(1..=2).map(each).collect::<String>());
            titles(&run).iter().filter(|title| title.starts_with("Reward")).count()
        };
        assert_eq!((scores(""), scores(",\"logp\":[0,0,0]")), (2, 1));
    }
}
