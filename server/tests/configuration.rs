//! The program's configuration: `check-config`, precedence, errors, and tokens that it makes.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::bundle::Bundle;
use support::http_client;
use support::program::{Program, output};

fn server() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.env_remove("RUST_LOG");
    command
}

/// Exit code, standard output and standard error.
fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let output = output(command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_effective_configuration_says_where_each_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ventral.toml");
    fs::write(
        &file,
        "models = \"models\"\nthreads = 3\n\n[limits]\nimages = 7\n",
    )
    .unwrap();
    let mut command = server();
    command.args(["check-config", file.to_str().unwrap(), "--grpc", "127.0.0.1:9"]);
    command.env("VENTRAL_THREADS", "5");
    let (code, shown, errors) = outcome(&mut command);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    for (value, origin) in [
        ("models = \"models\"", "ventral.toml:1"),
        ("threads = 5", "environment VENTRAL_THREADS"),
        ("grpc = \"127.0.0.1:9\"", "flag --grpc"),
        ("images = 7", "ventral.toml:5"),
        ("http = \"127.0.0.1:8080\"", "default"),
    ] {
        let line = shown.lines().find(|line| line.starts_with(value));
        assert!(
            line.is_some_and(|line| line.ends_with(origin)),
            "{value} in {shown}"
        );
    }
    // The variable names the file as well, and what is shown is a file itself.
    fs::write(&file, &shown).unwrap();
    let (code, again, _) = outcome(server().arg("check-config").env("VENTRAL_CONFIG", &file));
    let values = |text: &str| {
        let lines = text
            .lines()
            .map(|line| line.split(" #").next().unwrap().trim().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(code, Some(0));
    assert_eq!(values(&shown), values(&again));
}

#[test]
fn everything_that_is_wrong_is_listed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ventral.toml");
    fs::write(&file, "model = \"models\"\n[limits]\nimages = \"many\"\n").unwrap();
    for arguments in [
        &["check-config", file.to_str().unwrap()][..],
        &["--config", file.to_str().unwrap()],
    ] {
        let (code, shown, errors) = outcome(server().args(arguments).env("VENTRAL_GRPC", "nowhere"));
        assert_eq!((code, shown.as_str()), (Some(2), ""));
        assert!(
            errors.starts_with("error: the configuration has 3 errors:"),
            "{errors}"
        );
        assert!(errors.contains("did you mean `models`?"), "{errors}");
        assert!(errors.contains("ventral.toml:3: `limits.images`"), "{errors}");
        assert!(errors.contains("environment VENTRAL_GRPC: `grpc`"), "{errors}");
    }
    let (code, _, errors) = outcome(&mut server());
    assert_eq!(code, Some(2));
    assert!(errors.contains("`models` is not set"), "{errors}");
}

#[test]
fn files_that_the_configuration_names_are_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    fs::write(&tokens, "lab = { sha256 = \"12\" }\n").unwrap();
    let path = tokens.to_str().unwrap();
    let mut command = server();
    let (code, _, errors) =
        outcome(command.args(["check-config", "--models", "models", "--security-tokens", path]));
    assert_eq!(code, Some(2));
    assert!(errors.contains("token `lab`"), "{errors}");
}

#[test]
fn a_variable_that_is_nearly_an_option_is_warned_of() {
    let mut command = server();
    command
        .args(["check-config", "--models", "models"])
        .env("VENTRAL_THREAD", "2");
    let (code, _, errors) = outcome(&mut command);
    assert_eq!(code, Some(0));
    assert!(errors.contains("did you mean VENTRAL_THREADS?"), "{errors}");
}

#[test]
fn a_token_that_was_made_opens_what_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("models");
    Bundle::new().write(&repository, "hand", 1);
    let make = |arguments: &[&str]| {
        let (code, shown, _) = outcome(server().args(["token", "new"]).args(arguments));
        assert_eq!(code, Some(0));
        let lines: Vec<_> = shown.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines.len(), 2, "{shown}");
        (lines[0].to_owned(), lines[1].to_owned())
    };
    let (token, line) = make(&["--name", "lab", "--models", "hand,other"]);
    let (admin, admin_line) = make(&["--name", "boss", "--admin", "--requests-per-second", "1000"]);
    assert!(!line.contains(&token) && !admin_line.contains(&admin));
    let tokens = folder.path().join("tokens.toml");
    fs::write(&tokens, format!("{line}\n{admin_line}\n")).unwrap();
    let mut program = Program::start(&mut serving(&repository, &tokens));
    let http = program.address("http listening on ");
    let status = |token: Option<&str>| {
        let mut request = http_client().get(format!("{http}/v1/models"));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().unwrap().status().as_u16()
    };
    assert_eq!(status(Some(&token)), 200);
    assert_eq!(status(Some(&admin)), 200);
    assert_eq!(status(Some("ventral_0000")), 401);
    assert_eq!(status(None), 401);
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));

    let (code, _, errors) = outcome(server().args(["token", "new", "--name", "two words"]));
    assert_eq!(code, Some(2));
    assert!(errors.contains("`two words`"), "{errors}");
}

/// The program, configured by a file alone.
fn serving(repository: &Path, tokens: &Path) -> Command {
    let file = tokens.with_file_name("ventral.toml");
    let text = format!(
        "models = {repository:?}\nhttp = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\nexecution_provider = \"cpu\"\n\
         [security]\ntokens = {tokens:?}\n"
    );
    fs::write(&file, text).unwrap();
    let mut command = server();
    command.arg("--config").arg(file);
    command
}
