//! What the protocol's clients may ask of other servers and not of this one. Silence would look like consent.

use crate::error::ServerError;

/// Parameters of tensors that change where or what the elements are.
const TENSOR_PARAMETERS: [&str; 4] = [
    "shared_memory_region",
    "shared_memory_byte_size",
    "shared_memory_offset",
    "classification",
];

/// Refuses parameters of a tensor that would change its elements.
///
/// # Errors
/// [`ServerError::InvalidArgument`].
pub fn check_tensor_parameters<'a>(
    tensor: &str,
    mut names: impl Iterator<Item = &'a str>,
) -> Result<(), ServerError> {
    match names.find(|name| TENSOR_PARAMETERS.contains(name)) {
        Some(name) => Err(ServerError::InvalidArgument(format!(
            "tensor `{tensor}`: the parameter `{name}` is not supported; send and receive whole tensors"
        ))),
        None => Ok(()),
    }
}

/// Refuses a repository by name: there is one.
///
/// # Errors
/// [`ServerError::InvalidArgument`].
pub fn check_repository_name(name: &str) -> Result<(), ServerError> {
    if name.is_empty() {
        return Ok(());
    }
    Err(ServerError::InvalidArgument(format!(
        "there is no model repository `{name}`: the server's one has no name"
    )))
}

/// Refuses to load what a client sends: bundles come from the model repository.
///
/// # Errors
/// [`ServerError::InvalidArgument`].
pub fn check_load_parameters<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), ServerError> {
    match names.next() {
        Some(name) => Err(ServerError::InvalidArgument(format!(
            "the parameter `{name}` is not supported: a model is loaded as the repository has it"
        ))),
        None => Ok(()),
    }
}
