//! The way from the devices' gradients to one: the seam between the engine and the transport of numbers from device to device.

use std::fmt::Debug;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor, TensorData};

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

/// The device that needs a sum adds up, in the order of the devices. Sums that all need are added up by the first device, and every other
/// takes a copy. Each device fetches tensors from the others, through the host where there is no shorter way.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumOnFirst;

impl Collective for SumOnFirst {
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>> {
        connect(devices, Way::Direct)
    }
}

/// Adds up as [`SumOnFirst`] does, but every tensor is read by the host and written to the other device: for lent devices.
///
/// Burn 0.22.1 lets lent devices fetch from each other, but runs wait for ever then, now and then, if machines are busy. A device may be told
/// to free a tensor before it is asked for it, since handles are counted without an order between threads. The devices of one server
/// fetch through one connection, which may wait for a tensor that comes after the one of another. And who waits for a tensor misses one that
/// comes at that moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumThroughHost;

impl Collective for SumThroughHost {
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>> {
        connect(devices, Way::Host)
    }
}

/// How a tensor comes to another device.
#[derive(Clone, Copy, Debug)]
enum Way {
    Direct,
    Host,
}

/// A tensor on its way.
enum Parcel {
    Tensor(Box<Tensor<1>>),
    Data(TensorData),
}

impl Way {
    fn pack(self, tensor: Tensor<1>) -> Parcel {
        match self {
            Self::Direct => Parcel::Tensor(Box::new(tensor)),
            Self::Host => Parcel::Data(tensor.into_data()),
        }
    }
}

/// A device that exchanges tensors with each of the others.
struct Peer {
    rank: usize,
    device: Device,
    way: Way,
    /// The ways to all devices in their order. The one to itself is not used.
    to: Vec<Sender<Vec<Parcel>>>,
    from: Vec<Receiver<Vec<Parcel>>>,
}

fn connect(devices: &[Device], way: Way) -> Vec<Box<dyn Communicator>> {
    let peer = |(rank, device): (usize, &Device)| Peer { rank, device: device.clone(), way, to: vec![], from: vec![] };
    let mut peers: Vec<Peer> = devices.iter().enumerate().map(peer).collect();
    for (i, j) in (0..peers.len()).flat_map(|i| (0..devices.len()).map(move |j| (i, j))) {
        let (to, from) = channel();
        peers[i].to.push(to);
        peers[j].from.push(from);
    }
    peers.into_iter().map(|peer| Box::new(peer) as Box<dyn Communicator>).collect()
}

impl Peer {
    /// The other devices.
    fn others(&self) -> impl Iterator<Item = usize> {
        let rank = self.rank;
        (0..self.to.len()).filter(move |&other| other != rank)
    }

    fn send(&self, other: usize, tensors: Vec<Tensor<1>>) -> Option<()> {
        self.to[other].send(tensors.into_iter().map(|tensor| self.way.pack(tensor)).collect()).ok()
    }

    /// Takes what another device has sent. It is fetched on this thread, as all that this device computes with.
    fn receive(&self, other: usize) -> Option<Vec<Tensor<1>>> {
        let fetch = |parcel| match parcel {
            Parcel::Tensor(tensor) => tensor.to_device(&self.device),
            Parcel::Data(data) => {
                let dtype = data.dtype();
                Tensor::from_data(data, (&self.device, dtype))
            }
        };
        Some(self.from[other].recv().ok()?.into_iter().map(fetch).collect())
    }

    /// Adds the parts of all devices on this one, in the order of the devices.
    fn add_up(&self, own: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        let mut own = Some(own);
        let mut sums: Option<Vec<Tensor<1>>> = None;
        for rank in 0..self.from.len() {
            let parts = if rank == self.rank { own.take()? } else { self.receive(rank)? };
            sums = Some(match sums {
                None => parts,
                Some(sums) => sums.into_iter().zip(parts).map(|(sum, part)| sum + part).collect(),
            });
        }
        sums
    }
}

impl Communicator for Peer {
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        if self.rank == 0 {
            let sums = self.add_up(parts)?;
            self.others().try_for_each(|other| self.send(other, sums.clone()))?;
            return Some(sums);
        }
        self.send(0, parts)?;
        self.receive(0)
    }

    fn reduce_scatter(&mut self, parts: Vec<Tensor<1>>, owners: &[usize]) -> Option<Vec<Tensor<1>>> {
        let mut of_owner = vec![vec![]; self.to.len()];
        for (part, &owner) in parts.into_iter().zip(owners) {
            of_owner[owner].push(part);
        }
        let own = std::mem::take(&mut of_owner[self.rank]);
        self.others().try_for_each(|other| self.send(other, std::mem::take(&mut of_owner[other])))?;
        self.add_up(own)
    }

    fn broadcast(&mut self, part: &Tensor<1>, owner: usize) -> Option<Tensor<1>> {
        if owner == self.rank {
            self.others().try_for_each(|other| self.send(other, vec![part.clone()]))?;
            return Some(part.clone());
        }
        self.receive(owner)?.pop()
    }
}

/// Burn's own collective, which on CUDA is NCCL: between GPUs of one machine that are different ones.
///
/// Burn 0.22.1 has an all-reduce and nothing else, so the other operations consist of it. A reduce-scatter discards the sums of other owners,
/// and a broadcast adds negative zeros. Both send twice as many bytes as their own algorithms would.
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
        let part = if owner == self.rank { part.clone() } else { nothing(part) };
        Some(self.start(part).resolve())
    }
}

/// Returns numbers that change no bit of those that they are added to: the sum of −0 and 0 would be 0.
fn nothing(like: &Tensor<1>) -> Tensor<1> {
    like.full_like(-0.0)
}

#[cfg(test)]
mod tests {
    use std::thread::scope;

    use burn::tensor::DType;

    use super::*;

    /// Lets each end of three devices do something, on a thread of its own.
    fn with_ends<R: Send>(
        collective: &dyn Collective,
        work: impl Fn(usize, Box<dyn Communicator>) -> R + Sync,
    ) -> Vec<R> {
        let ends = collective.connect(&[Device::flex(), Device::flex(), Device::flex()]);
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

    const WAYS: [&dyn Collective; 2] = [&SumOnFirst, &SumThroughHost];

    #[test]
    fn an_owner_gets_the_sums_that_all_would_get() {
        for way in WAYS {
            let all = with_ends(way, |rank, mut end| bits(end.all_reduce(parts(rank)).unwrap()));
            assert!(all.iter().all(|sums| *sums == all[0]));
            let own = with_ends(way, |rank, mut end| bits(end.reduce_scatter(parts(rank), &[2, 0, 2, 0]).unwrap()));
            let of = |parts: &[usize]| -> Vec<Vec<u32>> { parts.iter().map(|&part| all[0][part].clone()).collect() };
            assert_eq!(own, [of(&[1, 3]), of(&[]), of(&[0, 2])], "{way:?}");
        }
    }

    #[test]
    fn a_broadcast_gives_all_the_tensor_of_its_owner_in_its_format() {
        for (way, dtype) in WAYS.into_iter().flat_map(|way| [DType::F32, DType::BF16].map(|dtype| (way, dtype))) {
            let found = with_ends(way, |rank, mut end| {
                let own: Tensor<1> = Tensor::from_data([rank as f32, -0.0], (&Device::flex(), dtype));
                (0..3).map(|owner| end.broadcast(&own, owner).unwrap().into_data()).collect::<Vec<_>>()
            });
            let of = |owner: usize| TensorData::from([owner as f32, -0.0]).convert_dtype(dtype);
            assert_eq!(found, vec![vec![of(0), of(1), of(2)]; 3], "{way:?}");
        }
    }

    #[test]
    fn adding_nothing_changes_no_bit() {
        for dtype in [DType::F32, DType::BF16] {
            let part = || Tensor::<1>::from_data([-0.0, 0.0, -1.5, 3e-30], (&Device::flex(), dtype));
            let sums = [part() + nothing(&part()), nothing(&part()) + part()];
            // Comparisons hold 0 and −0 for equal, so the sign is compared as well.
            let signs = |tensor: Tensor<1>| -> Vec<(f32, bool)> {
                tensor.into_data().iter::<f32>().map(|x| (x, x.is_sign_negative())).collect()
            };
            let [before, after] = sums.map(signs);
            assert_eq!((&before, &after), (&signs(part()), &signs(part())), "{dtype:?}");
        }
    }

    #[test]
    fn a_device_that_has_gone_is_noticed_by_all() {
        for (way, gone) in WAYS.into_iter().flat_map(|way| [0, 1, 2].map(|gone| (way, gone))) {
            let noticed = with_ends(way, |rank, mut end| {
                // It takes part in the first exchange and not in the second.
                end.broadcast(&parts(rank)[0], gone).unwrap();
                rank == gone || end.reduce_scatter(parts(rank), &[0, 1, 2, 0]).is_none()
            });
            assert_eq!(noticed, [true; 3], "{way:?} {gone}");
        }
    }
}
