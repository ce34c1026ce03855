//! Rounds whose responses come from a server, which is given the weights of each round.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{Record, TextEncoder};
use setpoint_transformer::{CausalLm, Generated, GenerationConfig, ModelConfig};

use super::super::settings::AlignConfig;
use super::prompts::Prompts;
use super::settings::RolloutSection;
use super::store::Store;
use crate::adapter::Adaptation;
use crate::config::Problems;
use crate::failure::{Failure, Outcome};
use crate::saving::{Saving, save_policy};
use crate::server::{Asked, Server, ServerSettings};
use crate::session::Session;
use crate::setup;
use crate::sources::command::find_program;
use crate::visible::one_line;

/// How often the wait for the command looks at whether the run should stop.
const POLL: Duration = Duration::from_millis(50);
/// The file in `rollouts` for what the command prints.
const LOG: &str = "reload.log";
/// The folder in `rollouts` with the weights of the round.
const MODEL: &str = "model";
/// Bytes at the end of the command's output that a message quotes.
const QUOTED: usize = 300;

/// `[rollout.reload]`: the command that loads the weights of a round into the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-chosen-by" = "run"))]
pub struct ReloadSettings {
    /// The program and its arguments, which no shell reads. The folder of the weights is added as the last argument, and the environment
    /// variable `SETPOINT_ROUND` has the number of the round.
    pub run: Vec<String>,
    /// The longest time that it may take until the server has the weights.
    #[schemars(range(min = 1), extend("x-unit" = "seconds"))]
    pub timeout_seconds: u64,
}

impl Default for ReloadSettings {
    fn default() -> Self {
        Self { run: Vec::new(), timeout_seconds: 900 }
    }
}

/// Notes what is wrong with the settings of a server that answers.
pub fn validate(rollout: &RolloutSection, problems: &mut Problems<'_>) {
    if let Some(server) = &rollout.server {
        server.validate("rollout.server", problems);
    }
    let Some(reload) = &rollout.reload else { return };
    problems.require(
        rollout.server.is_some(),
        "rollout.reload",
        "the policy answers in this process, and there is no server to give its weights: set `rollout.server`, or leave `rollout.reload` out",
    );
    if let Err(message) = find_program(&reload.run) {
        problems.add("rollout.reload.run", message);
    }
    problems.require(reload.timeout_seconds > 0, "rollout.reload.timeout_seconds", "must be at least 1");
}

/// A server that answers the prompts of rounds.
pub struct Remote<'a> {
    session: &'a Session,
    config: &'a AlignConfig,
    encoder: &'a TextEncoder,
    settings: &'a ServerSettings,
    reload: Option<&'a ReloadSettings>,
    /// The shape of the policy.
    shape: &'a ModelConfig,
    adaptation: Option<Adaptation>,
    /// The prompts as the template sees them.
    seen: Vec<Record>,
    /// The client, while a round is made.
    client: Option<Server<'a>>,
}

impl<'a> Remote<'a> {
    /// Returns the server that answers; `None` if the policy answers in this process. Nothing is sent.
    pub fn new(
        session: &'a Session,
        config: &'a AlignConfig,
        rollout: &'a RolloutSection,
        encoder: &'a TextEncoder,
        prompts: &Prompts,
        (shape, adaptation): (&'a ModelConfig, Option<&Adaptation>),
    ) -> Option<Self> {
        let settings = rollout.server.as_ref()?;
        if rollout.reload.is_none() {
            log::info!("the server keeps the weights that it has: all rounds train on responses of the same model");
        }
        Some(Self {
            session,
            config,
            encoder,
            settings,
            reload: rollout.reload.as_ref(),
            shape,
            adaptation: adaptation.cloned(),
            seen: setup::seen(&prompts.records, &config.data, encoder),
            client: None,
        })
    }

    /// Gives the server the weights of a round, if there is a command for it, and opens the file of its answers.
    fn begin(&self, round: u64, policy: &CausalLm, store: &Store) -> Outcome {
        if let Some(reload) = self.reload {
            let dir = store.folder().join(MODEL);
            setpoint_files::remove_tree(&dir)?;
            setpoint_files::create_dir(&dir)?;
            let saving = Saving {
                config: self.shape,
                encoder: self.encoder,
                from: &self.config.model,
                stop: self.encoder.template_stop(),
                adaptation: self.adaptation.as_ref(),
                dtype: None,
            };
            save_policy(policy, &saving, &dir)?;
            run(reload, self.session, round, &dir, &store.folder().join(LOG))?;
        }
        Ok(())
    }

    /// Returns the responses to some rows of the data, `samples` to each, of which `first` prompts of the round come before.
    ///
    /// # Errors
    /// When the command fails, the server gives no usable response, or the host wants to stop.
    pub fn answers(
        &mut self,
        (round, seed): (u64, u64),
        (first, rows, samples): (usize, &[usize], usize),
        (policy, generation): (&CausalLm, &GenerationConfig),
        (prompts, store): (&Prompts, &Store),
    ) -> Outcome<Vec<Generated>> {
        if self.client.is_none() {
            self.begin(round, policy, store)?;
        }
        let asked = |(place, &row): (usize, &usize)| {
            let stream = (first * samples + place) as u64;
            Asked { prompt: &prompts.ids[row], record: &self.seen[row], stream }
        };
        let repeated = rows.iter().flat_map(|row| std::iter::repeat_n(row, samples));
        let asked: Vec<Asked<'_>> = repeated.enumerate().map(asked).collect();
        let cache = store.server_cache(round);
        let server = match self.client.take() {
            Some(server) => server,
            None => Server::open(self.settings, self.session, self.encoder, self.shape, Some(&cache))?,
        };
        let bar = self.session.bar("samples", 0, asked.len() as u64);
        let found = server.answers(&asked, generation, seed, &mut |done| bar.reach(done as u64));
        bar.clear();
        self.client = Some(server);
        found
    }

    /// Ends the work of a round: the file of its answers is closed.
    pub fn end_round(&mut self) {
        if let Some(server) = self.client.take().filter(|_| !self.session.quiet) {
            log::info!("server: {}", server.spending());
        }
    }
}

/// Runs the command until it ends. It may leave programs behind, such as the server itself.
///
/// # Errors
/// When it cannot be started, fails or takes too long, or the host wants to stop.
fn run(reload: &ReloadSettings, session: &Session, round: u64, dir: &Path, log: &Path) -> Outcome {
    let program: PathBuf = find_program(&reload.run).map_err(|reason| Failure::usage("rollout.reload.run", reason))?;
    let name = one_line(&reload.run.join(" ")).into_owned();
    let failed = |reason: String| Failure::run(format!("rollout.reload: `{name}` {reason}"));
    let file = File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
    let (out, err) = file.map_err(|error| failed(format!("has no file for its output: {error}")))?;
    let mut command = Command::new(program);
    command.args(&reload.run[1..]).arg(dir).env("SETPOINT_ROUND", round.to_string());
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let mut child = command.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
    let deadline = Instant::now() + Duration::from_secs(reload.timeout_seconds);
    let status = loop {
        let found = child.try_wait().map_err(|error| failed(format!("cannot be waited for: {error}")))?;
        if let Some(status) = found {
            break status;
        }
        let stops = session.host.should_stop();
        if stops || Instant::now() >= deadline {
            // It fails only if the command has ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return Err(match stops {
                true => {
                    Failure::Stopped { message: format!("stopped while the server took the weights of round {round}") }
                }
                false => failed(format!("took longer than {} s", reload.timeout_seconds))
                    .hint("raise rollout.reload.timeout_seconds if the server needs more time to load the weights"),
            });
        }
        std::thread::sleep(POLL);
    };
    if status.success() {
        return Ok(());
    }
    Err(failed(ending(status, log)).hint(format!("all that it printed is in {}", log.display())))
}

/// Says how the command ended, with the end of its output.
fn ending(status: ExitStatus, log: &Path) -> String {
    let bytes = setpoint_files::read_up_to(log, setpoint_files::LARGE).unwrap_or_default();
    let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(QUOTED)..]).trim().to_owned();
    match end.is_empty() {
        true => format!("ended with {status}"),
        false => format!("ended with {status}: `{}`", one_line(&end)),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn ran(script: &str, timeout_seconds: u64) -> (Outcome, String) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(LOG);
        let run = ["sh", "-c", script, "sh"].map(str::to_owned).into();
        let session = Session::on(Device::flex());
        let outcome = super::run(&ReloadSettings { run, timeout_seconds }, &session, 4, folder.path(), &log);
        (outcome, setpoint_files::read_text(&log).unwrap())
    }

    #[test]
    fn the_command_is_told_the_folder_and_the_round() {
        let (outcome, log) = ran("test -d \"$1\" && echo round $SETPOINT_ROUND", 60);
        outcome.unwrap();
        assert_eq!(log, "round 4\n");
    }

    #[test]
    fn a_command_that_fails_or_hangs_is_named_with_its_last_words() {
        let failure = |script: &str, seconds| ran(script, seconds).0.unwrap_err().to_string();
        let found = failure("echo no room on the GPU >&2; exit 3", 60);
        for words in ["rollout.reload: `sh -c", "exit status: 3", "no room on the GPU", "reload.log"] {
            assert!(found.contains(words), "{words}: {found}");
        }
        let found = failure("sleep 100", 1);
        assert!(found.contains("took longer than 1 s") && found.contains("timeout_seconds"), "{found}");
    }
}
