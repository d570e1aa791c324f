//! Messages of `ventral.v1` that several methods share, as what the server computes with, and back.

use std::collections::BTreeMap;
use std::time::Instant;

use proto::ventral::v1 as message;
use proto::ventral::v1::get_activations_request::Stimuli as StimuliMessage;

use crate::error::ServerError;
use crate::inference::{
    Activations, Compression, ElementType, Options, Pooling, PreprocessingChoice, Priority,
};
use crate::stimuli::{Stimuli, StimulusType, TensorStimuli};

/// Options as they are in a request; `unspecified` is the priority of requests that name none.
pub(super) fn options(
    options: Option<message::ActivationOptions>,
    unspecified: Priority,
    deadline: Option<Instant>,
) -> Result<Options, ServerError> {
    let options = options.unwrap_or_default();
    let mut units = BTreeMap::new();
    for message::Units { layer, indices } in options.units {
        if units.contains_key(&layer) {
            let message = format!("the units of layer `{layer}` are given more than once");
            return Err(ServerError::InvalidArgument(message));
        }
        units.insert(layer, indices);
    }
    Ok(Options {
        preprocessing: preprocessing(options.preprocessing)?,
        pooling: match known(options.pooling, "pooling")? {
            message::Pooling::Unspecified => Pooling::None,
            message::Pooling::SpatialMean => Pooling::SpatialMean,
            message::Pooling::SpatialMax => Pooling::SpatialMax,
        },
        units,
        projections: options.projections,
        data_type: match known(options.data_type, "data_type")? {
            message::DataType::Unspecified | message::DataType::Float32 => ElementType::Float32,
            message::DataType::Float16 => ElementType::Float16,
            message::DataType::Bfloat16 => ElementType::Bfloat16,
            message::DataType::Uint8 => {
                let message = "data_type: activations are float32, float16 or bfloat16, not uint8";
                return Err(ServerError::InvalidArgument(message.into()));
            }
        },
        compression: match known(options.compression, "compression")? {
            message::Compression::Unspecified => Compression::None,
            message::Compression::Zstd => Compression::Zstd,
        },
        priority: priority(options.priority, unspecified)?,
        exclusive: options.exclusive,
        deadline,
    })
}

/// A preprocessing's number.
pub(super) fn preprocessing(number: i32) -> Result<PreprocessingChoice, ServerError> {
    Ok(match known(number, "preprocessing")? {
        message::Preprocessing::Unspecified | message::Preprocessing::Model => PreprocessingChoice::Model,
        message::Preprocessing::Stretch => PreprocessingChoice::Stretch,
        message::Preprocessing::None => PreprocessingChoice::None,
    })
}

/// A priority's number.
pub(super) fn priority(number: i32, unspecified: Priority) -> Result<Priority, ServerError> {
    Ok(match known(number, "priority")? {
        message::Priority::Unspecified => unspecified,
        message::Priority::Interactive => Priority::Interactive,
        message::Priority::Bulk => Priority::Bulk,
    })
}

/// A number of an enumeration, which may be one that this server doesn't know yet.
fn known<E: TryFrom<i32>>(number: i32, field: &str) -> Result<E, ServerError> {
    E::try_from(number).map_err(|_| {
        let message = format!("{field}: {number} is not a value that this server knows");
        ServerError::InvalidArgument(message)
    })
}

/// Stimuli in either form.
pub(super) fn stimuli(message: Option<StimuliMessage>) -> Result<Stimuli, ServerError> {
    match message {
        None => Err(ServerError::NoImages),
        Some(StimuliMessage::Images(images)) => Ok(Stimuli::Images(images.images)),
        Some(StimuliMessage::Tensor(tensor)) => tensor_stimuli(tensor),
    }
}

fn tensor_stimuli(tensor: message::Tensor) -> Result<Stimuli, ServerError> {
    if tensor.compression != message::Compression::Unspecified as i32 {
        return Err(ServerError::Tensor("stimuli can't be compressed".into()));
    }
    let data_type = match tensor.data_type() {
        message::DataType::Float32 => StimulusType::Float32,
        message::DataType::Uint8 => StimulusType::Uint8,
        other => {
            return Err(ServerError::Tensor(format!(
                "its data type is {}, expected {} or {}",
                other.as_str_name(),
                message::DataType::Float32.as_str_name(),
                message::DataType::Uint8.as_str_name()
            )));
        }
    };
    Ok(Stimuli::Tensor(TensorStimuli {
        data_type,
        shape: tensor.shape,
        data: tensor.data,
    }))
}

/// One layer's activations.
pub(super) fn tensor(activations: Activations) -> message::Tensor {
    message::Tensor {
        name: activations.layer.clone(),
        shape: activations.shape.iter().map(|&length| length as u64).collect(),
        data_type: match activations.data_type {
            ElementType::Float32 => message::DataType::Float32,
            ElementType::Float16 => message::DataType::Float16,
            ElementType::Bfloat16 => message::DataType::Bfloat16,
        } as i32,
        compression: match activations.compression {
            Compression::None => message::Compression::Unspecified,
            Compression::Zstd => message::Compression::Zstd,
        } as i32,
        data: activations.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_unknown_options_are_refused() {
        for wrong in [
            message::ActivationOptions {
                pooling: 77,
                ..Default::default()
            },
            message::ActivationOptions {
                data_type: 4,
                ..Default::default()
            },
            message::ActivationOptions {
                data_type: -1,
                ..Default::default()
            },
            message::ActivationOptions {
                priority: 3,
                ..Default::default()
            },
            message::ActivationOptions {
                units: vec![message::Units::default(); 2],
                ..Default::default()
            },
        ] {
            let error = options(Some(wrong), Priority::Bulk, None).unwrap_err();
            assert!(matches!(error, ServerError::InvalidArgument(_)), "{error}");
        }
        let defaults = options(None, Priority::Bulk, None).unwrap();
        assert_eq!(
            defaults,
            Options {
                priority: Priority::Bulk,
                ..Options::default()
            }
        );
    }
}
