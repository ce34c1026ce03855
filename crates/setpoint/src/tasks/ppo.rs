//! PPO as a task of the engine: a policy and a value network, trained together on the policy's samples.

use std::sync::Arc;

use burn::tensor::Tensor;
use setpoint_align::online::{PpoSettings, ValueBatch, clipped_value};
use setpoint_align::weighted_sum;
use setpoint_train::{BatchContext, Error, Forward, MetricSums, PassNumbers, ResponseValues, Sequence, Task, Unread};
use setpoint_transformer::Tape;

use super::dro_v::PolicyAndValue;
use super::policy::{LoggedResponse, PolicyPass, PolicyTask};
use super::sft::SftExample;
use super::{in_f32, metric_sums, unread};

/// The place of the value network's decoder in [`PolicyAndValue`].
const VALUE_DECODER: &str = "value.model";

/// The values of a response's slots: one for each token, or one more behind the end.
#[derive(Debug, Clone)]
pub struct ResponseSlots {
    /// `V_t` when the response was sampled, units of reward.
    pub values: Vec<f64>,
    /// The targets of the values, as many.
    pub returns: Vec<f64>,
}

/// A row of other data that the policy keeps learning (PPO-ptx).
#[derive(Debug, Clone)]
pub struct PtxRow {
    /// The row up to its last counted token; its response begins at the first one.
    sequence: Sequence,
    /// 1 for each token of this response that counts, else 0.
    counted: Vec<f64>,
}

impl PtxRow {
    /// Takes a conversation; `None` if none of its tokens can be learned.
    pub fn of(example: &SftExample) -> Option<Self> {
        let counts = |&position: &usize| example.counted[position];
        // Nothing predicts the first token.
        let first = (1..example.ids.len()).find(counts)?;
        let last = (1..example.ids.len()).rev().find(counts)?;
        let counted = example.counted[first..=last].iter().map(|&counted| f64::from(u8::from(counted))).collect();
        let sequence = Sequence { ids: example.ids[..=last].to_vec(), prompt_len: first, scored_from: first };
        Some(Self { sequence, counted })
    }

    /// Returns the number of tokens that go through the model.
    pub fn cost(&self) -> usize {
        self.sequence.ids.len()
    }

    fn tokens(&self) -> f64 {
        self.counted.iter().sum()
    }
}

/// The totals of a batch that the loss is divided by, besides its tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Slots of the values.
    slots: f64,
    /// Counted tokens of the other rows.
    ptx: f64,
}

/// Sampled responses with their values.
#[derive(Debug)]
pub struct PpoTask {
    policy: PolicyTask,
    settings: Arc<PpoSettings>,
    /// The slots of each response.
    slots: Vec<ResponseSlots>,
    /// A row of other data for each response, if there are any.
    ptx: Option<Vec<Arc<PtxRow>>>,
    /// True if the policy stays as it is, and the values alone are trained.
    is_warmup: bool,
}

impl PpoTask {
    /// Creates the task of a round. `slots` and `ptx` have an entry for each response of `policy`.
    ///
    /// # Panics
    /// If they have not.
    pub fn new(
        policy: PolicyTask,
        settings: Arc<PpoSettings>,
        slots: Vec<ResponseSlots>,
        ptx: Option<Vec<Arc<PtxRow>>>,
        is_warmup: bool,
    ) -> Self {
        assert_eq!(slots.len(), policy.len(), "values for each response");
        assert!(ptx.as_ref().is_none_or(|rows| rows.len() == policy.len()), "a row for each response");
        // A policy that stays learns nothing from other rows either.
        let ptx = ptx.filter(|_| !is_warmup && settings.ptx_weight > 0.0);
        Self { policy, settings, slots, ptx, is_warmup }
    }

    /// Computes the loss of the values of some responses, each multiplied by `factor`.
    fn value_losses(&self, model: &PolicyAndValue, examples: &[usize], factor: f64) -> Result<ValuePass, Error> {
        // No value is read at the last token, unless there is a slot behind it.
        let row = |&example: &usize| {
            let sequence = &self.policy.response(example).sequence;
            let slots = self.slots[example].values.len();
            (&sequence.ids[..sequence.prompt_len - 1 + slots], sequence.prompt_len - 1)
        };
        let (rows, from): (Vec<&[u32]>, Vec<usize>) = examples.iter().map(row).unzip();
        let (values, tape) = model.value.values_taped(&rows, &from).map_err(Error::task)?; // [slots]
        let all = |of: fn(&ResponseSlots) -> &Vec<f64>| -> Vec<f64> {
            examples.iter().flat_map(|&example| of(&self.slots[example]).iter().copied()).collect()
        };
        let output = clipped_value(
            &ValueBatch {
                values: values.clone(),
                old_values: all(|slots| &slots.values),
                returns: all(|slots| &slots.returns),
                slots: examples.iter().map(|&example| self.slots[example].values.len()).collect(),
            },
            self.settings.value_clip,
        );
        let mut next = 0;
        let mut start = |&example: &usize| {
            let start = next;
            next += self.slots[example].values.len();
            start
        };
        // The place of each response's first value.
        let starts: Vec<usize> = examples.iter().map(&mut start).collect();
        let numbers = unread(output.metrics).and(Unread::of(values)).map(move |(metrics, values)| {
            (metric_sums(&metrics), starts.into_iter().map(|start| values[start]).collect())
        });
        Ok(ValuePass { losses: output.losses * factor, numbers, tape })
    }
}

/// Responses that went through the value network.
struct ValuePass {
    /// The loss of each response, `[n]`.
    losses: Tensor<1>,
    /// Metrics, and the value of each response's first slot, units of reward.
    numbers: Unread<(MetricSums, Vec<f64>)>,
    tape: Option<Tape>,
}

impl Task for PpoTask {
    type Model = PolicyAndValue;
    type Probe = ();
    type Survey = Totals;

    fn len(&self) -> usize {
        self.policy.len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.policy.weight(example)
    }

    fn cost(&self, example: usize) -> usize {
        self.policy.cost(example) + self.ptx.as_ref().map_or(0, |rows| rows[example].cost())
    }

    fn survey(&self, batch: &[usize], _probes: &[()]) -> Result<Totals, Error> {
        let slots = batch.iter().map(|&example| self.slots[example].values.len() as f64).sum();
        let ptx = self.ptx.as_ref().map_or(0.0, |rows| batch.iter().map(|&example| rows[example].tokens()).sum());
        Ok(Totals { slots, ptx })
    }

    fn forward(
        &self,
        model: &PolicyAndValue,
        examples: &[usize],
        batch: &BatchContext<Totals>,
    ) -> Result<Forward, Error> {
        let Totals { slots, ptx } = batch.survey;
        // All losses are divided by the tokens of the batch below; that of the values is a mean over its slots.
        let factor = self.settings.value_weight * batch.denominator / slots;
        let value = self.value_losses(model, examples, factor)?;
        let (mut losses, mut tape, mut other) = (value.losses, None, None);
        let mut of_policy = Unread::known(None);
        let mut of_ptx = Unread::known(None);
        if !self.is_warmup {
            let rows: Vec<&PtxRow> =
                self.ptx.iter().flat_map(|rows| examples.iter().map(move |&e| &*rows[e])).collect();
            let sequences: Vec<&Sequence> = rows.iter().map(|row| &row.sequence).collect();
            let PolicyPass { losses: own, numbers, further, tape: left } =
                self.policy.pass(&model.policy, examples, &sequences)?;
            of_policy = numbers.map(Some);
            losses = own + losses;
            tape = left;
            if let Some(further) = further {
                let counted: Vec<f64> = rows.iter().flat_map(|row| row.counted.iter().copied()).collect();
                let weights: Vec<f64> = counted.iter().map(|c| -c * self.settings.ptx_weight / ptx).collect();
                of_ptx = Unread::of(further.clone()).map(move |logps| {
                    let nll: f64 = logps.iter().zip(&counted).map(|(logp, counted)| -logp * counted).sum();
                    Some((nll, counted.iter().sum::<f64>()))
                });
                other = Some(weighted_sum(further, &weights));
            }
        }
        let mut loss = weighted_sum(losses.clone(), &vec![1.0 / batch.denominator; examples.len()]);
        if let Some(other) = other {
            loss = loss + other;
        }
        let logged = |&example: &usize| (self.policy.logged(example), self.slots[example].returns[0]);
        let logged: Vec<(LoggedResponse, f64)> = examples.iter().map(logged).collect();
        let seen = value.numbers.and(of_policy).and(of_ptx).and(Unread::of(losses));
        let numbers = seen.map(move |((((mut metrics, first), of_policy), of_ptx), losses)| {
            let logps = of_policy.map(|(own, logps)| {
                metrics.merge(&own);
                logps
            });
            if let Some((nll, counted)) = of_ptx {
                metrics.mean("loss/ptx", nll, counted);
            }
            let mut responses = ResponseValues::default();
            for (i, (logged, target)) in logged.into_iter().enumerate() {
                let of_value = [("value", first[i]), ("return", target)];
                let logp = logps.as_ref().map(|logps| logps[i]);
                responses.push(logged.example, logged.with(logp).chain(of_value));
            }
            PassNumbers { metrics, per_example: in_f32(&losses), responses }
        });
        let second_tape = value.tape.map(|tape| (VALUE_DECODER, tape));
        Ok(Forward { loss, numbers, tape, second_tape })
    }

    fn decoder(&self) -> &'static str {
        "policy.model"
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        self.policy.order(seed, epoch)
    }

    fn describe(&self, example: usize) -> String {
        self.policy.describe(example)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_other_data_is_read_from_its_first_counted_token_to_its_last() {
        let example = |counted: &[bool]| SftExample {
            name: "sft.jsonl:1".to_owned(),
            set: 0,
            ids: (10..10 + counted.len() as u32).collect(),
            counted: counted.to_vec(),
        };
        // Two turns, with a user's turn between them and after them.
        let row = PtxRow::of(&example(&[true, false, true, false, true, true, false])).unwrap();
        assert_eq!(row.sequence, Sequence { ids: (10..16).collect(), prompt_len: 2, scored_from: 2 });
        assert_eq!((row.counted.as_slice(), row.tokens(), row.cost()), (&[1.0, 0.0, 1.0, 1.0][..], 3.0, 6));
        // The first token of a text is predicted from nothing.
        let text = PtxRow::of(&example(&[true, true, true])).unwrap();
        assert_eq!((text.sequence.prompt_len, text.tokens()), (1, 2.0));
        assert!(PtxRow::of(&example(&[true, false])).is_none() && PtxRow::of(&example(&[])).is_none());
    }
}
