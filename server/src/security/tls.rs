//! TLS and mutual TLS: certificates and keys from PEM files, for both ports.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::config::TlsConfig;

/// How long a client may take to agree on a key. The HTTP server has a limit of its own.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How the ports are encrypted.
#[derive(Clone)]
pub struct Tls {
    http: ServerConfig,
    grpc: ServerTlsConfig,
}

/// Why a file can't be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("`{}` can't be read", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It isn't PEM, or holds none of what was expected.
    #[error("`{}` holds no {expected} in PEM format", .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key can't be used, or don't belong together.
    #[error("the certificate `{}` can't be used with the key `{}`", .certificate.display(), .key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The clients' authorities can't be used.
    #[error("the authorities in `{}` can't be used: {reason}", .path.display())]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Tls {
    /// Reads the files; nothing where none is named.
    ///
    /// # Errors
    /// [`TlsError`] that names the file.
    pub fn load(config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
            return Ok(None);
        };
        let chain_pem = read(certificate)?;
        let key_pem = read(key)?;
        let chain = certificates(certificate, &chain_pem)?;
        let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|source| TlsError::Pem {
            path: key.clone(),
            expected: "private key",
            source,
        })?;
        let unusable = |source| TlsError::Unusable {
            certificate: certificate.clone(),
            key: key.clone(),
            source,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let mut grpc = ServerTlsConfig::new()
            .identity(Identity::from_pem(&chain_pem, &key_pem))
            .timeout(HANDSHAKE);
        let builder = match &config.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let pem = read(path)?;
                let failed = |reason: String| TlsError::Authorities {
                    path: path.clone(),
                    reason,
                };
                let mut roots = RootCertStore::empty();
                for authority in certificates(path, &pem)? {
                    roots.add(authority).map_err(|error| failed(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.build().map_err(|error| failed(error.to_string()))?;
                grpc = grpc.client_ca_root(Certificate::from_pem(&pem));
                builder.with_client_cert_verifier(verifier)
            }
        };
        let http = builder.with_single_cert(chain, private).map_err(unusable)?;
        Ok(Some(Self { http, grpc }))
    }

    /// For the HTTP port.
    pub fn http(&self) -> ServerConfig {
        self.http.clone()
    }

    /// For the gRPC port.
    pub fn grpc(&self) -> ServerTlsConfig {
        self.grpc.clone()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.into(),
        source,
    })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem {
        path: path.into(),
        expected: "certificate",
        source,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(failed)?;
    if found.is_empty() {
        return Err(failed(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(config: &TlsConfig) -> String {
        crate::error::chain(&Tls::load(config).err().unwrap())
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(folder.path().join(name));
        let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for (name, text) in [
            ("one.pem", one.cert.pem()),
            ("one.key", one.signing_key.serialize_pem()),
            ("other.key", other.signing_key.serialize_pem()),
            ("text", "no PEM".into()),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config = |certificate, key, authorities: Option<&str>| TlsConfig {
            certificate: path(certificate),
            key: path(key),
            client_ca: authorities.and_then(path),
        };
        assert!(Tls::load(&TlsConfig::default()).unwrap().is_none());
        assert!(
            Tls::load(&config("one.pem", "one.key", Some("one.pem")))
                .unwrap()
                .is_some()
        );
        assert!(error(&config("nothing", "one.key", None)).contains("nothing` can't be read"));
        assert!(error(&config("text", "one.key", None)).contains("text` holds no certificate"));
        assert!(error(&config("one.pem", "text", None)).contains("text` holds no private key"));
        assert!(error(&config("one.pem", "other.key", None)).contains("other.key"));
        assert!(
            error(&config("one.pem", "one.key", Some("one.key"))).contains("one.key` holds no certificate")
        );
    }
}
