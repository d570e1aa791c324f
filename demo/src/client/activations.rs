//! Activations of layers, over gRPC.

use anyhow::{Context as _, Result, bail, ensure};
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{DataType, EncodedImages, GetActivationsRequest, Tensor, get_activations_request};

use crate::stimuli::Stimulus;

/// The largest answer taken, in bytes; tonic's own limit of 4 MiB is less than a layer of a large network.
const LARGEST_ANSWER: usize = 1 << 30;

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The version of the model that computed.
    pub version: String,
    /// Digest of the trained network.
    pub checkpoint_digest: String,
    /// In the order in which the layers were asked for.
    pub layers: Vec<Activations>,
}

/// One layer's activations for all stimuli.
#[derive(Clone, Debug, PartialEq)]
pub struct Activations {
    /// The layer's name.
    pub layer: String,
    /// `[N, C, H, W]`; H and W are 1 in a layer without positions.
    pub shape: [usize; 4],
    /// The values, last dimension fastest.
    pub values: Vec<f32>,
}

impl Activations {
    /// The map of one channel for one stimulus: H x W values, row by row.
    pub fn map(&self, stimulus: usize, channel: usize) -> &[f32] {
        let [_, channels, height, width] = self.shape;
        let size = height * width;
        let start = (stimulus * channels + channel) * size;
        &self.values[start..start + size]
    }
}

/// Asks for the activations of `layers` for all stimuli in one request.
pub fn get(url: &str, model: &str, layers: &[String], stimuli: &[Stimulus]) -> Result<Answer> {
    let request = GetActivationsRequest {
        model: model.to_owned(),
        version: String::new(),
        layers: layers.to_vec(),
        stimuli: Some(get_activations_request::Stimuli::Images(EncodedImages {
            images: stimuli
                .iter()
                .map(|stimulus| stimulus.file.clone().into())
                .collect(),
        })),
        ..Default::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let client = VentralClient::connect(url.to_owned())
            .await
            .context("can't connect")?;
        let mut client = client.max_decoding_message_size(LARGEST_ANSWER);
        match client.get_activations(request).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => bail!("the server answers {}: {}", status.code(), status.message()),
        }
    })?;
    ensure!(
        answer.activations.len() == layers.len(),
        "{} tensors came for {} layers",
        answer.activations.len(),
        layers.len()
    );
    let layers = answer
        .activations
        .iter()
        .map(|tensor| decode(tensor, stimuli.len()))
        .collect::<Result<_>>()?;
    Ok(Answer {
        version: answer.version,
        checkpoint_digest: answer.checkpoint_digest,
        layers,
    })
}

/// Checks that a tensor is what its description says.
fn decode(tensor: &Tensor, stimuli: usize) -> Result<Activations> {
    let layer = &tensor.name;
    ensure!(
        tensor.data_type() == DataType::Float32,
        "the activations of {layer} aren't float32"
    );
    let shape = four_dimensions(&tensor.shape)
        .with_context(|| format!("the activations of {layer} have the shape {:?}", tensor.shape))?;
    ensure!(
        shape[0] == stimuli,
        "activations of {layer} came for {} stimuli, not {stimuli}",
        shape[0]
    );
    let bytes = shape
        .iter()
        .try_fold(4_usize, |bytes, &extent| bytes.checked_mul(extent));
    ensure!(
        bytes == Some(tensor.data.len()),
        "the activations of {layer} have {} bytes, which don't fit the shape {:?}",
        tensor.data.len(),
        tensor.shape
    );
    let (numbers, _) = tensor.data.as_chunks::<4>();
    Ok(Activations {
        layer: layer.clone(),
        shape,
        values: numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
    })
}

/// `[N, C, H, W]`, or `[N, C]` as one position.
fn four_dimensions(shape: &[u64]) -> Option<[usize; 4]> {
    let extents: Vec<usize> = shape
        .iter()
        .map(|&extent| usize::try_from(extent).ok())
        .collect::<Option<_>>()?;
    match extents[..] {
        [n, c] => Some([n, c, 1, 1]),
        [n, c, h, w] if h > 0 && w > 0 => Some([n, c, h, w]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[u64], data: Vec<u8>) -> Tensor {
        Tensor {
            name: "layer1".to_owned(),
            shape: shape.to_vec(),
            data_type: DataType::Float32.into(),
            data: data.into(),
            ..Default::default()
        }
    }

    fn bytes(count: u8) -> Vec<u8> {
        (0..count)
            .flat_map(|value| f32::from(value).to_le_bytes())
            .collect()
    }

    #[test]
    fn maps_are_found_in_a_decoded_tensor() {
        let activations = decode(&tensor(&[2, 3, 1, 2], bytes(12)), 2).unwrap();
        assert_eq!(activations.map(0, 0), [0.0, 1.0]);
        assert_eq!(activations.map(1, 2), [10.0, 11.0]);
    }

    #[test]
    fn a_layer_without_positions_has_maps_of_one_value() {
        let activations = decode(&tensor(&[2, 3], bytes(6)), 2).unwrap();
        assert_eq!(activations.shape, [2, 3, 1, 1]);
        assert_eq!(activations.map(1, 0), [3.0]);
    }

    #[test]
    fn tensors_that_contradict_themselves_are_refused() {
        let message = |tensor: Tensor, stimuli| decode(&tensor, stimuli).unwrap_err().to_string();
        assert!(message(tensor(&[2, 3, 1, 2], bytes(11)), 2).contains("44 bytes"));
        assert!(message(tensor(&[2, 3, 1, 2], bytes(12)), 3).contains("for 2 stimuli, not 3"));
        assert!(message(tensor(&[2, u64::MAX, 8, 8], bytes(12)), 2).contains("don't fit"));
        assert!(message(tensor(&[12], bytes(12)), 12).contains("[12]"));
        let of_no_type = Tensor {
            data_type: 0,
            ..tensor(&[2, 3], bytes(6))
        };
        assert!(message(of_no_type, 2).contains("aren't float32"));
    }
}
