//! What the server tells of itself: [`metrics`] for Prometheus, the log, and [`traces`] for a collector.
//!
//! The log is written by a thread of its own: a full disk, or a reader that stalls, costs lines of the log and never a
//! request.

pub mod metrics;
mod process;
pub mod traces;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{LogConfig, LogFormat, TracingConfig};

pub use metrics::{Metrics, Stage};

/// Lines that may wait to be written; further ones are lost.
const WAITING_LINES: usize = 8192;

/// The log and the traces of this process. Dropping it writes the log's last lines.
#[must_use = "without it the log's last lines are lost"]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
    /// Writes what is still waiting when it is dropped.
    _log: WorkerGuard,
}

/// Why logs or traces can't be started.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter isn't one.
    #[error("the log's filter can't be used")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The authorities of the collector's certificate can't be read.
    #[error("spans can't be exported: `tracing.otlp_ca` names {path}, which can't be read", path = .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A collector's certificate that nothing is known of.
    #[error(
        "spans can't be exported: with a collector at https://, `tracing.otlp_ca` names the authorities of its certificate"
    )]
    NoAuthorities,
    /// The exporter of spans.
    #[error("spans can't be exported")]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The process has a log already.
    #[error("the log can't be started")]
    Log(#[from] TryInitError),
}

impl Telemetry {
    /// Starts the log, on standard error, and the export of spans, if there is to be one. Needs a tokio runtime for the
    /// latter. Once a process.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn start(log: &LogConfig, tracing: &TracingConfig) -> Result<Self, TelemetryError> {
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING_LINES)
            .lossy(true)
            .finish(io::stderr());
        let spans = traces::provider(tracing)?;
        let exported = spans.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("server"))
                .with_filter(traces::filter())
        });
        let filter = EnvFilter::try_new(&log.filter)?;
        let lines = lines(log.format, writer).with_filter(filter);
        tracing_subscriber::registry()
            .with(lines)
            .with(exported)
            .try_init()?;
        Ok(Self { spans, _log: guard })
    }

    /// Exports what hasn't been exported, for some seconds at most. The runtime that [`Self::start`] saw must still run,
    /// and the caller must not be one of its threads.
    pub fn export_last_spans(&self) {
        if let Some(spans) = &self.spans
            && let Err(error) = spans.shutdown_with_timeout(traces::LAST_EXPORT)
        {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

fn lines(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // They would go to standard error, of which the layer can't know that it is what fails.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    }
}
