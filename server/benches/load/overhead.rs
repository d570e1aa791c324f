//! A batch by gRPC, in turns with the same batch in ONNX Runtime without any server: what the server adds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{DataType, GetActivationsRequest, Tensor};
use server::ProviderChoice;
use server::bundle::Bundle;
use server::onnx_runtime::OnnxRuntime;
use server::session::{Batch, Session};

use crate::print;

/// Threads that have computed keep looking for more work for a moment, which would slow the other side down.
const PAUSE: Duration = Duration::from_millis(50);
/// Of messages.
const LIMIT: usize = 1 << 30;

/// What to compute.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The server's gRPC port
    #[arg(long, value_name = "URL")]
    url: String,
    /// The model's name
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Folder of the same model's bundle
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// The layer that is computed
    #[arg(long, value_name = "LAYER", default_value = "fc")]
    layer: String,
    /// Images of the batch
    #[arg(long, value_name = "N", default_value_t = 16)]
    images: usize,
    /// Times of each, after one to warm up; the medians count
    #[arg(long, value_name = "N", default_value_t = 25)]
    rounds: usize,
    /// Threads of ONNX Runtime; without it, as many as there are cores
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Prints the medians.
pub(super) async fn run(arguments: &Arguments) -> Result<()> {
    let runtime = OnnxRuntime::start(arguments.threads, ProviderChoice::Cpu)?;
    let bundle = Bundle::load(&arguments.model, 1, &arguments.bundle)?;
    let position = bundle.layer_position(&arguments.layer);
    let position = position.with_context(|| format!("there is no layer `{}`", arguments.layer))?;
    let mut session = Session::load(&runtime, &bundle, &[position])?;
    let input = bundle.manifest.architecture.input;
    let shape = [arguments.images, input.channels, input.height, input.width];
    let pixels: Vec<u8> = (0..shape.iter().product())
        .map(|index: usize| (index * 7 % 256) as u8)
        .collect();
    let values: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    let batch = Batch {
        shape,
        values: &values,
    };
    let request = GetActivationsRequest {
        model: arguments.model.clone(),
        layers: vec![arguments.layer.clone()],
        stimuli: Some(Stimuli::Tensor(Tensor {
            // Pixels, as decoders leave them.
            shape: [arguments.images, input.height, input.width, input.channels]
                .map(|length| length as u64)
                .to_vec(),
            data_type: DataType::Uint8 as i32,
            data: pixels.into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let client = VentralClient::connect(arguments.url.clone()).await?;
    let mut client = client
        .max_encoding_message_size(LIMIT)
        .max_decoding_message_size(LIMIT);
    let (mut bare, mut served) = (Vec::new(), Vec::new());
    for round in 0..=arguments.rounds {
        // Once for the caches, which hold what the other side has left.
        session.run(batch)?;
        let start = Instant::now();
        session.run(batch)?;
        let bare_time = start.elapsed();
        tokio::time::sleep(PAUSE).await;
        client.get_activations(request.clone()).await?;
        let start = Instant::now();
        client.get_activations(request.clone()).await?;
        let served_time = start.elapsed();
        tokio::time::sleep(PAUSE).await;
        if round > 0 {
            bare.push(bare_time);
            served.push(served_time);
        }
    }
    print("bare", median(bare), "s");
    print("served", median(served), "s");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}
