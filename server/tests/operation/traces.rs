//! Spans that are sent to a collector.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use proto::ventral::v1::ListModelsRequest;
use proto::ventral::v1::ventral_client::VentralClient;
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::support::program::{command, failure};
use crate::{classify, repository, start};

/// A collector that passes on what it is sent.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector on a free port, `host:port` of which comes back with what it is sent.
fn collector(
    mut server: tonic::transport::Server,
) -> (SocketAddr, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let (sender, received) = mpsc::unbounded_channel();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let collector = server.add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(collector.serve_with_incoming(incoming));
    (address, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_a_collector_whose_certificate_is_trusted() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = certified.cert.pem();
    let identity = Identity::from_pem(&certificate, certified.signing_key.serialize_pem());
    let tls = ServerTlsConfig::new().identity(identity);
    let (address, mut received) = collector(tonic::transport::Server::builder().tls_config(tls).unwrap());
    let repository = repository();
    let authority = repository.path().join("authority.pem");
    std::fs::write(&authority, certificate).unwrap();
    let endpoint = format!("https://localhost:{}", address.port());
    let mut trusting = command(repository.path());
    trusting.args(["--tracing-otlp-endpoint", &endpoint, "--tracing-otlp-ca"]);
    let (program, http, _) = start(trusting.arg(authority));
    assert_eq!(classify(&http, &[]).status(), 200);
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
    assert!(!received.try_recv().unwrap().resource_spans.is_empty());

    let mut careless = command(repository.path());
    let error = failure(careless.args(["--tracing-otlp-endpoint", &endpoint]));
    assert!(error.contains("`tracing.otlp_ca`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_a_collector_as_part_of_the_caller_s_trace() {
    let (address, mut received) = collector(tonic::transport::Server::builder());
    let endpoint = format!("http://{address}");
    let repository = repository();
    let mut command = command(repository.path());
    command.args([
        "--tracing-otlp-endpoint",
        &endpoint,
        "--log-format",
        "json",
        "--log-filter",
        "info,server=debug",
    ]);
    let (mut program, http, grpc) = start(&mut command);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [("traceparent", parent.as_str()), ("x-request-id", "traced")];
    assert_eq!(classify(&http, &headers).status(), 200);
    let mut request = Request::new(ListModelsRequest {});
    request
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    VentralClient::connect(grpc)
        .await
        .unwrap()
        .list_models(request)
        .await
        .unwrap();

    // The log names the trace too.
    let line = program.wait_for_log("\"id\":\"traced\"");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["span"]["trace"], trace, "{line}");
    assert_eq!(line["span"]["model"], "hand", "{line}");
    assert_eq!(line["level"], "DEBUG", "{line}");
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
    let mut names = Vec::new();
    while let Ok(request) = received.try_recv() {
        for resource in request.resource_spans {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            assert!(attributes.iter().any(|attribute| attribute.key == "service.name"));
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let hexadecimal: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
                if hexadecimal == trace {
                    assert_eq!(span.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
                    names.push(span.name);
                }
            }
        }
    }
    names.sort();
    assert_eq!(
        names,
        [
            "/ventral.v1.Ventral/ListModels",
            "POST /v1/models/{model}/classify"
        ]
    );
}

#[test]
fn a_collector_that_is_not_there_harms_no_one() {
    let repository = repository();
    // Port 9 of this machine: no one listens.
    let mut command = command(repository.path());
    let (program, http, _) = start(command.args(["--tracing-otlp-endpoint", "http://127.0.0.1:9"]));
    assert_eq!(classify(&http, &[]).status(), 200);
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}
