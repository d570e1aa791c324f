//! A gRPC stream of activations, read as fast as it comes. Frames are taken from HTTP/2 and counted, not decoded: what
//! the server can send is measured, not what a client makes of it.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client;
use prost::Message as _;
use proto::ventral::v1::stimulus_group::Stimuli;
use proto::ventral::v1::stream_activations_request::Part;
use proto::ventral::v1::{DataType, StimulusGroup, StreamActivationsRequest, StreamStart, Tensor};
use tokio::net::TcpStream;

use crate::{TimeArguments, print};

/// Of HTTP/2: the client never holds the server up.
const WINDOW: u32 = 64 << 20;
const FRAME: u32 = 1 << 20;
/// A message's prefix: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What to ask for.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The server's gRPC port
    #[arg(long, value_name = "URL")]
    url: String,
    /// The model
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Layers whose activations are asked for
    #[arg(long, value_name = "LAYER,…", value_delimiter = ',', default_value = "layer1")]
    layers: Vec<String>,
    /// Shape of an image
    #[arg(
        long,
        value_name = "C,H,W",
        value_delimiter = ',',
        default_value = "1,112,112"
    )]
    shape: Vec<u64>,
    /// Images of a message
    #[arg(long, value_name = "N", default_value_t = 1)]
    images: u64,
    /// Messages that are asked for ahead of their answers
    #[arg(long, value_name = "N", default_value_t = 8)]
    ahead: usize,
    #[command(flatten)]
    time: TimeArguments,
}

/// Where the messages of a stream end.
#[derive(Default)]
struct Boundaries {
    prefix: Vec<u8>,
    /// Of the message whose prefix was read.
    left: usize,
}

/// Prints bytes a second, and messages.
pub(super) async fn run(arguments: &Arguments) -> Result<()> {
    let address = arguments.url.strip_prefix("http://");
    let address = address.with_context(|| format!("`{}` doesn't begin with http://", arguments.url))?;
    let stream = TcpStream::connect(address).await;
    let stream = stream.with_context(|| format!("can't connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (mut client, connection) = client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .handshake::<_, Bytes>(stream)
        .await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("{}/ventral.v1.Ventral/StreamActivations", arguments.url))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut requests) = client.send_request(request, false)?;
    let start = Part::Start(StreamStart {
        model: arguments.model.clone(),
        layers: arguments.layers.clone(),
        ..Default::default()
    });
    requests.send_data(framed(start), false)?;
    let group = framed(Part::Stimuli(StimulusGroup {
        ids: Vec::new(),
        stimuli: Some(Stimuli::Tensor(arguments.tensor())),
    }));
    for _ in 0..arguments.ahead {
        requests.send_data(group.clone(), false)?;
    }
    let mut answers = response.await?.into_body();
    let mut boundaries = Boundaries::default();
    let begin = Instant::now() + arguments.time.warm_up();
    let end = begin + arguments.time.measured();
    let (mut bytes, mut messages) = (0, 0);
    loop {
        let Some(data) = answers.data().await.transpose()? else {
            let trailers = answers.trailers().await?.unwrap_or_default();
            bail!("the server ended the stream: {trailers:?}");
        };
        answers.flow_control().release_capacity(data.len())?;
        let now = Instant::now();
        if now >= end {
            break;
        }
        let ended = boundaries.count(&data)?;
        if now >= begin {
            bytes += data.len();
            messages += ended;
        }
        for _ in 0..ended {
            requests.send_data(group.clone(), false)?;
        }
    }
    connection.abort();
    print(
        "bytes_per_second",
        bytes as f64 / arguments.time.seconds,
        "bytes/s",
    );
    print(
        "messages_per_second",
        f64::from(messages) / arguments.time.seconds,
        "1/s",
    );
    Ok(())
}

impl Arguments {
    /// Grey images.
    fn tensor(&self) -> Tensor {
        let shape: Vec<_> = std::iter::once(self.images)
            .chain(self.shape.iter().copied())
            .collect();
        let data = vec![128; shape.iter().product::<u64>() as usize];
        Tensor {
            shape,
            data_type: DataType::Uint8 as i32,
            data: data.into(),
            ..Default::default()
        }
    }
}

impl Boundaries {
    /// How many messages end in the stream's next bytes.
    fn count(&mut self, mut data: &[u8]) -> Result<u32> {
        let mut ended = 0;
        loop {
            if self.prefix.len() < PREFIX {
                let (prefix, rest) = data.split_at(data.len().min(PREFIX - self.prefix.len()));
                self.prefix.extend_from_slice(prefix);
                data = rest;
                let Ok([compressed, length @ ..]) = <[u8; PREFIX]>::try_from(self.prefix.as_slice()) else {
                    return Ok(ended);
                };
                ensure!(compressed == 0, "an answer is compressed, which wasn't asked for");
                self.left = u32::from_be_bytes(length) as usize;
            }
            let taken = data.len().min(self.left);
            data = &data[taken..];
            self.left -= taken;
            if self.left > 0 {
                return Ok(ended);
            }
            self.prefix.clear();
            ended += 1;
        }
    }
}

/// A message with its prefix.
fn framed(part: Part) -> Bytes {
    let message = StreamActivationsRequest { part: Some(part) };
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room for it.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}
