//! The methods that there are: what else clients call stands in no figure.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// For each method, whether its clients send any number of messages.
static METHODS: LazyLock<HashMap<String, bool>> = LazyLock::new(|| {
    let descriptions = [
        proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    // The server doesn't start with descriptions that can't be read: reflection reads them too.
    let files = descriptions
        .into_iter()
        .flat_map(|bytes| FileDescriptorSet::decode(bytes).unwrap_or_default().file);
    files
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().flat_map(move |service| {
                let service_name = format!("{package}.{}", service.name());
                let methods = service.method.into_iter();
                methods.map(move |method| {
                    let path = format!("/{service_name}/{}", method.name());
                    (path, method.client_streaming())
                })
            })
        })
        .collect()
});

/// Whether there is a method of this path, `/package.Service/Method`.
pub(super) fn is_known(path: &str) -> bool {
    METHODS.contains_key(path)
}

/// Whether a request by this path is one message.
pub(super) fn is_one_message(path: &str) -> bool {
    METHODS.get(path) == Some(&false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_services_methods_are_known_and_no_others() {
        for path in [
            "/ventral.v1.Ventral/GetActivations",
            "/inference.GRPCInferenceService/ModelInfer",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert!(is_known(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/ventral.v1.Ventral/Invented",
            "ventral.v1.Ventral/GetActivations",
        ] {
            assert!(!is_known(path), "{path}");
            assert!(!is_one_message(path), "{path}");
        }
        assert!(is_one_message("/ventral.v1.Ventral/GetActivations"));
        assert!(is_one_message("/grpc.health.v1.Health/Watch"));
        assert!(!is_one_message("/ventral.v1.Ventral/StreamActivations"));
    }
}
