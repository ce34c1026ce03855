//! The settings to try: lists of values and ranges, as points of a grid or drawn at random.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use setpoint_train::Order;
use toml::{Table, Value};

/// One choice of settings: dotted keys with their values.
pub type Point = Vec<(String, Value)>;

/// The values that a setting is tried with.
#[derive(Debug, Clone, PartialEq)]
enum Choice {
    /// Each of these.
    Values(Vec<Value>),
    /// Anything between.
    Range { low: f64, high: f64, log: bool, whole: bool },
}

/// Settings, each with what it is tried with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Space(Vec<(String, Choice)>);

impl Space {
    /// Reads a table of settings: `"align.beta" = [0.1, 0.5]`, `"train.learning_rate" = { low = 1e-6, high = 1e-4, log = true }`. A value
    /// that is neither a list nor a range is tried alone. Keys may also be written as tables (`align.beta`).
    ///
    /// # Errors
    /// Every entry that cannot be tried, with its key and a sentence.
    pub fn read(table: &Table) -> Result<Self, Vec<(String, String)>> {
        let (mut space, mut problems) = (Self::default(), Vec::new());
        space.read_table("", table, &mut problems);
        if problems.is_empty() { Ok(space) } else { Err(problems) }
    }

    fn read_table(&mut self, prefix: &str, table: &Table, problems: &mut Vec<(String, String)>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Array(values) if values.is_empty() => problems.push((key, "the list is empty".into())),
                Value::Array(values) => self.0.push((key, Choice::Values(values.clone()))),
                Value::Table(range) if range.contains_key("low") || range.contains_key("high") => {
                    match self::range(range) {
                        Ok(choice) => self.0.push((key, choice)),
                        Err(message) => problems.push((key, message)),
                    }
                }
                Value::Table(inner) => self.read_table(&key, inner, problems),
                value => self.0.push((key, Choice::Values(vec![value.clone()]))),
            }
        }
    }

    /// The settings that are tried.
    pub fn keys(&self) -> Vec<String> {
        self.0.iter().map(|(key, _)| key.clone()).collect()
    }

    /// The settings that are ranges, which a grid cannot have.
    pub fn ranges(&self) -> Vec<String> {
        self.0.iter().filter(|(_, c)| matches!(c, Choice::Range { .. })).map(|(key, _)| key.clone()).collect()
    }

    /// Tries `key` with these values, unless it is tried already.
    pub fn add(&mut self, key: &str, values: Vec<Value>) {
        if self.0.iter().all(|(known, _)| known != key) {
            self.0.push((key.to_owned(), Choice::Values(values)));
        }
    }

    /// Tries `key` with these values, whatever it was tried with.
    pub fn replace(&mut self, key: &str, values: Vec<Value>) {
        self.0.retain(|(known, _)| known != key);
        self.add(key, values);
    }

    /// Number of points of the grid, ranges left out.
    pub fn size(&self) -> usize {
        self.0.iter().fold(1usize, |size, (_, choice)| match choice {
            Choice::Values(values) => size.saturating_mul(values.len()),
            Choice::Range { .. } => size,
        })
    }

    /// Every combination of the lists, the last setting changing fastest.
    pub fn grid(&self) -> Vec<Point> {
        self.0.iter().fold(vec![Vec::new()], |points, (key, choice)| {
            let Choice::Values(values) = choice else { return points };
            let longer = |point: Point| {
                values.iter().map(move |value| [point.clone(), vec![(key.clone(), value.clone())]].concat())
            };
            points.into_iter().flat_map(longer).collect()
        })
    }

    /// So many points, drawn from the seed: of lists alone without a repetition (and no more than there are), else each setting
    /// independently; a range evenly, with `log` evenly in its logarithm.
    pub fn sample(&self, count: usize, seed: u64) -> Vec<Point> {
        if self.ranges().is_empty() {
            let grid = self.grid();
            let mut drawn = Order::new(seed).epoch(0, grid.len());
            drawn.truncate(count);
            drawn.sort_unstable();
            return drawn.into_iter().map(|i| grid[i].clone()).collect();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // 53 bits, as many as an f64 between 0 and 1 has.
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..count).map(|_| self.0.iter().map(|(key, choice)| (key.clone(), choice.draw(uniform()))).collect()).collect()
    }
}

impl Choice {
    /// The value at `at`, from 0 to below 1.
    fn draw(&self, at: f64) -> Value {
        match *self {
            Choice::Values(ref values) => values[((at * values.len() as f64) as usize).min(values.len() - 1)].clone(),
            Choice::Range { low, high, log, whole } => {
                // A whole number covers one unit, its own.
                let top = if whole { high + 1.0 } else { high };
                let value = if log { (low.ln() + at * (top.ln() - low.ln())).exp() } else { low + at * (top - low) };
                match whole {
                    true => Value::Integer((value.floor() as i64).clamp(low as i64, high as i64)),
                    false => Value::Float(short(value).clamp(low, high)),
                }
            }
        }
    }
}

/// Four significant digits: what differs less is no other setting, and settings are read by people.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn range(table: &Table) -> Result<Choice, String> {
    if let Some(other) = table.keys().find(|key| !["low", "high", "log"].contains(&key.as_str())) {
        return Err(format!("a range has `low`, `high` and `log`, not `{other}`"));
    }
    let end = |name: &str| match table.get(name) {
        Some(Value::Integer(whole)) => Ok((*whole as f64, true)),
        Some(Value::Float(value)) if value.is_finite() => Ok((*value, false)),
        Some(other) => Err(format!("`{name}` must be a number, found {other}")),
        None => Err(format!("a range needs `low` and `high`; `{name}` is missing")),
    };
    let ((low, low_whole), (high, high_whole)) = (end("low")?, end("high")?);
    let log = match table.get("log") {
        None => false,
        Some(Value::Boolean(log)) => *log,
        Some(other) => return Err(format!("`log` must be true or false, found {other}")),
    };
    if low >= high {
        return Err(format!("`low` must be less than `high`, found {low} and {high}"));
    }
    if log && low <= 0.0 {
        return Err(format!("`low` must be above 0 where `log` is true, found {low}"));
    }
    Ok(Choice::Range { low, high, log, whole: low_whole && high_whole })
}

/// A point as one line; the names of the sections are left out where the rest says enough.
pub fn written(point: &Point) -> String {
    let short = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    point.iter().map(|(key, value)| format!("{} = {value}", short(key))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(text: &str) -> Space {
        Space::read(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_grid_has_every_combination_once() {
        let space = space("\"align.beta\" = [0.1, 0.5]\n\"align.pairs\" = \"all\"\ntrain.batch_size = [1, 2, 3]");
        let points = space.grid();
        assert_eq!((space.size(), points.len()), (6, 6));
        let lines: Vec<String> = points.iter().map(written).collect();
        assert_eq!(lines[0], "beta = 0.1, pairs = \"all\", batch_size = 1");
        assert_eq!(lines[5], "beta = 0.5, pairs = \"all\", batch_size = 3");
        let distinct: std::collections::HashSet<&String> = lines.iter().collect();
        assert_eq!(distinct.len(), 6);
    }

    #[test]
    fn draws_follow_the_seed_and_stay_in_their_ranges() {
        let space = space("a = { low = 1e-6, high = 1e-2, log = true }\nb = { low = 2, high = 4 }\nc = [\"x\", \"y\"]");
        let points = space.sample(400, 7);
        assert_eq!(points, space.sample(400, 7));
        assert_ne!(points, space.sample(400, 8));
        let floats: Vec<f64> = points.iter().map(|p| p[0].1.as_float().unwrap()).collect();
        assert!(floats.iter().all(|v| (1e-6..=1e-2).contains(v)));
        // Half of the logarithm's range is below its middle, 1e-4: 200 of 400 with a deviation of 10.
        let below = floats.iter().filter(|v| **v < 1e-4).count();
        assert!((150..=250).contains(&below), "{below}");
        for whole in 2..=4 {
            let count = points.iter().filter(|p| p[1].1.as_integer() == Some(whole)).count();
            assert!((80..=187).contains(&count), "{whole}: {count}");
        }
        for text in ["x", "y"] {
            assert!(points.iter().any(|p| p[2].1.as_str() == Some(text)));
        }
    }

    #[test]
    fn draws_from_lists_do_not_repeat() {
        let space = space("a = [1, 2, 3]\nb = [1, 2]");
        let mut points: Vec<String> = space.sample(4, 0).iter().map(written).collect();
        points.dedup();
        assert_eq!(points.len(), 4);
        assert_eq!(space.sample(100, 0), space.grid());
    }

    #[test]
    fn every_wrong_entry_is_named() {
        let table: Table =
            "a = []\nb = { low = 1, high = 1 }\nc = { low = 0, high = 1, log = true }\nd = { low = 1 }\n\
                            e = { low = 1, high = 2, step = 3 }\nf = { low = \"x\", high = 2 }"
                .parse()
                .unwrap();
        let problems = Space::read(&table).unwrap_err();
        let keys: Vec<&str> = problems.iter().map(|p| p.0.as_str()).collect();
        assert_eq!(keys, ["a", "b", "c", "d", "e", "f"]);
    }
}
