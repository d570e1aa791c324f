//! Binds the ports, loads the models, serves both protocols, and stops them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use socket2::SockRef;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

use crate::config::{Config, DrainConfig};
use crate::fitting::{FitError, Fitter};
use crate::front::Front;
use crate::front::readiness::Phase;
use crate::grpc::GrpcError;
use crate::inference::Inference;
use crate::onnx_runtime::{OnnxRuntime, OnnxRuntimeError};
use crate::provider::ProviderRequest;
use crate::repository::{RepositoryError, RepositoryOptions};
use crate::security::tls::Tls;
use crate::security::{Security, SecurityError};
use crate::state::State;
use crate::telemetry::metrics::metrics;
use crate::{grpc, http};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// A server whose ports are bound.
pub struct Server {
    models: PathBuf,
    repository: RepositoryOptions,
    http: TcpListener,
    grpc: tokio::net::TcpListener,
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    tls: Option<Tls>,
    front: Arc<Front>,
    drain: DrainConfig,
    state: Arc<State>,
}

/// Why the server can't start, or ended.
#[derive(Debug, Error)]
pub enum StartError {
    /// A port that can't be had.
    #[error("can't listen on {address}; `{flag} HOST:PORT` chooses another address, port 0 takes a free one")]
    Bind {
        /// What was asked for.
        address: String,
        /// The option that changes it.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Certificates or tokens can't be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// ONNX Runtime can't be used.
    #[error(transparent)]
    OnnxRuntime(#[from] OnnxRuntimeError),
    /// The folder for fits can't be used.
    #[error(transparent)]
    Fitting(#[from] FitError),
    /// There is nothing to serve.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The HTTP server failed.
    #[error("the HTTP server ended")]
    Http(#[source] io::Error),
    /// The gRPC server failed.
    #[error("the gRPC server ended")]
    Grpc(#[from] GrpcError),
    /// A server's task panicked.
    #[error("a server ended")]
    Task(#[from] JoinError),
}

impl Server {
    /// Reads what the configuration names, binds both ports and starts ONNX Runtime; nothing is answered before
    /// [`Self::run`]. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] where a file can't be used, a port is taken or ONNX Runtime can't be used.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let security = Security::load(&config)?;
        security.warn(&config);
        let provider = ProviderRequest {
            choice: config.execution_provider,
            cuda: config.cuda,
        };
        let (http, http_address) = listen(config.http, "--http")?;
        let grpc_name = config.grpc.clone();
        let (grpc, grpc_address) = listen(config.grpc, "--grpc")?;
        let grpc = tokio::net::TcpListener::from_std(grpc).map_err(|source| StartError::Bind {
            address: grpc_name,
            flag: "--grpc",
            source,
        })?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Left to itself, ONNX Runtime would start as many threads as the machine has cores, however few of them a container
        // may use. Two threads of one core only get in each other's way.
        let computing = config.threads.unwrap_or(cores.min(num_cpus::get_physical()));
        let onnx_runtime = OnnxRuntime::start(Some(computing), provider)?;
        let chosen = onnx_runtime.provider();
        metrics().set_provider(chosen.name(), chosen.reason());
        let parallelism = config.threads.unwrap_or(cores);
        let fitter = Fitter::new(config.fitting, parallelism)?;
        let inference = Inference::new(
            onnx_runtime,
            Handle::current(),
            parallelism,
            config.limits,
            config.scheduling,
        );
        Ok(Self {
            models: config.models,
            repository: config.repository,
            http,
            grpc,
            http_address,
            grpc_address,
            tls: security.tls,
            front: Arc::new(Front::new(security.access)),
            drain: config.drain,
            state: Arc::new(State::new(inference, config.limits).with_fitter(fitter)),
        })
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// The scheme of both addresses' URLs: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What both protocols share: what waits, and who is in.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Serves until `stop` ends, then drains: the server says that it isn't ready, closes its ports after a delay, and
    /// lets running requests finish. `ready` is called once the models are loaded; until then requests are answered that
    /// the server isn't ready.
    ///
    /// # Errors
    /// [`StartError`] where there is nothing to serve, or a server ends by itself.
    pub async fn run(self, ready: impl FnOnce(), stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut servers = Servers::spawn(
            self.http,
            self.grpc,
            &self.state,
            &self.front,
            self.tls,
            &self.drain,
        );
        let readiness = &self.front.readiness;
        let mut stop = std::pin::pin!(stop);
        let loaded = tokio::select! {
            loaded = self.state.load(&self.models, self.repository) => Some(loaded),
            () = &mut stop => None,
        };
        match loaded {
            Some(Ok(_watch)) => {
                readiness.enter(Phase::Serving);
                ready();
                tokio::select! {
                    result = servers.ended() => return result,
                    () = &mut stop => {}
                }
            }
            Some(Err(error)) => {
                // What the servers log when they end comes before the error, which is the program's last word.
                readiness.enter(Phase::Closed);
                let _ = tokio::time::timeout(self.drain.timeout, servers.join()).await;
                return Err(error.into());
            }
            None => {}
        }
        tracing::info!("stopping: running requests may finish");
        readiness.enter(Phase::Draining);
        tokio::time::sleep(self.drain.delay).await;
        readiness.enter(Phase::Closed);
        match tokio::time::timeout(self.drain.timeout, servers.join()).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!("requests that were still running were cut off");
                Ok(())
            }
        }
    }
}

/// The tasks of both protocols.
struct Servers {
    http: JoinHandle<io::Result<()>>,
    grpc: JoinHandle<Result<(), GrpcError>>,
}

impl Servers {
    /// Serves both until the phase says that the ports are closed.
    fn spawn(
        http: TcpListener,
        grpc: tokio::net::TcpListener,
        state: &Arc<State>,
        front: &Arc<Front>,
        tls: Option<Tls>,
        drain: &DrainConfig,
    ) -> Self {
        let closed = |front: Arc<Front>| async move {
            front.readiness.wait(|phase| *phase == Phase::Closed).await;
        };
        let (state_too, front_too, tls_too, grace) =
            (Arc::clone(state), Arc::clone(front), tls.clone(), drain.timeout);
        let http = async move {
            let stop = closed(Arc::clone(&front_too));
            http::serve(http, state_too, front_too, tls_too.as_ref(), grace, stop).await
        };
        let (state, front) = (Arc::clone(state), Arc::clone(front));
        let grpc = async move {
            let stop = closed(Arc::clone(&front));
            grpc::serve(grpc, state, front, tls.as_ref(), stop).await
        };
        Self {
            http: tokio::spawn(http),
            grpc: tokio::spawn(grpc),
        }
    }

    /// Waits for either to end.
    async fn ended(&mut self) -> Result<(), StartError> {
        tokio::select! {
            result = &mut self.http => result?.map_err(StartError::Http),
            result = &mut self.grpc => Ok(result??),
        }
    }

    /// Waits for both to end.
    async fn join(self) -> Result<(), StartError> {
        let (http, grpc) = tokio::join!(self.http, self.grpc);
        http?.map_err(StartError::Http)?;
        Ok(grpc??)
    }
}

fn listen(address: String, flag: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let bind = || {
        let listener = TcpListener::bind(&address)?;
        // The standard library's 128 are soon full when many clients come at once, who then wait for a second.
        SockRef::from(&listener).listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|source| StartError::Bind {
        address,
        flag,
        source,
    })
}
