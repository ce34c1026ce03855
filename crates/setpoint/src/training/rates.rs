//! The learning rates to start from, by the size of a model: those of docs/LEARNING_RATES.md.

/// The trainings whose learning rates differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rates {
    /// Supervised fine-tuning.
    Sft,
    /// A reward model.
    Reward,
    /// Alignment by ORPO.
    Orpo,
    /// Alignment by any other method.
    Align,
}

/// A size of models, and for each training the rates for all weights and for an adapter.
struct Row {
    /// More parameters than these belong to the next row.
    up_to: u64,
    sft: [f64; 2],
    reward: [f64; 2],
    align: [f64; 2],
    orpo: [f64; 2],
}

const ROWS: [Row; 4] = [
    Row { up_to: 700_000_000, sft: [3e-4, 1e-3], reward: [1e-5, 1e-4], align: [1e-6, 1e-5], orpo: [8e-6, 8e-5] },
    Row { up_to: 5_000_000_000, sft: [1e-4, 1e-3], reward: [1e-5, 1e-4], align: [1e-6, 1e-5], orpo: [8e-6, 8e-5] },
    Row { up_to: 20_000_000_000, sft: [2e-5, 2e-4], reward: [5e-6, 5e-5], align: [5e-7, 5e-6], orpo: [5e-6, 5e-5] },
    Row { up_to: u64::MAX, sft: [2e-6, 2e-5], reward: [2e-6, 2e-5], align: [2e-7, 2e-6], orpo: [5e-6, 5e-5] },
];

/// A model with fewer parameters than this is a toy, for which the rates of the table are far too low.
const TOY: u64 = 20_000_000;
/// The factor between the table's rate and the default from which the default is named.
const FAR: f64 = 1.9;

impl Rates {
    /// Returns a remark on a learning rate that the user left at the `default` of the job, if a model of this size takes another.
    pub fn remark(self, rate: f64, default: f64, parameters: u64, has_adapter: bool) -> Option<String> {
        if (rate / default - 1.0).abs() > 1e-9 {
            return None;
        }
        let size = size(parameters);
        if parameters < TOY {
            // That of an adapter is ten times as large to begin with.
            let times = if has_adapter { "ten" } else { "a hundred" };
            return Some(format!(
                "train.learning_rate is the default, {rate:e}: models as small as this, of {size} parameters, take {times} \
                 times as much or more (docs/LEARNING_RATES.md)"
            ));
        }
        let row = ROWS.iter().find(|row| parameters <= row.up_to)?;
        let start = self.of(row)[usize::from(has_adapter)];
        let factor = (start / rate).max(rate / start);
        (factor > FAR).then(|| {
            format!(
                "train.learning_rate is the default, {rate:e}: for a model of {size} parameters start from {start:e} \
                 (docs/LEARNING_RATES.md)"
            )
        })
    }

    fn of(self, row: &Row) -> [f64; 2] {
        match self {
            Self::Sft => row.sft,
            Self::Reward => row.reward,
            Self::Orpo => row.orpo,
            Self::Align => row.align,
        }
    }
}

/// Returns a number of parameters in words.
fn size(parameters: u64) -> String {
    let (number, unit) = if parameters < 50_000_000 {
        (parameters as f64 / 1e6, "million")
    } else {
        (parameters as f64 / 1e9, "billion")
    };
    if number < 10.0 { format!("{number:.2} {unit}") } else { format!("{number:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_are_those_of_the_docs() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/LEARNING_RATES.md");
        let docs = std::fs::read_to_string(docs).unwrap();
        for (row, name) in ROWS.iter().zip(["up to 0.5 B", "1 B to 3 B", "7 B to 9 B", "70 B"]) {
            let line = docs.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
            let cells: Vec<Vec<f64>> = line
                .trim_matches('|')
                .split('|')
                .skip(1)
                .map(|cell| cell.split('·').map(|rate| rate.trim().parse().unwrap()).collect())
                .collect();
            let rates = [Rates::Sft, Rates::Reward, Rates::Align, Rates::Orpo].map(|rates| rates.of(row).to_vec());
            assert_eq!(cells, rates, "{line}");
        }
    }

    #[test]
    fn a_default_that_does_not_suit_the_size_is_named() {
        const HALF: u64 = 494_032_768;
        const SEVEN: u64 = 7_615_616_512;
        let said = |rates: Rates, rate, default, parameters, adapter| {
            rates.remark(rate, default, parameters, adapter).unwrap_or_default()
        };
        assert_eq!(
            said(Rates::Sft, 2e-5, 2e-5, HALF, false),
            "train.learning_rate is the default, 2e-5: for a model of 0.49 billion parameters start from 3e-4 \
             (docs/LEARNING_RATES.md)"
        );
        assert!(said(Rates::Align, 5e-7, 5e-7, HALF, false).contains("start from 1e-6"));
        assert!(said(Rates::Orpo, 5e-7, 5e-7, SEVEN, false).contains("start from 5e-6"));
        assert!(said(Rates::Sft, 2e-5 * 10.0, 2e-5 * 10.0, HALF, true).contains("start from 1e-3"));
        assert!(
            said(Rates::Align, 5e-7, 5e-7, 451_200, false).contains("of 0.45 million parameters, take a hundred times")
        );
        assert!(said(Rates::Align, 5e-6, 5e-6, 451_200, true).contains("take ten times"));
        for (rates, rate, default, parameters) in [
            // Chosen by the user.
            (Rates::Sft, 1e-5, 2e-5, HALF),
            // What the table says.
            (Rates::Sft, 2e-5, 2e-5, SEVEN),
            (Rates::Align, 5e-7, 5e-7, SEVEN),
            (Rates::Reward, 1e-5, 1e-5, HALF),
        ] {
            assert_eq!(said(rates, rate, default, parameters, false), "", "{rates:?} {rate:e} {parameters}");
        }
    }
}
