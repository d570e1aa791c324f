//! What handlers learn of a request besides its message: who sends it, and its identifier. A handler that is about to use
//! a model says so, which is refused where the caller's token is not for that model.

use std::sync::{Arc, OnceLock};

use http::Extensions;

use crate::error::ServerError;
use crate::security::access::Caller;
use crate::telemetry::metrics::metrics;

/// An admitted request. It lies in the extensions of gRPC's requests, and is extracted as `ReqData<Arc<Call>>` from
/// HTTP's.
#[derive(Debug)]
pub struct Call {
    id: Arc<str>,
    caller: Caller,
    model: OnceLock<String>,
    /// The first model that wasn't loaded when it was asked for: the request may have it loaded.
    not_loaded: OnceLock<String>,
}

impl Call {
    pub(super) fn new(id: Arc<str>, caller: Caller) -> Self {
        Self {
            id,
            caller,
            model: OnceLock::new(),
            not_loaded: OnceLock::new(),
        }
    }

    /// The call of a request.
    ///
    /// # Errors
    /// [`ServerError::NotAdmitted`] where nothing has admitted it: that is a mistake of ours, and nothing is done then.
    pub fn of(extensions: &Extensions) -> Result<&Arc<Self>, ServerError> {
        extensions.get::<Arc<Self>>().ok_or(ServerError::NotAdmitted)
    }

    /// The identifier that logs and the answer carry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The request is about this model: call it before anything is done with the model.
    ///
    /// # Errors
    /// [`ServerError::Refused`] where the caller may not use it.
    pub fn use_model(&self, model: &str) -> Result<(), ServerError> {
        self.caller.check(model)?;
        // A stream may be about several; the first stands for all of them.
        if self.model.get().is_none() {
            let is_loaded = metrics().knows(model);
            let place = if is_loaded { &self.model } else { &self.not_loaded };
            place.get_or_init(|| model.into());
        }
        Ok(())
    }

    /// Counts one more request of a stream of them; the first was counted when the stream began.
    ///
    /// # Errors
    /// [`ServerError::Refused`] where the caller may not send as many.
    pub fn another_request(&self) -> Result<(), ServerError> {
        Ok(self.caller.another_request()?)
    }

    /// Whether a list of models shows this one to the caller.
    pub fn may_see(&self, model: &str) -> bool {
        self.caller.may_use(model)
    }

    /// The model that the request is about, if it is served by now: anything else is a client's text of any length, which
    /// no log needs.
    pub fn model(&self) -> Option<&str> {
        let loaded = || self.not_loaded.get().filter(|model| metrics().knows(model));
        self.model.get().or_else(loaded).map(String::as_str)
    }

    /// The token's name.
    pub fn caller(&self) -> Option<&str> {
        self.caller.name()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_that_nothing_admitted_is_not_answered() {
        let mut extensions = Extensions::new();
        assert!(matches!(Call::of(&extensions), Err(ServerError::NotAdmitted)));
        extensions.insert(Arc::new(Call::new("id".into(), Caller::Anyone)));
        let call = Call::of(&extensions).unwrap();
        for model in ["first of a call", "second of a call"] {
            metrics().model_loaded(model, 1, Duration::ZERO, 0);
        }
        for model in ["not served", "first of a call", "second of a call"] {
            call.use_model(model).unwrap();
        }
        let seen = (call.id(), call.model(), call.caller());
        assert_eq!(seen, ("id", Some("first of a call"), None));

        let call = Call::new("id".into(), Caller::Anyone);
        call.use_model("loaded by a call").unwrap();
        assert_eq!(call.model(), None);
        metrics().model_loaded("loaded by a call", 1, Duration::ZERO, 0);
        assert_eq!(call.model(), Some("loaded by a call"));
    }
}
