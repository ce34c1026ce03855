//! Long work with its pace and the time left: a bar on a terminal, elsewhere a line now and then.

use std::time::{Duration, Instant};

use super::{Bar, Session};

/// The time between two changes of the bar's text.
const DRAW: Duration = Duration::from_millis(200);
/// When the first line is written where there is no bar, and how long it is from one to the next.
const FIRST_LINE: Duration = Duration::from_secs(10);
const NEXT_LINE: Duration = Duration::from_secs(30);

/// The progress of the work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The work done, in the meter's unit.
    pub amount: f64,
    /// The work left, by the best estimate, in proportion to `spent`.
    pub left: f64,
    /// The work done, in the measure of `left`.
    pub spent: f64,
}

impl Pace {
    /// `done` of `total` equal things.
    pub fn even(done: usize, total: usize) -> Self {
        Self { amount: done as f64, left: (total.saturating_sub(done)) as f64, spent: done as f64 }
    }

    /// The amount a second, in a few digits.
    fn rate(&self, elapsed: Duration) -> String {
        let rate = self.amount / elapsed.as_secs_f64().max(1e-3);
        if rate < 10.0 { format!("{rate:.2}") } else { format!("{rate:.0}") }
    }

    /// Returns rate and time left, as in `345 tokens/s, 1 min 20 s left`; without the time if nothing tells it.
    pub fn text(&self, unit: &str, elapsed: Duration) -> String {
        let rate = self.rate(elapsed);
        let left = elapsed.as_secs_f64() * self.left / self.spent;
        if self.left > 0.0 && left.is_finite() {
            format!("{rate} {unit}/s, {} left", duration(left))
        } else {
            format!("{rate} {unit}/s")
        }
    }
}

/// The times at which work that has no bar writes a line: ten seconds after its start, and then twice a minute.
#[derive(Debug, Clone, Copy)]
pub struct Lines(Instant);

impl Lines {
    /// Begins with the work.
    pub fn from(start: Instant) -> Self {
        Self(start + FIRST_LINE)
    }

    /// Returns whether a line is due, which is written then.
    pub fn are_due(&mut self, now: Instant) -> bool {
        let are_due = now >= self.0;
        if are_due {
            self.0 = now + NEXT_LINE;
        }
        are_due
    }
}

/// Work of `total` items.
pub struct Meter {
    bar: Box<dyn Bar>,
    what: String,
    unit: &'static str,
    total: usize,
    start: Instant,
    quiet: bool,
    /// When the bar's text changes, or the next line is written; `None` where nothing is shown.
    due: Option<Instant>,
}

impl Meter {
    /// Creates a meter at 0. `what` the items are called; `unit` is what its pace is measured in. Nothing is shown if the session is quiet.
    pub fn new(session: &Session, total: usize, what: &str, unit: &'static str) -> Self {
        let quiet = session.quiet;
        let bar = session.bar(what, 0, total as u64);
        let start = Instant::now();
        let first = if bar.is_hidden() { FIRST_LINE } else { DRAW };
        Self { what: what.to_owned(), unit, total, start, quiet, due: (!quiet).then(|| start + first), bar }
    }

    /// `done` of the items are done. `pace` is asked where something is about to be shown.
    pub fn update(&mut self, done: usize, pace: impl FnOnce() -> Pace) {
        let now = Instant::now();
        let Some(due) = self.due.filter(|due| now >= *due) else { return };
        let text = pace().text(self.unit, now - self.start);
        if self.bar.is_hidden() {
            log::info!("{}: {done} of {}, {text}", self.what, self.total);
            self.due = Some(due.max(now) + NEXT_LINE);
        } else {
            self.bar.reach(done as u64);
            self.bar.message(text);
            self.due = Some(now + DRAW);
        }
    }

    /// [`update`](Self::update) for items that take equally long and are themselves the unit.
    pub fn reach(&mut self, done: usize) {
        let total = self.total;
        self.update(done, || Pace::even(done, total));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.clear();
    }

    /// Takes the bar away and says how long it took, unless the meter is quiet.
    pub fn conclude(&self, pace: Pace) {
        self.finish();
        if !self.quiet {
            let elapsed = self.start.elapsed();
            let (rate, time) = (pace.rate(elapsed), duration(elapsed.as_secs_f64()));
            log::info!("{}: {} {} in {time}, {rate}/s", self.what, self.total, self.unit);
        }
    }
}

/// Returns a time in words: `under 0.1 s`, `0.8 s`, `42 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0 if seconds < 0.1 => "under 0.1 s".to_owned(),
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Returns the time of something that took at least as long, in words: `at least 42 s`.
pub fn at_least(seconds: f64) -> String {
    let time = duration(seconds);
    // At least under 0.1 s is any time.
    if time.starts_with("under") { time } else { format!("at least {time}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_after_ten_seconds_and_then_twice_a_minute() {
        let start = Instant::now();
        let mut lines = Lines::from(start);
        let seconds = (0..100).filter(|&second| lines.are_due(start + Duration::from_secs(second)));
        assert_eq!(seconds.collect::<Vec<_>>(), [10, 40, 70]);
    }

    #[test]
    fn the_time_left_follows_from_what_is_left() {
        let pace = Pace { amount: 3450.0, left: 800.0, spent: 100.0 };
        assert_eq!(pace.text("tokens", Duration::from_secs(10)), "345 tokens/s, 1 min 20 s left");
        assert_eq!(Pace::even(3, 12).text("examples", Duration::from_secs(2)), "1.50 examples/s, 6.0 s left");
        // At the beginning and at the end there is none.
        assert_eq!(Pace::even(0, 12).text("examples", Duration::from_secs(2)), "0.00 examples/s");
        assert_eq!(Pace::even(12, 12).text("examples", Duration::from_secs(2)), "6.00 examples/s");
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        let shown = [0.04, 0.84, 9.96, 59.0, 200.0, 7500.0].map(duration);
        assert_eq!(shown, ["under 0.1 s", "0.8 s", "10 s", "59 s", "3 min 20 s", "2 h 5 min"]);
        assert_eq!([0.04, 200.0].map(at_least), ["under 0.1 s", "at least 3 min 20 s"]);
    }

    #[test]
    fn lines_come_now_and_then_and_never_where_it_is_quiet() {
        let mut session = Session::on(burn::tensor::Device::flex());
        let mut meter = Meter::new(&session, 8, "answers", "tokens");
        // Nothing is due at once.
        let mut asked = 0;
        meter.update(1, || {
            asked += 1;
            Pace::even(1, 8)
        });
        assert_eq!(asked, 0);
        meter.due = Some(Instant::now());
        for _ in 0..3 {
            meter.update(2, || {
                asked += 1;
                Pace::even(2, 8)
            });
        }
        assert_eq!(asked, 1, "the next one is due later");
        meter.finish();
        session.quiet = true;
        let mut quiet = Meter::new(&session, 8, "answers", "tokens");
        assert!(quiet.due.is_none() && quiet.bar.is_hidden());
        quiet.update(1, || unreachable!("nobody sees it"));
    }
}
