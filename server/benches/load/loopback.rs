//! What a bare copy through a TCP connection of this machine moves: one thread writes the same memory again and again,
//! another reads it into memory of its own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::{TimeArguments, print};

/// Bytes that are written and read at a time.
const PIECE: usize = 1 << 20;

/// Prints bytes a second.
pub(super) fn run(time: TimeArguments) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let writing = std::thread::spawn(move || {
        let memory = vec![1; PIECE];
        loop {
            match sender.write_all(&memory) {
                Ok(()) => {}
                // The reader has seen enough.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    });
    let mut memory = vec![0; PIECE];
    let begin = Instant::now() + time.warm_up();
    let end = begin + time.measured();
    let mut bytes = 0;
    loop {
        let read = receiver.read(&mut memory)?;
        let now = Instant::now();
        if now >= end {
            break;
        }
        if now >= begin {
            bytes += read;
        }
    }
    drop(receiver);
    writing.join().map_err(|_| anyhow!("the sender panicked"))??;
    print("bytes_per_second", bytes as f64 / time.seconds, "bytes/s");
    Ok(())
}
