//! The activations of one layer, computed no deeper than that.

use model::Layer;
use tch::{TchError, Tensor, no_grad};

use super::activation::Activation;
use super::pass::Pass;
use super::{Mode, NetworkError, Observer, TorchNetwork};

/// Keeps the activations of one layer.
struct Wanted<'a> {
    layer: &'a str,
    found: Option<Tensor>,
}

impl Observer for Wanted<'_> {
    fn observe(&mut self, name: &str, activation: &Activation) -> Result<(), TchError> {
        if name == self.layer {
            self.found = Some(activation.channels_first()?.f_contiguous()?);
        }
        Ok(())
    }
}

impl TorchNetwork {
    /// A layer by its name, with the shape of its activations.
    ///
    /// # Errors
    /// [`NetworkError::NoLayer`] with the names that there are.
    pub fn layer(&self, name: &str) -> Result<Layer, NetworkError> {
        let layers = self.network.layers();
        match layers.iter().find(|layer| layer.name == name) {
            Some(layer) => Ok(layer.clone()),
            None => Err(NetworkError::NoLayer {
                name: name.into(),
                layers: layers.into_iter().map(|layer| layer.name).collect(),
            }),
        }
    }

    /// The activations `[N, C, H, W]` (`fc`: `[N, classes]`) of a layer for preprocessed images `[N, C, H, W]`, in
    /// evaluation mode. What lies deeper isn't computed, but for the rest of the layer's own block.
    ///
    /// # Errors
    /// [`NetworkError`] where there is no such layer, the images don't fit or libtorch refuses.
    pub fn activations(&self, images: &Tensor, layer: &str) -> Result<Tensor, NetworkError> {
        self.layer(layer)?;
        self.check_input(images)?;
        let pass = Pass {
            network: self,
            mode: Mode::Evaluation,
            gradients: &self.store,
            statistics: false,
        };
        let mut wanted = Wanted { layer, found: None };
        no_grad(|| pass.until(images, &mut wanted))?;
        wanted.found.ok_or_else(|| NetworkError::NoLayer {
            name: layer.into(),
            layers: Vec::new(),
        })
    }
}

impl Pass<'_> {
    /// Computes segment after segment until the layer has been seen.
    fn until(&self, images: &Tensor, wanted: &mut Wanted<'_>) -> Result<(), TchError> {
        let mut current = self.stem(images, wanted)?;
        for stage in &self.network.network.stages {
            for block in &stage.blocks {
                if wanted.found.is_some() {
                    return Ok(());
                }
                current = self.block(&current, block, wanted)?;
                wanted.observe(&block.name, &current)?;
            }
            wanted.observe(&stage.name, &current)?;
        }
        if wanted.found.is_none() {
            let _logits = self.readout(&current, wanted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Initialisation;
    use crate::recording;
    use model::{Architecture, Connectivity, InputShape};
    use tch::{Device, Kind};

    #[test]
    fn every_layer_is_that_of_a_whole_pass() {
        let input = InputShape {
            channels: 3,
            height: 32,
            width: 32,
        };
        let connectivity = Connectivity::LocallyConnected { n_first_conv: 1 };
        let mut architecture = Architecture::resnet18(input, 2, 3, connectivity);
        architecture.blocks = vec![2, 1];
        let network = architecture.network().unwrap();
        let network = TorchNetwork::initialise(network, Initialisation::Random, Device::Cpu).unwrap();
        let images = Tensor::randn([2, 3, 32, 32], (Kind::Float, Device::Cpu));
        let whole = recording::activations(&network, &images).unwrap();
        assert_eq!(whole.len(), network.network().layers().len());
        for (name, expected) in whole {
            let found = network.activations(&images, &name).unwrap();
            assert!(found.equal(&expected), "{name}");
            let shape: Vec<i64> = network
                .layer(&name)
                .unwrap()
                .shape
                .iter()
                .map(|&n| n as i64)
                .collect();
            assert_eq!(found.size()[1..], shape, "{name}");
        }
        let error = network.activations(&images, "layer3").unwrap_err().to_string();
        assert!(
            error.contains("`layer3`") && error.contains("layer2.0.downsample"),
            "{error}"
        );
    }
}
