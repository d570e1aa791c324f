//! How a program ends, and what it warns of when it starts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::support::program::{Program, command};
use crate::{repository, start};

#[test]
fn a_request_that_does_not_finish_in_time_is_cut_off() {
    let repository = repository();
    // As short as can be: the HTTP server, which counts whole seconds, would end the request by itself after one.
    let (mut program, http, _) = start(command(repository.path()).args(["--drain-timeout", "1ms"]));
    let mut stream = TcpStream::connect(http.trim_start_matches("http://")).unwrap();
    write!(
        stream,
        "POST /v1/models/hand/classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n\
         Expect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    )
    .unwrap();
    // The server reads the body now, which never comes.
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).unwrap();
    program.signal("TERM");
    program.wait_for_log("cut off");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn ports_that_strangers_reach_are_warned_of() {
    let repository = repository();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.arg("--models").arg(repository.path());
    command.env("RUST_LOG", "info").args([
        "--execution-provider",
        "cpu",
        "--http",
        "0.0.0.0:0",
        "--grpc",
        "127.0.0.1:0",
    ]);
    let mut program = Program::start(&mut command);
    program.wait_for_log("without encryption");
    program.wait_for_log("without authentication");
    program.address("http listening on ");
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}
