//! A server in this process, on free ports.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use proto::ventral::v1::ventral_client::VentralClient;
use server::state::State;
use server::{Config, Limits, ProviderChoice, RepositoryOptions, Server, StartError};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// A server that is ready.
pub struct Running {
    http: String,
    grpc: String,
    state: Weak<State>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), StartError>>,
}

/// What to serve on free ports.
pub fn config(repository: &Path, limits: Limits) -> Config {
    Config {
        models: repository.into(),
        http: "127.0.0.1:0".into(),
        grpc: "127.0.0.1:0".into(),
        execution_provider: ProviderChoice::Cpu,
        threads: Some(2),
        limits,
        ..Config::default()
    }
}

impl Running {
    /// Starts a server and waits until it is ready.
    pub async fn start(repository: &Path) -> Self {
        Self::start_with(repository, Limits::default()).await
    }

    /// The same, with other limits.
    pub async fn start_with(repository: &Path, limits: Limits) -> Self {
        Self::start_config(config(repository, limits)).await
    }

    /// The same, with a repository that is kept in another way.
    pub async fn start_keeping(repository: &Path, options: RepositoryOptions) -> Self {
        let mut config = config(repository, Limits::default());
        config.repository = options;
        Self::start_config(config).await
    }

    /// The same, with another configuration.
    pub async fn start_config(config: Config) -> Self {
        let server = Server::bind(config).unwrap_or_else(|error| {
            panic!("{}", server::error::chain(&error));
        });
        let http = format!("{}://{}", server.scheme(), server.http_address());
        let grpc = format!("{}://{}", server.scheme(), server.grpc_address());
        let state = Arc::downgrade(server.state());
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let task = tokio::spawn(server.run(
            move || {
                let _ = ready.send(());
            },
            async {
                let _ = stopped.await;
            },
        ));
        if is_ready.await.is_err() {
            panic!("the server ended: {:?}", task.await);
        }
        Self {
            http,
            grpc,
            state,
            stop,
            task,
        }
    }

    /// What both protocols share.
    pub fn state(&self) -> Arc<State> {
        self.state.upgrade().unwrap()
    }

    /// Images that wait to be computed.
    pub fn waiting(&self) -> usize {
        let queues = self.state().inference.queues();
        queues
            .iter()
            .map(|queue| queue.depth.interactive + queue.depth.bulk)
            .sum()
    }

    /// Waits until as many images wait as expected; fails after a minute.
    pub async fn wait_for_waiting(&self, expected: usize) {
        for _ in 0..6000 {
            if self.waiting() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} images wait instead of {expected}", self.waiting());
    }

    /// An address of the HTTP port.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.http)
    }

    /// The URL of the gRPC port.
    pub fn grpc_url(&self) -> String {
        self.grpc.clone()
    }

    /// A connected gRPC client that accepts large messages.
    pub async fn client(&self) -> VentralClient<Channel> {
        let client = VentralClient::connect(self.grpc.clone()).await.unwrap();
        client
            .max_decoding_message_size(1 << 30)
            .max_encoding_message_size(1 << 30)
    }

    /// The same, connected by another runtime.
    pub async fn client_on(&self, runtime: &Runtime) -> VentralClient<Channel> {
        let address = self.grpc.clone();
        runtime
            .spawn(VentralClient::connect(address))
            .await
            .unwrap()
            .unwrap()
    }

    /// Stops the server and waits for its end.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}
