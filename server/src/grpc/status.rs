//! Errors as gRPC statuses.

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::error::{Code, ServerError};

impl From<ServerError> for Status {
    fn from(error: ServerError) -> Self {
        error.log();
        let code = match error.code() {
            Code::NotFound => tonic::Code::NotFound,
            Code::InvalidArgument | Code::UnsupportedMediaType => tonic::Code::InvalidArgument,
            Code::MethodNotAllowed => tonic::Code::Unimplemented,
            Code::Unauthenticated => tonic::Code::Unauthenticated,
            Code::PermissionDenied => tonic::Code::PermissionDenied,
            Code::ResourceExhausted | Code::Busy => tonic::Code::ResourceExhausted,
            Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Code::Unavailable => tonic::Code::Unavailable,
            Code::Internal => tonic::Code::Internal,
        };
        let mut metadata = MetadataMap::new();
        if let Some(retry_after) = error.retry_after() {
            metadata.insert("retry-after", retry_after.as_secs().into());
            // What clients with a retry policy read.
            let milliseconds = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            metadata.insert("grpc-retry-pushback-ms", milliseconds.into());
        }
        Self::with_metadata(code, error.to_string(), metadata)
    }
}
