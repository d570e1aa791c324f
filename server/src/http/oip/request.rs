//! Inference requests as bytes: JSON, or JSON followed by tensors as raw bytes (the binary tensor data extension).

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::parameters::{Parameters, at_most};
use crate::error::ServerError;
use crate::oip::admission::check_tensor_parameters;
use crate::oip::infer::{Elements, InferRequest, InputTensor};
use crate::oip::urgency::Urgency;

/// How an input says that its elements are raw, and how many bytes they are.
const BINARY_SIZE: &str = "binary_data_size";
/// How an output says that its elements are wanted raw.
const BINARY: &str = "binary_data";
/// How a request says the same of all outputs.
const BINARY_OUTPUT: &str = "binary_data_output";

/// Inputs of a request at most: a network has one.
const INPUTS: usize = 16;
/// Outputs of a request at most: more than any network has layers.
const OUTPUTS: usize = 4096;
/// Dimensions of a tensor at most.
const DIMENSIONS: usize = 32;

/// A request, and how its answer is to be written.
#[derive(Debug, PartialEq)]
pub(super) struct ParsedRequest {
    /// Given back in the answer.
    pub id: String,
    /// What is asked for.
    pub request: InferRequest,
    /// For each of the request's outputs, whether it is wanted raw.
    pub raw: Vec<bool>,
    /// The same for outputs that the request doesn't name.
    pub raw_by_default: bool,
}

#[derive(Deserialize)]
struct Json {
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(deserialize_with = "at_most::<INPUTS, _, _>")]
    inputs: Vec<JsonInput>,
    #[serde(default, deserialize_with = "at_most::<OUTPUTS, _, _>")]
    outputs: Vec<JsonOutput>,
}

#[derive(Deserialize)]
struct JsonInput {
    name: String,
    #[serde(deserialize_with = "at_most::<DIMENSIONS, _, _>")]
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    data: Option<Numbers>,
}

#[derive(Deserialize)]
struct JsonOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Bytes that parsing takes at most for each of JSON: an element of two is a number of four in a list that grows by half.
pub(super) const PARSED: u128 = 8;

/// Reads a request to a model. `json_length` is the length of the JSON, where something follows it.
pub(super) fn parse(
    model: String,
    version: String,
    body: &Bytes,
    json_length: Option<usize>,
) -> Result<ParsedRequest, ServerError> {
    let json_length = json_length.unwrap_or(body.len());
    if json_length > body.len() {
        return Err(ServerError::InvalidArgument(format!(
            "the body has {} bytes, its JSON is said to have {json_length}",
            body.len()
        )));
    }
    let mut raw = body.slice(json_length..);
    let json: Json = serde_json::from_slice(&body[..json_length]).map_err(|error| {
        ServerError::InvalidArgument(format!("the request is not the JSON that it should be: {error}"))
    })?;
    let inputs = json.inputs.into_iter().map(|input| input.tensor(&mut raw));
    let inputs = inputs.collect::<Result<_, _>>()?;
    if !raw.is_empty() {
        return Err(ServerError::InvalidArgument(format!(
            "{} bytes follow the inputs' raw elements; is a `{BINARY_SIZE}` too small, or missing?",
            raw.len()
        )));
    }
    let urgency = Urgency::of(|name| json.parameters.whole_number(name))?;
    let raw_by_default = flag(&json.parameters, BINARY_OUTPUT)?.unwrap_or(false);
    let mut outputs = Vec::with_capacity(json.outputs.len());
    let mut wanted_raw = Vec::with_capacity(json.outputs.len());
    for output in json.outputs {
        check_tensor_parameters(&output.name, output.parameters.names())?;
        wanted_raw.push(flag(&output.parameters, BINARY)?.unwrap_or(raw_by_default));
        outputs.push(output.name);
    }
    Ok(ParsedRequest {
        id: json.id,
        request: InferRequest {
            model,
            version,
            inputs,
            outputs,
            urgency,
        },
        raw: wanted_raw,
        raw_by_default,
    })
}

impl JsonInput {
    /// The tensor; raw elements are taken from the front of `raw`.
    fn tensor(self, raw: &mut Bytes) -> Result<InputTensor, ServerError> {
        check_tensor_parameters(&self.name, self.parameters.names())?;
        let invalid = |what: String| ServerError::InvalidArgument(format!("input `{}`: {what}", self.name));
        let elements = match (self.parameters.whole_number(BINARY_SIZE), self.data) {
            (Some(_), Some(_)) => {
                return Err(invalid(format!(
                    "it has both `data` and `{BINARY_SIZE}`, expected one of them"
                )));
            }
            (Some(size), None) => {
                let size = size.and_then(|size| usize::try_from(size).ok());
                let size =
                    size.ok_or_else(|| invalid(format!("`{BINARY_SIZE}` is not a number of bytes")))?;
                if size > raw.len() {
                    let message = format!("`{BINARY_SIZE}` is {size}, but only {} bytes are left", raw.len());
                    return Err(invalid(message));
                }
                Elements::Raw(raw.split_to(size))
            }
            (None, Some(numbers)) => Elements::Numbers(numbers.0),
            (None, None) => return Err(invalid(format!("it has neither `data` nor `{BINARY_SIZE}`"))),
        };
        Ok(InputTensor {
            name: self.name,
            datatype: self.datatype,
            shape: self.shape,
            elements,
        })
    }
}

/// A parameter that is true or false.
fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, ServerError> {
    match parameters.flag(name) {
        None => Ok(None),
        Some(Some(flag)) => Ok(Some(flag)),
        Some(None) => Err(ServerError::InvalidArgument(format!(
            "the parameter `{name}` is something else, expected true or false"
        ))),
    }
}

/// The elements of a tensor: numbers in one list, or in lists of lists as the shape has dimensions.
struct Numbers(Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::new();
        deserializer.deserialize_seq(List(&mut numbers))?;
        Ok(Self(numbers))
    }
}

/// Adds the numbers of a list, however deep, to a flat one.
struct List<'a>(&'a mut Vec<f32>);

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of numbers, or of lists of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Element(self.0))?.is_some() {}
        Ok(())
    }
}

/// A number, or a list of such.
struct Element<'a>(&'a mut Vec<f32>);

impl<'de> de::DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the elements are float32: other numbers are rounded to those"
)]
impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, or a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        List(self.0).visit_seq(list)
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.0.push(number as f32);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.0.push(number as f32);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.0.push(number as f32);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(json: &str, raw: &[u8]) -> Result<ParsedRequest, ServerError> {
        let body = Bytes::from([json.as_bytes(), raw].concat());
        parse("lc".into(), String::new(), &body, Some(json.len()))
    }

    fn refused(json: &str, raw: &[u8]) -> String {
        parsed(json, raw).unwrap_err().to_string()
    }

    #[test]
    fn numbers_are_read_flat_or_nested() {
        for data in [
            "[1, -2.5, 3e2, 0]",
            "[[1, -2.5], [3e2, 0]]",
            "[[[[1]], [[-2.5]]], [300.0, 0.0]]",
        ] {
            let json = format!(
                r#"{{"inputs": [{{"name": "input", "shape": [1, 1, 2, 2], "datatype": "FP32", "data": {data}}}]}}"#
            );
            let input = &parsed(&json, b"").unwrap().request.inputs[0];
            assert_eq!(input.elements, Elements::Numbers(vec![1.0, -2.5, 300.0, 0.0]));
            assert_eq!(input.shape, [1, 1, 2, 2]);
        }
    }

    #[test]
    fn raw_elements_follow_the_json_in_the_inputs_order() {
        let json = r#"{"id": "7", "inputs": [
            {"name": "a", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}},
            {"name": "b", "shape": [0], "datatype": "FP32", "data": []},
            {"name": "c", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
            "parameters": {"binary_data_output": true},
            "outputs": [{"name": "fc"}, {"name": "layer1", "parameters": {"binary_data": false}}]}"#;
        let found = parsed(json, b"0000111122223333").map(|_| ()).unwrap_err();
        assert!(found.to_string().contains("4 bytes follow"), "{found}");
        let found = parsed(json, b"000011112222").unwrap();
        let elements: Vec<_> = found.request.inputs.iter().map(|input| &input.elements).collect();
        assert_eq!(
            elements,
            [
                &Elements::Raw(Bytes::from_static(b"0000")),
                &Elements::Numbers(vec![]),
                &Elements::Raw(Bytes::from_static(b"11112222")),
            ]
        );
        assert_eq!((found.id.as_str(), found.raw), ("7", vec![true, false]));
        assert_eq!(found.request.outputs, ["fc", "layer1"]);
        let short = refused(json, b"00001111222");
        assert!(
            short.contains("input `c`: `binary_data_size` is 8, but only 7"),
            "{short}"
        );
    }

    #[test]
    fn mistakes_are_named() {
        let input = |rest: &str| {
            let json =
                format!(r#"{{"inputs": [{{"name": "input", "shape": [1], "datatype": "FP32"{rest}}}]}}"#);
            refused(&json, b"")
        };
        assert!(input("").contains("neither `data` nor"), "{}", input(""));
        let both = input(r#", "data": [1], "parameters": {"binary_data_size": 0}"#);
        assert!(both.contains("both"), "{both}");
        let text = input(r#", "data": ["1"]"#);
        assert!(text.contains("expected a number"), "{text}");
        let size = input(r#", "parameters": {"binary_data_size": -4}"#);
        assert!(size.contains("not a number of bytes"), "{size}");
        let shared = input(r#", "parameters": {"shared_memory_region": "x"}"#);
        assert!(
            shared.contains("`shared_memory_region` is not supported"),
            "{shared}"
        );
        assert!(refused("{}", b"").contains("missing field `inputs`"));
        let flag = refused(r#"{"inputs": [], "parameters": {"binary_data_output": 1}}"#, b"");
        assert!(flag.contains("expected true or false"), "{flag}");
        let length = parse("lc".into(), String::new(), &Bytes::from_static(b"{}"), Some(3));
        assert!(length.unwrap_err().to_string().contains("2 bytes"));
    }

    #[test]
    fn lists_that_are_nested_without_end_are_refused() {
        let json = format!(
            r#"{{"inputs": [{{"name": "input", "shape": [1], "datatype": "FP32", "data": {}"#,
            "[".repeat(1 << 20)
        );
        assert!(refused(&json, b"").contains("recursion limit"));
    }

    proptest! {
        /// Whatever the bytes: an answer or an error.
        #[test]
        fn any_bytes_are_parsed_without_a_panic(body: Vec<u8>, length: Option<usize>) {
            drop(parse("lc".into(), String::new(), &Bytes::from(body), length));
        }

        #[test]
        fn damaged_requests_are_parsed_without_a_panic(
            size: u64,
            shape: Vec<i64>,
            raw: Vec<u8>,
            position: prop::sample::Index,
            byte: u8,
            length in prop::option::of(0_usize..400),
        ) {
            let json = serde_json::json!({"id": "x", "inputs": [
                {"name": "input", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size % 64}},
                {"name": "input", "shape": shape, "datatype": "FP32", "data": [[1.5, 2], [-3]]},
            ], "outputs": [{"name": "fc", "parameters": {"binary_data": true}}]});
            let mut body = json.to_string().into_bytes();
            let json_length = length.unwrap_or(body.len());
            body.extend(raw);
            let position = position.index(body.len());
            body[position] = byte;
            drop(parse("lc".into(), String::new(), &body.into(), Some(json_length)));
        }

        /// Every tensor comes back bit for bit, raw or as JSON.
        #[test]
        fn tensors_survive(values: Vec<f32>) {
            let finite: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
            let json = serde_json::json!({"inputs": [
                {"name": "input", "shape": [finite.len()], "datatype": "FP32", "data": finite},
                {"name": "input", "shape": [values.len()], "datatype": "FP32",
                 "parameters": {"binary_data_size": values.len() * 4}},
            ]});
            let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let found = parsed(&json.to_string(), &raw).unwrap().request.inputs;
            let Elements::Numbers(numbers) = &found[0].elements else { panic!("{found:?}") };
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(numbers), bits(&finite));
            prop_assert_eq!(&found[1].elements, &Elements::Raw(raw.into()));
        }
    }
}
