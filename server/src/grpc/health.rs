//! grpc.health.v1: serving while the server wants requests, not before the models are loaded, not while it drains.

use proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use proto::ventral::v1::ventral_server::VentralServer;
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{Service, oip};
use crate::front::readiness::Phase;

/// What can be asked about: the server as a whole, and each service.
const SERVICES: [&str; 3] = [
    "",
    <VentralServer<Service> as NamedService>::NAME,
    <GrpcInferenceServiceServer<oip::Service> as NamedService>::NAME,
];

/// Tells `reporter` a phase in which the ports are open.
pub(super) async fn tell(reporter: &HealthReporter, phase: Phase) {
    let status = match phase {
        Phase::Serving => ServingStatus::Serving,
        Phase::Loading | Phase::Draining | Phase::Closed => ServingStatus::NotServing,
    };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}

/// Tells `reporter` every phase until the ports are closed. Then those who watch are sent away: they would keep their
/// connections open, and the server from ending.
pub(super) async fn report(mut phases: watch::Receiver<Phase>, mut reporter: HealthReporter) {
    while phases.changed().await.is_ok() {
        let phase = *phases.borrow_and_update();
        tell(&reporter, phase).await;
        if phase == Phase::Closed {
            for service in SERVICES {
                reporter.clear_service_status(service).await;
            }
            return;
        }
    }
}
