//! What a route or method needs of the one who asks. Whatever isn't listed here needs a token: a new route is safe
//! before anyone thinks of it.

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: probes, and what the server can do, which is no secret.
    Nothing,
    /// Nothing where the configuration says so, else a token for all models.
    Metrics,
    /// A token.
    Token,
    /// A token that may change what is served.
    Admin,
}

/// Methods of gRPC that change what is served.
const ADMIN_METHODS: [&str; 2] = [
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/inference.GRPCInferenceService/RepositoryModelUnload",
];

/// What the names of methods that change what is served begin with.
const ADMIN_VERBS: [&str; 3] = ["Put", "Fit", "Delete"];

/// What an HTTP request needs.
pub fn http(method: &str, path: &str) -> Need {
    let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
    match path {
        "/healthz" | "/readyz" | "/openapi.json" | "/docs" if reads => return Need::Nothing,
        "/v2/health/live" | "/v2/health/ready" if reads => return Need::Nothing,
        "/metrics" if reads => return Need::Metrics,
        _ => {}
    }
    // Loading and unloading are POST, and so are requests that compute.
    let changes_repository = path.starts_with("/v2/repository/") && path != "/v2/repository/index";
    let changes = !reads && method != "POST";
    if changes || (changes_repository && !reads) {
        Need::Admin
    } else {
        Need::Token
    }
}

/// What a method of gRPC needs; `path` is `/package.Service/Method`.
pub fn grpc(path: &str) -> Need {
    let (service, method) = path.rsplit_once('/').unwrap_or(("", path));
    match service {
        "/grpc.health.v1.Health"
        | "/grpc.reflection.v1.ServerReflection"
        | "/grpc.reflection.v1alpha.ServerReflection" => Need::Nothing,
        "/inference.GRPCInferenceService" if matches!(method, "ServerLive" | "ServerReady") => Need::Nothing,
        _ if ADMIN_METHODS.contains(&path) => Need::Admin,
        _ if ADMIN_VERBS.iter().any(|verb| method.starts_with(verb)) => Need::Admin,
        _ => Need::Token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_needs_a_token() {
        for (method, path, need) in [
            ("GET", "/healthz", Need::Nothing),
            ("GET", "/readyz", Need::Nothing),
            ("POST", "/healthz", Need::Token),
            ("GET", "/healthz/", Need::Token),
            ("GET", "/metrics", Need::Metrics),
            ("GET", "/v1/models", Need::Token),
            ("POST", "/v1/models/a/classify", Need::Token),
            ("POST", "/v2/models/a/infer", Need::Token),
            ("POST", "/v2/repository/index", Need::Token),
            ("POST", "/v2/repository/models/a/load", Need::Admin),
            ("POST", "/v2/repository/models/a/unload", Need::Admin),
            ("PUT", "/v1/models/a/projections/pca", Need::Admin),
            ("DELETE", "/v1/models/a/projections/pca", Need::Admin),
            ("GET", "/v1/models/a/projections", Need::Token),
            ("POST", "/v2/repository/models/index/load", Need::Admin),
            ("DELETE", "/anything", Need::Admin),
            ("GET", "/anything", Need::Token),
        ] {
            assert_eq!(http(method, path), need, "{method} {path}");
        }
        for (path, need) in [
            ("/grpc.health.v1.Health/Watch", Need::Nothing),
            (
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                Need::Nothing,
            ),
            ("/ventral.v1.Ventral/GetActivations", Need::Token),
            ("/ventral.v1.Ventral/PutProjection", Need::Admin),
            ("/ventral.v1.Ventral/FitProjections", Need::Admin),
            ("/inference.GRPCInferenceService/ServerReady", Need::Nothing),
            ("/inference.GRPCInferenceService/ModelInfer", Need::Token),
            ("/inference.GRPCInferenceService/RepositoryIndex", Need::Token),
            ("/inference.GRPCInferenceService/RepositoryModelLoad", Need::Admin),
            (
                "/inference.GRPCInferenceService/RepositoryModelUnload",
                Need::Admin,
            ),
            ("nonsense", Need::Token),
        ] {
            assert_eq!(grpc(path), need, "{path}");
        }
    }
}
