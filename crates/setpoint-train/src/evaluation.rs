//! Evaluating a task: its loss and metrics over all examples, without a graph.

use burn::module::Module;

use crate::device_failure::attempt;
use crate::devices::distribute;
use crate::hooks::Measurement;
use crate::task::{probe, survey, with_loss};
use crate::{BatchContext, DeviceGroup, Error, Forward, MetricSums, MicroBatch, OutOfMemory, ResponseValues, Task};

/// Computes loss and metrics of a task over all its examples, without a graph, and the numbers of its responses.
///
/// Each name has `eval_` in front of it, the loss is `eval_loss`. `model` is on the first of the devices, which share the work. `progress` is
/// the share of the training that is done ([`BatchContext::progress`]). `interrupted` is asked before each forward pass. The result does not
/// depend on `micro_batch` or the number of devices, but for the rounding of f32 sums. If a device runs out of memory the evaluation begins
/// anew with a smaller `micro_batch`, and the caller is left with the one that sufficed ([`MicroBatch::lowered`] is a message about it).
///
/// # Errors
/// The errors of the task, [`Error::OutOfMemory`] if a device cannot hold a single example, and [`Error::Interrupted`] once `interrupted`
/// says so.
pub fn evaluate<T: Task>(
    task: &T,
    devices: &DeviceGroup,
    model: &T::Model,
    micro_batch: &mut MicroBatch,
    progress: f64,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<Measurement, Error> {
    let all: Vec<Vec<usize>> = vec![(0..task.len()).collect()];
    loop {
        match measure(task, devices, model, *micro_batch, progress, interrupted) {
            Err(failed @ Error::OutOfMemory { .. }) => {
                *micro_batch = micro_batch.smaller(&all, |example| task.cost(example)).ok_or(failed)?;
            }
            done => return done,
        }
    }
}

/// [`evaluate`] with micro-batches of one size.
fn measure<T: Task>(
    task: &T,
    devices: &DeviceGroup,
    model: &T::Model,
    micro_batch: MicroBatch,
    progress: f64,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<Measurement, Error> {
    let model = model.valid();
    let proceed = || if interrupted() { Err(Error::Interrupted) } else { Ok(()) };
    let all: Vec<usize> = (0..task.len()).collect();
    let denominator: f64 = all.iter().map(|&example| task.weight(example)).sum();
    let passes: Vec<(usize, Vec<usize>)> =
        micro_batch.split(&all, |example| task.cost(example)).into_iter().enumerate().collect();
    let mut probes = Vec::with_capacity(all.len());
    let ask = |model: &T::Model, (_, examples): &(usize, Vec<usize>)| {
        proceed()?;
        attempt(|| probe(task, model, examples, micro_batch))?.map_err(out_of_memory)
    };
    distribute(devices, &model, &passes, ask, &mut |_, found| {
        probes.extend(found);
        Ok::<_, Error>(())
    })?;
    let context = BatchContext { denominator, progress, survey: survey(task, &all, probes)? };
    let mut parts: Vec<_> = passes.iter().map(|_| None).collect();
    let compute = |model: &T::Model, (_, examples): &(usize, Vec<usize>)| {
        proceed()?;
        let pass = || {
            let Forward { loss, numbers, .. } = task.forward(model, examples, &context)?;
            Ok(with_loss(&loss, numbers).read())
        };
        attempt(pass)?.map_err(out_of_memory)
    };
    distribute(devices, &model, &passes, compute, &mut |&(at, _), part| {
        parts[at] = Some(part);
        Ok::<_, Error>(())
    })?;
    // In the order of the passes, whichever device was first: another order of the sums would have other last digits.
    let mut loss = 0.0;
    let mut metrics = MetricSums::new();
    let mut responses = ResponseValues::default();
    for (part, numbers) in parts.into_iter().flatten() {
        loss += part;
        metrics.merge(&numbers.metrics);
        responses.append(numbers.responses);
    }
    let mut values = vec![("eval_loss".to_owned(), loss)];
    values.extend(metrics.values().into_iter().map(|(name, value)| (format!("eval_{name}"), value)));
    Ok(Measurement { metrics: values, responses, ends: false })
}

/// The error of a device that cannot hold a micro-batch.
fn out_of_memory(OutOfMemory { reason }: OutOfMemory) -> Error {
    let remedy = "with one example at a time, the smallest `train.micro_batch`: set a smaller `encode.max_length`";
    Error::OutOfMemory { work: "the evaluation".into(), remedy, reason }
}
