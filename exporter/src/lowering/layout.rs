//! Activations in one of two layouts, and the transpositions between them: only where a layer needs them, each once.
//!
//! Locally connected layers want `[H, W, N, C]`: unfolding is then copies of whole rows and the layer one batched
//! matrix product. Convolutions and max pooling want `[N, C, H, W]`.

use std::collections::HashMap;

use super::graph::{GraphBuilder, integers};

/// The order of an activation's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[N, C, H, W]`, what users give and get.
    ChannelsFirst,
    /// `[H, W, N, C]`.
    PositionMajor,
}

/// A value of the graph that holds a batch of one layer's activations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Activation {
    /// Its name.
    pub(super) value: String,
    /// The order of its dimensions.
    pub(super) layout: Layout,
}

/// The values that exist in both layouts.
#[derive(Debug, Default)]
pub(super) struct Transpositions(HashMap<String, String>);

/// Both ways: `[N, C, H, W]` ⇄ `[H, W, N, C]`.
const PERMUTATION: [i64; 4] = [2, 3, 0, 1];

impl Layout {
    fn label(self) -> &'static str {
        match self {
            Self::ChannelsFirst => "channels_first",
            Self::PositionMajor => "position_major",
        }
    }

    /// The axes of height and width.
    pub(super) fn position_axes(self) -> [i64; 2] {
        match self {
            Self::ChannelsFirst => [2, 3],
            Self::PositionMajor => [0, 1],
        }
    }

    /// The shape in which one value per channel is broadcast over an activation.
    pub(super) fn channel_shape(self, channels: usize) -> Vec<usize> {
        match self {
            Self::ChannelsFirst => vec![channels, 1, 1],
            Self::PositionMajor => vec![channels],
        }
    }
}

impl Activation {
    pub(super) fn new(value: impl Into<String>, layout: Layout) -> Self {
        let value = value.into();
        Self { value, layout }
    }
}

impl Transpositions {
    /// The activation's value in the given layout; a node is added where it doesn't exist yet.
    pub(super) fn value(
        &mut self,
        graph: &mut GraphBuilder<'_>,
        activation: &Activation,
        layout: Layout,
    ) -> String {
        if let Some(value) = self.existing(activation, layout) {
            return value.into();
        }
        let name = format!("{}/{}", activation.value, layout.label());
        self.transpose(graph, activation, name)
    }

    /// Gives the activation the name of a graph's output, `[N, C, H, W]`. No other value is computed from it, except
    /// for further names of the same activation.
    pub(super) fn output(&mut self, graph: &mut GraphBuilder<'_>, activation: &Activation, name: &str) {
        match self.existing(activation, Layout::ChannelsFirst) {
            Some(value) => {
                let value = value.to_owned();
                graph.node("Identity", &[&value], name, vec![]);
            }
            None => {
                self.transpose(graph, activation, name.into());
            }
        }
    }

    fn existing<'b>(&'b self, activation: &'b Activation, layout: Layout) -> Option<&'b str> {
        if activation.layout == layout {
            Some(&activation.value)
        } else {
            self.0.get(&activation.value).map(String::as_str)
        }
    }

    fn transpose(&mut self, graph: &mut GraphBuilder<'_>, activation: &Activation, name: String) -> String {
        let attributes = vec![integers("perm", &PERMUTATION)];
        let transposed = graph.node("Transpose", &[&activation.value], name, attributes);
        self.0.insert(activation.value.clone(), transposed.clone());
        transposed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operators(graph: GraphBuilder<'_>, output: &str) -> Vec<String> {
        let mut graph = graph;
        graph.output(output, &[]);
        let nodes = graph.finish().nodes;
        nodes.into_iter().map(|node| node.op_type).collect()
    }

    #[test]
    fn the_permutation_is_its_own_inverse_and_swaps_the_layouts() {
        let permute = |axes: [&'static str; 4]| PERMUTATION.map(|axis| axes[axis as usize]);
        assert_eq!(permute(["N", "C", "H", "W"]), ["H", "W", "N", "C"]);
        assert_eq!(permute(["H", "W", "N", "C"]), ["N", "C", "H", "W"]);
    }

    #[test]
    fn a_value_is_transposed_once() {
        let (mut graph, mut transpositions) = (GraphBuilder::default(), Transpositions::default());
        let activation = Activation::new("relu/activation", Layout::ChannelsFirst);
        let first = transpositions.value(&mut graph, &activation, Layout::PositionMajor);
        let second = transpositions.value(&mut graph, &activation, Layout::PositionMajor);
        assert_eq!(first, second);
        let same = transpositions.value(&mut graph, &activation, Layout::ChannelsFirst);
        assert_eq!(same, "relu/activation");
        assert_eq!(operators(graph, &first), ["Transpose"]);
    }

    #[test]
    fn a_second_name_of_an_output_is_no_second_transposition() {
        let (mut graph, mut transpositions) = (GraphBuilder::default(), Transpositions::default());
        let activation = Activation::new("layer1.0/activation", Layout::PositionMajor);
        transpositions.output(&mut graph, &activation, "layer1.0");
        transpositions.output(&mut graph, &activation, "layer1");
        assert_eq!(operators(graph, "layer1"), ["Transpose", "Identity"]);
    }
}
