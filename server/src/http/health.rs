//! `/healthz`: the process is alive. `/readyz`: it wants requests.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::error::ServerError;
use crate::front::Front;

/// Always 200.
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

/// 200 once the models are loaded and until the server is asked to stop, 503 before and after.
pub(super) async fn ready(front: web::Data<Front>) -> Result<HttpResponse, ServerError> {
    front.readiness.check()?;
    Ok(HttpResponse::Ok().json(json!({"status": "ready"})))
}
