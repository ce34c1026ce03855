//! The parts of an optimizer that the devices of a run hold.

use std::thread::scope;

use burn::tensor::Device;

use super::*;
use crate::common::{Bag, Regression};
use crate::fit::RunState;
use crate::{MomentsFormat, SumOnFirst, checkpoint};

fn group() -> DeviceGroup {
    DeviceGroup::new(vec![Device::flex(); 3], SumOnFirst)
}

fn start<'a>(model: &Bag, checkpoint: Option<&'a Checkpoint>) -> Start<'a> {
    let owners = Some(Arc::new(Owners::of(model, MomentsFormat::F32, 3)));
    Start { config: AdamWConfig::default(), checkpoint, owners }
}

/// The shares of eight examples, and a step on them.
fn step(team: &Team<Regression>, task: &Regression) -> (Vec<Vec<usize>>, Arc<Step<()>>) {
    let context = BatchContext { denominator: 8.0, ..BatchContext::default() };
    let step = Step { number: 1, masks: MaskSeed::of_step(0, 1), context };
    (team.deal(task, &[0, 1, 2, 3, 4, 5, 6, 7]), Arc::new(step))
}

#[test]
fn each_device_holds_the_state_of_its_own_parameters() {
    let (group, task, model) = (group(), Regression::new(8), Bag::new(&Device::flex().autodiff()));
    let start = start(&model, None);
    scope(|scope| {
        let optimizer = start.optimizer(&model, 0).unwrap();
        let mut team = Team::assemble(scope, &group, &task, &start, Replica { model, optimizer });
        assert!(team.tensors().unwrap().is_empty());
        let (shares, step) = step(&team, &task);
        let splits: Vec<Vec<Vec<usize>>> = shares.iter().map(|share| vec![share.clone()]).collect();
        let measured = team.pass(&task, &step, &splits).unwrap().unwrap();
        let (team, _) = team.sum(&shares, measured.grad_norm).unwrap();
        let team = team.apply(Pace { learning_rate: 0.1, scale: 1.0 }).unwrap();

        let paths = |tensors: &BTreeMap<String, Vec<TensorSpec>>| tensors.keys().cloned().collect::<Vec<_>>();
        let own = team.leader.replica.optimizer.tensors().unwrap();
        let ((), others) = settle(Ok(()), order(&team.others, |_, reply| Order::Describe { reply })).unwrap();
        assert_eq!(paths(&own), ["embedding"]);
        assert_eq!(
            others.iter().map(paths).collect::<Vec<_>>(),
            [vec!["layers.0.weight"], vec!["head", "layers.0.bias"]]
        );

        // The first device reads all of them, for one file.
        let all = team.tensors().unwrap();
        assert_eq!(paths(&all), ["embedding", "head", "layers.0.bias", "layers.0.weight"]);
        for (path, specs) in &all {
            for spec in specs {
                let data = team.read(path, &spec.name).unwrap().unwrap();
                assert_eq!(data.num_elements(), spec.shape.iter().product::<usize>(), "{}", spec.name);
                assert!(data.iter::<f64>().any(|x| x != 0.0), "{}", spec.name);
            }
        }
        assert!(team.read("head", "head.master").unwrap().is_none());
    });
}

#[test]
fn a_device_that_cannot_read_its_part_of_a_checkpoint_ends_the_run() {
    let (group, task, model) = (group(), Regression::new(8), Bag::new(&Device::flex().autodiff()));
    let dir = tempfile::tempdir().unwrap();
    let optimizer = AdamW::new(AdamWConfig::default());
    let state: Option<&dyn OptimizerState> = Some(&optimizer);
    let path = checkpoint::save(dir.path(), 1, &model, state, Default::default(), &RunState::default()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let start = start(&model, Some(&checkpoint));
    let optimizer = start.optimizer(&model, 0).unwrap();
    std::fs::remove_file(path.join("optimizer.safetensors")).unwrap();
    scope(|scope| {
        let mut team = Team::assemble(scope, &group, &task, &start, Replica { model, optimizer });
        let (shares, step) = step(&team, &task);
        let splits: Vec<Vec<Vec<usize>>> = shares.into_iter().map(|share| vec![share]).collect();
        let text = team.pass(&task, &step, &splits).err().unwrap().to_string();
        assert!(text.contains("optimizer.safetensors"), "{text}");
    });
}
