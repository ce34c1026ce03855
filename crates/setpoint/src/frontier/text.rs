//! A frontier as tables of text, at most 80 columns wide.

use setpoint_eval::Estimate;

use super::{Frontier, MetricLines};
use crate::session::TextTable;

/// The content of a cell without a value.
const NONE: &str = "—";

impl Frontier {
    /// Returns the tables: the lines with their losses, and of each metric what the methods reach at the KLs asked for. Win rates and lengths are
    /// in the files alone.
    pub fn tables(&self) -> Vec<TextTable> {
        let shown = self.metrics.iter().filter(|metric| !["win_rate", "tokens"].contains(&metric.metric.as_str()));
        let tables = shown.filter(|metric| !metric.at.is_empty()).map(|metric| self.table(metric));
        std::iter::once(self.lines()).chain(tables).collect()
    }

    /// Returns a row for each method: its models, where they are, and whether its loss was still falling.
    fn lines(&self) -> TextTable {
        let mut table = TextTable::framed(["method", "models", "KL from", "to", "loss when it stopped"]);
        for loss in &self.losses {
            let line = self.metrics.iter().flat_map(|metric| &metric.lines).find(|line| line.method == loss.method);
            let points = line.map_or(&[][..], |line| &line.points);
            let end = |kl: Option<f64>| kl.map_or_else(|| NONE.to_owned(), |kl| format!("{kl:.2}"));
            table.push([
                loss.method.clone(),
                points.iter().map(|point| point.models.len()).sum::<usize>().to_string(),
                end(points.first().map(|point| point.kl)),
                end(points.last().map(|point| point.kl)),
                match (loss.falling, loss.told) {
                    (_, 0) => "too few steps to tell".to_owned(),
                    (0, _) => "level".to_owned(),
                    (falling, told) if falling == told => "still falling".to_owned(),
                    (falling, told) => format!("still falling in {falling} of {told}"),
                },
            ]);
        }
        table
    }

    /// Returns a row for each KL and method.
    fn table(&self, metric: &MetricLines) -> TextTable {
        let cut = |text: &str, longest: usize| text.chars().take(longest).collect::<String>();
        let titles = [
            "KL".to_owned(),
            "method".to_owned(),
            cut(&metric.metric, 24),
            format!("less {}", cut(&self.baseline, 18)),
        ];
        let mut table = TextTable { keys: 2, ..TextTable::framed(titles) };
        for at in &metric.at {
            table.push([
                at.kl.to_string(),
                at.method.clone(),
                at.estimate.as_ref().map_or_else(|| NONE.to_owned(), |e| interval(e, false)),
                match at.method == self.baseline {
                    true => String::new(),
                    false => at.difference.as_ref().map_or_else(|| NONE.to_owned(), |e| interval(e, true)),
                },
            ]);
        }
        table
    }

    /// Returns how the tables are read; `what`: the prompts and seeds of the models.
    pub fn legend(&self, what: &str) -> String {
        format!(
            "lines over {what};\n\
             between two models a line is straight; {NONE}: outside of the KLs measured;\n\
             intervals over prompts, paired for differences; KL over the whole vocabulary"
        )
    }
}

/// Writes an estimate with its interval.
fn interval(e: &Estimate, signed: bool) -> String {
    match signed {
        true => format!("{:+.2} [{:+.2}, {:+.2}]", e.value, e.low, e.high),
        false => format!("{:.2} [{:.2}, {:.2}]", e.value, e.low, e.high),
    }
}
