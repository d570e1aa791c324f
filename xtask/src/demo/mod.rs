//! `cargo xtask demo`: the whole path from training to a client's picture, with small data, in a few minutes.

mod folder;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::server::Server;
use crate::{cargo, report, setup, workspace};
use cargo::Profile;

/// The network and its training: a locally connected ResNet that starts as a convolutional one and shares its weights
/// every tenth step.
const TRAINING: &[&str] = &[
    "--architecture",
    "resnet-cifar",
    "--blocks",
    "1,1,1",
    "--width",
    "8",
    "--connectivity",
    "lc",
    "--initialisation",
    "conv",
    "--sleep-every",
    "10",
    "--epochs",
    "8",
    "--batch-size",
    "64",
    "--learning-rate",
    "3e-3",
    "--seed",
    "1",
];

/// The name under which the network is served.
const MODEL: &str = "lc-resnet";
const VERSION: &str = "1";
/// The layers in the picture: the first stage and the last.
const LAYERS: &str = "layer1,layer3";

/// The programs, built for release.
struct Programs {
    trainer: PathBuf,
    exporter: PathBuf,
    server: PathBuf,
    client: PathBuf,
}

/// Everything that the demo writes.
struct Products {
    checkpoint: PathBuf,
    recording: PathBuf,
    repository: PathBuf,
    bundle: PathBuf,
    stimuli: PathBuf,
    server_log: PathBuf,
    picture: PathBuf,
}

impl Products {
    fn below(folder: &Path) -> Self {
        let repository = folder.join("models");
        Self {
            checkpoint: folder.join("lc.safetensors"),
            recording: folder.join("lc.activations.safetensors"),
            bundle: repository.join(MODEL).join(VERSION),
            repository,
            stimuli: folder.join("stimuli"),
            server_log: folder.join("server.log"),
            picture: folder.join("picture.png"),
        }
    }
}

/// Runs the demo. `data` is the path of a data set in place of the one that comes with the trainer;
/// `output` is the folder to write to, whose earlier demo is removed.
pub(crate) fn run(data: Option<&Path>, output: Option<PathBuf>) -> Result<()> {
    let start = Instant::now();
    let folder = output.unwrap_or_else(|| workspace::root().join("target").join("demo"));
    folder::prepare(&folder)?;
    let products = Products::below(&folder);

    report::step("set-up");
    setup::set_up_as_before()?;
    report::step("build trainer, exporter, server and demo client");
    let [trainer, exporter, server, client] =
        cargo::build_programs(Profile::Release, ["trainer", "exporter", "server", "demo"])?;
    let programs = Programs {
        trainer,
        exporter,
        server,
        client,
    };

    train(&programs, &products, data)?;
    export(&programs, &products)?;
    serve_and_ask(&programs, &products, data)?;
    summarise(&products, start.elapsed());
    Ok(())
}

fn train(programs: &Programs, products: &Products, data: Option<&Path>) -> Result<()> {
    let data = || {
        data.iter()
            .flat_map(|folder| ["--data".as_ref(), folder.as_os_str()])
    };
    step(
        "train",
        Command::new(&programs.trainer)
            .arg("train")
            .args(TRAINING)
            .args(data())
            .arg("--output")
            .arg(&products.checkpoint),
    )?;
    step(
        "evaluate",
        Command::new(&programs.trainer)
            .arg("eval")
            .arg(&products.checkpoint)
            .args(data()),
    )?;
    step(
        "record activations",
        Command::new(&programs.trainer)
            .arg("record")
            .arg(&products.checkpoint)
            .args(data())
            .arg("--output")
            .arg(&products.recording),
    )
}

fn export(programs: &Programs, products: &Products) -> Result<()> {
    step(
        "export",
        Command::new(&programs.exporter)
            .arg("export")
            .arg(&products.checkpoint)
            .arg("--repository")
            .arg(&products.repository)
            .args(["--model", MODEL, "--model-version", VERSION]),
    )?;
    step(
        "verify",
        Command::new(&programs.exporter)
            .arg("verify")
            .arg(&products.bundle)
            .arg("--recording")
            .arg(&products.recording),
    )
}

fn serve_and_ask(programs: &Programs, products: &Products, data: Option<&Path>) -> Result<()> {
    step(
        "write stimuli",
        Command::new(&programs.trainer)
            .arg("stimuli")
            .args(
                data.iter()
                    .flat_map(|folder| ["--data".as_ref(), folder.as_os_str()]),
            )
            .arg("--output")
            .arg(&products.stimuli),
    )?;
    report::step("serve");
    let server = Server::start(&programs.server, &products.repository, &products.server_log)
        .context("the demo's step \"serve\" failed")?;
    report::line(&format!(
        "http {}, grpc {}, log {}",
        server.http,
        server.grpc,
        shown(&products.server_log)
    ));
    step(
        "ask for activations and classes, and draw them",
        Command::new(&programs.client)
            .args([
                "--http",
                &server.http,
                "--grpc",
                &server.grpc,
                "--model",
                MODEL,
                "--layers",
                LAYERS,
            ])
            .arg("--stimuli")
            .arg(&products.stimuli)
            .arg("--output")
            .arg(&products.picture),
    )?;
    server.stop().context("the demo's step \"serve\" failed")
}

/// Runs one program to its end, its output on the terminal.
fn step(name: &str, command: &mut Command) -> Result<()> {
    report::step(name);
    let failed = || format!("the demo's step \"{name}\" failed");
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("can't run {}", Path::new(&program).display()))
        .with_context(failed)?;
    if !status.success() {
        bail!("{} ({status}); the lines above say why", failed());
    }
    Ok(())
}

fn summarise(products: &Products, duration: Duration) {
    let seconds = duration.as_secs();
    report::step(&format!("done in {} min {:02} s", seconds / 60, seconds % 60));
    let repository = shown(&products.repository);
    let example = shown(&products.stimuli.join("00000-Ankle boot.png"));
    let checkpoint = shown(&products.checkpoint);
    report::line(&format!(
        "checkpoint  {checkpoint}\n\
         bundle      {}\n\
         picture     {}\n\
         \n\
         next:\n  \
         cargo run --release -p server -- --models {repository}\n  \
         curl --data-binary '@{example}' http://127.0.0.1:8080/v1/models/{MODEL}/classify\n  \
         cargo run --release -p trainer -- eval {checkpoint}\n  \
         cargo run --release -p trainer -- train --help",
        shown(&products.bundle),
        shown(&products.picture),
    ));
}

/// A path as seen from the current folder where it lies below it: shorter to read and to copy.
fn shown(path: &Path) -> String {
    let current = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(current).unwrap_or(path).display().to_string()
}
