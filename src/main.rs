//! The `setpoint` command: aligns language models to exact reward targets. `ARCHITECTURE.md` says how the parts fit.

mod cli;
mod config;
mod device;
mod device_failure;
mod failure;
mod interrupt;
mod memory;
mod progress;
mod recipes;
mod resume;
mod tasks;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use cli::{Benchmark, Cli, Command, CommonArgs, EvalArgs, InspectCommand, JobArgs, PlanArgs, RowsArgs, TrainArgs};
use config::output::{Target, require_target};
use config::{Config, Given, load, nearest};
use failure::{Failure, Outcome};
use recipes::place::Place;
use recipes::{Existing, Session, Shared};

// An allocator that can be told to keep its pages: tensors of the same sizes come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::give_pages_back();
    progress::heed_dumb_terminals();
    compute_here();
    let (done, code) = match Cli::try_parse() {
        Ok(cli) => (device_failure::caught(|| run(cli.command)), 0),
        Err(said) => {
            let code = progress::answer(&cli::with_setting(said, std::env::args()));
            (Ok(()), code)
        }
    };
    match done.and_then(|()| progress::complete()) {
        Ok(()) => ExitCode::from(code),
        Err(failure) => {
            progress::complain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Makes this thread one of those that compute: otherwise each operation would be handed over to another thread and back. A machine that
/// allows one thread keeps a pool of its own, so that no other thread ever waits for this one.
fn compute_here() {
    let said = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse::<usize>().ok());
    let threads =
        said.filter(|&threads| threads > 0).or_else(|| Some(std::thread::available_parallelism().ok()?.get()));
    if let Some(threads) = threads.filter(|&threads| threads > 1) {
        // Nobody has used the pool before; if it existed it would do.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global();
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => {
            let session = session(args.device.as_deref(), args.quiet)?;
            recipes::demo::run(&session, &args.run, args.seed)
        }
        Command::Sft(args) => train(&args, recipes::sft::run, recipes::sft::dry_run),
        Command::Reward(args) => train(&args, recipes::reward::run, recipes::reward::dry_run),
        Command::Align(args) => train(&args, recipes::align::run, recipes::align::dry_run),
        Command::Sweep(args) => search(&args, recipes::sweep::run, recipes::sweep::dry_run),
        Command::Compare(args) => search(&args, recipes::compare::run, recipes::compare::dry_run),
        Command::Trial(args) => {
            end_with_parent();
            let session = session(args.device.as_deref(), true)?;
            let session = Session { shared: args.shared.map(Shared::new), ..session };
            recipes::search::carry_out(&session, &args.folder, &args.part)
        }
        Command::Methods { json } => recipes::methods::run(json),
        Command::Annotate(args) => rows(&args, recipes::annotate::run, recipes::annotate::dry_run),
        Command::Logps(args) => rows(&args, recipes::logps::run, recipes::logps::dry_run),
        Command::Audit(args) => job(&args, recipes::audit::run, recipes::audit::dry_run),
        Command::Eval(args) => eval(&args),
        Command::Generate(args) => {
            let mut given = cli::given(
                args.config.as_ref(),
                args.model.as_ref(),
                args.data.as_ref(),
                args.output.as_ref(),
                &args.common.set,
            );
            given.flag("prompt", args.prompt.clone(), "--prompt");
            let config = load::load(&given)?;
            let session = session(args.common.device.as_deref(), args.common.quiet)?;
            let session = Session { existing: args.existing.choice(), ..session };
            session.require_one_device("generate")?;
            if args.common.dry_run {
                return recipes::generate::dry_run(&session, &config);
            }
            recipes::generate::run(&session, &config)
        }
        Command::Chat(args) => {
            let given = cli::given(None, Some(&args.model), None, None, &args.set);
            let config = load::load(&given)?;
            let session = session(args.device.as_deref(), true)?;
            session.require_one_device("chat")?;
            recipes::chat::run(&session, &config, args.system.as_deref())
        }
        Command::Serve { device, listen } => {
            if device.as_deref().is_some_and(|name| name.starts_with(device::remote::PREFIX)) {
                return Err(Failure::usage("--device", "only this machine's devices can be lent"));
            }
            recipes::serve::run(&session(device.as_deref(), true)?, &listen)
        }
        Command::Plan(args) => plan(&args),
        Command::Report { runs, output } => recipes::report::run(&runs, &output),
        Command::Inspect { what } => match what {
            InspectCommand::Data { model, data, rows, set, plain, job } => {
                let mut given = cli::given(None, Some(&model), Some(&data), None, &set);
                given.flag("data.max_rows", Some(i64::try_from(rows).unwrap_or(i64::MAX)), "--rows");
                let job = job.and_then(|job| toml::Value::try_from(job).ok());
                given.flag("job", job, "--job");
                recipes::inspect::data(&load::load(&given)?, plain)
            }
            InspectCommand::Model { model, tensors } => recipes::inspect::model(&model, tensors),
            InspectCommand::Config { job, set } => recipes::inspect::config(job, &set),
        },
    }
}

fn plan(args: &PlanArgs) -> Outcome {
    use recipes::plan::PlannedJob;
    use recipes::{align, plan, reward, sft};

    fn of<C: Config>(args: &PlanArgs, plan: fn(&Session, &C) -> Outcome<plan::RunPlan>) -> Outcome {
        let given = cli::given(args.config.as_ref(), args.model.as_ref(), args.data.as_ref(), None, &args.set);
        let config = load::load::<C>(&given)?;
        let place = Place::named(args.device.as_deref(), args.device_memory)?;
        // Nothing is computed: a processor will do, where there is one.
        let processor = device::compiled().into_iter().find(|kind| matches!(*kind, "flex" | "ndarray"));
        let session = Session { place, ..session(processor, true)? };
        plan::print(&plan(&session, &config)?, args.json)
    }
    let job = match (args.job, &args.config) {
        (Some(job), _) => job,
        (None, Some(config)) if !config.exists() && PlannedJob::from_str(&config.to_string_lossy(), true).is_ok() => {
            let name = config.display();
            return Err(Failure::usage(
                name.to_string(),
                format!("no such file of settings; to name the job say --job {name}"),
            ));
        }
        (None, Some(config)) => plan::job_of(config),
        (None, None) => {
            return Err(Failure::usage(
                "--job",
                "no settings file to take the job from: say --job sft, reward or align",
            ));
        }
    };
    match job {
        PlannedJob::Sft => of(args, sft::plan),
        PlannedJob::Reward => of(args, reward::plan),
        PlannedJob::Align => of(args, align::plan),
    }
}

/// Ends this process when its standard input closes: a pipe from the process that started it, which is then gone or was told to stop. A
/// training saves its step first.
#[allow(clippy::exit, reason = "nothing is left to report to, and checkpoints bear a stop at any moment")]
fn end_with_parent() {
    std::thread::spawn(|| {
        // Nothing is ever written to it.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        interrupt::request();
        while !interrupt::is_idle() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::process::exit(1);
    });
}

fn session(device: Option<&str>, quiet: bool) -> Outcome<Session> {
    Ok(Session::new(device::open(device)?, quiet))
}

fn train<C: Config>(
    args: &TrainArgs,
    run: fn(&Session, &C, &std::path::Path, bool) -> Outcome,
    dry_run: fn(&Session, &C) -> Outcome,
) -> Outcome {
    search(args, |session, _, config, folder, resume| run(session, config, folder, resume), dry_run)
}

/// A job that trains once or often. It is told the device's name, under which others can open it.
fn search<C: Config>(
    args: &TrainArgs,
    run: impl Fn(&Session, Option<&str>, &C, &std::path::Path, bool) -> Outcome,
    dry_run: fn(&Session, &C) -> Outcome,
) -> Outcome {
    let CommonArgs { device, set, dry_run: dry, quiet } = &args.common;
    if let Some(folder) = &args.run {
        require_target(folder, Target::Folder, "--run")?;
    }
    let given = cli::given(args.config.as_ref(), args.model.as_ref(), args.data.as_ref(), None, set);
    let missing = || Failure::usage("--run", "no run folder: say where the run is kept, as in --run runs/first");
    if args.resume {
        let (config, folder) = resume::settings::<C>(args.run.as_deref().ok_or_else(missing)?, &given)?;
        let session = session(device.as_deref(), *quiet)?;
        if *dry {
            return dry_run(&session, &config);
        }
        if recipes::training::is_finished(&folder) {
            return Ok(());
        }
        return run(&session, device.as_deref(), &config, &folder, true);
    }
    let config = load::load::<C>(&given)?;
    let session = session(device.as_deref(), *quiet)?;
    let session = Session { place: Place::of(&session.devices, args.device_memory), ..session };
    if *dry {
        return dry_run(&session, &config);
    }
    run(&session, device.as_deref(), &config, args.run.as_deref().ok_or_else(missing)?, false)
}

fn job<C: Config>(args: &JobArgs, run: Recipe<C>, dry_run: Recipe<C>) -> Outcome {
    layered(&given(args), &args.common, Existing::Overwrite, run, dry_run)
}

/// A job that writes rows as they are computed.
fn rows<C: Config>(args: &RowsArgs, run: Recipe<C>, dry_run: Recipe<C>) -> Outcome {
    layered(&given(&args.job), &args.job.common, args.existing.choice(), run, dry_run)
}

fn given(args: &JobArgs) -> Given {
    let set = &args.common.set;
    cli::given(args.config.as_ref(), args.model.as_ref(), args.data.as_ref(), args.output.as_ref(), set)
}

/// A job, or the check before it.
type Recipe<C> = fn(&Session, &C) -> Outcome;

fn layered<C: Config>(
    given: &Given,
    common: &CommonArgs,
    existing: Existing,
    run: Recipe<C>,
    dry_run: Recipe<C>,
) -> Outcome {
    let config = load::load::<C>(given)?;
    let session = Session { existing, ..session(common.device.as_deref(), common.quiet)? };
    if common.dry_run { dry_run(&session, &config) } else { run(&session, &config) }
}

fn eval(args: &EvalArgs) -> Outcome {
    use recipes::eval;
    if let (None, Some(config)) = (&args.benchmark, &args.job.config)
        && !config.exists()
        && let Some(near) = nearest(&config.to_string_lossy(), ["alpaca", "mt-bench", "tasks", "compare"])
    {
        let message = format!("neither a benchmark nor a file of settings; did you mean `{near}`?");
        return Err(Failure::usage(config.display().to_string(), message));
    }
    match &args.benchmark {
        None => job(&args.job, eval::run, eval::dry_run),
        Some(Benchmark::Alpaca(args)) => {
            layered(&args.given(), &args.common, Existing::Overwrite, eval::alpaca::run, eval::alpaca::dry_run)
        }
        Some(Benchmark::MtBench(args)) => {
            layered(&args.given(), &args.common, Existing::Overwrite, eval::mt_bench::run, eval::mt_bench::dry_run)
        }
        Some(Benchmark::Tasks(args)) => {
            layered(&args.given(), &args.common, Existing::Overwrite, eval::tasks::run, eval::tasks::dry_run)
        }
        Some(Benchmark::Compare(args)) => eval::compare::run(&args.results, args.force, args.output.as_ref()),
    }
}
