//! Where a training's bar begins.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use setpoint::config::from_toml;
use setpoint::session::{Bar, Hidden, Host};
use setpoint::sft::{self, SftConfig};
use setpoint::{Failure, Session};

/// A host that notes the bars and stops every training after its next step.
#[derive(Debug, Default)]
struct Stopping(Mutex<Vec<(String, u64, u64)>>);

impl Host for Stopping {
    fn bar(&self, what: &str, start: u64, total: u64) -> Box<dyn Bar> {
        self.0.lock().unwrap().push((what.to_owned(), start, total));
        Box::new(Hidden)
    }

    fn should_stop(&self) -> bool {
        true
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
    for (resume, start) in [(false, 0), (true, 1), (true, 2)] {
        let host = Arc::new(Stopping::default());
        let session = Session { host: host.clone(), ..Session::on(Device::flex()) };
        let ended = sft::run(&session, &config, &run, resume);
        assert!(matches!(ended, Err(Failure::Stopped { .. })), "{ended:?}");
        assert_eq!(*host.0.lock().unwrap(), [("SFT".to_owned(), start, 3)]);
    }
}
