//! The training engine of Setpoint: from a loss to a trained model on the disk.
//!
//! [`fit`] runs a [`Task`] (model, examples, loss) in a [`RunDir`]. It forms micro-batches, sums
//! gradients in f32 in a [`GradientSink`], clips them by their global norm, steps [`AdamW`] with f32
//! state under a [`Schedule`], evaluates, logs and saves. Two properties hold and are tested:
//!
//! - **The gradient does not depend on the split.** A task divides its loss by the weight of the
//!   whole batch, so 1 × 8, 2 × 4 and 8 × 1 examples give the same sum up to rounding, and so do
//!   several devices ([`fit_on`] with a [`DeviceGroup`]).
//! - **A resume is exact.** Kill the process at any moment and start it again: every parameter ends
//!   with the same bits as without the interruption. The order of the data follows from seed and
//!   epoch, and the dropout of an adapter from seed and step ([`Trainable`]); nothing else is random.
//!
//! The backend is a property of the device that the model lives on; no function here names one.

#[cfg(test)]
extern crate self as setpoint_train;

#[cfg(test)]
#[allow(dead_code, reason = "the integration tests use the rest")]
#[path = "../tests/common/mod.rs"]
mod common;

mod batch;
mod best;
mod checkpoint;
mod collective;
mod config;
mod device_failure;
mod devices;
mod error;
mod evaluation;
mod fit;
mod hooks;
mod identity;
mod logps;
mod metrics;
mod mirror;
mod mixture;
mod moments;
mod on_demand;
mod optimizer;
mod order;
mod parameters;
mod reference;
mod responses;
mod run_dir;
mod save_dtype;
mod schedule;
mod shard;
mod sink;
mod state_file;
mod storage;
mod task;
mod tensor_file;
mod tensorboard;
mod unread;

pub use batch::MicroBatch;
pub use best::{BestConfig, USUAL_METRICS};
pub use collective::{Collective, Communicator, NativeAllReduce, SumOnFirst, SumThroughHost};
pub use config::{ClipBy, Plan, RecomputeSetting, TrainConfig};
pub use device_failure::{OutOfMemory, attempt, device_failure, is_handled};
pub use devices::{DeviceGroup, distribute};
pub use error::Error;
pub use evaluation::evaluate;
pub use fit::{Best, Fitted, StopReason, fit, fit_on};
pub use hooks::{Evaluation, Hooks, Measurement, NoHooks, Sample, StepReport};
pub use identity::{Change, Identity, Input};
pub use logps::{
    Divergence, HeadOptions, Predictions, PromptLogps, ScoredSequence, Sequence, SequenceLogps, TokenLogps,
    kept_logits, score_against, score_and_keep, score_batches, score_batches_with, score_sequences, sequence_logps,
    sequence_logps_with, shared_tokens, token_logps, token_logps_with,
};
pub use metrics::MetricSums;
pub use mixture::{EpochEnd, Mixed, Mixture, MixtureError};
pub use moments::MomentsFormat;
pub use on_demand::OnDemand;
pub use optimizer::{AdamW, AdamWConfig};
pub use order::Order;
pub use reference::{ReferenceKey, ReferenceRow, ReferenceStore};
pub use responses::{LogResponses, ResponseValues};
pub use run_dir::RunDir;
pub use save_dtype::SaveDtype;
pub use schedule::{Schedule, ScheduleKind, Warmup, constant_with_warmup, cosine_with_warmup, linear_with_warmup};
pub use sink::{GradientSink, clip_scale};
pub use storage::file_digest;
pub use task::{BatchContext, Forward, PassNumbers, Task, Trainable, backward};
pub use unread::Unread;
