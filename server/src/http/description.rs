//! `GET /openapi.json`: what can be asked, for programs. `GET /docs`: the same for people, a page that needs nothing from
//! anywhere else.

use actix_web::HttpResponse;
use actix_web::http::header;

/// The description, but for the version. Whoever adds a route describes it there: a test compares the two.
const DOCUMENT: &str = include_str!("openapi.json");

/// Shows the document.
const PAGE: &str = include_str!("docs.html");

/// Scripts and styles of the page itself, and requests to this server: nothing else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers with the document.
pub(super) async fn document() -> HttpResponse {
    let document = DOCUMENT.replacen("\"0.0.0\"", concat!("\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(document)
}

/// Answers with the page.
pub(super) async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(PAGE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actix_web::introspection::{IntrospectionNode, IntrospectionTree};
    use actix_web::test::{TestRequest, call_and_read_body, init_service};
    use actix_web::{App, web};
    use serde_json::Value;

    use super::*;

    fn described() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// Method and path of everything below a node.
    fn operations(node: &IntrospectionNode, found: &mut BTreeSet<String>) {
        for method in &node.methods {
            found.insert(format!("{method} {}", node.full_path));
        }
        for child in &node.children {
            operations(child, found);
        }
    }

    #[actix_web::test]
    async fn every_route_is_described_and_nothing_else() {
        let tree = |tree: web::Data<IntrospectionTree>| async move {
            let mut found = BTreeSet::new();
            operations(&tree.root, &mut found);
            HttpResponse::Ok().json(found)
        };
        let service = init_service(
            App::new()
                .configure(super::super::routes)
                .route("/tree", web::get().to(tree)),
        )
        .await;
        let body = call_and_read_body(&service, TestRequest::get().uri("/tree").to_request()).await;
        let mut routes: BTreeSet<String> = serde_json::from_slice(&body).unwrap();
        assert!(routes.remove("GET /tree"), "{routes:?}");
        let document = described();
        let paths = document["paths"].as_object().unwrap();
        let described = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        assert_eq!(described.collect::<BTreeSet<_>>(), routes);
    }

    #[test]
    fn references_lead_somewhere_and_operations_have_names_of_their_own() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    map.values().for_each(|value| check(value, document));
                }
                Value::Array(values) => values.iter().for_each(|value| check(value, document)),
                _ => {}
            }
        }
        let document = described();
        check(&document, &document);
        let paths = document["paths"].as_object().unwrap().values();
        let operations: Vec<_> = paths
            .flat_map(|methods| methods.as_object().unwrap().values())
            .collect();
        let names: BTreeSet<_> = operations
            .iter()
            .map(|about| about["operationId"].as_str().unwrap())
            .collect();
        assert_eq!(names.len(), operations.len());
        let tags: Vec<_> = document["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| &tag["name"])
            .collect();
        assert!(
            operations.iter().all(|about| tags.contains(&&about["tags"][0])),
            "the page shows tags"
        );
    }

    #[actix_web::test]
    async fn the_document_has_the_programs_version() {
        let body = document().await.into_body();
        let text = actix_web::body::to_bytes(body).await.unwrap();
        let document: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
