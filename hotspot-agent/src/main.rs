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
    let Arguments { command: Command::Run(arguments) } = Arguments::parse();
    if let Err(error) = start_logging(&arguments) {
        eprintln!("hotspot-agent: --log-level: {error}");
        return ExitCode::from(2);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotspot-agent: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
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
