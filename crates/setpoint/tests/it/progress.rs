//! Where a training's bar begins.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use setpoint::config::from_toml;
use setpoint::session::{Bar, Hidden, Host};
use setpoint::sft::{self, SftConfig};
use setpoint::{Failure, Session};

/// A host that notes the bars and stops a training after one step: it is asked before the first step and after each.
#[derive(Debug, Default)]
struct Stopping {
    bars: Mutex<Vec<(String, u64, u64)>>,
    was_asked: AtomicBool,
}

impl Host for Stopping {
    fn bar(&self, what: &str, start: u64, total: u64) -> Box<dyn Bar> {
        self.bars.lock().unwrap().push((what.to_owned(), start, total));
        Box::new(Hidden)
    }

    fn should_stop(&self) -> bool {
        self.was_asked.swap(true, Ordering::Relaxed)
    }
}

#[test]
fn the_bar_of_a_resumed_run_begins_at_its_step() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo");
    let file = |name: &str| demo.join(name).display().to_string();
    let config: SftConfig = from_toml(&format!(
        "model = {{ from_scratch = '{}', tokenizer = '{}' }}\ndata = {{ path = '{}', max_rows = 8 }}\n\
         train = {{ max_steps = 3, batch_size = 4 }}",
        file("config.json"),
        file("tokenizer"),
        file("preferences.jsonl"),
    ))
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    for (resume, start) in [(false, 0), (true, 1)] {
        let host = Arc::new(Stopping::default());
        let session = Session { host: host.clone(), ..Session::on(Device::flex()) };
        let ended = sft::run(&session, &config, &run, resume);
        assert!(matches!(ended, Err(Failure::Stopped { .. })), "{ended:?}");
        assert_eq!(*host.bars.lock().unwrap(), [("SFT".to_owned(), start, 3)]);
    }
}
