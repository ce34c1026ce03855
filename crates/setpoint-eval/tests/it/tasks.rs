//! The shared data of the tasks is read whole.

use setpoint_eval::{Gold, Task, TaskMode, TaskSet};

use crate::common::test_data;

#[test]
fn every_row_of_the_shared_data_is_an_example() {
    let Some(dir) = test_data("eval") else { return };
    let expected = [14_042, 1319, 2376, 1172, 2985, 1954];
    for (task, rows) in Task::ALL.into_iter().zip(expected) {
        let set = TaskSet::read(task, &dir).unwrap();
        assert_eq!(set.docs.len() + set.undecided, rows, "{task:?}");
        // MathQA's re-wrapped file gives numbers that some options share.
        assert_eq!(set.undecided > 0, task == Task::Mathqa, "{task:?}: {}", set.undecided);
        assert!(set.undecided < 150, "{}", set.undecided);
        let requests = set.requests(TaskMode::Cot, 0).unwrap();
        assert_eq!(requests.len(), set.docs.len());
        for doc in &set.docs {
            match &doc.gold {
                Gold::Choice(index) => assert!(*index < doc.choices.len() && doc.choices.len() >= 3, "{doc:?}"),
                Gold::Solution(solution) => assert!(solution.contains("#### "), "{doc:?}"),
            }
            assert!(doc.choices.iter().all(|c| !c.contains(" Answer2: ")), "{doc:?}");
        }
    }
    let mmlu = TaskSet::read(Task::Mmlu, &dir).unwrap();
    assert_eq!((mmlu.shots.len(), mmlu.shots.values().map(Vec::len).sum::<usize>()), (57, 285));
    assert!(mmlu.requests(TaskMode::Likelihood, 5).is_ok());
}
