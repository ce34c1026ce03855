//! The `setpoint` command: aligns language models to exact reward targets. `ARCHITECTURE.md` says how the parts fit.

mod cli;
mod commands;
mod device;
mod device_failure;
mod host;
mod interrupt;
mod memory;
mod progress;
mod start;

use std::process::ExitCode;

use clap::CommandFactory;

use cli::{Cli, Command, ExportCommand, InspectCommand, JobCommand, OtherCommand, PlanArgs};
use host::{require_one_device, session};
use setpoint::align::Align;
use setpoint::config::{Given, load};
use setpoint::jobs::{self, Job as _};
use setpoint::session::{Existing, Shared};
use setpoint::{Failure, Outcome, Session};

// An allocator that can be told to keep its pages: tensors of the same sizes come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::give_pages_back();
    progress::heed_dumb_terminals();
    compute_here();
    let (done, code) = match cli::parse() {
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
        Command::Job(JobCommand::Job(args)) => start::job(&args),
        Command::Job(JobCommand::Other(OtherCommand::Compare(args))) => {
            let existing = Existing::given(args.overwrite);
            commands::eval_compare::run(&args.results, args.force, args.output.as_deref(), existing)
        }
        Command::Trial(args) => {
            end_with_parent();
            let session = session(args.device.as_deref(), true)?;
            let session = Session { shared: args.shared.map(Shared::new), ..session };
            setpoint::search::carry_out(&session, &args.folder, &args.part)
        }
        Command::Methods { json } => commands::methods::run(json),
        Command::Chat(args) => {
            let given = cli::given(None, Some(&args.model), &[], &args.set);
            let given = Given { neighbours: Some(jobs::neighbours("chat")), ..given };
            let config = load::load(&given)?;
            let session = session(args.device.as_deref(), true)?;
            require_one_device(&session, "chat")?;
            commands::chat::run(&session, &config, args.system.as_deref())
        }
        Command::Export { what: ExportCommand::Gguf(args) } => commands::export::run(&args.settings()),
        Command::Merge(args) => commands::merge::run(&session(None, true)?, &args.settings()),
        Command::Push(args) => {
            let (quiet, dry_run) = (args.quiet, args.dry_run);
            commands::push::run(|| session(None, quiet), &args.settings(), dry_run)
        }
        Command::Lend { device, listen } => {
            if device.as_deref().is_some_and(|name| name.starts_with(device::remote::PREFIX)) {
                return Err(Failure::usage("--device", "only this machine's devices can be lent"));
            }
            commands::lend::run(&session(device.as_deref(), true)?, &listen)
        }
        Command::Plan(args) => plan(&args),
        Command::Report { runs, output, overwrite, at_kl } => commands::report::run(&runs, &output, overwrite, &at_kl),
        Command::Convert(args) => commands::convert::run(&args),
        Command::Duplicates(args) => {
            let given = cli::given(None, None, std::slice::from_ref(&args.data), &args.set);
            commands::duplicates::run(&load::load(&args.layered(given))?, args.json)
        }
        Command::Completions { shell } => commands::shell::completions(Cli::command(), shell),
        Command::Man { folder } => commands::shell::pages(cli::command(), &folder),
        Command::Inspect { what } => match what {
            InspectCommand::Data { model, data, rows, set, plain, job } => {
                let mut given = cli::given(None, Some(&model), &data, &set);
                given.flag("data.max_rows", Some(i64::try_from(rows).unwrap_or(i64::MAX)), "--rows");
                given.flag("job", job, "--job");
                commands::inspect::data(&load::load(&given)?, plain)
            }
            InspectCommand::Model { model, tensors } => commands::inspect::model(&model, tensors),
            InspectCommand::Config { job, set } => commands::inspect::config(&job, &set),
            InspectCommand::Schema { job } => commands::inspect::schema(job.as_deref()),
        },
    }
}

fn plan(args: &PlanArgs) -> Outcome {
    // Only one job trains in rounds.
    let name = args.job.as_deref().or(args.rounds.map(|_| Align::COMMAND));
    let job = commands::plan::job(name, args.config.as_deref())?;
    let mut given = cli::given(args.config.as_ref(), args.model.as_ref(), &args.data, &args.set);
    given.flag("rounds", args.rounds.map(|rounds| i64::try_from(rounds).unwrap_or(i64::MAX)), "--rounds");
    let given = Given { neighbours: Some(jobs::neighbours(job.command())), ..given };
    let ready = job.load(&given)?;
    let place = device::place_named(args.device.as_deref(), args.device_memory)?;
    // Nothing is computed: a processor will do, where there is one.
    let processor = device::compiled().into_iter().find(|kind| matches!(*kind, "flex" | "ndarray"));
    let session = Session { place, ..session(processor, true)? };
    commands::plan::run(&session, job, ready.as_ref(), args.json)
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
