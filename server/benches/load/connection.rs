//! A kept-alive HTTP/1.1 connection that sends the same request again and again: its bytes are made once.

use std::io::Cursor;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use image::{GrayImage, ImageFormat, Luma};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::RequestArguments;

/// Headers of an answer at most.
const HEADERS: usize = 32;
/// How long a server may be silent before a request counts as lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request as it goes over the wire, and where it goes.
pub(super) struct WireRequest {
    address: String,
    bytes: Vec<u8>,
}

/// A connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// What has come in of an answer.
    received: Vec<u8>,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200.
    Ok,
    /// 429 or 503: come again later.
    Refused,
}

impl WireRequest {
    pub(super) fn new(arguments: &RequestArguments) -> Result<Self> {
        let rest = arguments.url.strip_prefix("http://");
        let rest = rest.with_context(|| format!("`{}` doesn't begin with http://", arguments.url))?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut body = picture(arguments.image)?;
        let mut content_type = "image/png";
        if arguments.json {
            let digits: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            body = json!({"image": digits}).to_string().into_bytes();
            content_type = "application/json";
        }
        let head = format!(
            "POST /{path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Ok(Self {
            address: address.to_owned(),
            bytes: [head.as_bytes(), &body].concat(),
        })
    }
}

impl Connection {
    pub(super) async fn open(request: &WireRequest) -> Result<Self> {
        let stream = TcpStream::connect(&request.address).await;
        let stream = stream.with_context(|| format!("can't connect to {}", request.address))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(16 << 10),
        })
    }

    /// Sends the request and reads the whole answer.
    pub(super) async fn ask(&mut self, request: &WireRequest) -> Result<Answer> {
        let answer = tokio::time::timeout(PATIENCE, self.ask_patiently(request)).await;
        answer.context("the server is silent")?
    }

    async fn ask_patiently(&mut self, request: &WireRequest) -> Result<Answer> {
        self.stream.write_all(&request.bytes).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("the server closed the connection");
            }
            if let Some((status, length)) = whole_answer(&self.received)? {
                if length != self.received.len() {
                    bail!("the server sent more than an answer");
                }
                return match status {
                    200 => Ok(Answer::Ok),
                    429 | 503 => Ok(Answer::Refused),
                    _ => bail!("the server answered {}", String::from_utf8_lossy(&self.received)),
                };
            }
        }
    }
}

/// A grey PNG whose rows differ.
fn picture(size: u32) -> Result<Vec<u8>> {
    let image = GrayImage::from_fn(size, size, |x, y| Luma([(x * 7 + y * 13) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

/// Status and length of an answer, once all of it is there.
fn whole_answer(received: &[u8]) -> Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(received)? else {
        return Ok(None);
    };
    let mut headers = response.headers.iter();
    let length = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("the answer doesn't say how long it is")?;
    let length: usize = std::str::from_utf8(length.value)?.trim().parse()?;
    let status = response.code.context("the answer has no status")?;
    Ok((received.len() >= head + length).then_some((status, head + length)))
}
