//! TLS and mutual TLS, tokens, scopes, admin calls and rates, on both ports.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::inference::ModelInferRequest;
use proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{GetModelRequest, ListModelsRequest};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use server::config::{Config, TlsConfig};
use server::security::new_token::NewToken;
use server::{Limits, Scheduling};
use support::bundle::Bundle;
use support::raw_grpc::{self, Descriptions};
use support::running::{Running, config};
use support::{http_client, png};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request};

/// A key with its certificate, both PEM.
struct Signed {
    certificate: String,
    key: String,
}

/// An authority that signs certificates.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { certificate, issuer }
    }

    fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed {
            certificate,
            key: key.serialize_pem(),
        }
    }
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// A server with encrypted ports; `clients` signs clients' certificates.
async fn encrypted(folder: &Path, authority: &Authority, clients: Option<&Authority>) -> Running {
    Running::start_config(encrypted_config(folder, authority, clients)).await
}

fn encrypted_config(folder: &Path, authority: &Authority, clients: Option<&Authority>) -> Config {
    let signed = authority.sign("localhost");
    let models = folder.join("models");
    Bundle::new().write(&models, "hand", 1);
    let mut config = config(&models, Limits::default());
    config.tls = TlsConfig {
        certificate: Some(written(folder, "server.pem", &signed.certificate)),
        key: Some(written(folder, "server.key", &signed.key)),
        client_ca: clients.map(|clients| written(folder, "clients.pem", &clients.certificate)),
    };
    config
}

/// A connection to the HTTP port over TLS, or why there is none. `protocols` are those that the client offers.
async fn connect(
    running: &Running,
    authority: &Authority,
    client: Option<&Signed>,
    protocols: &[&str],
) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap())
        .unwrap();
    let builder =
        ClientConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(signed) => {
            let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    let address = running.url("").trim_start_matches("https://").to_owned();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let connected = connector.connect(name, stream).await;
    connected.map_err(|error| error.to_string())
}

/// The status line of `GET /v1/models` over TLS, or why there is none.
async fn https(running: &Running, authority: &Authority, client: Option<&Signed>) -> Result<String, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = connect(running, authority, client, &[]).await?;
    let request = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(failed)?;
    let mut answer = Vec::new();
    // A server that refuses the client's certificate says so only now.
    stream.read_to_end(&mut answer).await.map_err(failed)?;
    let answer = String::from_utf8(answer).unwrap();
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// The models that gRPC over TLS lists.
async fn grpcs(running: &Running, authority: &Authority, client: Option<&Signed>) -> Result<usize, String> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&authority.certificate))
        .domain_name("localhost");
    if let Some(signed) = client {
        tls = tls.identity(Identity::from_pem(&signed.certificate, &signed.key));
    }
    let channel = Channel::from_shared(running.grpc_url()).unwrap();
    let channel = channel.tls_config(tls).unwrap().connect().await;
    let mut client = VentralClient::new(channel.map_err(|error| error.to_string())?);
    let models = client.list_models(ListModelsRequest {}).await;
    models
        .map(|response| response.into_inner().models.len())
        .map_err(|status| status.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_are_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let running = encrypted(folder.path(), &authority, None).await;
    assert_eq!(
        https(&running, &authority, None).await.unwrap(),
        "HTTP/1.1 200 OK"
    );
    assert_eq!(grpcs(&running, &authority, None).await.unwrap(), 1);
    let stranger = Authority::new();
    https(&running, &stranger, None).await.unwrap_err();
    grpcs(&running, &stranger, None).await.unwrap_err();
    // Without encryption there is no answer.
    let plain = running.url("/healthz").replace("https://", "http://");
    assert!(http_client().get(plain).call().is_err());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_over_tls_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let running = Running::start_config(Config {
        scheduling: Scheduling {
            // Nothing is computed before it is full.
            maximum_delay: Duration::from_secs(3600),
            ..Scheduling::default()
        },
        ..encrypted_config(folder.path(), &authority, None)
    })
    .await;
    // HTTP/2 is not spoken on this port: there a request would be computed whose client has gone.
    let mut stream = connect(&running, &authority, None, &["h2", "http/1.1"])
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let image = png(4, 4, &[9; 16]);
    let head = format!(
        "POST /v1/models/hand/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n\
         Content-Length: {}\r\n\r\n",
        image.len()
    );
    stream
        .write_all(&[head.as_bytes(), &image].concat())
        .await
        .unwrap();
    running.wait_for_waiting(1).await;
    drop(stream);
    running.wait_for_waiting(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_ask_clients_for_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, clients) = (Authority::new(), Authority::new());
    let running = encrypted(folder.path(), &authority, Some(&clients)).await;
    let client = clients.sign("lab");
    assert_eq!(
        https(&running, &authority, Some(&client)).await.unwrap(),
        "HTTP/1.1 200 OK"
    );
    assert_eq!(grpcs(&running, &authority, Some(&client)).await.unwrap(), 1);
    let stranger = Authority::new().sign("lab");
    for client in [None, Some(&stranger)] {
        https(&running, &authority, client).await.unwrap_err();
        grpcs(&running, &authority, client).await.unwrap_err();
    }
    running.stop().await;
}

/// A server with three tokens: for the model `hand`, for everything, and for one request in a long time.
struct Guarded {
    running: Running,
    hand: String,
    admin: String,
    slow: String,
    _folder: tempfile::TempDir,
}

impl Guarded {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let models = folder.path().join("models");
        for model in ["hand", "other"] {
            Bundle::new().write(&models, model, 1);
        }
        let mut lines = String::new();
        let mut make = |name: &str, models: Option<&str>, admin, rate| {
            let models = models.map(|model| vec![model.to_owned()]);
            let new = NewToken::make(name, models, admin, rate).unwrap().to_string();
            let shown: Vec<_> = new.lines().filter(|line| !line.starts_with('#')).collect();
            lines.push_str(shown[1]);
            lines.push('\n');
            shown[0].to_owned()
        };
        let hand = make("hand", Some("hand"), false, None);
        let admin = make("admin", None, true, None);
        let slow = make("slow", None, false, Some(1e-6));
        let mut config = config(&models, Limits::default());
        config.security.tokens = Some(written(folder.path(), "tokens.toml", &lines));
        Self {
            running: Running::start_config(config).await,
            hand,
            admin,
            slow,
            _folder: folder,
        }
    }

    /// Status, headers and JSON of an answer.
    fn http(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &[u8],
    ) -> (u16, http::HeaderMap, Value) {
        let mut request = http::Request::builder()
            .method(method)
            .uri(self.running.url(path));
        request = request.header("Content-Type", "image/png");
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = http_client().run(request.body(body).unwrap()).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        (response.status().as_u16(), response.headers().clone(), json)
    }
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_their_models_and_nothing_else() {
    let guarded = Guarded::start().await;
    let image = png(4, 4, &[9; 16]);
    let classify = |model: &str, token: Option<&str>| {
        let (status, headers, body) =
            guarded.http("POST", &format!("/v1/models/{model}/classify"), token, &image);
        (status, headers, body["error"]["code"].clone())
    };
    let (hand, admin) = (Some(guarded.hand.as_str()), Some(guarded.admin.as_str()));
    assert_eq!(classify("hand", hand).0, 200);
    assert_eq!(classify("other", admin).0, 200);
    let (status, _, code) = classify("other", hand);
    assert_eq!((status, code), (403, json!("PERMISSION_DENIED")));
    // Whether a model exists is no business of someone who may not use it.
    assert_eq!(classify("nothing", hand).0, 403);
    assert_eq!(classify("%6fther", hand).0, 403);
    for token in [None, Some("ventral_0")] {
        let (status, headers, code) = classify("hand", token);
        assert_eq!((status, code), (401, json!("UNAUTHENTICATED")));
        assert_eq!(headers["www-authenticate"], "Bearer");
        assert!(headers.contains_key("x-request-id"));
    }
    let (_, _, models) = guarded.http("GET", "/v1/models", hand, b"");
    let models = models["models"].as_array().unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0]["name"], "hand");
    assert_eq!(models[0]["versions"], json!(["1"]));

    let mut client = guarded.running.client().await;
    let names = |response: tonic::Response<proto::ventral::v1::ListModelsResponse>| {
        let models = response.into_inner().models.into_iter();
        models.map(|model| model.name).collect::<Vec<_>>()
    };
    let listed = client
        .list_models(with_token(ListModelsRequest {}, hand))
        .await
        .unwrap();
    assert_eq!(names(listed), ["hand"]);
    let listed = client
        .list_models(with_token(ListModelsRequest {}, admin))
        .await
        .unwrap();
    assert_eq!(names(listed), ["hand", "other"]);
    let get = |model: &str| GetModelRequest {
        model: model.into(),
        version: String::new(),
    };
    client.get_model(with_token(get("hand"), hand)).await.unwrap();
    for (model, token, code) in [
        ("other", hand, Code::PermissionDenied),
        ("nothing", hand, Code::PermissionDenied),
        ("nothing", admin, Code::NotFound),
        ("hand", None, Code::Unauthenticated),
        ("hand", Some("ventral_0"), Code::Unauthenticated),
    ] {
        let status = client.get_model(with_token(get(model), token)).await.unwrap_err();
        assert_eq!(status.code(), code, "{model}: {status}");
    }
    guarded.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_method_that_names_a_model_forgets_the_scope() {
    let guarded = Guarded::start().await;
    let mut checked = Vec::new();
    let descriptions = Descriptions::read();
    for method in descriptions.methods() {
        let Some(message) = descriptions.naming(&method, "other") else {
            continue;
        };
        let request = |token: &str| with_token(message.clone(), Some(token));
        let status = raw_grpc::call(guarded.running.grpc_url(), &method.path, request(&guarded.hand)).await;
        assert_eq!(
            status.unwrap_err().code(),
            Code::PermissionDenied,
            "{}",
            method.path
        );
        checked.push(method.path);
    }
    assert!(
        checked.iter().any(|path| path.ends_with("/GetActivations")),
        "{checked:?}"
    );

    let (_, _, document) = guarded.http("GET", "/openapi.json", None, b"");
    let mut checked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if !path.contains("{model}") {
            continue;
        }
        let path = path.replace("{model}", "other").replace(['{', '}'], "");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let (status, _, body) = guarded.http(&method, &path, Some(&guarded.hand), b"");
            assert_eq!(status, 403, "{method} {path}: {body}");
            checked += 1;
        }
    }
    assert!(checked > 0);
    guarded.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_calls_need_an_admins_token() {
    let guarded = Guarded::start().await;
    let load = "/v2/repository/models/hand/load";
    assert_eq!(guarded.http("POST", load, None, b"").0, 401);
    for (method, path) in [
        ("POST", load),
        ("POST", "/v2/repository/models/hand/%6coad"),
        ("PUT", "/v1/models/hand/projections/pca"),
        ("DELETE", "/v1/models/hand/projections/pca"),
    ] {
        let (status, _, body) = guarded.http(method, path, Some(&guarded.hand), b"");
        assert_eq!(status, 403, "{method} {path}: {body}");
        // The Open Inference Protocol writes errors in another way.
        let message = body["error"]
            .as_str()
            .or_else(|| body["error"]["message"].as_str());
        assert!(message.unwrap().contains("not an admin"), "{body}");
        assert_ne!(guarded.http(method, path, Some(&guarded.admin), b"").0, 403);
    }
    guarded.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_descriptions_need_no_token_and_figures_do() {
    let guarded = Guarded::start().await;
    for path in [
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/v2/health/live",
        "/v2/health/ready",
    ] {
        assert_eq!(guarded.http("GET", path, None, b"").0, 200, "{path}");
    }
    assert_eq!(guarded.http("GET", "/metrics", None, b"").0, 401);
    // They name all models.
    assert_eq!(guarded.http("GET", "/metrics", Some(&guarded.hand), b"").0, 403);
    assert_eq!(guarded.http("GET", "/metrics", Some(&guarded.admin), b"").0, 200);
    assert_eq!(guarded.http("GET", "/nothing", None, b"").0, 401);
    guarded.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_past_its_rate_is_refused_on_both_ports() {
    let guarded = Guarded::start().await;
    let slow = Some(guarded.slow.as_str());
    assert_eq!(guarded.http("GET", "/v1/models", slow, b"").0, 200);
    let (status, headers, body) = guarded.http("GET", "/v1/models", slow, b"");
    assert_eq!(
        (status, &body["error"]["code"]),
        (429, &json!("RESOURCE_EXHAUSTED"))
    );
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 1000);
    let mut client = guarded.running.client().await;
    let status = client
        .list_models(with_token(ListModelsRequest {}, slow))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.metadata().contains_key("retry-after"));
    let hand = Some(guarded.hand.as_str());
    assert_eq!(
        guarded.http("GET", "/v1/models", hand, b"").0,
        200,
        "others are not concerned"
    );
    guarded.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_a_stream_counts() {
    let guarded = Guarded::start().await;
    let url = guarded.running.grpc_url();
    let mut client = GrpcInferenceServiceClient::connect(url).await.unwrap();
    let request = ModelInferRequest {
        model_name: "hand".into(),
        ..Default::default()
    };
    let requests = futures_util::stream::iter([request.clone(), request]);
    let answers = client.model_stream_infer(with_token(requests, Some(&guarded.slow)));
    let mut answers = answers.await.unwrap().into_inner();
    for problem in ["input", "more requests than it may"] {
        let message = answers.message().await.unwrap().unwrap().error_message;
        assert!(message.contains(problem), "{message}");
    }
    guarded.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_strangers_reach_refuse_admin_calls_without_tokens() {
    let folder = tempfile::tempdir().unwrap();
    Bundle::new().write(folder.path(), "hand", 1);
    let status = |running: &Running| {
        let url = running
            .url("/v2/repository/models/hand/load")
            .replace("0.0.0.0", "127.0.0.1");
        http_client().post(url).send(&b""[..]).unwrap().status().as_u16()
    };
    let local = Running::start(folder.path()).await;
    assert_ne!(status(&local), 403);
    local.stop().await;
    let open = Config {
        http: "0.0.0.0:0".into(),
        ..config(folder.path(), Limits::default())
    };
    let open = Running::start_config(open).await;
    assert_eq!(status(&open), 403);
    open.stop().await;
}
