//! Who may do what: encryption of both ports, bearer tokens, what they may do, and how often.
//!
//! - [`tls`] reads certificates and keys;
//! - [`tokens`] reads the file of hashed tokens, which [`new_token`] makes lines for, and recognises tokens;
//! - [`rules`] says what a route or method needs;
//! - [`access`] puts these together: it admits a request or says why not;
//! - [`rate`] counts a token's requests.

pub mod access;
pub mod new_token;
pub mod rate;
pub mod rules;
pub mod tls;
pub mod tokens;

use thiserror::Error;

use crate::config::Config;
use access::Access;
use tls::{Tls, TlsError};
use tokens::{Tokens, TokensError};

/// What the configuration says of security, its files read.
pub struct Security {
    /// How both ports are encrypted; none: not at all.
    pub tls: Option<Tls>,
    /// Who may do what.
    pub access: Access,
}

/// A file that can't be used.
#[derive(Debug, Error)]
pub enum SecurityError {
    /// Of those for TLS.
    #[error("TLS can't be set up")]
    Tls(#[from] TlsError),
    /// The file of tokens.
    #[error("the tokens can't be used")]
    Tokens(#[from] TokensError),
}

impl Security {
    /// Reads the files.
    ///
    /// # Errors
    /// [`SecurityError`] that names the file.
    pub fn load(config: &Config) -> Result<Self, SecurityError> {
        let tokens = match &config.security.tokens {
            Some(path) => Some(Tokens::read(path, config.security.requests_per_second)?),
            None => None,
        };
        let is_closed = config.is_local() || config.tls.client_ca.is_some();
        Ok(Self {
            tls: Tls::load(&config.tls)?,
            access: Access::new(tokens, is_closed, config.security.open_metrics),
        })
    }

    /// Logs what makes the ports less safe than they could be, where other machines reach them.
    pub fn warn(&self, config: &Config) {
        if config.is_local() {
            return;
        }
        if self.tls.is_none() {
            tracing::warn!(
                "the ports are open to other machines without encryption: set tls.certificate and tls.key, or put them \
                 behind something that encrypts"
            );
        }
        if !self.access.needs_tokens() && config.tls.client_ca.is_none() {
            tracing::warn!(
                "the ports are open to other machines without authentication: anyone who reaches them may use every \
                 model; set security.tokens or tls.client_ca (admin calls are refused until then)"
            );
        }
    }
}
