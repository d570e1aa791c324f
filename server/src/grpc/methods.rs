//! The methods that there are: what else clients call stands in no figure.

use std::collections::HashSet;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;

static METHODS: LazyLock<HashSet<String>> = LazyLock::new(|| {
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
                methods.map(move |method| format!("/{service_name}/{}", method.name()))
            })
        })
        .collect()
});

/// Whether there is a method of this path, `/package.Service/Method`.
pub(super) fn is_known(path: &str) -> bool {
    METHODS.contains(path)
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
        }
    }
}
