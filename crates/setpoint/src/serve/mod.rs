//! `setpoint serve`: an OpenAI-compatible endpoint for a language model, and a scoring endpoint for a reward model.
//!
//! Requests become rows of one batch (`engine`), which they join and leave while it runs. Connections are served on threads of their own
//! (`server`, `routes`); the model computes on the thread that called [`run`].

mod access;
mod app;
mod asked;
mod body;
mod choice;
mod completion;
mod engine;
mod error;
mod fields;
mod gate;
mod idle;
mod messages;
mod metrics;
mod routes;
mod sampling;
mod score;
mod scorer;
mod server;
mod settings;
mod stream;
mod text;

use std::borrow::Cow;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use setpoint_data::{ResponseEnd, TextEncoder, counted};
use setpoint_reward::RewardSource;
use setpoint_transformer::{Architecture, GenerationConfig, ModelConfig};
use tokio::sync::Semaphore;

pub use self::access::KEY;
use self::access::{Key, listen};
use self::app::{App, Served};
use self::gate::Gate;
use self::metrics::Metrics;
use self::server::{Server, TOKENIZING};
pub use self::settings::{ServeConfig, ServeSection};
use crate::failure::{Failure, Outcome};
use crate::hub;
use crate::job::{DryRun, Flag, Job, MODEL, Work};
use crate::session::Session;
use crate::setup::{self, Reading};
use crate::sources::{ModelSettings, Opening, SourceSettings as _};

/// Tokens of one forward pass of a reward model.
const BATCH_TOKENS: usize = 8192;

/// `setpoint serve`.
#[derive(Debug)]
pub struct Serve;

impl Job for Serve {
    type Config = ServeConfig;

    const COMMAND: &'static str = "serve";
    const FLAGS: &'static [Flag] = &[
        MODEL,
        Flag::text("host", "ADDRESS", "serve.host", "Address to listen at; 0.0.0.0 to be reached from other machines"),
        Flag::count("port", "PORT", "serve.port", "Port to listen at; 0 for any that is free (setting serve.port)"),
        Flag::text("name", "NAME", "serve.name", "The model's name in requests; by default the path after --model"),
    ];
    const WORK: Work<ServeConfig> = Work::Result(run);
    const DRY_RUN: DryRun<ServeConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "Answer requests over HTTP as OpenAI's API does, or score responses by a reward model".into()
    }

    fn help() -> Cow<'static, str> {
        format!(
            "Examples:\n  setpoint serve --model runs/dro/model\n  \
             {KEY}=… setpoint serve --model runs/dro/model --host 0.0.0.0 --port 8080 --name policy\n\n\
             It ends after the requests in work when it is told to (Ctrl+C, SIGTERM), and at once the second time.\n\
             The endpoints and their limits: docs/SERVING.md. All settings with their defaults: setpoint inspect config serve"
        )
        .into()
    }
}

/// Everything of a server but the weights.
struct Prepared {
    name: String,
    encoder: TextEncoder,
    shape: ModelConfig,
    /// The sampling of a request that does not say otherwise.
    settings: GenerationConfig,
    key: Option<Key>,
    listener: TcpListener,
}

impl Prepared {
    fn is_reward_model(&self) -> bool {
        self.shape.architecture == Architecture::SequenceClassification
    }

    /// Returns the most tokens of a text.
    fn most(&self) -> usize {
        self.settings.max_length.unwrap_or(usize::MAX).min(self.shape.max_position_embeddings)
    }

    /// Returns a sentence about what is served where.
    fn describe(&self) -> Outcome<String> {
        let address = self.listener.local_addr()?;
        let what = match self.is_reward_model() {
            true => "reward model".to_owned(),
            false => format!("language model, {} at a time", counted(self.settings.batch_size, "answer")),
        };
        let key = if self.key.is_some() { "with the key" } else { "without a key" };
        Ok(format!("{} ({what}) at http://{address}, {key}", self.name))
    }
}

/// Reads and checks everything but the weights.
fn prepare(session: &Session, config: &ServeConfig) -> Outcome<Prepared> {
    let encoder = setup::encoder(&config.model)?;
    let shape = setup::model_config(&config.model, &encoder)?;
    let settings = match shape.architecture {
        Architecture::CausalLm => config.generate.resolve(&config.model, &shape, &encoder)?,
        // A reward model samples nothing.
        Architecture::SequenceClassification => GenerationConfig::default(),
    };
    let devices = session.devices.len();
    if shape.architecture == Architecture::CausalLm && devices > 1 {
        let message = format!("`setpoint serve` answers on one device, and {devices} are named");
        return Err(Failure::usage("--device", message));
    }
    let key = Key::from_env()?;
    let port = u16::try_from(config.serve.port).map_err(|error| Failure::usage("serve.port", error.to_string()))?;
    let listener = listen(&config.serve.host, port, key.as_ref())?;
    // A model of the hub is in the folder of its cache by now.
    let called = |path: &PathBuf| hub::model_at(path).map_or_else(|| path.display().to_string(), |model| model.id);
    let name = config.serve.name.clone().or_else(|| config.model.path.as_ref().map(called)).unwrap_or_default();
    Ok(Prepared { name, encoder, shape, settings, key, listener })
}

/// Checks everything and says what would be served.
///
/// # Errors
/// Everything of [`run`] that can be found without the weights.
pub fn dry_run(session: &Session, config: &ServeConfig) -> Outcome<String> {
    Ok(format!("would serve {}", prepare(session, config)?.describe()?))
}

/// The model, ready to compute.
enum Model {
    Policy(Box<setpoint_transformer::CausalLm>),
    Reward(Box<dyn RewardSource>, Reading),
}

/// Serves a model until the [host](crate::session::Host) asks for a stop, and then the requests that are in work.
///
/// # Errors
/// When the model cannot be read, the address cannot be used, or other machines reach it and there is no key.
pub fn run(session: &Session, config: &ServeConfig) -> Outcome {
    let prepared = prepare(session, config)?;
    let (is_reward, most, described) = (prepared.is_reward_model(), prepared.most(), prepared.describe()?);
    let Prepared { name, encoder, shape, settings, key, listener } = prepared;
    let model = match is_reward {
        false => {
            let device = session.device();
            Model::Policy(Box::new(setup::policy(session, &config.model, &shape, 0, device)?))
        }
        true => {
            let reading = Reading::of(&config.model, &encoder, ResponseEnd::Auto)?;
            let padding = reading.padding;
            let opening = Opening { session, batch_tokens: BATCH_TOKENS, padding, output: None, section: "" };
            Model::Reward(ModelSettings::raw(&config.model).open(&opening)?, reading)
        }
    };
    let metrics = Arc::new(Metrics::default());
    let places = settings.batch_size;
    let timeout = Duration::from_secs_f64(config.serve.timeout_seconds);
    let start = |served: Served| -> Outcome<Server> {
        let app = App {
            name,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            encoder,
            vocabulary: shape.vocab_size,
            most,
            served,
            key,
            gate: Gate::new(places + config.serve.queue),
            readers: Arc::new(Semaphore::new(TOKENIZING)),
            metrics: metrics.clone(),
            timeout,
        };
        let server = Server::start(listener, routes::router(Arc::new(app)), timeout)?;
        session.say(format!("serving {described}; Ctrl+C ends it"));
        Ok(server)
    };
    let _watch = session.watch();
    match model {
        Model::Policy(policy) => {
            let (work, inbox) = channel();
            let mut server = start(Served::Policy { work, settings: Box::new(settings) })?;
            engine::answer(&policy, (places, most), &inbox, &metrics, &mut || goes_on(session, &mut server));
            server.join()
        }
        Model::Reward(source, reading) => {
            let (work, inbox) = channel();
            let mut server = start(Served::Reward { work, reading })?;
            scorer::score(source.as_ref(), &inbox, &metrics, &mut || goes_on(session, &mut server));
            server.join()
        }
    }
}

/// Returns whether requests may still come, and lets the server drain once the host asks for a stop.
fn goes_on(session: &Session, server: &mut Server) -> bool {
    if session.host.should_stop() {
        server.drain();
    }
    !server.has_ended()
}
