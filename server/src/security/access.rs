//! Admits requests, or says why not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::rules::Need;
use super::tokens::{Identity, Tokens};
use crate::error::Code;

/// Who may do what.
pub struct Access {
    /// None: no token is needed.
    tokens: Option<Tokens>,
    /// Whether no stranger reaches the ports: admin calls need no token then.
    is_closed: bool,
    /// Whether `/metrics` needs no token.
    open_metrics: bool,
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// No token was needed.
    Anyone,
    /// The owner of a token.
    Owner(Arc<Identity>),
}

/// Why a request is not admitted. The message is for the client.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Refusal {
    /// There is no token.
    #[error("this needs a token: send `Authorization: Bearer TOKEN`")]
    NoToken,
    /// There is one, but it is none of those that are known.
    #[error("the token is not known here")]
    UnknownToken,
    /// The token may not change what is served.
    #[error("the token `{name}` is not an admin's: it may not change what is served")]
    NotAdmin {
        /// The token's name.
        name: String,
    },
    /// The figures name every model, and the token isn't for all of them.
    #[error("the token `{name}` is for some models alone, and the figures are of all of them")]
    Figures {
        /// The token's name.
        name: String,
    },
    /// There are no tokens, but strangers.
    #[error("admin calls are refused: the ports are open to other machines, and the server has no tokens")]
    NoAdmin,
    /// The token may not use the model.
    #[error("the token `{name}` may not use the model `{model}`")]
    Model {
        /// The token's name.
        name: String,
        /// The model's name.
        model: String,
    },
    /// The token's owner sends more than agreed.
    #[error("the token `{name}` sends more requests than it may: try again in {} s", seconds(.wait))]
    TooMany {
        /// The token's name.
        name: String,
        /// Until the next request is admitted.
        wait: Duration,
    },
}

impl Access {
    /// Without `tokens`, none is needed; admin calls are then for `is_closed` ports alone, which no stranger reaches.
    pub fn new(tokens: Option<Tokens>, is_closed: bool, open_metrics: bool) -> Self {
        Self {
            tokens,
            is_closed,
            open_metrics,
        }
    }

    /// Whether requests need tokens.
    pub fn needs_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Admits a request with this `authorization` header, or says why not.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, need: Need, authorization: Option<&str>) -> Result<Caller, Refusal> {
        let is_open = need == Need::Nothing || (need == Need::Metrics && self.open_metrics);
        let tokens = match &self.tokens {
            Some(tokens) if !is_open => tokens,
            None if need == Need::Admin && !self.is_closed => return Err(Refusal::NoAdmin),
            _ => return Ok(Caller::Anyone),
        };
        let token = authorization.and_then(bearer).ok_or(Refusal::NoToken)?;
        let identity = tokens.identify(token).ok_or(Refusal::UnknownToken)?;
        let name = || identity.name.clone();
        within_rate(identity)?;
        if need == Need::Admin && !identity.is_admin {
            return Err(Refusal::NotAdmin { name: name() });
        }
        if need == Need::Metrics && !identity.may_use_all() {
            return Err(Refusal::Figures { name: name() });
        }
        Ok(Caller::Owner(Arc::clone(identity)))
    }
}

impl Caller {
    /// Whether they may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Owner(identity) => identity.may_use(model),
        }
    }

    /// Counts one more request of a call that may be several.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub fn another_request(&self) -> Result<(), Refusal> {
        match self {
            Self::Anyone => Ok(()),
            Self::Owner(identity) => within_rate(identity),
        }
    }

    /// Refuses a model that they may not use.
    ///
    /// # Errors
    /// [`Refusal::Model`].
    pub fn check(&self, model: &str) -> Result<(), Refusal> {
        match self {
            Self::Owner(identity) if !identity.may_use(model) => Err(Refusal::Model {
                name: identity.name.clone(),
                model: model.into(),
            }),
            _ => Ok(()),
        }
    }

    /// The token's name, for logs.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Anyone => None,
            Self::Owner(identity) => Some(&identity.name),
        }
    }
}

impl Refusal {
    /// What kind of error it is.
    pub fn code(&self) -> Code {
        match self {
            Self::NoToken | Self::UnknownToken => Code::Unauthenticated,
            Self::NotAdmin { .. } | Self::NoAdmin | Self::Model { .. } | Self::Figures { .. } => {
                Code::PermissionDenied
            }
            Self::TooMany { .. } => Code::Busy,
        }
    }

    /// When it is worth trying again, where that is known: in whole seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { wait, .. } => Some(Duration::from_secs(seconds(wait))),
            _ => None,
        }
    }
}

fn within_rate(identity: &Identity) -> Result<(), Refusal> {
    let Some(rate) = &identity.rate else {
        return Ok(());
    };
    let name = || identity.name.clone();
    rate.take(Instant::now())
        .map_err(|wait| Refusal::TooMany { name: name(), wait })
}

/// Rounded up: too early would be refused again.
fn seconds(wait: &Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
        .max(1)
}

/// The token of `Bearer TOKEN`; the scheme's case doesn't matter.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::tokens::{digest, to_hexadecimal};

    fn tokens() -> Tokens {
        let line = |name: &str, rest: &str| {
            let digest = to_hexadecimal(&digest(name));
            format!("{name} = {{ sha256 = \"{digest}\"{rest} }}\n")
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = [
            line("user", ", models = [\"a\"]"),
            line("admin", ", admin = true"),
            line("slow", ", requests_per_second = 0.001"),
        ];
        std::fs::write(file.path(), text.concat()).unwrap();
        Tokens::read(file.path(), None).unwrap()
    }

    #[test]
    fn tokens_open_what_they_are_for() {
        let access = Access::new(Some(tokens()), true, false);
        let admit = |need, authorization| access.admit(need, authorization);
        assert!(admit(Need::Nothing, None).is_ok());
        for need in [Need::Metrics, Need::Token, Need::Admin] {
            assert_eq!(admit(need, None).unwrap_err(), Refusal::NoToken);
            for nonsense in ["", "Bearer", "user", "Basic user"] {
                assert_eq!(
                    admit(need, Some(nonsense)).unwrap_err(),
                    Refusal::NoToken,
                    "{nonsense}"
                );
            }
            assert_eq!(
                admit(need, Some("Bearer nobody")).unwrap_err(),
                Refusal::UnknownToken
            );
            assert!(admit(need, Some("bearer  admin ")).is_ok());
        }
        let user = admit(Need::Token, Some("Bearer user")).unwrap();
        assert!(user.may_use("a"));
        assert_eq!(user.check("b").unwrap_err().code(), Code::PermissionDenied);
        let refusal = admit(Need::Admin, Some("Bearer user")).unwrap_err();
        assert_eq!(refusal, Refusal::NotAdmin { name: "user".into() });
        let refusal = admit(Need::Metrics, Some("Bearer user")).unwrap_err();
        assert_eq!(refusal, Refusal::Figures { name: "user".into() });
        assert_eq!(refusal.code(), Code::PermissionDenied);
    }

    #[test]
    fn a_token_past_its_rate_is_told_when_to_come_again() {
        let access = Access::new(Some(tokens()), true, false);
        access.admit(Need::Token, Some("Bearer slow")).unwrap();
        let refusal = access.admit(Need::Token, Some("Bearer slow")).unwrap_err();
        assert_eq!(refusal.code(), Code::Busy);
        let seconds = refusal.retry_after().unwrap().as_secs();
        assert!((900..=1000).contains(&seconds), "{refusal}");
        access.admit(Need::Token, Some("Bearer user")).unwrap();
    }

    #[test]
    fn without_tokens_admin_calls_are_for_closed_ports_alone() {
        let closed = Access::new(None, true, false);
        assert!(closed.admit(Need::Admin, None).is_ok());
        let open = Access::new(None, false, false);
        assert_eq!(open.admit(Need::Admin, None).unwrap_err(), Refusal::NoAdmin);
        assert!(open.admit(Need::Token, None).is_ok());
        assert!(
            Access::new(Some(tokens()), false, true)
                .admit(Need::Metrics, None)
                .is_ok()
        );
    }
}
