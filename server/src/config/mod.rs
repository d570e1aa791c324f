//! The configuration: flags before the environment before the file before the defaults.
//!
//! [`Config`] holds the values, typed, with their defaults. [`options`] is the one list of what can be set: a line there
//! makes a key of the file, a variable of the environment and a flag out of a field of [`Config`]. [`sources`] reads the
//! three and remembers where each value comes from, [`mod@format`] turns texts into values and back.

pub mod format;
pub mod options;
pub mod sources;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::fitting::FittingOptions;
use crate::limits::Limits;
use crate::provider::{CudaOptions, ProviderChoice};
use crate::repository::RepositoryOptions;
use crate::scheduling::Scheduling;

/// What to serve, where, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The model repository's folder.
    pub models: PathBuf,
    /// `host:port` of the HTTP port; port 0 takes a free one.
    pub http: String,
    /// `host:port` of the gRPC port; port 0 takes a free one.
    pub grpc: String,
    /// What computes.
    pub execution_provider: ProviderChoice,
    /// How CUDA computes.
    pub cuda: CudaOptions,
    /// Threads that compute; without it, as many as there are cores.
    pub threads: Option<usize>,
    /// What requests may cost.
    pub limits: Limits,
    /// What fits of projections may take.
    pub fitting: FittingOptions,
    /// How work is scheduled.
    pub scheduling: Scheduling,
    /// How the model repository is kept.
    pub repository: RepositoryOptions,
    /// Encryption of both ports.
    pub tls: TlsConfig,
    /// Who may do what.
    pub security: SecurityConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where traces go.
    pub tracing: TracingConfig,
    /// How the server ends.
    pub drain: DrainConfig,
}

/// Encryption of both ports. Neither or both of certificate and key are set.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// PEM file: the server's certificate, then those that lead to its authority.
    pub certificate: Option<PathBuf>,
    /// PEM file: the certificate's private key.
    pub key: Option<PathBuf>,
    /// PEM file: the authorities whose certificates clients must show.
    pub client_ca: Option<PathBuf>,
}

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct SecurityConfig {
    /// File of hashed tokens; without it, no token is needed.
    pub tokens: Option<PathBuf>,
    /// Requests a second of a token that states no rate of its own; without it, any number.
    pub requests_per_second: Option<f64>,
    /// Whether `/metrics` needs no token.
    pub open_metrics: bool,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// Directives of `tracing-subscriber`'s `EnvFilter`.
    pub filter: String,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// Where traces go.
#[derive(Clone, Debug)]
pub struct TracingConfig {
    /// URL of a collector that takes OTLP over gRPC; without it, no spans are exported.
    pub otlp_endpoint: Option<String>,
    /// PEM file of authorities, one of which must have signed the collector's certificate; needed with `https://`.
    pub otlp_ca: Option<PathBuf>,
    /// The service's name in the traces.
    pub service_name: String,
    /// Of requests that are part of no trace yet, which share is traced: 0 to 1.
    pub sample_ratio: f64,
}

/// How the server ends.
#[derive(Clone, Debug)]
pub struct DrainConfig {
    /// How long the server says that it isn't ready, and serves all the same, before it closes its ports.
    pub delay: Duration,
    /// How long running requests may take to finish after that.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            models: PathBuf::new(),
            http: "127.0.0.1:8080".into(),
            grpc: "127.0.0.1:50051".into(),
            execution_provider: ProviderChoice::default(),
            cuda: CudaOptions::default(),
            threads: None,
            limits: Limits::default(),
            fitting: FittingOptions::default(),
            scheduling: Scheduling::default(),
            repository: RepositoryOptions::default(),
            tls: TlsConfig::default(),
            security: SecurityConfig::default(),
            log: LogConfig::default(),
            tracing: TracingConfig::default(),
            drain: DrainConfig::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            // The HTTP server's own messages repeat ours.
            filter: "info,actix_server=warn".into(),
        }
    }
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_ca: None,
            service_name: "ventral".into(),
            sample_ratio: 1.0,
        }
    }
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// What is wrong with values that are each right by themselves; all of it at once.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.models.as_os_str().is_empty() {
            found.push(
                "`models` is not set: the model repository, the folder that `exporter export --repository` writes to"
                    .into(),
            );
        }
        if self
            .repository
            .poll_interval
            .is_some_and(|interval| interval.is_zero())
        {
            found.push("`repository.poll_interval` is 0s: expected a time above 0".into());
        }
        if self.limits.time.is_zero() {
            found.push("`limits.time` is 0s: expected a time above 0".into());
        }
        let memory = self.limits.memory_bytes;
        for (key, bytes) in [
            ("limits.tensor_bytes", self.limits.tensor_bytes),
            ("limits.stream_bytes", self.limits.stream_bytes),
        ] {
            if bytes > memory {
                found.push(format!(
                    "`{key}` is {bytes} bytes, more than `limits.memory_bytes` for all requests together ({memory} bytes)"
                ));
            }
        }
        match (&self.tls.certificate, &self.tls.key) {
            (Some(_), None) => found.push("`tls.certificate` needs `tls.key`".into()),
            (None, Some(_)) => found.push("`tls.key` needs `tls.certificate`".into()),
            (None, None) if self.tls.client_ca.is_some() => {
                found.push("`tls.client_ca` needs `tls.certificate` and `tls.key`".into());
            }
            _ => {}
        }
        if self.security.tokens.is_none() && self.security.requests_per_second.is_some() {
            found.push("`security.requests_per_second` is for tokens: it needs `security.tokens`".into());
        }
        found
    }

    /// Whether both ports can be reached from this machine alone. A name other than `localhost` may be any machine's.
    pub fn is_local(&self) -> bool {
        [&self.http, &self.grpc]
            .iter()
            .all(|address| is_loopback(address))
    }
}

fn is_loopback(address: &str) -> bool {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_found_all_at_once() {
        let mut config = Config::default();
        config.tls.key = Some("key.pem".into());
        config.security.requests_per_second = Some(1.0);
        config.limits.memory_bytes = config.limits.tensor_bytes - 1;
        let found = config.contradictions();
        assert_eq!(found.len(), 4, "{found:?}");
        config.limits.memory_bytes += 1;
        config.models = "models".into();
        config.tls.certificate = Some("certificate.pem".into());
        config.security.tokens = Some("tokens.toml".into());
        assert!(config.contradictions().is_empty());
    }

    #[test]
    fn only_loopback_addresses_are_local() {
        let mut config = Config::default();
        for (address, local) in [
            ("127.0.0.1:0", true),
            ("127.8.0.1:80", true),
            ("[::1]:80", true),
            ("localhost:80", true),
            ("0.0.0.0:80", false),
            ("[::]:80", false),
            ("models.example:80", false),
        ] {
            config.grpc = address.into();
            assert_eq!(config.is_local(), local, "{address}");
        }
    }
}
