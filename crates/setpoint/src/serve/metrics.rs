//! The server's figures in Prometheus's text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Upper ends of the classes of times, in seconds.
const CLASSES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Times in classes.
#[derive(Debug, Clone, Default)]
struct Histogram {
    /// Of each class, and of what is longer than all.
    counts: [u64; CLASSES.len() + 1],
    sum: f64,
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        let class = CLASSES.iter().position(|&end| seconds <= end).unwrap_or(CLASSES.len());
        self.counts[class] += 1;
        self.sum += seconds;
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        let ends = CLASSES.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (end, count) in ends.zip(self.counts) {
            total += count;
            let comma = if labels.is_empty() { "" } else { "," };
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{end}\"}} {total}");
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(text, "{name}_sum{labels} {}\n{name}_count{labels} {total}", self.sum);
    }
}

/// The figures.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    running: AtomicUsize,
    waiting: AtomicUsize,
    passes: AtomicU64,
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    /// Responses by endpoint and status.
    responses: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Times from the request to the end of the answer, by endpoint.
    times: Mutex<BTreeMap<&'static str, Histogram>>,
    /// Times from the request to its first token.
    first_token: Mutex<Histogram>,
}

/// Measures the time of a request until it is dropped.
#[derive(Debug)]
pub(super) struct Timed {
    metrics: Arc<Metrics>,
    endpoint: &'static str,
    start: Instant,
}

impl Drop for Timed {
    fn drop(&mut self) {
        let seconds = self.start.elapsed().as_secs_f64();
        let mut times = self.metrics.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.entry(self.endpoint).or_default().add(seconds);
    }
}

impl Timed {
    /// Notes that the request's first token has come.
    pub(super) fn first_token(&self) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.metrics.first_token.lock().unwrap_or_else(PoisonError::into_inner).add(seconds);
    }
}

impl Metrics {
    /// Begins to measure a request.
    pub(super) fn time(self: &Arc<Self>, endpoint: &'static str) -> Timed {
        Timed { metrics: self.clone(), endpoint, start: Instant::now() }
    }

    /// Counts a response.
    pub(super) fn count_response(&self, endpoint: &'static str, status: u16) {
        *self.responses.lock().unwrap_or_else(PoisonError::into_inner).entry((endpoint, status)).or_default() += 1;
    }

    /// Shows how many answers are in work and how many wait.
    pub(super) fn show_load(&self, running: usize, waiting: usize) {
        self.running.store(running, Ordering::Relaxed);
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Counts a pass of the model with the tokens that it drew.
    pub(super) fn count_pass(&self, tokens: usize) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.generated_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Counts the tokens of prompts.
    pub(super) fn count_prompt(&self, tokens: usize) {
        self.prompt_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Returns all figures as text.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        for (name, help, value) in [
            ("setpoint_answers_running", "Answers in work.", &self.running),
            ("setpoint_answers_waiting", "Answers that wait for a place in the batch.", &self.waiting),
        ] {
            head(&mut text, name, "gauge", help);
            let _ = writeln!(text, "{name} {}", value.load(Ordering::Relaxed));
        }
        for (name, help, value) in [
            ("setpoint_passes_total", "Passes of the model.", &self.passes),
            ("setpoint_prompt_tokens_total", "Tokens of the prompts that were asked.", &self.prompt_tokens),
            ("setpoint_generated_tokens_total", "Tokens that were drawn.", &self.generated_tokens),
        ] {
            head(&mut text, name, "counter", help);
            let _ = writeln!(text, "{name} {}", value.load(Ordering::Relaxed));
        }
        let name = "setpoint_http_responses_total";
        head(&mut text, name, "counter", "Responses by endpoint and status.");
        for ((endpoint, status), count) in self.responses.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "{name}{{endpoint=\"{endpoint}\",status=\"{status}\"}} {count}");
        }
        let name = "setpoint_request_seconds";
        head(&mut text, name, "histogram", "Time from a request to the end of its answer.");
        for (endpoint, times) in self.times.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            times.write(&mut text, name, &format!("endpoint=\"{endpoint}\""));
        }
        let name = "setpoint_first_token_seconds";
        head(&mut text, name, "histogram", "Time from a request to its first token.");
        self.first_token.lock().unwrap_or_else(PoisonError::into_inner).write(&mut text, name, "");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_prometheus_text_format() {
        let metrics = Arc::new(Metrics::default());
        metrics.show_load(2, 5);
        metrics.count_pass(3);
        metrics.count_prompt(40);
        metrics.count_response("/v1/models", 200);
        metrics.count_response("/v1/models", 200);
        metrics.count_response("other", 404);
        let timed = metrics.time("/v1/completions");
        timed.first_token();
        drop(timed);
        let text = metrics.render();
        for line in [
            "setpoint_answers_running 2",
            "setpoint_answers_waiting 5",
            "setpoint_generated_tokens_total 3",
            "setpoint_prompt_tokens_total 40",
            "setpoint_http_responses_total{endpoint=\"/v1/models\",status=\"200\"} 2",
            "setpoint_http_responses_total{endpoint=\"other\",status=\"404\"} 1",
            "setpoint_request_seconds_bucket{endpoint=\"/v1/completions\",le=\"+Inf\"} 1",
            "setpoint_request_seconds_count{endpoint=\"/v1/completions\"} 1",
            "setpoint_first_token_seconds_bucket{le=\"+Inf\"} 1",
            "setpoint_first_token_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        // A line is a comment, or a name with labels and a number.
        let is_number = |text: &str| text.parse::<f64>().is_ok();
        assert!(
            text.lines().all(|line| line.starts_with("# ") || line.rsplit_once(' ').is_some_and(|l| is_number(l.1)))
        );
    }

    #[test]
    fn times_are_counted_in_every_class_that_holds_them() {
        let mut times = Histogram::default();
        [0.003, 0.05, 7.0, 1000.0].into_iter().for_each(|seconds| times.add(seconds));
        let mut text = String::new();
        times.write(&mut text, "t", "");
        for line in ["t_bucket{le=\"0.005\"} 1", "t_bucket{le=\"0.05\"} 2", "t_bucket{le=\"10\"} 3"] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains("t_bucket{le=\"300\"} 3\nt_bucket{le=\"+Inf\"} 4\nt_sum 1007.053"), "{text}");
    }
}
