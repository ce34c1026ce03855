//! The summary at the end of a training: how long it took, whether it learned, and where its model is.

use std::fmt;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use setpoint_data::counted;
use setpoint_train::{BestConfig, RunDir, TrainConfig};
use toml::Table;

use super::finished::mark_finished;
use super::history::{HISTORY, History};
use super::record::{self, CONFIG};
use crate::card;
use crate::failure::{Failure, Outcome};
use crate::session::{Session, at_least, duration, memory};

/// Marks a run as finished, after the models in some folders of it were written, and tells how it went. `stopped`: why it ended before its last
/// step. The first folder is the model's.
pub fn conclude(
    session: &Session,
    run: &RunDir,
    what: &str,
    (steps, stopped): (u64, Option<String>),
    folders: &[&str],
    config: &TrainConfig,
) -> Outcome {
    let model = folders.first().copied().unwrap_or_default();
    if let Err(failure) = write_card(run, steps, model) {
        log::warn!("{} gets no model card: {}", run.join(model).display(), failure.sentence());
    }
    mark_finished(run, steps, stopped, folders)?;
    let summary = Summary::of(what, run.path(), model, steps, config.best.as_ref(), session.place.is_cpu());
    log::info!("{summary}");
    Ok(())
}

/// Writes the card of the model in a folder of a finished run.
fn write_card(run: &RunDir, steps: u64, folder: &str) -> Outcome {
    let path = run.join(CONFIG);
    let settings = setpoint_files::read_text(&path)?;
    let settings: Table = settings.parse().map_err(|_| Failure::run(format!("{} is damaged", path.display())))?;
    let job = record::read(run.path())?.map(|record| record.job).unwrap_or_default();
    card::write_of_run(run.path(), &job, &record::flat(&settings), steps, folder)
}

/// A number that was measured after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measured {
    step: u64,
    value: f64,
}

/// The losses and evaluations of a run, from its `metrics.jsonl`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Course {
    first: Option<Measured>,
    last: Option<Measured>,
    /// The best evaluation.
    best: Option<Measured>,
}

impl Course {
    /// Adds a line of the file. `metric` decides which evaluation is the best.
    fn add(&mut self, line: &str, metric: &str, is_better: impl Fn(f64, f64) -> bool) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        let measured = |name: &str| Some(Measured { step: line["step"].as_u64()?, value: line[name].as_f64()? });
        if let Some(loss) = measured("loss") {
            self.first.get_or_insert(loss);
            self.last = Some(loss);
        }
        if let Some(found) = measured(metric)
            && self.best.is_none_or(|best| is_better(found.value, best.value))
        {
            self.best = Some(found);
        }
    }

    /// Reads the file in a run folder. Lines that cannot be read are skipped: the summary is no reason to fail.
    fn read(folder: &Path, metric: &str, is_better: impl Fn(f64, f64) -> bool) -> Self {
        let mut course = Self::default();
        let Ok(file) = setpoint_files::open(&folder.join(RunDir::METRICS)) else { return course };
        for line in BufReader::new(file.take(setpoint_files::LARGE)).lines().map_while(Result::ok) {
            course.add(&line, metric, &is_better);
        }
        course
    }
}

/// Everything that a person wants to know of a finished training.
#[derive(Debug, Clone, PartialEq)]
struct Summary {
    what: String,
    steps: u64,
    /// The step from which the last process went on.
    resumed: Option<u64>,
    /// Seconds of all processes that worked on the run, and whether the time of each is known.
    seconds: (f64, bool),
    course: Course,
    /// The metric of the best evaluation.
    metric: String,
    /// Greatest resident memory, bytes.
    peak_memory: Option<u64>,
    /// True if the run computed in the machine's own memory.
    on_cpu: bool,
    /// Different warnings of all processes.
    warnings: usize,
    model: PathBuf,
}

impl Summary {
    /// Collects what a run has left.
    fn of(what: &str, folder: &Path, model: &str, steps: u64, best: Option<&BestConfig>, on_cpu: bool) -> Self {
        let metric = best.map_or("eval_loss", |best| best.metric.as_str());
        let more = best.is_some_and(|best| best.greater_is_better);
        let course = Course::read(folder, metric, |found, best| if more { found > best } else { found < best });
        let history = History::read(folder).unwrap_or_default();
        let resumed = history.processes.last().and_then(|process| process.steps).map(|(done, _)| done);
        Self {
            what: what.to_owned(),
            steps,
            resumed: resumed.filter(|done| *done > 0),
            seconds: history.seconds(),
            course,
            metric: metric.to_owned(),
            peak_memory: history.peak_memory(),
            on_cpu,
            warnings: history.warnings.len(),
            model: folder.join(model),
        }
    }
}

/// The lines of the summary, each of which fits a terminal of 80 columns unless the path of the model is long.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, complete) = self.seconds;
        write!(f, "{}: {}", self.what, counted(self.steps as usize, "step"))?;
        if seconds > 0.0 {
            let time = if complete { duration(seconds) } else { at_least(seconds) };
            write!(f, " in {time}")?;
        }
        if let Some(step) = self.resumed {
            write!(f, ", resumed from step {step}")?;
        }
        if let (Some(first), Some(last)) = (self.course.first, self.course.last) {
            write!(f, "\nloss         {:.4} at step {}", first.value, first.step)?;
            if last.step > first.step {
                write!(f, ", {:.4} at step {}", last.value, last.step)?;
            }
        }
        if let Some(best) = self.course.best {
            write!(f, "\nbest         {} {:.4} at step {}", self.metric, best.value, best.step)?;
        }
        if let Some(bytes) = self.peak_memory {
            let place = if self.on_cpu { "" } else { " of the host, without the devices" };
            write!(f, "\npeak memory  {}{place}", memory::size(bytes as f64))?;
        }
        if self.warnings > 0 {
            write!(f, "\nwarnings     {}, see above and {HISTORY} in the run folder", self.warnings)?;
        }
        write!(f, "\nmodel        {}", self.model.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(course: Course) -> Summary {
        Summary {
            what: "SFT".into(),
            steps: 120,
            resumed: None,
            seconds: (102.0, true),
            course,
            metric: "eval_loss".into(),
            peak_memory: Some(1 << 29),
            on_cpu: true,
            warnings: 0,
            model: "runs/sft/model".into(),
        }
    }

    fn course(lines: &[&str], metric: &str, more: bool) -> Course {
        let mut course = Course::default();
        lines.iter().for_each(|line| course.add(line, metric, |a, b| if more { a > b } else { a < b }));
        course
    }

    #[test]
    fn the_course_is_read_from_the_metrics() {
        let lines = [
            r#"{"step":10,"loss":3.5,"eval_loss":9.0}"#,
            r#"{"step":20,"eval_loss":2.0,"eval_margin":0.5}"#,
            "half a line",
            r#"{"step":30,"loss":1.5}"#,
            r#"{"step":30,"eval_loss":2.5,"eval_margin":0.75}"#,
            r#"{"step":40,"loss":"NaN"}"#,
        ];
        let found = course(&lines, "eval_loss", false);
        let at = |step, value| Some(Measured { step, value });
        assert_eq!(found, Course { first: at(10, 3.5), last: at(30, 1.5), best: at(20, 2.0) });
        assert_eq!(course(&lines, "eval_margin", true).best, at(30, 0.75));
        assert_eq!(course(&[], "eval_loss", false), Course::default());
    }

    #[test]
    fn the_summary_has_a_line_for_each_question_and_fits_80_columns() {
        let lines = [r#"{"step":1,"loss":3.25}"#, r#"{"step":80,"eval_loss":1.95}"#, r#"{"step":120,"loss":1.5}"#];
        let full = summary(course(&lines, "eval_loss", false));
        let text = full.to_string();
        assert_eq!(
            text,
            "SFT: 120 steps in 1 min 42 s\nloss         3.2500 at step 1, 1.5000 at step 120\nbest         eval_loss 1.9500 at \
             step 80\npeak memory  512 MiB\nmodel        runs/sft/model"
        );
        let resumed = Summary { resumed: Some(60), warnings: 12, seconds: (102.0, false), on_cpu: false, ..full };
        let text = resumed.to_string();
        assert!(text.starts_with("SFT: 120 steps in at least 1 min 42 s, resumed from step 60\n"), "{text}");
        assert!(text.contains("512 MiB of the host, without the devices"), "{text}");
        assert!(text.contains("\nwarnings     12, see above and history.jsonl"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 78), "{text}");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let summary = Summary { steps: 1, seconds: (0.0, false), peak_memory: None, ..summary(Course::default()) };
        assert_eq!(summary.to_string(), "SFT: 1 step\nmodel        runs/sft/model");
    }
}
