//! The plan of a training run: its memory, steps and arithmetic, known before it begins.

mod devices;
mod memory;
mod parts;
mod rounds;
mod value;

use std::fmt;
use std::iter::once;

use burn::tensor::FloatDType;
use serde::Serialize;
use setpoint_data::{EncodeReport, counted};
use setpoint_train::TrainConfig;
use setpoint_transformer::lora::AdapterSize;
use setpoint_transformer::{ModelConfig, Recompute};

pub use self::devices::OnDevices;
pub use self::memory::{MemoryPlan, Output, ParameterBytes};
pub use self::rounds::RoundsPlan;
use super::mix::DataPart;
use super::rates::Rates;
use crate::config::sections::ModelSection;
use crate::failure::Outcome;
use crate::session::memory::size;
use crate::session::{Place, duration};

/// The parts of a training that decide its memory.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// The shape of the model.
    pub config: &'a ModelConfig,
    /// The source of its weights, and their number format.
    pub model: &'a ModelSection,
    /// The numbers that a loss makes of its hidden states.
    pub output: Output,
    /// The size of the adapter, if only that is trained.
    pub adapter: Option<AdapterSize>,
}

/// The work of a run, and its needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunPlan {
    /// Examples after dropping.
    pub examples: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Examples of a step.
    pub batch_size: usize,
    /// Tokens of all prompts and responses of an epoch.
    pub tokens: usize,
    /// Floating-point operations of the matrix products.
    pub operations: f64,
    /// The numbers that are trained.
    pub trained: u64,
    /// All numbers of the model.
    #[serde(skip)]
    parameters: u64,
    /// Bytes of the weights that a second model would share with the first.
    #[serde(skip)]
    frozen: f64,
    /// The number format of the weights.
    pub dtype: &'static str,
    /// Number of devices, each of which needs this memory.
    pub devices: usize,
    /// Bytes on a device, part by part.
    pub memory: MemoryPlan,
    /// The most of them at once.
    pub peak: f64,
    /// Bytes that a device has for the run, where that is known.
    pub available: Option<f64>,
    /// True if the run fits into them, false if it does not, none if that is unknown.
    pub fits: Option<bool>,
    /// The memory on other numbers of devices; empty on a CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_devices: Vec<OnDevices>,
    /// The rounds, if the policy is trained on its own samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<RoundsPlan>,
    /// The parts of the data sets in an epoch, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<DataPart>,
    /// The fate of the rows, in a sentence.
    #[serde(skip)]
    data: String,
    /// The number of tokens beyond which texts have other rotary frequencies, and that of the longest text, if it is one of them.
    #[serde(skip)]
    long_texts: Option<[usize; 2]>,
    /// A remark on the number of steps, if it is unusual.
    #[serde(skip)]
    warning: Option<String>,
    /// A remark on the learning rate, if it is the default and does not suit the model's size.
    #[serde(skip)]
    remark: Option<String>,
}

impl RunPlan {
    /// Plans a run on the data that `report` describes.
    ///
    /// # Errors
    /// When the settings allow no step.
    pub fn of(
        shape: Shape<'_>,
        report: &EncodeReport,
        train: &TrainConfig,
        examples: usize,
        place: &Place,
    ) -> Outcome<Self> {
        let plan = train.plan(examples)?;
        let model = shape.config;
        let dtype = place.dtype(shape.model, model);
        let saved = shape.model.quantized().map_or(0.0, |quantize| {
            let shapes = model.map_shapes().into_iter();
            let (dense, codes) = shapes.fold((0.0, 0.0), |(dense, codes), [outputs, inputs]| {
                let bytes = ParameterBytes::of(dtype).weight * (outputs * inputs) as f64;
                (dense + bytes, codes + quantize.bytes([outputs, inputs]) as f64)
            });
            model.num_hidden_layers as f64 * (dense - codes)
        });
        let memory_on = |devices: usize| {
            let memory = MemoryPlan::of(model, report, train, shape.output, dtype, shape.adapter, devices);
            MemoryPlan { weights: memory.weights - saved, ..memory }
        };
        let memory = memory_on(place.count());
        let switch = model.rope.switch();
        // Devices of the CPU share its memory.
        let counts = if place.is_cpu() { &[][..] } else { &devices::COUNTS };
        let tokens = report.prompt_tokens + report.response_tokens;
        // Two for each number and pass: forward, backward through the values and, if it is trained, through the weight.
        let again = if memory.recompute == Recompute::Block { 2.0 } else { 0.0 };
        let parameters = model.num_parameters();
        let (of_each, of_adapter) = match shape.adapter {
            None => (6.0, 0.0),
            Some(size) => (4.0, (6.0 + again) * size.factors as f64 + 2.0 * size.saved as f64),
        };
        let operations = (of_each + again) * parameters as f64 + of_adapter;
        let epochs = plan.total_steps as f64 / plan.steps_per_epoch.max(1) as f64;
        let plan = Self {
            examples,
            steps: plan.total_steps,
            steps_per_epoch: plan.steps_per_epoch,
            batch_size: train.batch_size,
            tokens,
            operations: operations * tokens as f64 * epochs,
            trained: shape.adapter.map_or(parameters, |size| size.trained()),
            parameters,
            frozen: shape.adapter.map_or(0.0, |size| memory.weights - 4.0 * size.factors as f64),
            dtype: match dtype {
                FloatDType::BF16 => "bf16",
                FloatDType::F16 => "f16",
                _ => "f32",
            },
            devices: place.count(),
            peak: memory.peak(),
            memory,
            available: place.room(),
            fits: None,
            on_devices: counts.iter().map(|&count| OnDevices::of(count, memory_on(count))).collect(),
            rounds: None,
            parts: Vec::new(),
            data: report.to_string(),
            long_texts: switch
                .tokens()
                .filter(|_| switch.is_long(report.longest.max))
                .map(|most| [most, report.longest.max]),
            warning: train.few_steps(&plan),
            remark: None,
        };
        Ok(plan.compared())
    }

    fn compared(mut self) -> Self {
        let fits = |peak: f64| self.available.map(|available| peak <= available);
        self.fits = fits(self.peak);
        self.on_devices.iter_mut().for_each(|on| on.fits = fits(on.peak));
        self
    }

    /// Returns the memory on all numbers of devices, each with its peak.
    fn memories(&mut self) -> impl Iterator<Item = (&mut MemoryPlan, &mut f64)> {
        let others = self.on_devices.iter_mut().map(|on| (&mut on.memory, &mut on.peak));
        once((&mut self.memory, &mut self.peak)).chain(others)
    }

    /// Returns the plan with a second model of the same size that trains next to the first and shares its frozen weights.
    pub fn twice(mut self) -> Self {
        let frozen = self.frozen;
        for (memory, peak) in self.memories() {
            for part in [
                &mut memory.weights,
                &mut memory.gradients,
                &mut memory.head_gradient,
                &mut memory.optimizer,
                &mut memory.activations,
            ] {
                *part *= 2.0;
            }
            memory.weights -= frozen;
            *peak = memory.peak();
        }
        self.operations *= 2.0;
        self.trained *= 2;
        self.compared()
    }

    /// Returns the plan with a remark on the learning rate, if it is the `default` of the job and does not suit the model's size.
    pub fn rated(mut self, rates: Rates, train: &TrainConfig, default: f64, has_adapter: bool) -> Self {
        self.remark = rates.remark(train.learning_rate, default, self.parameters, has_adapter);
        self
    }

    /// Returns the remark on the learning rate, if there is one.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Warns if the run needs more memory than there is, and unless progress is hidden makes the remark on the learning rate.
    pub fn warn(&self, quiet: bool) {
        if let Some(remark) = self.remark().filter(|_| !quiet) {
            log::info!("{remark}");
        }
        if let (Some(false), Some(available)) = (self.fits, self.available) {
            log::warn!(
                "this training needs about {} of memory{}, and {} are available: it will probably be stopped by the \
                 system. A smaller train.micro_batch or train.recompute = \"block\" needs less; `setpoint plan` shows the parts",
                size(self.peak),
                self.on_each(),
                size(available)
            );
        }
    }

    fn on_each(&self) -> &'static str {
        if self.devices > 1 { " on each device" } else { "" }
    }

    /// Returns a remark on the number of steps, if it is unusual.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

/// The plan in lines of text, without the [warning](RunPlan::warning).
impl fmt::Display for RunPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, operations, .. } = self;
        writeln!(f, "data      {}", self.data)?;
        if let Some([most, longest]) = self.long_texts {
            writeln!(
                f,
                "texts     the longest has {longest} tokens: those of more than {most} have LongRoPE's long factors"
            )?;
        }
        // The examples of a round are fewer if rewards are equal.
        let (pass, most) = if self.rounds.is_some() { ("a pass over a round", "at most ") } else { ("an epoch", "") };
        writeln!(
            f,
            "steps     {} ({} {pass}, {most}{} in batches of {})",
            self.steps,
            self.steps_per_epoch,
            counted(self.examples, "example"),
            self.batch_size
        )?;
        for (i, part) in self.parts.iter().enumerate() {
            writeln!(f, "{}{part}", if i == 0 { "epoch     " } else { "          " })?;
        }
        if let Some(rounds) = &self.rounds {
            rounds.write(f, self.dtype)?;
        }
        if self.trained < self.parameters {
            let share = 100.0 * self.trained as f64 / self.parameters as f64;
            writeln!(f, "adapter   {} numbers are trained, {share:.2} % of those of the model", self.trained)?;
        }
        let again = if memory.recompute == Recompute::Block { ", each block computed again" } else { "" };
        writeln!(
            f,
            "memory    about {} at once{}: {} weights in {}, {} gradients in f32, {} optimizer, {} activations of {:.0} tokens{again}, {} \
             head, {} other",
            size(self.peak),
            self.on_each(),
            size(memory.weights),
            self.dtype,
            size(memory.gradients),
            size(memory.optimizer),
            size(memory.activations),
            memory.tokens,
            size(memory.head),
            size(memory.other),
        )?;
        match (self.fits, self.available) {
            (Some(fits), Some(available)) => {
                let fits = if fits { "yes" } else { "no" };
                writeln!(f, "fits      {fits}: {} are available", size(available))?;
            }
            _ => writeln!(f, "fits      not known: say how much memory a device has, as in --device-memory 80GiB")?,
        }
        OnDevices::write(&self.on_devices, f)?;
        write!(
            f,
            "compute   about {operations:.2e} floating-point operations: {} at 100 GFLOP/s, {} at 100 TFLOP/s",
            duration(operations / 1e11),
            duration(operations / 1e14)
        )
    }
}
