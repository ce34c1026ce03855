//! A step whose parameters move inside the backward pass.

use burn::tensor::Tensor;
use setpoint_transformer::Part;

use super::meeting::{Meeting, Sum};
use super::orders::Halt;
use super::step::{Measured, check_graph, check_numbers};
use super::team::{Pace, Replica, Step};
use crate::sink::unread_squares;
use crate::task::{accept_part, with_loss};
use crate::{Forward, GradientSink, MicroBatch, PassNumbers, Task, Trainable};

/// A model on its way through its own backward pass: each part is moved as soon as its gradient is complete, on this device and the others.
pub(super) struct Moving<M> {
    replica: Result<Replica<M>, Halt>,
    meeting: Meeting,
    pace: Pace,
    /// Of the gradients that have been used up.
    squares: Vec<(String, Tensor<1>)>,
}

impl<M: Trainable> Moving<M> {
    pub(super) fn new(replica: Replica<M>, meeting: Meeting, pace: Pace) -> Self {
        Self { replica: Ok(replica), meeting, pace, squares: vec![] }
    }

    /// Runs a share of a batch forward and backward in one piece.
    ///
    /// # Errors
    /// When the loss is not finite. The model is lost then: parts of it may have moved already.
    pub(super) fn run<T: Task<Model = M>>(
        mut self,
        task: &T,
        step: &Step<T::Survey>,
        share: &[usize],
    ) -> Result<(Replica<M>, Meeting, Measured), Halt> {
        let mut measured = match share {
            [] => {
                self.follow();
                Measured::default()
            }
            share => self.compute(task, step, share)?,
        };
        self.meeting.end();
        measured.squares = unread_squares(self.squares).read();
        Ok((self.replica?, self.meeting, measured))
    }

    fn compute<T: Task<Model = M>>(
        &mut self,
        task: &T,
        step: &Step<T::Survey>,
        share: &[usize],
    ) -> Result<Measured, Halt> {
        let replica = std::mem::replace(&mut self.replica, Err(Halt::Deserted))?;
        let share = MicroBatch::Examples(share.len()).split(share, |example| task.cost(example)).concat();
        let at_step = replica.model.at_step(step.masks);
        let model = at_step.as_ref().unwrap_or(&replica.model);
        let Forward { loss, numbers, tape, second_tape } = task.forward(model, &share, &step.context)?;
        check_graph(&loss)?;
        // Before a parameter moves.
        let (value, numbers) = with_loss(&loss, numbers).read();
        check_numbers(task, &share, value, &numbers, step.number)?;
        let decoder = task.decoder();
        // A tied head adds to the gradient of the embeddings, which is complete only at the end.
        let embeddings = format!("{decoder}.embed_tokens.weight");
        let mut rest = GradientSink::new();
        let mut gradients = loss.backward();
        rest.accept("", model, &mut gradients);
        // It holds all parameters, so it must be gone before they move.
        drop(at_step);
        self.replica = Ok(replica);
        self.accept(rest.take_all_but(&embeddings));
        for (decoder, tape) in Forward::tapes(decoder, tape, second_tape) {
            tape.backward(&mut gradients, &mut |part, gradients| {
                let block = matches!(part, Part::Block(..));
                accept_part(decoder, part, gradients, &mut rest);
                if block {
                    self.accept(rest.take_all_but(&embeddings));
                }
            });
        }
        self.accept(rest);
        let PassNumbers { metrics, responses, .. } = numbers;
        Ok(Measured { loss: value, metrics, responses, micro_batches: 1, ..Measured::default() })
    }

    /// The step of a device that has no share of the batch and moves as the others do.
    fn follow(&mut self) {
        while let Some(sum) = self.meeting.next() {
            self.apply(sum);
        }
    }

    /// Adds the other devices' gradients to these, and moves by them.
    fn accept(&mut self, sink: GradientSink) {
        // After a failure the others are not waited for, nor need they wait.
        if self.replica.is_ok() {
            match self.meeting.sum(sink) {
                Some(sum) => self.apply(sum),
                None => self.halt(Halt::Deserted),
            }
        }
    }

    fn apply(&mut self, sum: Sum) {
        if sum.is_empty() {
            return;
        }
        self.squares.extend(sum.own.device_squares());
        if let Ok(replica) = std::mem::replace(&mut self.replica, Err(Halt::Deserted)) {
            match replica.step(&mut self.meeting, sum, self.pace) {
                Ok(moved) => self.replica = Ok(moved),
                Err(why) => self.halt(why),
            }
        }
    }

    /// Gives up, and leaves so that nobody waits.
    fn halt(&mut self, why: Halt) {
        self.replica = Err(why);
        self.meeting.leave();
    }
}
