//! The program itself: what it says when it can't start, and how it ends.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use proto::ventral::v1::ListModelsRequest;
use proto::ventral::v1::ventral_client::VentralClient;
use support::bundle::{Bundle, DATA_FILE};
use support::program::{Program, command, failure, output};
use support::{http_client, png};

#[test]
fn the_ports_are_printed_and_a_signal_ends_the_program_well() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    for signal in ["TERM", "INT"] {
        let mut program = Program::start(&mut command(repository.path()));
        let http = program.address("http listening on ");
        let grpc = program.address("grpc listening on ");
        assert!(http.starts_with("http://127.0.0.1:"), "{http}");
        assert!(grpc.starts_with("http://127.0.0.1:"), "{grpc}");
        let ready = http_client().get(format!("{http}/readyz")).call().unwrap();
        assert_eq!(ready.status(), 200);
        program.signal(signal);
        assert_eq!(program.end(), (Some(0), vec![]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_idle_do_not_keep_the_program_from_ending() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut program = Program::start(&mut command(repository.path()));
    let http = program.address("http listening on ");
    let grpc = program.address("grpc listening on ");
    let mut client = VentralClient::connect(grpc).await.unwrap();
    client.list_models(ListModelsRequest {}).await.unwrap();
    let address = http.trim_start_matches("http://");
    let mut idle = TcpStream::connect(address).unwrap();
    write!(idle, "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    program.signal("TERM");
    assert_eq!(program.end(), (Some(0), vec![]));
}

#[test]
fn a_running_request_is_finished_before_the_program_ends() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut program = Program::start(&mut command(repository.path()));
    let http = program.address("http listening on ");
    let mut stream = TcpStream::connect(http.trim_start_matches("http://")).unwrap();
    let image = png(4, 4, &[9; 16]);
    write!(
        stream,
        "POST /v1/models/hand/classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        image.len()
    )
    .unwrap();
    // The server reads the body now, so the request is running.
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    program.signal("TERM");
    program.wait_for_log("stopping");
    stream.write_all(&image).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"predictions\":["), "{answer}");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_repository_without_models_is_an_error_that_says_what_to_do() {
    let repository = tempfile::tempdir().unwrap();
    let error = failure(&mut command(repository.path()));
    assert!(error.contains("has no models"), "{error}");
    assert!(error.contains("<model>/<version>/model.onnx"), "{error}");
    assert!(error.contains("exporter export"), "{error}");

    let error = failure(&mut command(&repository.path().join("nothing")));
    assert!(error.contains("does not exist"), "{error}");
    assert!(error.contains("--models"), "{error}");
}

#[test]
fn a_port_in_use_is_named_with_the_option_that_changes_it() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--http", "--grpc"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
        let other = if flag == "--http" { "--grpc" } else { "--http" };
        command
            .arg("--models")
            .arg(repository.path())
            .args([other, "127.0.0.1:0", flag, &address]);
        let error = failure(&mut command);
        assert!(error.contains(&address), "{error}");
        assert!(error.contains(flag), "{error}");
        assert!(error.to_lowercase().contains("in use"), "{error}");
    }
}

#[test]
fn broken_bundles_are_reported_and_the_others_served() {
    let repository = tempfile::tempdir().unwrap();
    let root = repository.path();
    Bundle::new().write(root, "good", 1);
    std::fs::write(
        Bundle::new().write(root, "damaged", 1).join("model.onnx"),
        b"\xff\xff",
    )
    .unwrap();
    std::fs::remove_file(Bundle::new().write(root, "incomplete", 1).join(DATA_FILE)).unwrap();
    std::fs::write(
        Bundle::new().write(root, "truncated", 1).join(DATA_FILE),
        [0; 100],
    )
    .unwrap();
    std::fs::write(root.join("secret"), [0; 10_000]).unwrap();
    Bundle::new()
        .with_location("../../secret")
        .write(root, "hostile", 1);
    let secret = root.join("secret").canonicalize().unwrap();
    Bundle::new()
        .with_location(secret.to_str().unwrap())
        .write(root, "absolute", 1);
    let mut unknown = Bundle::new();
    unknown.graph_mut().node[1].op_type = "NoSuchOperator".into();
    unknown.write(root, "unknown", 1);
    let mut newer = Bundle::new();
    newer.manifest.format_version = 99;
    newer.write(root, "good", 2);

    let mut program = Program::start(&mut command(root));
    let http = program.address("http listening on ");
    let mut models = http_client().get(format!("{http}/v1/models")).call().unwrap();
    let models = models.body_mut().read_to_string().unwrap();
    let models: serde_json::Value = serde_json::from_str(&models).unwrap();
    let models = models["models"].as_array().unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0]["name"], "good");
    assert_eq!(models[0]["versions"], serde_json::json!(["1"]));
    program.signal("TERM");
    for (bundle, reason) in [
        ("`absolute` version 1", "is not a plain file name"),
        ("`damaged` version 1", "not an ONNX file"),
        ("`good` version 2", "format version 99"),
        ("`hostile` version 1", "is not a plain file name"),
        ("`incomplete` version 1", "can't be read"),
        ("`truncated` version 1", "has only 100"),
        ("`unknown` version 1", "NoSuchOperator"),
    ] {
        let line = program.wait_for_log(bundle);
        assert!(line.contains(reason), "{line}");
    }
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_repository_of_broken_bundles_only_is_an_error() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new()
        .with_location("../../secret")
        .write(repository.path(), "hostile", 1);
    let error = failure(&mut command(repository.path()));
    assert!(error.contains("none of the 1 bundles"), "{error}");
    assert!(
        error.contains("model `hostile` version 1: tensor `scale`: external data location"),
        "{error}"
    );
}

#[test]
fn a_library_that_cannot_be_loaded_says_how_to_get_one() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let garbage = repository.path().join("garbage.so");
    std::fs::write(&garbage, "no library").unwrap();
    let missing = repository.path().join("missing.so");
    for library in [missing, garbage] {
        let error = failure(command(repository.path()).env("ORT_DYLIB_PATH", &library));
        assert!(
            error.contains(library.file_name().unwrap().to_str().unwrap()),
            "{error}"
        );
        assert!(error.contains("cargo xtask setup"), "{error}");
        assert!(error.contains("ORT_DYLIB_PATH"), "{error}");
    }
}

#[test]
fn cuda_by_name_is_an_error_where_it_does_not_work() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let start = |provider: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_server"));
        let ports = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
        command.arg("--models").arg(repository.path()).args(ports);
        command
            .args(["--execution-provider", provider])
            .env("RUST_LOG", "info");
        command
    };
    let mut program = Program::start(&mut start("auto"));
    let choice = program.wait_for_log("computing");
    program.address("http listening on ");
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
    if choice.contains("computing on the CPU") {
        let error = failure(&mut start("cuda"));
        assert!(error.contains("CUDA"), "{error}");
        assert!(error.contains("--execution-provider cpu"), "{error}");
    } else {
        assert!(choice.contains("computing with CUDA"), "{choice}");
    }
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for arguments in [
        &["--http", "8080"][..],
        &["--threads", "0"],
        &["--execution-provider", "tpu"],
        &["--repository-poll-interval", "0s"],
        &["--repository-memory-limit", "1.5"],
        &["--repository-warm-up", "slowly"],
        &["--nothing"],
    ] {
        let mut command = command(std::path::Path::new("repository"));
        assert_eq!(
            output(command.args(arguments)).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}
