//! The best checkpoint, patience, and limits on what evaluations measure.

use setpoint_train::{BestConfig, RunDir, StopReason, TrainConfig};

use crate::common::{Bag, Recorder, metrics_without_times};
use crate::fitting::{checkpoints, config, flex, train};

pub fn best(restore: bool, patience: Option<u32>) -> TrainConfig {
    TrainConfig {
        eval_steps: Some(1),
        save_steps: None,
        keep_last: 1,
        best: Some(BestConfig {
            metric: "eval_score".into(),
            greater_is_better: true,
            restore,
            patience,
            min_delta: 0.0,
        }),
        ..config()
    }
}

#[test]
fn the_best_checkpoint_is_kept_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let scores = || vec![1.0, 5.0, 2.0, 3.0, 4.0, 1.0, 0.0].into();
    let mut hooks = Recorder { scripted: scores(), ..Recorder::default() };
    let run = RunDir::create(dir.path().join("best")).unwrap();
    let fitted = train(&run, &flex(), &best(true, None), &mut hooks).unwrap();
    assert_eq!(fitted.steps, 7);
    let found = fitted.best.unwrap();
    assert_eq!((found.step, found.value), (2, 5.0));
    assert_eq!(checkpoints(&run), ["step-00000002", "step-00000007"]);
    let flags: Vec<bool> = hooks.evaluations.iter().map(|e| e.best).collect();
    assert_eq!(flags, [true, true, false, false, false, false, false]);

    // The restored model is that of a run stopped after step 2.
    let run = RunDir::create(dir.path().join("two")).unwrap();
    let mut hooks = Recorder { scripted: scores(), stop_after: Some(2), ..Recorder::default() };
    let two = train(&run, &flex(), &best(true, None), &mut hooks).unwrap();
    assert_eq!(fitted.model.bits(), two.model.bits());
}

#[test]
fn patience_runs_out_and_survives_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    for stop_after in [None, Some(3)] {
        let run = RunDir::create(dir.path().join(format!("{stop_after:?}"))).unwrap();
        let scores = vec![1.0, 5.0, 4.0, 3.0, 9.0];
        let mut hooks = Recorder { scripted: scores.into(), stop_after, ..Recorder::default() };
        let mut fitted = train(&run, &flex(), &best(false, Some(2)), &mut hooks).unwrap();
        if stop_after.is_some() {
            assert_eq!(fitted.stop, StopReason::Requested);
            let mut hooks = Recorder { scripted: vec![3.0, 9.0].into(), ..Recorder::default() };
            fitted = train(&run, &flex(), &best(false, Some(2)), &mut hooks).unwrap();
        }
        assert_eq!((fitted.steps, fitted.stop), (4, StopReason::Patience));
        assert_eq!(fitted.best.unwrap().step, 2);
        // It is over; another start returns the same.
        let again = train(&run, &flex(), &best(false, Some(2)), &mut Recorder::default()).unwrap();
        assert_eq!((again.steps, again.stop), (4, StopReason::Patience));
        assert_eq!(again.model.bits(), fitted.model.bits());
    }
}

#[test]
fn an_evaluation_beyond_a_limit_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    for stop_after in [None, Some(1)] {
        let run = RunDir::create(dir.path().join(format!("{stop_after:?}"))).unwrap();
        let recorder = |scores: &[f64], stop_after| Recorder {
            scripted: scores.to_vec().into(),
            stop_after,
            end_above: Some(4.0),
            ..Recorder::default()
        };
        let mut fitted = train(&run, &flex(), &best(false, None), &mut recorder(&[1.0, 3.0, 5.0], stop_after)).unwrap();
        if stop_after.is_some() {
            assert_eq!(fitted.stop, StopReason::Requested);
            fitted = train(&run, &flex(), &best(false, None), &mut recorder(&[3.0, 5.0], None)).unwrap();
        }
        assert_eq!((fitted.steps, fitted.stop), (3, StopReason::Limit));
        assert_eq!(fitted.evaluation, [("eval_score".to_owned(), 5.0)]);
        assert!(checkpoints(&run).contains(&"step-00000003".to_owned()), "{:?}", checkpoints(&run));
        // It is over, and stays so.
        let again = train(&run, &flex(), &best(false, None), &mut Recorder::default()).unwrap();
        assert_eq!((again.steps, again.stop), (3, StopReason::Limit));
        assert_eq!(again.model.bits(), fitted.model.bits());
    }
}

#[test]
fn a_metric_that_nobody_measures_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let mut config = best(false, None);
    if let Some(best) = &mut config.best {
        best.metric = "eval_reward".into();
    }
    let error = train(&run, &flex(), &config, &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.contains("`eval_reward`") && error.contains("eval_score"), "{error}");
}

#[test]
fn evaluation_before_the_first_step_can_be_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let config = TrainConfig { eval_on_start: true, ..best(true, Some(2)) };
    let mut hooks = Recorder { scripted: vec![3.0, 2.0, 1.0].into(), ..Recorder::default() };
    let fitted = train(&run, &flex(), &config, &mut hooks).unwrap();
    assert_eq!((fitted.steps, fitted.best.unwrap().step), (2, 0));
    assert_eq!(fitted.model.bits(), Bag::new(&flex()).bits());
    assert_eq!(metrics_without_times(dir.path())[0]["step"], 0);
}
