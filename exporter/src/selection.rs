//! Which layers a bundle gives, and in which form BatchNorm is in it.

use model::{Layer, Network};

use crate::error::ExportError;

/// Which layers are exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerSelection {
    /// By name, in any order; `None`: every layer that the bundle can give.
    pub names: Option<Vec<String>>,
    /// Whether BatchNorm stays apart from the weights, so that the values before it exist.
    pub keep_preactivations: bool,
}

impl LayerSelection {
    /// The selected layers in the order in which they are computed, each once.
    ///
    /// # Errors
    /// [`ExportError::UnknownLayers`], [`ExportError::FoldedLayers`] and [`ExportError::NoLayers`].
    pub fn layers(&self, network: &Network) -> Result<Vec<Layer>, ExportError> {
        let all = network.layers();
        let exists = |layer: &Layer| self.keep_preactivations || !layer.kind.is_preactivation();
        let Some(names) = &self.names else {
            return Ok(all.into_iter().filter(exists).collect());
        };
        let unknown: Vec<_> = names
            .iter()
            .filter(|name| !all.iter().any(|layer| layer.name == **name))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            let known = all.into_iter().map(|layer| layer.name).collect();
            return Err(ExportError::UnknownLayers { unknown, known });
        }
        let selected: Vec<_> = all
            .into_iter()
            .filter(|layer| names.contains(&layer.name))
            .collect();
        let (selected, folded): (Vec<_>, Vec<_>) = selected.into_iter().partition(exists);
        if !folded.is_empty() {
            let layers = folded.into_iter().map(|layer| layer.name).collect();
            return Err(ExportError::FoldedLayers { layers });
        }
        if selected.is_empty() {
            return Err(ExportError::NoLayers);
        }
        Ok(selected)
    }
}

#[cfg(test)]
mod tests {
    use model::{Architecture, Connectivity, InputShape};

    use super::*;

    fn network() -> Network {
        let input = InputShape {
            channels: 1,
            height: 8,
            width: 8,
        };
        Architecture::resnet_cifar(1, input, 2, 3, Connectivity::Convolutional)
            .network()
            .unwrap()
    }

    fn select(names: &[&str], keep_preactivations: bool) -> Result<Vec<String>, ExportError> {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let selection = LayerSelection {
            names: Some(names),
            keep_preactivations,
        };
        let layers = selection.layers(&network())?;
        Ok(layers.into_iter().map(|layer| layer.name).collect())
    }

    #[test]
    fn by_default_only_preactivations_are_left_out() {
        let network = network();
        let folded = LayerSelection::default().layers(&network).unwrap();
        let kept = LayerSelection {
            names: None,
            keep_preactivations: true,
        };
        assert_eq!(kept.layers(&network).unwrap(), network.layers());
        let left_out = network.layers().len() - folded.len();
        assert_eq!(left_out, network.convolutions().count());
    }

    #[test]
    fn names_are_given_once_in_the_order_of_computation() {
        assert_eq!(
            select(&["fc", "relu", "fc"], false).unwrap(),
            ["relu".to_owned(), "fc".to_owned()]
        );
        assert_eq!(select(&["conv1"], true).unwrap(), ["conv1".to_owned()]);
    }

    #[test]
    fn what_does_not_exist_is_named_with_what_does() {
        let error = select(&["relu", "layer9", "head"], false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no layer `layer9`, `head`"), "{error}");
        assert!(error.contains("conv1, bn1, relu, layer1.0.conv1"), "{error}");
        let error = select(&["conv1"], false).unwrap_err().to_string();
        assert!(
            error.contains("`conv1`") && error.contains("--keep-preactivations"),
            "{error}"
        );
        assert!(matches!(select(&[], false), Err(ExportError::NoLayers)));
    }
}
