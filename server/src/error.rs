//! What can go wrong with a request: one error for both protocols, each of which maps [`Code`] to its own once.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use model::image::ImageError;
use model::preprocessing::PreprocessingError;
use thiserror::Error;

use crate::bundle::Bundle;
use crate::fitting::FitError;
use crate::repository::RepositoryError;
use crate::security::access::Refusal;
use crate::session::SessionError;

/// Why a request is refused or fails. The message is for the client.
#[derive(Debug, Error)]
pub enum ServerError {
    /// No model of that name.
    #[error("model `{model}` does not exist; there are: {}", list(.available))]
    ModelNotFound {
        /// The name in the request.
        model: String,
        /// Those that exist.
        available: Vec<String>,
    },
    /// The model has no such version.
    #[error("model `{model}` has no version `{version}`; it has: {}", list(.available))]
    VersionNotFound {
        /// The model's name.
        model: String,
        /// The version in the request.
        version: String,
        /// Those that exist, newest last.
        available: Vec<String>,
    },
    /// A version that exists, and that can't answer now.
    #[error("model `{model}` version {version} {why}")]
    ModelUnavailable {
        /// The model's name.
        model: String,
        /// The version.
        version: u64,
        /// The rest of the sentence.
        why: &'static str,
    },
    /// A client has asked for a model to be loaded, and some of its versions can't be.
    #[error("model `{model}` can't be loaded: {}", .reasons.join("; "))]
    LoadFailed {
        /// The model's name.
        model: String,
        /// One for each version that can't be.
        reasons: Vec<String>,
    },
    /// The bundle has no such layer.
    #[error("model `{model}` version {version} has no layer `{layer}`; it has: {}", list(.available))]
    LayerNotFound {
        /// The model's name.
        model: String,
        /// The version.
        version: u64,
        /// The layer in the request.
        layer: String,
        /// Those that exist, in the order in which they are computed.
        available: Vec<String>,
    },
    /// No address of that name.
    #[error("{method} {path} does not exist; see /v1/models and POST /v1/models/MODEL/classify")]
    RouteNotFound {
        /// The HTTP method.
        method: String,
        /// The path of the address.
        path: String,
    },
    /// An address that has other methods.
    #[error("{path} takes {}, not {method}", list(.allowed))]
    MethodNotAllowed {
        /// The request's.
        method: String,
        /// The path of the address.
        path: String,
        /// Those that it has.
        allowed: Vec<String>,
    },
    /// A request without layers.
    #[error("the request names no layers; GetModel lists those of a model")]
    NoLayers,
    /// A request without images.
    #[error("the request has no images")]
    NoImages,
    /// An image that can't be used.
    #[error("image {index} (counted from 0): {}", chain(.source))]
    Image {
        /// Its position in the request.
        index: usize,
        /// What is wrong with it.
        source: ImageError,
    },
    /// A tensor that isn't the network's input.
    #[error("the tensor is not the network's input: {0}")]
    Tensor(String),
    /// Something else in the request that can't be used.
    #[error("{0}")]
    InvalidArgument(String),
    /// A body that is neither an image nor a form.
    #[error(
        "content type `{found}` is not accepted; send an image with `Content-Type: image/png` (any image type) or \
         `application/octet-stream`, or a form (`multipart/form-data`) of image files"
    )]
    UnsupportedMediaType {
        /// The request's.
        found: String,
    },
    /// An HTTP body past the limit.
    #[error("the body has more than {limit} bytes, the most that is accepted")]
    BodyTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// More images than a request may have.
    #[error("the request has {found} images, at most {limit} are accepted: split the request")]
    TooManyImages {
        /// The request's.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The network's input or the activations would take more bytes than allowed.
    #[error("{what} would take {found} bytes, at most {limit} are allowed: split the request")]
    TensorTooLarge {
        /// What is too large.
        what: &'static str,
        /// In bytes.
        found: u128,
        /// In bytes.
        limit: usize,
    },
    /// The caller may not do this.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A request that came past what admits requests: never, unless there is a mistake in this program.
    #[error("the request was not admitted")]
    NotAdmitted,
    /// As much waits already as may.
    #[error("the server is busy: {what}; try again in {} s", .retry_after.as_secs())]
    Busy {
        /// What there is too much of, and the limit.
        what: String,
        /// When it is worth trying again; at least a second.
        retry_after: Duration,
    },
    /// It took too long.
    #[error("the request was not computed in the time that it had")]
    DeadlineExceeded,
    /// The bundle has no such projection.
    #[error("model `{model}` version {version} has no projection `{projection}`; it has: {}", list(.available))]
    ProjectionNotFound {
        /// The model's name.
        model: String,
        /// The version.
        version: u64,
        /// The projection in the request.
        projection: String,
        /// Those that exist.
        available: Vec<String>,
    },
    /// A file that is no projection.
    #[error("projection `{name}`: {problem}")]
    Projection {
        /// What it would be called.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More projections than fit.
    #[error("all uploaded projections together may take {limit} bytes: delete some")]
    ProjectionsTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// A fit that can't go on.
    #[error(transparent)]
    Fit(FitError),
    /// The models are still being loaded.
    #[error("the models are still being loaded: try again soon")]
    NotReady,
    /// The server was asked to stop.
    #[error("the server is stopping: ask another")]
    Draining,
    /// The server's own fault; clients learn nothing of the cause, the log does.
    #[error("internal error; the server's log has the details")]
    Internal(#[from] InternalError),
}

/// The server's own fault.
#[derive(Debug, Error)]
pub enum InternalError {
    /// A session that can't be made or run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A batch that can't be computed, which several requests may share.
    #[error(transparent)]
    Run(Arc<SessionError>),
    /// A batch whose computation panicked, or that still waited when the server ended.
    #[error("a batch was abandoned")]
    Abandoned,
    /// Packing that failed.
    #[error("the answer can't be compressed")]
    Packing(#[from] io::Error),
    /// An image that the preprocessing doesn't fit, though both were checked.
    #[error(transparent)]
    Preprocessing(#[from] PreprocessingError),
    /// A task that panicked, or that ended because the server did.
    #[error("a computing task ended without a result")]
    Task(#[from] tokio::task::JoinError),
    /// A model repository that can't be read any more.
    #[error(transparent)]
    Repository(#[from] Box<RepositoryError>),
    /// A semaphore that was closed.
    #[error("the server is stopping")]
    Stopping(#[from] tokio::sync::AcquireError),
    /// A preprocessing that JSON can't express.
    #[error("the preprocessing can't be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A fit whose files or numbers fail.
    #[error(transparent)]
    Fit(FitError),
    /// Figures that can't be written.
    #[error("the figures can't be written")]
    Figures(#[from] std::fmt::Error),
    /// A network whose logits are no numbers.
    #[error("the logits of model `{model}` version {version} are not finite")]
    NotFinite {
        /// The model's name.
        model: String,
        /// The version.
        version: u64,
    },
}

/// What kind of error it is; each protocol has its own number for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request names something that doesn't exist.
    NotFound,
    /// The request can't be understood.
    InvalidArgument,
    /// The address has no such method.
    MethodNotAllowed,
    /// The body is of a type that isn't read here.
    UnsupportedMediaType,
    /// The request is larger than allowed.
    ResourceExhausted,
    /// There are more requests than allowed.
    Busy,
    /// It isn't known who asks.
    Unauthenticated,
    /// It is known who asks, and they may not.
    PermissionDenied,
    /// It took too long.
    DeadlineExceeded,
    /// Not now.
    Unavailable,
    /// The server's own fault.
    Internal,
}

impl ServerError {
    /// The bundle has no such layer.
    pub fn layer_not_found(bundle: &Bundle, layer: &str) -> Self {
        Self::LayerNotFound {
            model: bundle.model.clone(),
            version: bundle.version,
            layer: layer.into(),
            available: bundle.layer_names(),
        }
    }

    /// What kind of error it is.
    pub fn code(&self) -> Code {
        match self {
            Self::ModelNotFound { .. }
            | Self::VersionNotFound { .. }
            | Self::LayerNotFound { .. }
            | Self::ProjectionNotFound { .. }
            | Self::RouteNotFound { .. } => Code::NotFound,
            Self::MethodNotAllowed { .. } => Code::MethodNotAllowed,
            Self::Image {
                source:
                    ImageError::TooManyBytes { .. } | ImageError::TooManyPixels { .. } | ImageError::TooLarge(_),
                ..
            }
            | Self::BodyTooLarge { .. }
            | Self::TooManyImages { .. }
            | Self::ProjectionsTooLarge { .. }
            | Self::TensorTooLarge { .. } => Code::ResourceExhausted,
            Self::NoLayers
            | Self::NoImages
            | Self::Image { .. }
            | Self::Tensor(_)
            | Self::Projection { .. }
            | Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::UnsupportedMediaType { .. } => Code::UnsupportedMediaType,
            Self::Busy { .. } => Code::Busy,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Refused(refusal) => refusal.code(),
            Self::Fit(error) => error.code(),
            Self::NotReady | Self::Draining | Self::ModelUnavailable { .. } | Self::LoadFailed { .. } => {
                Code::Unavailable
            }
            Self::NotAdmitted | Self::Internal(_) => Code::Internal,
        }
    }

    /// When it is worth trying again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after(),
            Self::Busy { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Logs the cause of an internal error, which the client isn't told.
    pub fn log(&self) {
        if let Self::Internal(error) = self {
            tracing::error!(error = chain(error), "a request failed");
        }
    }
}

impl Code {
    /// The code's name in gRPC, which HTTP errors carry too.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::InvalidArgument | Self::UnsupportedMediaType => "INVALID_ARGUMENT",
            Self::MethodNotAllowed => "UNIMPLEMENTED",
            Self::ResourceExhausted | Self::Busy => "RESOURCE_EXHAUSTED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

/// An error and its causes in one line; a cause that the message before it already quotes is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            // Writing to a string can't fail.
            let _ = write!(line, ": {text}");
        }
        cause = error.source();
    }
    line
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, Error)]
    #[error("inner: {0}")]
    struct Inner(#[source] std::num::ParseIntError);

    #[test]
    fn a_chain_names_every_cause_once() {
        let cause = "x".parse::<u8>().unwrap_err();
        assert_eq!(
            chain(&Outer(Inner(cause))),
            "outer: inner: invalid digit found in string"
        );
    }

    #[test]
    fn internal_errors_tell_clients_nothing_of_the_cause() {
        let error = ServerError::from(InternalError::NotFinite {
            model: "secret".into(),
            version: 1,
        });
        assert_eq!(error.code(), Code::Internal);
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn an_image_past_a_limit_is_not_merely_invalid() {
        let source = ImageError::TooManyBytes { found: 2, limit: 1 };
        let error = ServerError::Image { index: 3, source };
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.to_string().contains("image 3"), "{error}");
        let source = ImageError::UnknownFormat;
        assert_eq!(
            ServerError::Image { index: 0, source }.code(),
            Code::InvalidArgument
        );
    }
}
