//! The command line: flags made of the configuration's options, subcommands, exit codes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::sync::oneshot;

use crate::config::options::{ConfigOption, OPTIONS};
use crate::config::sources::{Effective, FILE_VARIABLE, Sources};
use crate::config::{Config, format};
use crate::security::Security;
use crate::security::new_token::NewToken;
use crate::server::Server;
use crate::shutdown::Signals;
use crate::telemetry::Telemetry;
use crate::{grpc, http};

/// How long a computation that no one waits for any more may delay the end.
const LAST_COMPUTATION: Duration = Duration::from_secs(5);

/// The exit code of wrong arguments and wrong configurations.
const USAGE_ERROR: u8 = 2;

/// Runs the program: serves until Ctrl-C or SIGTERM (at the second, without waiting for requests), or does what a subcommand says. Errors are printed with their
/// causes.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(answer) => {
            // Help is an answer too. No one reads it, perhaps.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(USAGE_ERROR));
        }
    };
    match matches.subcommand() {
        Some(("check-config", matches)) => check_config(matches),
        Some(("token", matches)) => new_token(matches.subcommand_matches("new").unwrap_or(matches)),
        _ => match sources(&matches, "config").read() {
            Ok(effective) => serve(&effective),
            Err(errors) => failed(&errors, USAGE_ERROR),
        },
    }
}

/// The command line's definition.
fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(format!("Configuration file (TOML) [env: {FILE_VARIABLE}]"))
        .value_parser(value_parser!(PathBuf));
    let file = Arg::new("file")
        .value_name("FILE")
        .help(format!("Configuration file (TOML) [env: {FILE_VARIABLE}]"))
        .value_parser(value_parser!(PathBuf));
    let check = Command::new("check-config")
        .about(
            "Print the effective configuration and where each value comes from, or all that is wrong with it",
        )
        .arg(file)
        .args(OPTIONS.iter().map(flag));
    let name = Arg::new("name").long("name").value_name("NAME").required(true);
    let models = Arg::new("models")
        .long("models")
        .value_name("A,B")
        .value_delimiter(',');
    let admin = Arg::new("admin").long("admin").action(ArgAction::SetTrue);
    let rate = Arg::new("rate").long("requests-per-second").value_name("N");
    let new = Command::new("new")
        .about("Make a token: printed once, with the line for the file of tokens")
        .arg(name.help("Whose it is: shown in logs"))
        .arg(models.help("Models that it may use; without it, all"))
        .arg(admin.help("May load and unload models"))
        .arg(
            rate.help("Requests a second; without it, security.requests_per_second")
                .value_parser(|text: &str| <format::Rate as format::Format>::parse(text)),
        );
    let token = Command::new("token")
        .about("Bearer tokens")
        .subcommand_required(true)
        .subcommand(new);
    Command::new("server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves exported networks: activations over gRPC, classification over HTTP")
        .arg(config)
        .args(OPTIONS.iter().map(flag))
        .subcommands([check, token])
        .args_conflicts_with_subcommands(true)
}

/// An option as a flag, whose value is checked at once but stays a text.
fn flag(option: &'static ConfigOption) -> Arg {
    let check = option.set;
    let default = (option.get)(&Config::default()).map(|text| format!(" [default: {text}]"));
    let help = format!(
        "{}{} [env: {}]",
        option.help,
        default.unwrap_or_default(),
        option.variable()
    );
    Arg::new(option.key)
        .long(option.flag())
        .value_name(option.value_name)
        .help(help)
        .help_heading((!option.table().is_empty()).then(|| option.table()))
        .value_parser(move |text: &str| check(&mut Config::default(), text).map(|()| text.to_owned()))
}

fn sources(matches: &ArgMatches, file: &str) -> Sources {
    let flags = OPTIONS.iter().filter_map(|option| {
        let value = matches.get_one::<String>(option.key)?;
        Some((option.key, value.clone()))
    });
    let flags: BTreeMap<_, _> = flags.collect();
    Sources::of_process(matches.get_one::<PathBuf>(file).cloned(), flags)
}

fn check_config(matches: &ArgMatches) -> ExitCode {
    let effective = match sources(matches, "file").read() {
        Ok(effective) => effective,
        Err(errors) => return failed(&errors, USAGE_ERROR),
    };
    // What the configuration names must be there, too.
    if let Err(error) = Security::load(&effective.config) {
        return failed(&crate::error::chain(&error), USAGE_ERROR);
    }
    for warning in &effective.warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    print(&effective.to_toml())
}

fn new_token(matches: &ArgMatches) -> ExitCode {
    let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
    let models = matches.get_many::<String>("models");
    let models = models.map(|models| models.cloned().collect());
    let rate = matches.get_one("rate").copied();
    match NewToken::make(&name, models, matches.get_flag("admin"), rate) {
        Ok(token) => print(&token.to_string()),
        Err(error) => failed(&error, USAGE_ERROR),
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("standard output can't be written: {error}"), 1),
    }
}

fn failed(error: &dyn Display, code: u8) -> ExitCode {
    // Standard error that is closed is no reason to fail differently.
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(code)
}

fn serve(effective: &Effective) -> ExitCode {
    match run_server(effective) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = error.as_ref();
            failed(&crate::error::chain(error), 1)
        }
    }
}

fn run_server(effective: &Effective) -> anyhow::Result<()> {
    let config = effective.config.clone();
    let runtime = tokio::runtime::Runtime::new().context("the asynchronous runtime can't be started")?;
    let telemetry = {
        let _inside = runtime.enter();
        Telemetry::start(&config.log, &config.tracing).context("logs and traces can't be started")?
    };
    for warning in &effective.warnings {
        tracing::warn!("{warning}");
    }
    let result = runtime.block_on(async {
        let mut signals = Signals::listen().context("signals can't be listened for")?;
        // Every connection is an open file: the system's usual limit is far below what it allows on request.
        if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
            tracing::warn!(%error, "the limit of open files can't be raised");
        }
        let server = Server::bind(config)?;
        let lines = [
            http::listening_line(server.scheme(), server.http_address()),
            grpc::listening_line(server.scheme(), server.grpc_address()),
        ];
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // The sender is kept until the server has ended.
            let _ = stopped.await;
        };
        let twice = async {
            signals.next().await;
            let _ = stop.send(());
            signals.next().await;
        };
        tokio::select! {
            result = server.run(|| announce(&lines), stopped) => result?,
            () = twice => tracing::warn!("asked to stop again: requests that were still running were cut off"),
        }
        Ok(())
    });
    // Exporting needs the runtime; what ends with the runtime may still be logged.
    telemetry.export_last_spans();
    runtime.shutdown_timeout(LAST_COMPUTATION);
    drop(telemetry);
    result
}

/// Scripts read these lines from standard output.
fn announce(lines: &[String]) {
    let mut output = io::stdout().lock();
    for line in lines {
        tracing::info!("{line}");
        // No one reads, perhaps: the server serves all the same.
        let _ = writeln!(output, "{line}");
    }
    let _ = output.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
