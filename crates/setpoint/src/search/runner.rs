//! Runs trials, each in a process of its own, and collects what they leave.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use setpoint_train::RunDir;
use toml::Table;

use super::held_out::{HeldOut, Part};
use super::trial::{ALIGN, Reached, Trial, carry_out, done, eval_settings, steps_mark};
use crate::align::AlignConfig;
use crate::config::Config;
use crate::config::load::to_table;
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::session::memory::size;
use crate::session::{Session, Shared, TrialProcess};
use crate::training::record::{CONFIG, agrees, record};
use crate::{align, setup};

/// Opens the folder of a sweep or comparison, and leaves its settings in it, unless it holds those already. It is locked for as long as the
/// value lives.
pub fn open<C: Config>(folder: &Path, resume: bool, config: &C) -> Outcome<RunDir> {
    let kept = folder.join(CONFIG);
    if kept.is_file() && !resume {
        return Err(Failure::run(format!("{} already holds a run", folder.display()))
            .hint("add --resume to go on with it, or choose another --run folder"));
    }
    std::fs::create_dir_all(folder).map_err(|e| Failure::run(format!("cannot create {}: {e}", folder.display())))?;
    let run = RunDir::open(folder)?;
    if !kept.is_file() {
        record(&run, config)?;
    }
    Ok(run)
}

/// The optimizer steps of a trial, and the memory it is estimated to need at once, bytes.
pub fn steps(session: &Session, config: &AlignConfig) -> Outcome<(u64, f64)> {
    let plan = align::planned(session, config)?;
    Ok((plan.steps, plan.peak))
}

/// A trial to be carried out and evaluated on a part of the held-out rows.
#[derive(Debug)]
pub struct TrialJob {
    folder: PathBuf,
    part: &'static str,
    /// The folder of the values that the trials have in common.
    shared: PathBuf,
    /// The title in messages.
    title: String,
}

impl TrialJob {
    /// Writes the trial's settings to its folder, unless they are there. `part`: the rows that it is evaluated on, and whether the models that it
    /// keeps of earlier steps are evaluated on them as well.
    pub fn new(
        run: &RunDir,
        trial: &Trial,
        title: String,
        held_out: &HeldOut,
        base: &ModelSection,
        (part, steps): (&Part, bool),
    ) -> Outcome<Self> {
        let (folder, shared) = (run.join("trials").join(&trial.name), run.join("shared"));
        for folder in [&folder, &shared] {
            std::fs::create_dir_all(folder)
                .map_err(|e| Failure::run(format!("cannot create {}: {e}", folder.display())))?;
        }
        let eval = held_out.config(base, folder.join("model"), part);
        write_once(&folder.join(ALIGN), &to_table(&trial.config), None)?;
        write_once(&folder.join(eval_settings(part.name)), &to_table(&eval), Some(("model", "path")))?;
        if steps {
            setup::write_text(&folder.join(steps_mark(part.name)), "")?;
        }
        Ok(Self { folder, part: part.name, shared, title })
    }
}

/// Writes a file of settings; one that is there must have the same, but for those that it lacks because it is older than they are. `place`: the
/// section and name of a path in the folder of the run, which may have had another name.
fn write_once(path: &Path, settings: &Table, place: Option<(&str, &str)>) -> Outcome {
    let text = toml::to_string(settings)?;
    let same = |there: &str| {
        let Ok(mut then) = there.parse::<Table>() else { return false };
        if let Some((section, name)) = place
            && let Some(now) = settings.get(section).and_then(|section| section.get(name))
            && let Some(then) = then.get_mut(section).and_then(|section| section.as_table_mut())
        {
            then.insert(name.to_owned(), now.clone());
        }
        text.parse::<Table>().is_ok_and(|now| agrees(&then, &now))
    };
    match setpoint_files::read_text(path) {
        Ok(there) if there == text => Ok(()),
        Ok(there) if same(&there) && place.is_none() => Ok(()),
        Ok(there) if same(&there) => setup::write_text(path, &text),
        Ok(_) => Err(Failure::run(format!("{} holds other settings than this run gives the trial", path.display()))
            .hint("choose another --run folder, or remove the trial's folder to train it again")),
        Err(_) => setup::write_text(path, &text),
    }
}

/// The way in which trials are run.
#[derive(Debug)]
pub struct Crew<'a> {
    session: &'a Session,
    at_once: usize,
}

impl<'a> Crew<'a> {
    /// `parallel` at once, or as many as memory allows when each takes `memory` bytes on every device. Free GPU memory is unknown, so
    /// `parallel` is used as given there unless the user has said how much there is.
    pub fn new(session: &'a Session, parallel: usize, memory: f64) -> Self {
        let mut at_once = parallel.max(1);
        if let Some(available) = session.place.room().filter(|_| at_once > 1) {
            let fit = fitting(available, memory);
            if fit < at_once {
                log::info!(
                    "{fit} at once instead of {at_once}: a trial needs about {}, and {} are free",
                    size(memory),
                    size(available)
                );
                at_once = fit;
            }
        }
        Self { session, at_once }
    }

    /// Carries out every job that is not finished; what each reached, or why it failed. One that fails does not stop the others.
    ///
    /// # Errors
    /// Among others when a signal asks for it: the trials that are going on save their steps and end first.
    pub fn carry_out(&self, jobs: &[TrialJob]) -> Outcome<Vec<Reached>> {
        let watch = self.session.watch();
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Outcome<Reached>>>> = Mutex::new(jobs.iter().map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..self.at_once.min(jobs.len()) {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(i).filter(|_| !self.session.host.should_stop()) else { break };
                        let result = self.one(job, &format!("[{}/{}]", i + 1, jobs.len()));
                        results.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(result);
                    }
                });
            }
        });
        drop(watch);
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.session.host.should_stop() {
            let finished = results.iter().filter(|result| matches!(result, Some(Ok(Ok(_))))).count();
            let message = format!("stopped: {finished} of {} trials are finished; continue with --resume", jobs.len());
            return Err(Failure::Stopped { message });
        }
        results.into_iter().flatten().collect()
    }

    fn one(&self, job: &TrialJob, count: &str) -> Outcome<Reached> {
        if let Some(done) = done(&job.folder, job.part)? {
            self.say(format!("{count} {}: done before", job.title));
            return Ok(Ok(done));
        }
        let started = Instant::now();
        let log = job.folder.join("log.txt");
        let succeeded = self.spawn(job, &log).map_err(|e| Failure::run(format!("{}: {e}", log.display())))?;
        let seconds = started.elapsed().as_secs_f64();
        match done(&job.folder, job.part)?.filter(|_| succeeded) {
            Some(done) => {
                self.say(format!(
                    "{count} {}: win rate {:.3}, reward {:.3}, KL {:.2} ({seconds:.0} s)",
                    job.title,
                    done.figures.win_rate,
                    done.figures.reward,
                    done.figures.divergence()
                ));
                Ok(Ok(done))
            }
            None if self.session.host.should_stop() => Ok(Err("it was stopped".into())),
            None => {
                let said = setpoint_files::read_text(&log).unwrap_or_default();
                let reason = said.rsplit("error: ").next().map(str::trim).filter(|_| said.contains("error: "));
                let reason = reason.unwrap_or("its process ended early").lines().next().unwrap_or_default().to_owned();
                log::info!("{count} {} failed: {reason} ({})", job.title, log.display());
                Ok(Err(reason))
            }
        }
    }

    /// Carries out a trial in a process of its own, or in this one if the host starts none. Returns whether it succeeded.
    fn spawn(&self, job: &TrialJob, log: &Path) -> std::io::Result<bool> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (self.at_once > 1).then(|| (cores / self.at_once).max(1));
        let trial = TrialProcess { folder: &job.folder, part: job.part, shared: &job.shared, log, threads };
        if let Some(ended) = self.session.host.run_trial(&trial) {
            return ended;
        }
        let shared = Some(Shared::new(&job.shared));
        let session = Session { quiet: true, shared, ..self.session.clone() };
        let done = carry_out(&session, &job.folder, job.part);
        let text = done.as_ref().err().map(ToString::to_string).unwrap_or_default();
        std::fs::write(log, text).map(|()| done.is_ok())
    }

    fn say(&self, text: String) {
        if !self.session.quiet {
            log::info!("{}", text);
        }
    }
}

/// Returns the number of trials of `memory` bytes nine tenths of the available ones hold; one in any case.
fn fitting(available: f64, memory: f64) -> usize {
    ((0.9 * available / memory.max(1.0)) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds_what_runs_at_once() {
        // 9 of 10 hold three of 3, two of 4, none of 20: one is tried all the same.
        assert_eq!([3.0, 4.0, 20.0].map(|memory| fitting(10.0, memory)), [3, 2, 1]);
        let session = Session { quiet: true, ..Session::on(burn::tensor::Device::flex()) };
        assert_eq!(Crew::new(&session, 3, 1.0).at_once, 3);
        if session.place.room().is_some() {
            assert_eq!(Crew::new(&session, 3, 1e18).at_once, 1);
        }
    }
}
