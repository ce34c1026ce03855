//! The way from the devices' gradients to one: the seam between the engine and the transport of numbers from device to device.

use std::fmt::Debug;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor};

/// A way to add up what several devices have.
pub trait Collective: Debug + Send + Sync {
    /// Connects devices: a communicator for each, in their order.
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>>;
}

/// One device's end of a [`Collective`], used on the thread that works with the device.
///
/// All devices call the same functions in the same order, and wait for each other. Each function answers `None` if another device has gone.
pub trait Communicator: Send {
    /// Adds the tensors of all devices, the first to the first and so on. Every device calls it with as many tensors of the same lengths.
    ///
    /// The sums must be the same to the bit on every device: models that are moved by them would drift apart.
    ///
    /// # Shapes
    /// `[n]` each, f32, on this end's device.
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>>;

    /// Adds the tensors of all devices, each for its owner alone, and returns the sums that this device owns, in their order. They have the
    /// bits of [`all_reduce`](Self::all_reduce). `owners` holds the number of a device for each tensor, the same on all devices.
    ///
    /// # Shapes
    /// `[n]` each, f32, on this end's device.
    fn reduce_scatter(&mut self, parts: Vec<Tensor<1>>, owners: &[usize]) -> Option<Vec<Tensor<1>>>;

    /// Returns the tensor of the device `owner`, to the bit. `part` is this device's, of the same length and number format.
    ///
    /// # Shapes
    /// `[n]`, floats of any format, on this end's device.
    fn broadcast(&mut self, part: &Tensor<1>, owner: usize) -> Option<Tensor<1>>;
}

/// The device that needs a sum adds up, in the order of the devices: works between any devices, through the host where there is no shorter
/// way. Sums that all need are added up by the first device, and every other takes a copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumOnFirst;

impl Collective for SumOnFirst {
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>> {
        let peer = |(rank, device): (usize, &Device)| Peer { rank, device: device.clone(), to: vec![], from: vec![] };
        let mut peers: Vec<Peer> = devices.iter().enumerate().map(peer).collect();
        for (i, j) in (0..peers.len()).flat_map(|i| (0..devices.len()).map(move |j| (i, j))) {
            let (to, from) = channel();
            peers[i].to.push(to);
            peers[j].from.push(from);
        }
        peers.into_iter().map(|peer| Box::new(peer) as Box<dyn Communicator>).collect()
    }
}

/// A device that exchanges tensors with each of the others.
///
/// Whoever sends a tensor holds it until it has been fetched, which the receiver says by an empty message. A lent device frees a tensor when
/// it is told so by the thread that drops the last handle. If sender and receiver dropped theirs at the same time, this could arrive before
/// the wish to fetch it.
struct Peer {
    rank: usize,
    device: Device,
    /// The ways to all devices in their order. The one to itself is not used.
    to: Vec<Sender<Vec<Tensor<1>>>>,
    from: Vec<Receiver<Vec<Tensor<1>>>>,
}

impl Peer {
    /// The other devices.
    fn others(&self) -> impl Iterator<Item = usize> {
        let rank = self.rank;
        (0..self.to.len()).filter(move |&other| other != rank)
    }

    /// Returns the parts of all devices in their order, where they are.
    fn gather(&self, own: Vec<Tensor<1>>) -> Option<Vec<Vec<Tensor<1>>>> {
        let mut own = Some(own);
        (0..self.from.len())
            .map(|rank| if rank == self.rank { own.take() } else { self.from[rank].recv().ok() })
            .collect()
    }

    /// Fetches tensors to this device, on this thread, as all that this device computes with.
    fn fetch(&self, parts: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        parts.into_iter().map(|part| part.to_device(&self.device)).collect()
    }

    /// Adds the parts of all devices on this one, in the order of the devices.
    fn add_up(&self, gathered: Vec<Vec<Tensor<1>>>) -> Option<Vec<Tensor<1>>> {
        let add = |sums: Vec<Tensor<1>>, parts: Vec<Tensor<1>>| {
            sums.into_iter().zip(parts).map(|(sum, part)| sum + part).collect()
        };
        gathered.into_iter().map(|parts| self.fetch(parts)).reduce(add)
    }

    /// Tells a device that its tensors have been fetched.
    fn release(&self, other: usize) -> Option<()> {
        self.to[other].send(vec![]).ok()
    }

    /// Waits until all other devices have fetched what this one sent.
    fn wait_for_others(&self) -> Option<()> {
        self.others().try_for_each(|other| self.from[other].recv().ok().map(drop))
    }
}

impl Communicator for Peer {
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        if self.rank == 0 {
            let sums = self.add_up(self.gather(parts)?)?;
            self.others().try_for_each(|other| self.to[other].send(sums.clone()).ok())?;
            self.wait_for_others()?;
            return Some(sums);
        }
        self.to[0].send(parts.clone()).ok()?;
        // The sums come when the parts have been fetched.
        let sums = self.from[0].recv().ok()?;
        drop(parts);
        let sums = self.fetch(sums);
        self.release(0)?;
        Some(sums)
    }

    fn reduce_scatter(&mut self, parts: Vec<Tensor<1>>, owners: &[usize]) -> Option<Vec<Tensor<1>>> {
        let mut of_owner = vec![vec![]; self.to.len()];
        for (part, &owner) in parts.iter().zip(owners) {
            of_owner[owner].push(part.clone());
        }
        let own = std::mem::take(&mut of_owner[self.rank]);
        self.others().try_for_each(|other| self.to[other].send(std::mem::take(&mut of_owner[other])).ok())?;
        let sums = self.add_up(self.gather(own)?)?;
        self.others().try_for_each(|other| self.release(other))?;
        self.wait_for_others()?;
        drop(parts);
        Some(sums)
    }

    fn broadcast(&mut self, part: &Tensor<1>, owner: usize) -> Option<Tensor<1>> {
        if owner == self.rank {
            self.others().try_for_each(|other| self.to[other].send(vec![part.clone()]).ok())?;
            self.wait_for_others()?;
            return Some(part.clone());
        }
        let part = self.fetch(self.from[owner].recv().ok()?).pop()?;
        self.release(owner)?;
        Some(part)
    }
}

/// Burn's own collective, which on CUDA is NCCL: between GPUs of one machine that are different ones.
///
/// Burn 0.22.1 has an all-reduce and nothing else, so the other operations consist of it. A reduce-scatter discards the sums of other owners,
/// and a broadcast adds zeros. Both send twice as many bytes as their own algorithms would.
///
/// # Panics
/// When used on devices that have none (CPUs, wgpu), or where NCCL is not installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeAllReduce;

impl Collective for NativeAllReduce {
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>> {
        let rank = |rank| Box::new(Rank { rank, devices: devices.to_vec() }) as Box<dyn Communicator>;
        (0..devices.len()).map(rank).collect()
    }
}

struct Rank {
    rank: usize,
    devices: Vec<Device>,
}

impl Rank {
    fn start(&self, part: Tensor<1>) -> CollectiveTensor<1> {
        all_reduce(part, ReduceOperation::Sum, self.devices.clone())
    }
}

impl Communicator for Rank {
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        // All are on their way before the first is waited for.
        let sums: Vec<CollectiveTensor<1>> = parts.into_iter().map(|part| self.start(part)).collect();
        Some(sums.into_iter().map(CollectiveTensor::resolve).collect())
    }

    fn reduce_scatter(&mut self, parts: Vec<Tensor<1>>, owners: &[usize]) -> Option<Vec<Tensor<1>>> {
        let sums = self.all_reduce(parts)?.into_iter().zip(owners);
        Some(sums.filter(|(_, owner)| **owner == self.rank).map(|(sum, _)| sum).collect())
    }

    fn broadcast(&mut self, part: &Tensor<1>, owner: usize) -> Option<Tensor<1>> {
        let part = if owner == self.rank { part.clone() } else { part.zeros_like() };
        Some(self.start(part).resolve())
    }
}

#[cfg(test)]
mod tests {
    use std::thread::scope;

    use super::*;

    /// Lets each end of three devices do something, on a thread of its own.
    fn with_ends<R: Send>(work: impl Fn(usize, Box<dyn Communicator>) -> R + Sync) -> Vec<R> {
        let ends = SumOnFirst.connect(&[Device::flex(), Device::flex(), Device::flex()]);
        scope(|scope| {
            let work = &work;
            let start = |(rank, end)| scope.spawn(move || work(rank, end));
            let threads: Vec<_> = ends.into_iter().enumerate().map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// Numbers whose sum depends on the order in which they are added.
    fn parts(rank: usize) -> Vec<Tensor<1>> {
        let values = |part: usize| [1e8, 1.0 + part as f32, -1e8].map(|x: f32| x * [1.0, 3e-8, -1.0][rank]);
        (0..4).map(|part| Tensor::from_data(values(part), &Device::flex())).collect()
    }

    fn bits(tensors: Vec<Tensor<1>>) -> Vec<Vec<u32>> {
        let bits = |tensor: Tensor<1>| tensor.into_data().iter::<f32>().map(f32::to_bits).collect();
        tensors.into_iter().map(bits).collect()
    }

    #[test]
    fn an_owner_gets_the_sums_that_all_would_get() {
        let all = with_ends(|rank, mut end| bits(end.all_reduce(parts(rank)).unwrap()));
        assert!(all.iter().all(|sums| *sums == all[0]));
        let own = with_ends(|rank, mut end| bits(end.reduce_scatter(parts(rank), &[2, 0, 2, 0]).unwrap()));
        let of = |parts: &[usize]| -> Vec<Vec<u32>> { parts.iter().map(|&part| all[0][part].clone()).collect() };
        assert_eq!(own, [of(&[1, 3]), of(&[]), of(&[0, 2])]);
    }

    #[test]
    fn a_broadcast_gives_all_the_tensor_of_its_owner() {
        let found = with_ends(|rank, mut end| {
            let own: Tensor<1> = Tensor::from_data([rank as f32, -0.0], &Device::flex());
            (0..3).map(|owner| bits(vec![end.broadcast(&own, owner).unwrap()])).collect::<Vec<_>>()
        });
        let of = |owner: usize| vec![vec![(owner as f32).to_bits(), (-0.0f32).to_bits()]];
        assert_eq!(found, vec![vec![of(0), of(1), of(2)]; 3]);
    }

    #[test]
    fn a_device_that_has_gone_is_noticed_by_all() {
        for gone in 0..3 {
            let noticed = with_ends(|rank, mut end| {
                // It takes part in the first exchange and not in the second.
                end.broadcast(&parts(rank)[0], gone).unwrap();
                rank == gone || end.reduce_scatter(parts(rank), &[0, 1, 2, 0]).is_none()
            });
            assert_eq!(noticed, [true; 3], "{gone}");
        }
    }
}
