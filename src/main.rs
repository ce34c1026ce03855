//! The `setpoint` command: aligns language models to exact reward targets. `ARCHITECTURE.md` says how the parts fit.

mod cli;
mod commands;
mod device;
mod device_failure;
mod host;
mod interrupt;
mod memory;
mod progress;
mod resume;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};

use cli::{
    Benchmark, Cli, Command, CommonArgs, EvalArgs, ExportCommand, InspectCommand, JobArgs, PlanArgs, RowsArgs,
    TrainArgs,
};
use setpoint::config::output::{Target, require_target};
use setpoint::config::{Config, Given, load, nearest};
use setpoint::session::{Existing, Shared};
use setpoint::training::RunPlan;
use setpoint::{Failure, Outcome, Session};

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
            let code = progress::answer(&cli::with_remedy(said, std::env::args()));
            (Ok(()), code)
        }
    };
    match done.and_then(|()| progress::complete()) {
        Ok(()) => ExitCode::from(code),
        Err(failure) => {
            progress::complain(&failure);
            ExitCode::from(exit_code(&failure))
        }
    }
}

/// Returns the process's exit code: 1 failed, 2 wrong usage or configuration, 130 and 143 stopped by SIGINT and SIGTERM.
fn exit_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Usage(_) => 2,
        Failure::Run { .. } => 1,
        Failure::Stopped { .. } => interrupt::exit_code(),
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
    // Burn's server brings a logger of its own.
    if !matches!(command, Command::Lend { .. }) {
        progress::install_logger();
    }
    match command {
        Command::Demo(args) => {
            let session = session(args.device.as_deref(), args.quiet)?;
            commands::demo::run(&session, &args.run, args.seed)
        }
        Command::Sft(args) => train(&args, setpoint::sft::run, planned(setpoint::sft::plan)),
        Command::Reward(args) => train(&args, setpoint::reward::run, planned(setpoint::reward::plan)),
        Command::Align(args) => train(&args, setpoint::align::run, planned(setpoint::align::plan)),
        Command::Sweep(args) => train(&args, commands::sweep::run, shown(setpoint::sweep::dry_run)),
        Command::Compare(args) => train(&args, commands::compare::run, shown(setpoint::compare::dry_run)),
        Command::Trial(args) => {
            end_with_parent();
            let session = session(args.device.as_deref(), true)?;
            let session = Session { shared: args.shared.map(Shared::new), ..session };
            setpoint::search::carry_out(&session, &args.folder, &args.part)
        }
        Command::Methods { json } => commands::methods::run(json),
        Command::Annotate(args) => rows(&args, setpoint::annotate::run, shown(setpoint::annotate::dry_run)),
        Command::Logps(args) => rows(&args, setpoint::logps::run, shown(setpoint::logps::dry_run)),
        Command::Audit(args) => job(&args, commands::audit::run, planned(setpoint::align::plan)),
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
            require_one_device(&session, "generate")?;
            if args.common.dry_run {
                return shown(setpoint::generate::dry_run)(&session, &config);
            }
            setpoint::generate::run(&session, &config)
        }
        Command::Chat(args) => {
            let given = cli::given(None, Some(&args.model), None, None, &args.set);
            let config = load::load(&given)?;
            let session = session(args.device.as_deref(), true)?;
            require_one_device(&session, "chat")?;
            commands::chat::run(&session, &config, args.system.as_deref())
        }
        Command::Export { what: ExportCommand::Gguf(args) } => commands::export::run(&args.settings()),
        Command::Serve { .. } => {
            Err(Failure::usage("setpoint serve", "renamed to `setpoint lend`: `serve` will be an inference server"))
        }
        Command::Lend { device, listen } => {
            if device.as_deref().is_some_and(|name| name.starts_with(device::remote::PREFIX)) {
                return Err(Failure::usage("--device", "only this machine's devices can be lent"));
            }
            commands::lend::run(&session(device.as_deref(), true)?, &listen)
        }
        Command::Plan(args) => plan(&args),
        Command::Report { runs, output } => commands::report::run(&runs, &output),
        Command::Convert(args) => commands::convert::run(&args),
        Command::Inspect { what } => match what {
            InspectCommand::Data { model, data, rows, set, plain, job } => {
                let mut given = cli::given(None, Some(&model), Some(&data), None, &set);
                given.flag("data.max_rows", Some(i64::try_from(rows).unwrap_or(i64::MAX)), "--rows");
                let job = job.and_then(|job| toml::Value::try_from(job).ok());
                given.flag("job", job, "--job");
                commands::inspect::data(&load::load(&given)?, plain)
            }
            InspectCommand::Model { model, tensors } => commands::inspect::model(&model, tensors),
            InspectCommand::Config { job, set } => commands::inspect::config(job, &set),
        },
    }
}

fn plan(args: &PlanArgs) -> Outcome {
    use commands::plan;
    use commands::plan::PlannedJob;
    use setpoint::{align, reward, sft};

    fn of<C: Config>(args: &PlanArgs, plan: fn(&Session, &C) -> Outcome<RunPlan>) -> Outcome {
        let given = cli::given(args.config.as_ref(), args.model.as_ref(), args.data.as_ref(), None, &args.set);
        let config = load::load::<C>(&given)?;
        let place = device::place_named(args.device.as_deref(), args.device_memory)?;
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
    let devices = device::open(device)?;
    let place = device::place(&devices, None);
    Ok(Session {
        quiet,
        place,
        host: Arc::new(host::Process { device: device.map(str::to_owned) }),
        ..Session::new(devices)
    })
}

/// Fails if several devices are named for a command that computes on one.
fn require_one_device(session: &Session, command: &str) -> Outcome {
    match session.devices.len() {
        1 => Ok(()),
        count => Err(Failure::usage(
            "--device",
            format!("`setpoint {command}` computes on one device, and {count} are named"),
        )),
    }
}

/// A job that trains once or often.
fn train<C: Config>(
    args: &TrainArgs,
    run: fn(&Session, &C, &std::path::Path, bool) -> Outcome,
    dry_run: impl Fn(&Session, &C) -> Outcome,
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
        if setpoint::training::is_finished(&folder) {
            return Ok(());
        }
        return run(&session, &config, &folder, true);
    }
    let config = load::load::<C>(&given)?;
    let session = session(device.as_deref(), *quiet)?;
    let session = Session { place: device::place(&session.devices, args.device_memory), ..session };
    if *dry {
        return dry_run(&session, &config);
    }
    run(&session, &config, args.run.as_deref().ok_or_else(missing)?, false)
}

fn job<C: Config>(args: &JobArgs, run: Recipe<C>, dry_run: impl Fn(&Session, &C) -> Outcome) -> Outcome {
    layered(&given(args), &args.common, Existing::Overwrite, run, dry_run)
}

/// A job that writes rows as they are computed.
fn rows<C: Config>(args: &RowsArgs, run: Recipe<C>, dry_run: impl Fn(&Session, &C) -> Outcome) -> Outcome {
    layered(&given(&args.job), &args.job.common, args.existing.choice(), run, dry_run)
}

fn given(args: &JobArgs) -> Given {
    let set = &args.common.set;
    cli::given(args.config.as_ref(), args.model.as_ref(), args.data.as_ref(), args.output.as_ref(), set)
}

/// Returns a dry run that prints the settings, and what the job would do.
fn shown<C: Config>(dry_run: fn(&Session, &C) -> Outcome<String>) -> impl Fn(&Session, &C) -> Outcome {
    move |session, config| {
        let text = dry_run(session, config)?;
        progress::say(toml::to_string(&load::to_table(config))?);
        progress::say(text);
        Ok(())
    }
}

/// Returns a dry run that prints the settings, and the plan of the training.
fn planned<C: Config>(plan: fn(&Session, &C) -> Outcome<RunPlan>) -> impl Fn(&Session, &C) -> Outcome {
    move |session, config| commands::plan::describe(config, &plan(session, config)?)
}

/// A job.
type Recipe<C> = fn(&Session, &C) -> Outcome;

fn layered<C: Config>(
    given: &Given,
    common: &CommonArgs,
    existing: Existing,
    run: Recipe<C>,
    dry_run: impl Fn(&Session, &C) -> Outcome,
) -> Outcome {
    let config = load::load::<C>(given)?;
    let session = Session { existing, ..session(common.device.as_deref(), common.quiet)? };
    if common.dry_run { dry_run(&session, &config) } else { run(&session, &config) }
}

fn eval(args: &EvalArgs) -> Outcome {
    use commands::eval;
    if let (None, Some(config)) = (&args.benchmark, &args.job.config)
        && !config.exists()
        && let Some(near) = nearest(&config.to_string_lossy(), ["alpaca", "mt-bench", "tasks", "compare"])
    {
        let message = format!("neither a benchmark nor a file of settings; did you mean `{near}`?");
        return Err(Failure::usage(config.display().to_string(), message));
    }
    match &args.benchmark {
        None => job(&args.job, eval::reward, shown(setpoint::eval::dry_run)),
        Some(Benchmark::Alpaca(args)) => layered(
            &args.given(),
            &args.common,
            Existing::Overwrite,
            eval::alpaca,
            shown(setpoint::eval::alpaca::dry_run),
        ),
        Some(Benchmark::MtBench(args)) => layered(
            &args.given(),
            &args.common,
            Existing::Overwrite,
            eval::mt_bench,
            shown(setpoint::eval::mt_bench::dry_run),
        ),
        Some(Benchmark::Tasks(args)) => layered(
            &args.given(),
            &args.common,
            Existing::Overwrite,
            eval::tasks,
            shown(setpoint::eval::tasks::dry_run),
        ),
        Some(Benchmark::Compare(args)) => eval::compare::run(&args.results, args.force, args.output.as_ref()),
    }
}
