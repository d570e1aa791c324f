//! HTTP: activations, classification, projections, the list of models, health, figures, and the description of it all, one
//! file a route; and the Open Inference Protocol. Errors are JSON.

mod activations;
mod answer;
mod body;
mod bounds;
mod classify;
mod description;
mod error;
mod front;
mod health;
mod metrics;
mod models;
mod npy;
mod oip;
mod projections;
mod unread;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::introspection::{IntrospectionNode, IntrospectionTree};
use actix_web::middleware::from_fn;
use actix_web::web::{self, QueryConfig};
use actix_web::{App, HttpRequest, HttpServer, Scope};
use serde::Deserialize;

use crate::error::ServerError;
use crate::front::Front;
use crate::security::tls::Tls;
use crate::state::State;

/// Serves until `stop` ends, then lets running requests finish, for `grace` at most.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    front: Arc<Front>,
    tls: Option<&Tls>,
    grace: Duration,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let state = web::Data::from(state);
    let front = web::Data::from(front);
    let application = move || {
        App::new()
            .app_data(web::Data::clone(&state))
            .app_data(web::Data::clone(&front))
            .wrap(from_fn(bounds::bound))
            // The last one is the outermost.
            .wrap(from_fn(front::observe))
            .configure(routes)
    };
    let server = HttpServer::new(application)
        .disable_signals()
        // A client that closes its side has gone: what it waited for need not be computed.
        .h1_allow_half_closed(false)
        // Whole seconds: what is left of one is given too.
        .shutdown_timeout(grace.as_secs().saturating_add(1));
    let server = match tls {
        None => server.listen(listener)?,
        Some(tls) => server.listen_rustls_0_23(listener, tls.http())?,
    };
    let server = server.run();
    let handle = server.handle();
    let stopper = async {
        stop.await;
        handle.stop(true).await;
    };
    let (result, ()) = tokio::join!(server, stopper);
    result
}

/// The line that is printed once the port answers.
pub fn listening_line(scheme: &str, address: SocketAddr) -> String {
    format!("http listening on {scheme}://{address}")
}

/// What an address says about a model.
#[derive(Debug, Deserialize)]
struct ModelPath {
    model: String,
    /// Empty where the address has none.
    #[serde(default)]
    version: String,
    /// Of a projection; empty where the address has none.
    #[serde(default)]
    name: String,
}

impl ModelPath {
    /// The path's version, else that of the address's query.
    fn version<'a>(&'a self, query: &'a str) -> &'a str {
        if self.version.is_empty() {
            query
        } else {
            &self.version
        }
    }
}

fn routes(application: &mut web::ServiceConfig) {
    let query = QueryConfig::default().error_handler(|error, _| {
        let message = format!("the address's query can't be used: {error}");
        ServerError::InvalidArgument(message).into()
    });
    application
        .app_data(query)
        .route("/healthz", web::get().to(health::alive))
        .route("/readyz", web::get().to(health::ready))
        .route("/metrics", web::get().to(metrics::metrics))
        .route("/openapi.json", web::get().to(description::document))
        .route("/docs", web::get().to(description::page))
        .route("/v1/models", web::get().to(models::list))
        .service(model_routes("/v1/models/{model}"))
        .configure(oip::routes)
        .default_service(web::to(unrouted));
}

/// What can be done with a model.
fn model_routes(path: &str) -> Scope {
    let version = |scope: Scope| {
        scope
            .route("/classify", web::post().to(classify::classify))
            .route("/activations", web::post().to(activations::activations))
            .route("/projections", web::get().to(projections::list))
            .route("/projections/{name}", web::put().to(projections::put))
            .route("/projections/{name}", web::delete().to(projections::delete))
    };
    version(web::scope(path)).service(version(web::scope("/versions/{version}")))
}

/// An error in the form of the protocol that the path belongs to.
fn error(path: &str, error: ServerError) -> actix_web::Error {
    if oip::owns(path) {
        oip::error(error)
    } else {
        error.into()
    }
}

/// What no route takes: an address that doesn't exist, or one that has other methods.
async fn unrouted(request: HttpRequest) -> ServerError {
    let (method, path) = (request.method().to_string(), request.path().into());
    let routes = request.app_data::<web::Data<IntrospectionTree>>();
    let allowed = request
        .match_pattern()
        .zip(routes)
        .map(|(pattern, routes)| methods(&routes.root, &pattern))
        .unwrap_or_default();
    if allowed.is_empty() {
        ServerError::RouteNotFound { method, path }
    } else {
        ServerError::MethodNotAllowed {
            method,
            path,
            allowed,
        }
    }
}

/// The methods of the routes of a pattern.
fn methods(node: &IntrospectionNode, pattern: &str) -> Vec<String> {
    let own = node.methods.iter().filter(|_| node.full_path == pattern);
    let below = node.children.iter().flat_map(|child| methods(child, pattern));
    own.map(ToString::to_string).chain(below).collect()
}
