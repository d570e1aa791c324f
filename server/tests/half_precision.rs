//! Products of float16 factors give what rounding the factors by hand gives.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use half::f16;
use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::{DataType, GetActivationsRequest, Tensor};
use server::half_precision::round_products;
use support::bundle::{BIAS, Bundle, OFFSET, SCALE, weight};
use support::running::Running;
use support::{to_bytes, to_values};

#[tokio::test(flavor = "multi_thread")]
async fn factors_are_rounded_and_nothing_else() {
    let repository = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new();
    let nodes = bundle.graph_mut().node.len();
    round_products(&mut bundle.graph);
    // The readout is the only product: its three inputs are rounded, its output is widened.
    assert_eq!(bundle.graph_mut().node.len(), nodes + 4);
    bundle.write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    // None of these is a float16.
    let pixels: Vec<f32> = (0..16)
        .map(|index| (index as f32).mul_add(0.0613, 0.01))
        .collect();
    let tensor = Tensor {
        name: String::new(),
        shape: vec![1, 1, 4, 4],
        data_type: DataType::Float32 as i32,
        data: to_bytes(&pixels).into(),
        ..Default::default()
    };
    let request = GetActivationsRequest {
        model: "hand".into(),
        layers: vec!["layer1".into(), "fc".into()],
        stimuli: Some(Stimuli::Tensor(tensor)),
        ..Default::default()
    };
    let mut client = running.client().await;
    let answer = client.get_activations(request).await.unwrap().into_inner();
    let layer1: Vec<f32> = SCALE
        .iter()
        .flat_map(|scale| pixels.iter().map(move |pixel| (scale * pixel).max(0.0) + OFFSET))
        .collect();
    assert_eq!(
        to_values(&answer.activations[0].data),
        layer1,
        "no product comes before"
    );
    let round = |value: f32| f16::from_f32(value).to_f32();
    let product = |j: usize, round: &dyn Fn(f32) -> f32| {
        let terms = layer1
            .iter()
            .enumerate()
            .map(|(k, &value)| round(value) * round(weight(k, j)));
        terms.sum::<f32>() + round(BIAS[j])
    };
    for (j, &found) in to_values(&answer.activations[1].data).iter().enumerate() {
        let expected = product(j, &round);
        // The product itself is a float16 once: 11 bits.
        assert!(
            (found - expected).abs() <= expected.abs() / 1024.0,
            "{found} instead of {expected}"
        );
    }
    running.stop().await;
}
