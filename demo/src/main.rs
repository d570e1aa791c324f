//! The program `demo`: see the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use demo::{Options, run};

/// Asks a running Ventral server about stimuli and draws the answers.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    /// Where the server answers HTTP, as it prints it: http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    http: String,
    /// Where the server answers gRPC: http://127.0.0.1:50051
    #[arg(long, value_name = "URL")]
    grpc: String,
    /// Name of the model
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Folder with PNG files; one called `00000-Ankle boot.png` is taken for an ankle boot
    #[arg(long, value_name = "DIR")]
    stimuli: PathBuf,
    /// Layers to draw
    #[arg(
        long,
        value_name = "A,B,…",
        value_delimiter = ',',
        default_value = "layer1,layer3"
    )]
    layers: Vec<String>,
    /// The picture to write, a PNG file
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        http: arguments.http,
        grpc: arguments.grpc,
        model: arguments.model,
        stimuli: arguments.stimuli,
        layers: arguments.layers,
        output: arguments.output,
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            demo::report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
