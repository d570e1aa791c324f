//! Windows of `[H, W, C, N]` activations: what every neuron of a locally connected layer sees, and max pooling.
//!
//! Both are gatherings along the outermost dimensions, whose elements are whole blocks of memory. The indices are few:
//! rows and columns are constants of their own, and their sum is left to the runtime.

use model::Convolution;
use model::network::MaxPool;

use super::graph::{GraphBuilder, integer};
use super::layout::Activation;

/// Every neuron's inputs, `[H_out, W_out, K, N]`, K in the order (row, column, input channel) of the weights. `input` is
/// `[H, W, C, N]`.
pub(super) fn unfold(graph: &mut GraphBuilder<'_>, convolution: &Convolution, input: &str) -> String {
    let name = &convolution.name;
    let (kernel, stride) = (convolution.kernel_size, convolution.stride);
    if (kernel, stride) == (1, 1) {
        return input.into();
    }
    let padding = convolution.padding as i64;
    let mut value = input.to_owned();
    if padding > 0 {
        let pads = graph.integers(&[padding, padding, 0, 0, padding, padding, 0, 0]);
        value = graph.node("Pad", &[&value, &pads], format!("{name}/padded"), vec![]);
    }
    let [height, width] =
        [convolution.input.height, convolution.input.width].map(|length| length + 2 * convolution.padding);
    let (rows, columns) = (convolution.output.height, convolution.output.width);

    let flat = graph.integers(&[(height * width) as i64, convolution.in_channels as i64, -1]);
    let flat = graph.node("Reshape", &[&value, &flat], format!("{name}/flat"), vec![]);
    let along = |positions: usize, pitch: usize| -> Vec<i64> {
        (0..positions)
            .flat_map(|position| {
                (0..kernel).map(move |element| ((position * stride + element) * pitch) as i64)
            })
            .collect()
    };
    let row_indices = graph.indices(&[rows, 1, kernel, 1], &along(rows, width));
    let column_indices = graph.indices(&[1, columns, 1, kernel], &along(columns, 1));
    let inputs = [row_indices.as_str(), column_indices.as_str()];
    let indices = graph.node("Add", &inputs, format!("{name}/windows"), vec![]);
    let gathered = graph.node(
        "Gather",
        &[&flat, &indices],
        format!("{name}/gathered"),
        vec![integer("axis", 0)],
    );
    let shape = [rows, columns, convolution.fan_in()].map(|length| length as i64);
    let shape = graph.integers(&[shape[0], shape[1], shape[2], -1]);
    graph.node(
        "Reshape",
        &[&gathered, &shape],
        format!("{name}/unfolded"),
        vec![],
    )
}

/// Max pooling of an `[H, W, C, N]` activation, first over rows, then over columns.
///
/// A window element outside the image is replaced by the nearest inside, which is in the same window and so changes no
/// maximum.
pub(super) fn max_pool(graph: &mut GraphBuilder<'_>, pool: &MaxPool, input: &Activation) -> String {
    let axes = [
        ("rows", input.shape.height, pool.output.height),
        ("columns", input.shape.width, pool.output.width),
    ];
    let mut value = input.value.clone();
    for (axis, (label, inputs, outputs)) in axes.into_iter().enumerate() {
        let mut elements = Vec::with_capacity(pool.kernel_size);
        for element in 0..pool.kernel_size {
            let indices: Vec<_> = (0..outputs)
                .map(|output| {
                    let index = (output * pool.stride + element).saturating_sub(pool.padding);
                    index.min(inputs - 1) as i64
                })
                .collect();
            let indices = graph.indices(&[outputs], &indices);
            let name = format!("maxpool/{label}_{element}");
            let attributes = vec![integer("axis", axis as i64)];
            elements.push(graph.node("Gather", &[&value, &indices], name, attributes));
        }
        let elements: Vec<_> = elements.iter().map(String::as_str).collect();
        value = graph.node("Max", &elements, format!("maxpool/{label}"), vec![]);
    }
    value
}

#[cfg(test)]
mod tests {
    use model::network::Resolution;

    use super::*;

    fn operators(kernel_size: usize, stride: usize) -> Vec<String> {
        let resolution = Resolution { height: 5, width: 7 };
        let convolution = Convolution::new("conv", true, (2, 3), (kernel_size, stride), resolution).unwrap();
        let mut graph = GraphBuilder::default();
        let unfolded = unfold(&mut graph, &convolution, "x/activation");
        graph.output(&unfolded, &[]);
        let nodes = graph.finish().nodes;
        nodes.into_iter().map(|node| node.op_type).collect()
    }

    #[test]
    fn unfolding_does_no_more_than_the_geometry_needs() {
        assert_eq!(operators(1, 1), Vec::<String>::new());
        let without_padding = ["Reshape", "Add", "Gather", "Reshape"];
        assert_eq!(operators(1, 2), without_padding);
        assert_eq!(operators(2, 1), without_padding);
        assert_eq!(operators(3, 2), ["Pad", "Reshape", "Add", "Gather", "Reshape"]);
    }
}
