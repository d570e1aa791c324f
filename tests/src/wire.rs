//! A client of the wire formats.

use std::collections::BTreeMap;

use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{
    DataType, EncodedImages, GetActivationsRequest, GetActivationsResponse, GetModelRequest, GetModelResponse,
};
use tonic::transport::Channel;

use crate::tensors::Tensor;

/// More than any answer here.
const LARGEST_ANSWER: usize = 256 << 20;

/// A gRPC client that blocks.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    client: VentralClient<Channel>,
}

impl Client {
    /// Connects to a server's gRPC port.
    pub fn connect(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(VentralClient::connect(url.to_owned())).unwrap();
        Self {
            runtime,
            client: client.max_decoding_message_size(LARGEST_ANSWER),
        }
    }

    /// The description of a model.
    pub fn model(&mut self, name: &str) -> GetModelResponse {
        let request = GetModelRequest {
            model: name.into(),
            version: String::new(),
        };
        let response = self.runtime.block_on(self.client.get_model(request));
        response.unwrap().into_inner()
    }

    /// The layers of a model, in the order in which they are computed.
    pub fn layers(&mut self, model: &str) -> Vec<String> {
        let layers = self.model(model).layers;
        layers.into_iter().map(|layer| layer.name).collect()
    }

    /// Activations for images as files hold them.
    pub fn of_images(
        &mut self,
        model: &str,
        layers: &[String],
        images: Vec<Vec<u8>>,
    ) -> BTreeMap<String, Tensor> {
        let images = images.into_iter().map(Into::into).collect();
        let stimuli = Stimuli::Images(EncodedImages { images });
        tensors(self.get(model, layers, stimuli).unwrap())
    }

    /// Activations for the network's input itself.
    pub fn of_tensor(&mut self, model: &str, layers: &[String], input: &Tensor) -> BTreeMap<String, Tensor> {
        let tensor = proto::ventral::v1::Tensor {
            name: String::new(),
            shape: input.shape.iter().map(|&length| length as u64).collect(),
            data_type: DataType::Float32 as i32,
            data: input.to_bytes().into(),
            ..Default::default()
        };
        tensors(self.get(model, layers, Stimuli::Tensor(tensor)).unwrap())
    }

    /// The server's answer, or the status with which it refuses one.
    pub fn get(
        &mut self,
        model: &str,
        layers: &[String],
        stimuli: Stimuli,
    ) -> Result<GetActivationsResponse, tonic::Status> {
        let request = GetActivationsRequest {
            model: model.into(),
            version: String::new(),
            layers: layers.to_vec(),
            stimuli: Some(stimuli),
            ..Default::default()
        };
        let response = self.runtime.block_on(self.client.get_activations(request))?;
        Ok(response.into_inner())
    }
}

fn tensors(response: GetActivationsResponse) -> BTreeMap<String, Tensor> {
    response
        .activations
        .into_iter()
        .map(|tensor| {
            let shape: Vec<_> = tensor.shape.iter().map(|&length| length as usize).collect();
            (tensor.name, Tensor::from_bytes(&shape, &tensor.data))
        })
        .collect()
}
