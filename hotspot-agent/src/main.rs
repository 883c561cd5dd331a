//! `hotspot-agent`: the daemon on the gateway.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use hotspot_agent::cli::{Arguments, Command, LogFormat, RunArguments};
use hotspot_agent::run::run;
use hotspot_agent::sealer::chain;
use tracing_subscriber::EnvFilter;

#[expect(clippy::print_stderr, reason = "errors before and after logging go where the operator looks")]
fn main() -> ExitCode {
    abort_on_panic();
    let Arguments { command: Command::Run(arguments) } = Arguments::parse();
    if let Err(error) = start_logging(&arguments) {
        eprintln!("hotspot-agent: --log-level: {error}");
        return ExitCode::from(2);
    }
    hotspot_agent::secrecy::close_process();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotspot-agent: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// No thread goes on beside one that failed: what is journaled is whole, and the next start reads the rest from the kernel.
///
/// As a hook, because a profile's `panic = "abort"` makes cargo build every dependency twice, once more for tests.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn start_logging(arguments: &RunArguments) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(&arguments.log_level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
