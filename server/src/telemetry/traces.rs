//! W3C trace context in, spans out to a collector (OTLP over gRPC).

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tonic::transport::{Certificate, ClientTlsConfig};
use tracing::Level;
use tracing_subscriber::filter::Targets;

use super::TelemetryError;
use crate::config::TracingConfig;

/// How long the last spans may take to be exported.
pub const LAST_EXPORT: Duration = Duration::from_secs(10);

/// The headers that trace context comes in.
const HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// What exports spans; none where no collector is named. Whether a span is exported is the caller's choice where its
/// trace context says so; of requests without one, `sample_ratio` are.
pub(super) fn provider(config: &TracingConfig) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok(None);
    };
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
    if let Some(path) = &config.otlp_ca {
        let authorities = std::fs::read(path).map_err(|source| TelemetryError::Authorities {
            path: path.clone(),
            source,
        })?;
        let authorities = Certificate::from_pem(authorities);
        exporter = exporter.with_tls_config(ClientTlsConfig::new().ca_certificate(authorities));
    } else if endpoint.starts_with("https:") {
        return Err(TelemetryError::NoAuthorities);
    }
    let exporter = exporter.build()?;
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampler)
        .with_batch_exporter(exporter);
    Ok(Some(provider.build()))
}

/// Which spans are exported: ours. The exporter's own calls would export spans of exporting spans.
pub(super) fn filter() -> Targets {
    Targets::new().with_target("server", Level::INFO)
}

/// The trace that a request is part of, if its headers say so.
pub(crate) fn context<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Context> {
    struct Headers<'a>([Option<&'a str>; 2]);
    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            let position = HEADERS.iter().position(|name| *name == key)?;
            self.0[position]
        }

        fn keys(&self) -> Vec<&str> {
            HEADERS.to_vec()
        }
    }
    let headers = Headers(HEADERS.map(header));
    headers.0[0]?;
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    let is_valid = context.span().span_context().is_valid();
    is_valid.then_some(context)
}

/// The trace's identifier, 32 hexadecimal digits.
pub(crate) fn trace_id(context: &Context) -> String {
    context.span().span_context().trace_id().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_context_is_read_from_its_header() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let found = context(|name| (name == "traceparent").then_some(parent)).unwrap();
        assert_eq!(trace_id(&found), "4bf92f3577b34da6a3ce929d0e0e4736");
        for wrong in [
            "",
            "00-x-y-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert!(
                context(|name| (name == "traceparent").then_some(wrong)).is_none(),
                "{wrong}"
            );
        }
        assert!(context(|_| None).is_none());
    }
}
