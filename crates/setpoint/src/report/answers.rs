//! The answers to what people ask of a run: whether it learned, whether it overfitted, and what it cost.

use serde::Serialize;
use setpoint_eval::{mean, mean_and_deviation, wilson_interval};

use super::number::{bytes, count, counted, duration, number, percent};
use super::read::Run;
use super::standing::Standing;
use crate::session::at_least;
use crate::training::history::Ending;

/// Points at the beginning and at the end of a curve that are averaged, at most.
const WINDOW: usize = 20;
/// The share of a loss below which a difference says nothing.
const SLIGHT: f64 = 0.01;

/// An answer to one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The question.
    pub question: &'static str,
    /// The tone of the answer.
    pub tone: Tone,
    /// The answer in a word or two.
    pub verdict: String,
    /// The reasons, with figures.
    pub reasons: Vec<String>,
}

/// Tells whether an answer is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// It is.
    Good,
    /// It is not.
    Bad,
    /// The figures do not decide.
    Unclear,
    /// It was not measured, or is no question of good and bad.
    Neutral,
}

impl Answer {
    /// Returns an answer with one reason.
    pub fn new(question: &'static str, tone: Tone, verdict: &str, reason: impl Into<String>) -> Self {
        Self { question, tone, verdict: verdict.to_owned(), reasons: vec![reason.into()] }
    }

    fn and(mut self, reason: Option<String>) -> Self {
        self.reasons.extend(reason);
        self
    }
}

/// Returns the mean of some values, and its standard error; 0 for one value.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let (mean, deviation) = mean_and_deviation(values).unwrap_or_default();
    (mean, deviation.unwrap_or(0.0) / (values.len() as f64).sqrt())
}

/// A curve's beginning and end.
struct Ends {
    first: f64,
    last: f64,
    /// The standard error of their difference.
    error: f64,
    /// Points in each.
    window: usize,
}

/// Returns the means of the beginning and the end of a curve: of a tenth of its points, of five if there are that many, else of a half.
/// `None` for fewer than two points.
fn ends(points: &[(f64, f64)]) -> Option<Ends> {
    let values: Vec<f64> = points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    if values.len() < 2 {
        return None;
    }
    let window = (values.len() / 10).max(5).min(values.len() / 2).min(WINDOW);
    let ((first, a), (last, b)) = (mean_and_error(&values[..window]), mean_and_error(&values[values.len() - window..]));
    Some(Ends { first, last, error: a.hypot(b), window })
}

/// Answers whether the training loss fell.
pub fn learned(run: &Run) -> Answer {
    const QUESTION: &str = "Did it learn?";
    let Some(Ends { first, last, error, window }) = ends(run.points("loss")) else {
        let why = match run.points("loss") {
            [] => "no training loss was logged".to_owned(),
            [(step, loss), ..] => format!("one loss alone was logged: {} at step {}", number(*loss), number(*step)),
        };
        return Answer::new(QUESTION, Tone::Neutral, "Cannot tell", why);
    };
    let change = last - first;
    let matters = change.abs() > 2.0 * error && change.abs() > SLIGHT * first.abs().max(last.abs());
    let over = format!("means of the first and the last {window} points");
    if window == 1 {
        let why =
            format!("two or three losses alone were logged: {} at first, {} at last", number(first), number(last));
        return Answer::new(QUESTION, Tone::Unclear, "Cannot tell", why);
    }
    let figures = |verb: &str| format!("training loss {verb} {} to {} ({over})", number(first), number(last));
    let answer = match (matters, change < 0.0) {
        (true, true) => Answer::new(QUESTION, Tone::Good, "Yes", figures("fell from")),
        (true, false) => Answer::new(QUESTION, Tone::Bad, "No, it got worse", figures("rose from"))
            .and(Some("a lower learning rate is the usual remedy".to_owned())),
        (false, _) => Answer::new(QUESTION, Tone::Unclear, "Hardly", figures("went from")),
    };
    let order = ["rewards/accuracies", "accuracy"].iter().find_map(|metric| ends(run.points(metric)));
    answer.and(order.map(|e| format!("training pairs in the right order: {} → {}", percent(e.first), percent(e.last))))
}

/// Answers whether the evaluation loss rose again.
pub fn overfitted(run: &Run) -> Answer {
    /// Training losses that are compared with the last evaluation.
    const NEAR: usize = 5;
    const QUESTION: &str = "Did it overfit?";
    let points: Vec<(f64, f64)> = run.points("eval_loss").iter().copied().filter(|point| point.1.is_finite()).collect();
    let Some(&(last_step, last)) = points.last() else {
        return Answer::new(QUESTION, Tone::Neutral, "Not measured", not_evaluated(run));
    };
    // Training just before the last evaluation.
    let near: Vec<f64> =
        run.points("loss").iter().rev().filter(|point| point.0 <= last_step).take(NEAR).map(|point| point.1).collect();
    let against = (!near.is_empty())
        .then(|| format!("at the end: {} on evaluation data, {} in training", number(last), number(mean(&near))));
    if points.len() == 1 {
        let why = format!("one evaluation alone, after step {}: loss {}", number(last_step), number(last));
        return Answer::new(QUESTION, Tone::Unclear, "Cannot tell", why).and(against);
    }
    let (step, best) =
        points.iter().copied().fold(points[0], |best, point| if point.1 < best.1 { point } else { best });
    let first = points[0].1;
    if last - best > SLIGHT * best.abs().max(last.abs()) {
        let why = format!(
            "evaluation loss was least at step {} ({}) and ended at {}",
            number(step),
            number(best),
            number(last)
        );
        let restored = run.setting("train.best.restore").and_then(toml::Value::as_bool) == Some(true)
            && run.text("train.best.metric") == Some("eval_loss");
        if restored {
            let kept = "`train.best` restored the model of the best evaluation".to_owned();
            return Answer::new(QUESTION, Tone::Neutral, "Yes, and the best model was restored", why)
                .and(Some(kept))
                .and(against);
        }
        return Answer::new(QUESTION, Tone::Bad, "Yes", why).and(against);
    }
    if first - best <= SLIGHT * first.abs() {
        let why = format!("evaluation loss stayed at {} ({} at first)", number(last), number(first));
        return Answer::new(QUESTION, Tone::Unclear, "Hardly any change", why).and(against);
    }
    let why = format!("evaluation loss fell from {} to {}", number(first), number(last));
    let best = (step < last_step).then(|| format!("least at step {}: {}", number(step), number(best)));
    Answer::new(QUESTION, Tone::Good, "No sign of it", why).and(best).and(against)
}

/// Returns the reason for a missing evaluation.
fn not_evaluated(run: &Run) -> &'static str {
    match run.text("eval_data.path") {
        Some(_) => "no evaluation was logged",
        None => "the run had no evaluation data: set `eval_data.path`",
    }
}

/// Answers whether a reward model agrees with the held-out preferences.
pub fn agrees(run: &Run) -> Answer {
    const QUESTION: &str = "Does it agree with held-out preferences?";
    let Some(&(step, accuracy)) = run.points("eval_accuracy").last() else {
        return Answer::new(QUESTION, Tone::Neutral, "Not measured", not_evaluated(run));
    };
    let pairs = run.history.as_ref().and_then(|history| history.eval_examples).filter(|pairs| *pairs > 0);
    let interval = pairs.and_then(|n| wilson_interval((accuracy * n as f64).round() as usize, n, 0.95).ok());
    let (figures, low, high) = match interval {
        Some(p) => (
            format!(
                "{} [{}, {}] of {} pairs",
                percent(accuracy),
                percent(p.low),
                percent(p.high),
                count(p.trials as u64)
            ),
            p.low,
            p.high,
        ),
        None => (format!("{} of the pairs", percent(accuracy)), accuracy, accuracy),
    };
    let why = format!("it orders {figures} as the evaluation data do, after step {}; chance is 50 %", number(step));
    match () {
        () if low > 0.5 => Answer::new(QUESTION, Tone::Good, "Yes", why),
        () if high < 0.5 => Answer::new(QUESTION, Tone::Bad, "No", why),
        () => Answer::new(QUESTION, Tone::Unclear, "Cannot tell", why),
    }
}

/// Answers whether a policy is better than the model that it started from. Evaluations against other models are mentioned.
pub fn better(run: &Run, start: &str, standings: Vec<Standing>) -> Answer {
    const QUESTION: &str = "Is it better than before?";
    let (before, others): (Vec<_>, Vec<_>) = standings.into_iter().partition(|standing| standing.baseline == start);
    let mut answer = match before.first() {
        Some(first) => by_interval(QUESTION, first),
        None => {
            let why = match run.text("model.path") {
                Some(_) => {
                    "compare it with the model it started from by `setpoint eval --output FILE`, and add FILE to the report"
                }
                None => "the run started from random weights: there is no model to compare with",
            };
            Answer::new(QUESTION, Tone::Neutral, "Not measured", why)
        }
    };
    answer.reasons.extend(before.iter().skip(1).chain(&others).flat_map(Standing::sentences));
    answer
}

/// Answers whether a model is better than the baseline of an evaluation.
pub fn better_than_baseline(standing: &Standing) -> Answer {
    by_interval("Is it better than the baseline?", standing)
}

fn by_interval(question: &'static str, standing: &Standing) -> Answer {
    let (tone, verdict) = match (standing.better(), standing.is_far()) {
        (Some(true), false) => (Tone::Good, "Yes"),
        (Some(true), true) => (Tone::Unclear, "By this figure, but it moved far"),
        (Some(false), _) => (Tone::Bad, "No, it is worse"),
        (None, false) => (Tone::Unclear, "Not clearly"),
        (None, true) => (Tone::Bad, "Not clearly, and it moved far"),
    };
    Answer { question, tone, verdict: verdict.to_owned(), reasons: standing.sentences() }
}

/// Answers what a run cost.
pub fn cost(run: &Run) -> Answer {
    const QUESTION: &str = "What did it cost?";
    let steps = step_seconds(run);
    let (verdict, mut reasons) = match run.history.as_ref().map(|history| history.seconds()) {
        Some((seconds, true)) => (duration(seconds), Vec::new()),
        Some((seconds, false)) => {
            let why = "a process was killed or still runs, so its time is unknown; it is counted by its steps";
            (at_least(seconds.max(steps.unwrap_or(0.0))), vec![why.to_owned()])
        }
        None if steps.is_some() => {
            let why = "the time of the steps alone: this version noted no other";
            (duration(steps.unwrap_or(0.0)), vec![why.to_owned()])
        }
        None => ("Time unknown".to_owned(), Vec::new()),
    };
    if let Some(tokens) = run.tokens {
        let speed = steps.filter(|seconds| *seconds > 0.0).map(|seconds| tokens as f64 / seconds);
        let speed = speed.map(|speed| format!(", {} a second during the steps", count(speed.round() as u64)));
        reasons.insert(0, format!("{} trained on{}", counted(tokens, "token"), speed.unwrap_or_default()));
    }
    reasons.push(match run.history.as_ref().and_then(|history| history.peak_memory()) {
        Some(peak) => format!("{} of memory at most (GPU memory not included)", bytes(peak)),
        None => "peak memory was not noted".to_owned(),
    });
    Answer { question: QUESTION, tone: Tone::Neutral, verdict, reasons }
}

/// Returns the seconds of all steps; a line of the log has the mean of its steps.
fn step_seconds(run: &Run) -> Option<f64> {
    let points = run.points("step_seconds");
    let mut before = 0.0;
    let seconds = points.iter().map(|&(step, seconds)| {
        let steps: f64 = step - before;
        before = step;
        steps.max(0.0) * seconds
    });
    Some(seconds.sum()).filter(|_| !points.is_empty())
}

/// Answers whether there is anything to worry about.
pub fn warnings(run: &Run) -> Answer {
    /// More warnings than a reader reads.
    const MOST: usize = 30;
    const QUESTION: &str = "Any warnings?";
    let mut found = Vec::new();
    let mut tone = Tone::Unclear;
    if let Some(history) = &run.history {
        match history.processes.last().map(|process| (process, process.end.as_ref().map(|end| end.ending))) {
            Some((_, Some(Ending::Failed))) => {
                tone = Tone::Bad;
                found.push("the last process ended with an error".to_owned());
            }
            Some((_, Some(Ending::Stopped))) => found.push("the run was stopped; go on with `--resume`".to_owned()),
            Some((_, None)) => found.push("the last process was killed, or still runs".to_owned()),
            _ => {}
        }
        let warnings = history.warnings.len();
        found.extend(history.warnings.iter().take(MOST).cloned());
        if warnings > MOST {
            found.push(format!("{} more in history.jsonl", warnings - MOST));
        }
    } else if run.finished.is_none() {
        found.push("nothing marks the run as finished".to_owned());
    }
    if run.not_finite > 0 {
        found.push(format!("{} in metrics.jsonl not finite", counted(run.not_finite, "value")));
    }
    match (found.len(), &run.history) {
        (0, Some(_)) => {
            Answer { question: QUESTION, tone: Tone::Good, verdict: "None".to_owned(), reasons: Vec::new() }
        }
        (0, None) => Answer::new(QUESTION, Tone::Neutral, "Not noted", "this version noted no warnings"),
        (n, _) => Answer { question: QUESTION, tone, verdict: counted(n as u64, "warning"), reasons: found },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(metric: &str, values: &[f64]) -> Run {
        let mut run = Run::default();
        add(&mut run, metric, values);
        run
    }

    fn add(run: &mut Run, metric: &str, values: &[f64]) {
        let points = values.iter().enumerate().map(|(i, value)| (1.0 + i as f64, *value)).collect();
        run.metrics.insert(metric.to_owned(), points);
    }

    fn verdict(answer: &Answer) -> (Tone, &str) {
        (answer.tone, answer.verdict.as_str())
    }

    #[test]
    fn a_loss_that_falls_is_learning_and_noise_is_not() {
        let falling: Vec<f64> = (0..40).map(|i| 4.0 - f64::from(i) / 20.0).collect();
        let answer = learned(&run("loss", &falling));
        assert_eq!(verdict(&answer), (Tone::Good, "Yes"));
        assert_eq!(answer.reasons, ["training loss fell from 3.9 to 2.15 (means of the first and the last 5 points)"]);
        let rising: Vec<f64> = falling.iter().rev().copied().collect();
        assert_eq!(learned(&run("loss", &rising)).tone, Tone::Bad);
        // Wide swings with a slight fall.
        let noisy: Vec<f64> = (0..40).map(|i| if i % 2 == 0 { 3.0 } else { 1.0 } - f64::from(i) / 400.0).collect();
        assert_eq!(verdict(&learned(&run("loss", &noisy))), (Tone::Unclear, "Hardly"));
        assert_eq!(verdict(&learned(&run("loss", &[0.7, 0.699]))), (Tone::Unclear, "Cannot tell"));
        assert_eq!(verdict(&learned(&run("loss", &[0.7, 0.699, 0.7, 0.698]))), (Tone::Unclear, "Hardly"));
        assert_eq!(learned(&run("loss", &[2.0])).reasons, ["one loss alone was logged: 2 at step 1"]);
        assert_eq!(learned(&Run::default()).tone, Tone::Neutral);
    }

    #[test]
    fn a_loss_that_rises_again_on_evaluation_data_is_overfitting() {
        let mut overfitted_run = run("eval_loss", &[2.0, 1.5, 1.4, 1.9]);
        add(&mut overfitted_run, "loss", &[2.0, 1.2, 0.8, 0.4]);
        let answer = overfitted(&overfitted_run);
        assert_eq!(verdict(&answer), (Tone::Bad, "Yes"));
        assert_eq!(answer.reasons[0], "evaluation loss was least at step 3 (1.4) and ended at 1.9");
        assert_eq!(answer.reasons[1], "at the end: 1.9 on evaluation data, 1.1 in training");
        overfitted_run.settings = "train.best = { metric = 'eval_loss', restore = true }".parse().unwrap();
        assert!(overfitted(&overfitted_run).reasons[1].contains("restored"));
        assert_eq!(verdict(&overfitted(&run("eval_loss", &[2.0, 1.5, 1.4, 1.401]))), (Tone::Good, "No sign of it"));
        assert_eq!(overfitted(&run("eval_loss", &[2.0, 1.999])).tone, Tone::Unclear);
        assert_eq!(overfitted(&run("eval_loss", &[2.0])).tone, Tone::Unclear);
        assert_eq!(verdict(&overfitted(&Run::default())), (Tone::Neutral, "Not measured"));
    }

    #[test]
    fn time_is_counted_by_steps_if_nothing_else_is_known() {
        let mut run = Run { tokens: Some(6000), ..Run::default() };
        // Two lines of a log: the means of five steps each.
        run.metrics.insert("step_seconds".to_owned(), vec![(5.0, 2.0), (10.0, 4.0)]);
        let answer = cost(&run);
        assert_eq!(answer.verdict, "30 s");
        assert_eq!(answer.reasons[0], "6,000 tokens trained on, 200 a second during the steps");
    }

    #[test]
    fn only_the_model_before_decides_what_is_better() {
        let standing = |baseline: &str, low: f64| {
            let rate = serde_json::json!({"value": 0.6, "low": low, "high": 0.7});
            Standing::of_rewards(&serde_json::json!({"win_rate": {"rate": rate}}), baseline).unwrap()
        };
        let run = Run { settings: "model.path = 'runs/sft/model'".parse().unwrap(), ..Run::default() };
        let answer = better(&run, "sft", vec![standing("gpt4", 0.55), standing("sft", 0.45)]);
        assert_eq!(verdict(&answer), (Tone::Unclear, "Not clearly"));
        assert_eq!(answer.reasons.len(), 2);
        assert_eq!(verdict(&better(&run, "sft", vec![standing("gpt4", 0.55)])), (Tone::Neutral, "Not measured"));
        assert_eq!(verdict(&better(&run, "sft", vec![standing("sft", 0.55)])), (Tone::Good, "Yes"));
    }

    #[test]
    fn agreement_is_judged_by_its_interval() {
        let mut run = run("eval_accuracy", &[0.4, 0.75]);
        assert_eq!(agrees(&run).tone, Tone::Good);
        let history = |pairs| crate::training::history::History { eval_examples: Some(pairs), ..Default::default() };
        run.history = Some(history(8));
        assert_eq!(agrees(&run).tone, Tone::Unclear);
        run.history = Some(history(200));
        assert!(
            agrees(&run).reasons[0].contains("75.0\u{a0}% [68.6\u{a0}%, 80.5\u{a0}%] of 200 pairs"),
            "{:?}",
            agrees(&run)
        );
    }
}
