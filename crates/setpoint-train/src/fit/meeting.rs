//! Where the devices of a run add up their gradients.

use std::sync::mpsc::{Receiver, Sender, channel};

use burn::tensor::Device;

use crate::sink::GradientShapes;
use crate::{Communicator, DeviceGroup, GradientSink};

/// One device's seat at the meetings of a run.
///
/// A device that fails drops its seat and leaves the room; the others notice instead of waiting for it. Before numbers are added up all agree
/// on whose: not every device has a gradient for every parameter.
pub(super) struct Meeting {
    device: Device,
    role: Role,
}

enum Role {
    /// Of a device without others.
    Alone,
    /// The first device asks all others.
    Leader {
        communicator: Box<dyn Communicator>,
        followers: Vec<Follower>,
    },
    Follower {
        communicator: Box<dyn Communicator>,
        to: Sender<GradientShapes>,
        back: Receiver<Agreed>,
    },
    /// Of a device that has left.
    Gone,
}

/// A follower as the leader sees it.
struct Follower {
    from: Receiver<GradientShapes>,
    back: Sender<Agreed>,
    /// Whether it has a share of this step.
    works: bool,
}

/// What the leader answers.
enum Agreed {
    Sum(GradientShapes),
    /// No more sums in this step.
    Over,
}

impl Meeting {
    /// The seat of a group's first device, and those of the others in their order.
    pub(super) fn of(group: &DeviceGroup) -> (Self, Vec<Self>) {
        let seat = |device: &Device, role| Self { device: device.clone(), role };
        if group.len() == 1 {
            return (seat(group.first(), Role::Alone), vec![]);
        }
        let mut communicators = group.collective().connect(group.devices());
        assert_eq!(communicators.len(), group.len(), "a communicator for each device");
        let first = communicators.remove(0);
        let mut followers = vec![];
        let others = group.devices()[1..].iter().zip(communicators).map(|(device, communicator)| {
            let ((to, from), (forth, back)) = (channel(), channel());
            followers.push(Follower { from, back: forth, works: true });
            seat(device, Role::Follower { communicator, to, back })
        });
        let others = others.collect();
        (seat(group.first(), Role::Leader { communicator: first, followers }), others)
    }

    /// Tells the leader which of the others have a share of the step that begins.
    pub(super) fn begin(&mut self, shares: &[Vec<usize>]) {
        if let Role::Leader { followers, .. } = &mut self.role {
            for (follower, share) in followers.iter_mut().zip(&shares[1..]) {
                follower.works = !share.is_empty();
            }
        }
    }

    /// The sum of what all devices have; nothing if one has left.
    pub(super) fn sum(&mut self, sink: GradientSink) -> Option<GradientSink> {
        match &mut self.role {
            Role::Alone => Some(sink),
            Role::Gone => None,
            Role::Leader { communicator, followers } => {
                let mut shapes = sink.shapes();
                for follower in followers.iter().filter(|follower| follower.works) {
                    shapes.extend(follower.from.recv().ok()?);
                }
                for follower in &*followers {
                    follower.back.send(Agreed::Sum(shapes.clone())).ok()?;
                }
                sum_of(&mut **communicator, sink, shapes, &self.device)
            }
            Role::Follower { communicator, to, back } => {
                to.send(sink.shapes()).ok()?;
                match back.recv().ok()? {
                    Agreed::Sum(shapes) => sum_of(&mut **communicator, sink, shapes, &self.device),
                    Agreed::Over => None,
                }
            }
        }
    }

    /// The next sum, for a device that has no share of the step; nothing when there are no more.
    pub(super) fn next(&mut self) -> Option<GradientSink> {
        match &mut self.role {
            Role::Follower { communicator, back, .. } => match back.recv().ok()? {
                Agreed::Sum(shapes) => sum_of(&mut **communicator, GradientSink::new(), shapes, &self.device),
                Agreed::Over => None,
            },
            _ => None,
        }
    }

    /// The leader's word, to those without a share, that the step has no more sums.
    pub(super) fn end(&self) {
        if let Role::Leader { followers, .. } = &self.role {
            for follower in followers.iter().filter(|follower| !follower.works) {
                // One that has left is noticed by its report.
                let _ = follower.back.send(Agreed::Over);
            }
        }
    }

    /// Leaves, so that nobody waits for this device.
    pub(super) fn leave(&mut self) {
        self.role = Role::Gone;
    }
}

fn sum_of(
    communicator: &mut dyn Communicator,
    sink: GradientSink,
    shapes: GradientShapes,
    device: &Device,
) -> Option<GradientSink> {
    if shapes.is_empty() {
        return Some(sink);
    }
    let parts = sink.into_parts(&shapes, device);
    Some(GradientSink::of_parts(shapes, communicator.all_reduce(parts)?))
}
