//! The Open Inference Protocol over REST: the addresses under `/v2`. Errors are `{"error": "…"}`.

mod body;
mod error;
mod infer;
mod models;
mod parameters;
mod repository;
mod request;
mod response;

use std::sync::Arc;

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::error::ServerError;
use crate::front::Front;
use crate::front::call::Call;
use crate::oip::metadata::{EXTENSIONS, SERVER_NAME, SERVER_VERSION};
use error::ProtocolError;

/// The protocol's addresses.
pub(super) fn routes(application: &mut web::ServiceConfig) {
    let scope = web::scope("/v2")
        .route("", web::get().to(server))
        .route("/", web::get().to(server))
        .route("/health/live", web::get().to(live))
        .route("/health/ready", web::get().to(ready))
        .route("/repository/index", web::post().to(repository::index))
        .route(
            "/repository/models/{model}/load",
            web::post().to(repository::load),
        )
        .route(
            "/repository/models/{model}/unload",
            web::post().to(repository::unload),
        )
        .route("/models/stats", web::get().to(models::all_statistics));
    let models = ["/models/{model}", "/models/{model}/versions/{version}"];
    let scope = models.into_iter().fold(scope, |scope, model| {
        scope
            .route(model, web::get().to(models::metadata))
            .route(&format!("{model}/ready"), web::get().to(models::ready))
            .route(&format!("{model}/config"), web::get().to(models::config))
            .route(&format!("{model}/stats"), web::get().to(models::statistics))
            .route(&format!("{model}/infer"), web::post().to(infer::infer))
    });
    application.service(scope.default_service(web::to(unrouted)));
}

/// Whether an address is the protocol's.
pub(super) fn owns(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// An error in the protocol's form.
pub(super) fn error(error: ServerError) -> actix_web::Error {
    ProtocolError::from(error).into()
}

/// The model that an address names, and its version: empty where it names none.
struct Named {
    model: String,
    version: String,
}

impl Named {
    /// Whoever asks may use the model: handlers learn its name here alone.
    fn of(request: &HttpRequest) -> Result<Self, ServerError> {
        let part = |name| request.match_info().query(name).to_owned();
        let named = Self {
            model: part("model"),
            version: part("version"),
        };
        let extensions = request.extensions();
        let call = extensions.get::<Arc<Call>>().ok_or(ServerError::NotAdmitted)?;
        call.use_model(&named.model)?;
        Ok(named)
    }
}

async fn server() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "name": SERVER_NAME,
        "version": SERVER_VERSION,
        "extensions": EXTENSIONS,
    }))
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({"live": true}))
}

async fn ready(front: web::Data<Front>) -> Result<HttpResponse, ProtocolError> {
    front.readiness.check()?;
    Ok(HttpResponse::Ok().json(json!({"ready": true})))
}

async fn unrouted(request: HttpRequest) -> ProtocolError {
    super::unrouted(request).await.into()
}
