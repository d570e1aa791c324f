//! Every option, one line each: the field of [`Config`] (whose path is the key), how its value is written, what it is
//! for. `limits.body_bytes` is the key `body_bytes` of the table `[limits]` in the file, the variable
//! `VENTRAL_LIMITS_BODY_BYTES` and the flag `--limits-body-bytes`. Defaults are those of the structs.

use std::num::NonZeroUsize;

use super::format::{
    Address, Choice, Count, File, Filter, Format, Index, Length, Optional, Rate, Share, Size, Switch, Text,
    Url,
};
use super::{Config, LogFormat};
use crate::provider::ProviderChoice;
use crate::repository::WarmUp;

/// Something that can be set.
#[derive(Clone, Copy)]
pub struct ConfigOption {
    /// Key in the file, its table before a dot.
    pub key: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// The kind of value, for the usage text.
    pub value_name: &'static str,
    /// Reads a value.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// Writes the value; nothing where it isn't set.
    pub get: fn(&Config) -> Option<String>,
}

macro_rules! options {
    ($($first:ident $(. $rest:ident)*: $format:ty = $help:literal;)*) => {
        &[$(ConfigOption {
            key: concat!(stringify!($first) $(, ".", stringify!($rest))*),
            help: $help,
            value_name: <$format as Format>::NAME,
            set: |config, text| {
                config.$first $(.$rest)* = <$format as Format>::parse(text)?;
                Ok(())
            },
            get: |config| <$format as Format>::show(&config.$first $(.$rest)*),
        }),*]
    };
}

/// All options, in the order in which they are shown.
#[rustfmt::skip]
pub const OPTIONS: &[ConfigOption] = options! {
    models: File = "Model repository: the folder that `exporter export --repository` writes to";
    http: Address = "Address of the HTTP port; port 0 takes a free one";
    grpc: Address = "Address of the gRPC port; port 0 takes a free one";
    execution_provider: Choice<ProviderChoice> = "What computes: cpu, cuda (an error where it doesn't work), or auto (cuda where it works)";
    threads: Optional<Count<usize>> = "Threads that compute on the CPU; without it, as many as there are cores";
    cuda.device: Index = "Which GPU computes, counted from 0";
    cuda.memory_limit: Optional<Size> = "Bytes of GPU memory that each session may take, of which every network and depth has its own; without it, any number";
    cuda.tf32: Switch = "Round the factors of products to TF32's 10 bits: faster, less exact";
    cuda.fp16: Switch = "Round weights and factors of products to float16: faster, half the memory, less exact";
    limits.body_bytes: Size = "Bytes of an HTTP request's body";
    limits.message_bytes: Size = "Bytes of a gRPC message, in either direction";
    limits.images: Count<usize> = "Images of one request";
    limits.tensor_bytes: Size = "Bytes of a request's input of the network, and of all its activations";
    limits.concurrent_requests: Count<usize> = "Requests that are worked on at a time, those included whose answers are still being sent";
    limits.queue_length: Count<usize> = "Requests that wait for one network at the same depth, or are computed by it";
    limits.memory_bytes: Size = "Bytes of stimuli, inputs and activations of all requests together";
    limits.time: Length = "How long a request may take; for a stream: each of its messages, and how long its client may send nothing while nothing is in work";
    limits.unread: Length = "How long a client may leave an answer unread before its request is given up";
    limits.stream_bytes: Size = "Bytes of inputs and activations that one stream has in flight";
    limits.projection_bytes: Size = "Bytes of all uploaded projections together";
    limits.image.bytes: Size = "Bytes of one encoded image";
    limits.image.pixels: Count<u64> = "Pixels of one encoded image";
    fitting.memory: Size = "Bytes of memory that a fit of projections takes, besides what its stream of images does";
    fitting.disk: Size<u64> = "Bytes of the disk that a running fit's activations and all fitted projections take together";
    fitting.folder: Optional<File> = "Folder on the disk where a fit's activations and fitted projections are, in files without a name; without it, the system's for temporary files";
    fitting.keep: Switch = "Keep fitted projections beside their model, where its folder can be written; others last until the server ends";
    scheduling.maximum_batch: Count<NonZeroUsize> = "Images that the network computes at a time; larger requests are split, smaller ones share a batch";
    scheduling.maximum_delay: Length = "How long a batch that isn't full waits for company; with 0s, it is what came in while the one before was computed";
    scheduling.maximum_wait: Length = "No request is accepted that would wait longer for its network; of bulk requests, none behind one that has waited longer";
    scheduling.instances: Count<NonZeroUsize> = "Sessions of every network and depth, which compute different batches at the same time";
    scheduling.kept_sessions: Count<NonZeroUsize> = "Networks and depths whose sessions stay loaded; the least recently used ones make room for new ones";
    scheduling.concurrent_runs: Optional<Count<NonZeroUsize>> = "Batches of all networks that are computed at a time; without it, as many as there are threads, but at most 4";
    repository.poll_interval: Optional<Length> = "How often to look for models that have appeared, were replaced or removed; without it, only at start and when a client asks for it";
    repository.memory_limit: Optional<Size<u64>> = "Bytes of weights of all loaded models together: the least recently used ones make room, and are loaded again when asked for; without it, any number";
    repository.warm_up: Choice<WarmUp> = "What is done with a model before it is served: none, forward (a forward pass of zeros), pages (all its weights are read from the disk first)";
    tls.certificate: Optional<File> = "PEM file: the server's certificate, then those that lead to its authority";
    tls.key: Optional<File> = "PEM file: the private key of the certificate";
    tls.client_ca: Optional<File> = "PEM file: authorities; clients must show a certificate of one of them (mutual TLS)";
    security.tokens: Optional<File> = "File of hashed bearer tokens, as `server token new` writes its lines; without it, no token is needed";
    security.requests_per_second: Optional<Rate> = "Requests a second of a token that states no rate of its own";
    security.open_metrics: Switch = "Let /metrics be read without a token";
    log.format: Choice<LogFormat> = "What a line of the log is: text, json";
    log.filter: Filter = "What is logged: directives such as info,server=debug; RUST_LOG says the same";
    tracing.otlp_endpoint: Optional<Url> = "Collector that spans are sent to, OTLP over gRPC: http://127.0.0.1:4317; without it, none are";
    tracing.otlp_ca: Optional<File> = "PEM file: authorities, one of which has signed the collector's certificate; needed with https://";
    tracing.service_name: Text = "The service's name in traces";
    tracing.sample_ratio: Share = "Which share of the requests that are part of no trace yet is traced";
    drain.delay: Length = "After SIGTERM: how long to serve on, not ready, before the ports are closed";
    drain.timeout: Length = "After that: how long running requests may take to finish";
};

/// Every option by its key.
pub fn find(key: &str) -> Option<&'static ConfigOption> {
    OPTIONS.iter().find(|option| option.key == key)
}

/// The option whose name is most like `key`, if any is alike: what was meant, probably.
pub fn nearest(key: &str, name: impl Fn(&ConfigOption) -> String) -> Option<String> {
    let distance = |option: &ConfigOption| {
        let name = name(option);
        (strsim::damerau_levenshtein(&name, key), name)
    };
    let (distance, name) = OPTIONS.iter().map(distance).min()?;
    (distance <= 2.max(key.len() / 3)).then_some(name)
}

impl ConfigOption {
    /// The variable of the environment: `VENTRAL_TLS_KEY`.
    pub fn variable(&self) -> String {
        format!(
            "{VARIABLE_PREFIX}{}",
            self.key.replace('.', "_").to_ascii_uppercase()
        )
    }

    /// The flag without its dashes: `tls-key`.
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// The key's table; empty for those of the top.
    pub fn table(&self) -> &'static str {
        self.key.rsplit_once('.').map_or("", |(table, _)| table)
    }
}

/// What the names of all variables begin with.
pub const VARIABLE_PREFIX: &str = "VENTRAL_";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_in_all_three_sources() {
        let names = |name: fn(&ConfigOption) -> String| OPTIONS.iter().map(name).collect::<HashSet<_>>();
        assert_eq!(names(|option| option.key.into()).len(), OPTIONS.len());
        assert_eq!(names(ConfigOption::variable).len(), OPTIONS.len());
        assert_eq!(names(ConfigOption::flag).len(), OPTIONS.len());
    }

    #[test]
    fn every_default_can_be_read_back() {
        let defaults = Config::default();
        for option in OPTIONS {
            let Some(text) = (option.get)(&defaults) else {
                continue;
            };
            let mut config = Config::default();
            // The repository has no default: its empty path is not a value.
            if option.key != "models" {
                (option.set)(&mut config, &text).unwrap();
            }
            assert_eq!((option.get)(&config), Some(text), "{}", option.key);
        }
    }

    #[test]
    fn a_slip_of_the_keyboard_is_understood() {
        let key = |option: &ConfigOption| option.key.to_owned();
        assert_eq!(nearest("limits.body_byte", key).unwrap(), "limits.body_bytes");
        assert_eq!(nearest("tsl.key", key).unwrap(), "tls.key");
        assert_eq!(nearest("limits.zzzzzzzzzzzzzzzz", key), None);
    }
}
