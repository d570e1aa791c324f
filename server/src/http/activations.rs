//! `POST /v1/models/{model}/activations`: activations of any layers for images or arrays.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::{self, Format};
use super::body::{self, Body};
use super::{ModelPath, npy};
use crate::error::ServerError;
use crate::front::call::Call;
use crate::inference::{Compression, ElementType, Options, Pooling, PreprocessingChoice, Priority};
use crate::state::State;
use crate::stimuli::Stimuli;

/// The form's field that holds options instead of a file.
const OPTIONS_FIELD: &str = "options";

/// The part of the address after `?`. Lists have commas between their entries.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Query {
    version: String,
    layers: String,
    preprocessing: PreprocessingChoice,
    pooling: Pooling,
    projections: String,
    data_type: ElementType,
    compression: Compression,
    priority: Priority,
    exclusive: bool,
    format: Option<Format>,
}

/// What a request asks for.
#[derive(Debug, PartialEq)]
struct Wanted {
    layers: Vec<String>,
    format: Option<Format>,
    options: Options,
}

/// Answers one request.
pub(super) async fn activations(
    state: web::Data<State>,
    call: web::ReqData<Arc<Call>>,
    path: web::Path<ModelPath>,
    query: web::Query<Query>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ServerError> {
    let query = query.into_inner();
    call.use_model(&path.model)?;
    let bundle = &state.bundle(&path.model, path.version(&query.version)).await?;
    let (body, memory) = body::read(&request, payload, &state, &[OPTIONS_FIELD]).await?;
    let (files, wanted) = match body {
        Body::One(file) => (vec![file], query.into()),
        Body::Form(form) => {
            let wanted = match form.fields.first() {
                Some((_, json)) => parse_options(json)?,
                None => query.into(),
            };
            (form.files, wanted)
        }
    };
    let Wanted {
        layers,
        format,
        mut options,
    } = wanted;
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let format = format
        .or_else(|| accept.and_then(Format::accepted))
        .unwrap_or_default();
    format.check(&layers, options.data_type)?;
    // The whole body is packed, not each of its tensors.
    let compression = std::mem::take(&mut options.compression);
    let stimuli = stimuli(files)?;
    // Counted with everything else of the request from here.
    drop(memory);
    let answer = state.inference.infer(bundle, stimuli, &layers, &options).await?;
    answer::respond(&state.inference, bundle, answer, format, compression).await
}

/// Images, or one array.
fn stimuli(files: Vec<Bytes>) -> Result<Stimuli, ServerError> {
    match files.as_slice() {
        [file] if npy::is_npy(file) => Ok(Stimuli::Tensor(npy::read(file)?)),
        files if files.iter().any(|file| npy::is_npy(file)) => {
            let message = "an .npy file must be the only file: stack the arrays into one, [N, C, H, W]";
            Err(ServerError::InvalidArgument(message.into()))
        }
        _ => Ok(Stimuli::Images(files)),
    }
}

impl From<Query> for Wanted {
    fn from(query: Query) -> Self {
        let list = |text: &str| {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            entries.map(String::from).collect()
        };
        Self {
            layers: list(&query.layers),
            format: query.format,
            options: Options {
                preprocessing: query.preprocessing,
                pooling: query.pooling,
                projections: list(&query.projections),
                data_type: query.data_type,
                compression: query.compression,
                priority: query.priority,
                exclusive: query.exclusive,
                ..Options::default()
            },
        }
    }
}

/// The form's options: an object with `layers`, `format`, and what [`Options`] has.
fn parse_options(json: &[u8]) -> Result<Wanted, ServerError> {
    let wrong = |error: serde_json::Error| {
        ServerError::InvalidArgument(format!(
            "the form's field `{OPTIONS_FIELD}` can't be used: {error}"
        ))
    };
    let mut object: Map<String, Value> = serde_json::from_slice(json).map_err(wrong)?;
    let layers = object.remove("layers").unwrap_or_default();
    let format = object.remove("format").unwrap_or_default();
    Ok(Wanted {
        layers: serde_json::from_value::<Option<_>>(layers)
            .map_err(wrong)?
            .unwrap_or_default(),
        format: serde_json::from_value(format).map_err(wrong)?,
        options: serde_json::from_value(object.into()).map_err(wrong)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_form_s_options_are_those_of_the_address_and_units() {
        let wanted = parse_options(
            br#"{"layers": ["layer1", "fc"], "format": "npy", "pooling": "spatial_mean", "units": {"fc": [2, 0]},
                 "data_type": "float16", "projections": ["pca"], "preprocessing": "stretch", "priority": "bulk"}"#,
        )
        .unwrap();
        assert_eq!(wanted.layers, ["layer1", "fc"]);
        assert_eq!(wanted.options.units["fc"], [2, 0]);
        let query = Query {
            layers: "layer1,fc,".into(),
            format: Some(Format::Npy),
            pooling: Pooling::SpatialMean,
            data_type: ElementType::Float16,
            projections: "pca".into(),
            preprocessing: PreprocessingChoice::Stretch,
            priority: Priority::Bulk,
            ..Query::default()
        };
        let mut same = Wanted::from(query);
        same.options.units.clone_from(&wanted.options.units);
        assert_eq!(same, wanted);
        assert_eq!(parse_options(b"{}").unwrap(), Query::default().into());
    }

    #[test]
    fn options_that_do_not_exist_are_refused() {
        for json in [
            r#"{"poling": "spatial_mean"}"#,
            r#"{"pooling": "median"}"#,
            r#"{"layers": "fc"}"#,
            r#"{"format": "csv"}"#,
            r#"{"units": {"fc": [-1]}}"#,
            "[]",
            "",
        ] {
            let error = parse_options(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("`options` can't be used"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_options_make_parsing_panic(text in r#"[\[\]{}":,a-z_0-9 -]{0,100}"#) {
            let _ = parse_options(text.as_bytes());
        }
    }
}
