//! The figures that Prometheus collects, behind a small typed interface: whoever knows a figure calls [`metrics`].
//!
//! Labels come from the server alone, never from what a client writes: models are those that were loaded, methods those
//! that exist. So the number of time series is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process::Process;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The model of requests that name none that is served.
const NO_MODEL: &str = "";

/// The figures of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// All figures.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<MethodLabels, Histogram, fn() -> Histogram>,
    in_flight: Family<ProtocolLabels, Gauge>,
    received: Family<ProtocolLabels, Counter>,
    sent: Family<ProtocolLabels, Counter>,
    stages: Family<StageLabels, Histogram, fn() -> Histogram>,
    batches: Family<ModelLabels, Histogram, fn() -> Histogram>,
    queues: Family<ModelLabels, Gauge>,
    memory: Family<VersionLabels, Gauge>,
    load_times: Family<VersionLabels, Gauge<f64, AtomicU64>>,
    provider: Family<ProviderLabels, Gauge>,
    /// How many versions of each model are loaded.
    models: RwLock<BTreeMap<String, usize>>,
}

/// What a request's time goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Images are decoded and preprocessed.
    Decode,
    /// The input waits for its turn.
    Queue,
    /// The network computes.
    Compute,
    /// What the network has computed is pooled, selected, rounded and packed.
    Reduce,
    /// The answer is written.
    Serialise,
}

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
}

/// Images that wait to be computed.
#[derive(Debug)]
pub struct Queued {
    depth: Gauge,
    images: i64,
}

/// A request that was answered, or given up.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// What it came by.
    pub protocol: Protocol,
    /// Method and route of HTTP, `/package.Service/Method` of gRPC; none where there is no such thing.
    pub method: Option<&'a str>,
    /// The model that it named.
    pub model: Option<&'a str>,
    /// HTTP's number or gRPC's name.
    pub status: &'a str,
    /// From its head to the last byte of its answer.
    pub time: Duration,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of its answer.
    pub sent: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: Protocol,
    method: String,
    model: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    protocol: Protocol,
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    model: String,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    model: String,
    version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
    reason: String,
}

impl Metrics {
    fn new() -> Self {
        // From 50 microseconds to a minute and a half.
        let times: fn() -> Histogram = || Histogram::new(exponential_buckets(50e-6, 2.5, 16));
        let sizes: fn() -> Histogram = || Histogram::new(exponential_buckets(1.0, 2.0, 11));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(times),
            in_flight: Family::default(),
            received: Family::default(),
            sent: Family::default(),
            stages: Family::new_with_constructor(times),
            batches: Family::new_with_constructor(sizes),
            queues: Family::default(),
            memory: Family::default(),
            load_times: Family::default(),
            provider: Family::default(),
            models: RwLock::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        self.registry.register_collector(Box::new(Process));
        let registry = self.registry.sub_registry_with_prefix("ventral");
        let version = env!("CARGO_PKG_VERSION");
        registry.register("build", "The program", Info::new(BuildLabels { version }));
        registry.register("execution_provider", "1 for what computes", self.provider.clone());
        registry.register(
            "requests",
            "Requests that were answered or given up",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From a request's head to the last byte of its answer",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests that are being answered",
            self.in_flight.clone(),
        );
        registry.register_with_unit(
            "received",
            "Bytes of requests' bodies",
            Unit::Bytes,
            self.received.clone(),
        );
        registry.register_with_unit("sent", "Bytes of answers' bodies", Unit::Bytes, self.sent.clone());
        registry.register_with_unit(
            "stage_duration",
            "What requests' time goes into",
            Unit::Seconds,
            self.stages.clone(),
        );
        registry.register(
            "batch_size",
            "Images that were computed at a time",
            self.batches.clone(),
        );
        registry.register(
            "queue_depth",
            "Images that wait to be computed",
            self.queues.clone(),
        );
        registry.register_with_unit(
            "model_memory",
            "What a loaded model takes",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register_with_unit(
            "model_load_time",
            "How long loading a model took",
            Unit::Seconds,
            self.load_times.clone(),
        );
    }

    /// A request's head has come.
    pub fn request_began(&self, protocol: Protocol) {
        self.in_flight.get_or_create(&ProtocolLabels { protocol }).inc();
    }

    /// A request that [`Self::request_began`] has counted was answered, or given up.
    pub fn request_ended(&self, answered: Answered<'_>) {
        let protocol = answered.protocol;
        let method = answered.method.unwrap_or("other").to_owned();
        let labels = ProtocolLabels { protocol };
        self.in_flight.get_or_create(&labels).dec();
        self.received.get_or_create(&labels).inc_by(answered.received);
        self.sent.get_or_create(&labels).inc_by(answered.sent);
        let labels = MethodLabels {
            protocol,
            method: method.clone(),
        };
        self.durations
            .get_or_create(&labels)
            .observe(answered.time.as_secs_f64());
        let labels = RequestLabels {
            protocol,
            method,
            model: self.label(answered.model.unwrap_or(NO_MODEL)),
            status: answered.status.to_owned(),
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// A request of this model has spent `time` in a stage.
    pub fn observe_stage(&self, model: &str, stage: Stage, time: Duration) {
        let model = self.label(model);
        let labels = StageLabels { model, stage };
        self.stages.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// So many images of this model were computed at a time.
    pub fn observe_batch(&self, model: &str, images: usize) {
        let model = self.label(model);
        // Sizes of batches are far below 2^53.
        self.batches
            .get_or_create(&ModelLabels { model })
            .observe(images as f64);
    }

    /// So many images of this model wait to be computed, until what this returns is dropped.
    #[must_use = "they wait as long as it lives"]
    pub fn queued(&self, model: &str, images: usize) -> Queued {
        let labels = ModelLabels {
            model: self.label(model),
        };
        let images = i64::try_from(images).unwrap_or(i64::MAX);
        let depth = self.queues.get_or_create_owned(&labels);
        depth.inc_by(images);
        Queued { depth, images }
    }

    /// A version of a model is served from now on. `memory` is in bytes.
    pub fn model_loaded(&self, model: &str, version: u64, time: Duration, memory: u64) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let labels = VersionLabels {
            model: model.into(),
            version,
        };
        if self.memory.get(&labels).is_none() {
            *models.entry(model.into()).or_default() += 1;
        }
        let memory = i64::try_from(memory).unwrap_or(i64::MAX);
        self.memory.get_or_create(&labels).set(memory);
        self.load_times.get_or_create(&labels).set(time.as_secs_f64());
    }

    /// A version of a model is no longer served.
    pub fn model_unloaded(&self, model: &str, version: u64) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let labels = VersionLabels {
            model: model.into(),
            version,
        };
        self.load_times.remove(&labels);
        if self.memory.remove(&labels)
            && let Some(versions) = models.get_mut(model)
        {
            *versions -= 1;
            if *versions == 0 {
                models.remove(model);
                self.queues.remove(&ModelLabels { model: model.into() });
            }
        }
    }

    /// What computes, and why.
    pub fn set_provider(&self, provider: &str, reason: &str) {
        self.provider.clear();
        let labels = ProviderLabels {
            provider: provider.into(),
            reason: reason.into(),
        };
        self.provider.get_or_create(&labels).set(1);
    }

    /// All figures in the OpenMetrics text format.
    ///
    /// # Errors
    /// None, since a string can hold anything; the encoder's type has one.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Whether a model is served.
    pub fn knows(&self, model: &str) -> bool {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.contains_key(model)
    }

    /// A model's name, if there is such a model: clients may write anything.
    fn label(&self, model: &str) -> String {
        if self.knows(model) { model } else { NO_MODEL }.to_owned()
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.depth.dec_by(self.images);
    }
}

impl EncodeLabelValue for Stage {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Compute => "compute",
            Self::Reduce => "reduce",
            Self::Serialise => "serialise",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

impl Protocol {
    /// As it is written in figures and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

impl EncodeLabelValue for Protocol {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered<'a>(model: &'a str, status: &'a str) -> Answered<'a> {
        Answered {
            protocol: Protocol::Grpc,
            method: Some("/ventral.v1.Ventral/GetActivations"),
            model: Some(model),
            status,
            time: Duration::from_millis(3),
            received: 10,
            sent: 20,
        }
    }

    #[test]
    fn figures_are_encoded_with_their_labels() {
        let metrics = Metrics::new();
        metrics.model_loaded("lc", 2, Duration::from_millis(1500), 4096);
        metrics.request_began(Protocol::Grpc);
        metrics.request_ended(answered("lc", "OK"));
        metrics.observe_stage("lc", Stage::Compute, Duration::from_millis(1));
        metrics.observe_batch("lc", 16);
        let queued = metrics.queued("lc", 3);
        drop(metrics.queued("lc", 4));
        let text = metrics.encode().unwrap();
        for line in [
            "ventral_requests_total{protocol=\"grpc\",method=\"/ventral.v1.Ventral/GetActivations\",model=\"lc\",status=\"OK\"} 1",
            "ventral_requests_in_flight{protocol=\"grpc\"} 0",
            "ventral_received_bytes_total{protocol=\"grpc\"} 10",
            "ventral_sent_bytes_total{protocol=\"grpc\"} 20",
            "ventral_stage_duration_seconds_count{model=\"lc\",stage=\"compute\"} 1",
            "ventral_batch_size_sum{model=\"lc\"} 16.0",
            "ventral_queue_depth{model=\"lc\"} 3",
            "ventral_model_memory_bytes{model=\"lc\",version=\"2\"} 4096",
            "ventral_model_load_time_seconds{model=\"lc\",version=\"2\"} 1.5",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        drop(queued);
        let text = metrics.encode().unwrap();
        assert!(text.contains("ventral_queue_depth{model=\"lc\"} 0"), "{text}");
    }

    #[test]
    fn what_clients_write_makes_no_time_series() {
        let metrics = Metrics::new();
        for model in 0..100 {
            metrics.request_began(Protocol::Grpc);
            metrics.request_ended(answered(&format!("unknown {model}"), "NOT_FOUND"));
        }
        let text = metrics.encode().unwrap();
        assert!(text.contains("model=\"\",status=\"NOT_FOUND\"} 100"), "{text}");
        assert!(!text.contains("unknown"), "{text}");
    }

    #[test]
    fn an_unloaded_model_is_no_longer_shown() {
        let metrics = Metrics::new();
        metrics.model_loaded("lc", 1, Duration::ZERO, 1);
        metrics.model_loaded("lc", 1, Duration::ZERO, 2);
        metrics.model_loaded("lc", 2, Duration::ZERO, 3);
        metrics.model_unloaded("lc", 1);
        metrics.model_unloaded("lc", 1);
        assert_eq!(metrics.label("lc"), "lc");
        metrics.model_unloaded("lc", 2);
        assert_eq!(metrics.label("lc"), NO_MODEL);
        assert!(!metrics.encode().unwrap().contains("version=\"2\""));
    }
}
