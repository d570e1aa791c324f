//! What a request may choose: preprocessing, pooling, units, types, compression; all of it computed by hand.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use half::{bf16, f16};
use model::Resize;
use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{
    ActivationOptions, ClassifyRequest, Compression, DataType, EncodedImages, GetActivationsRequest, Pooling,
    Preprocessing, Tensor, Units, classify_request,
};
use support::bundle::{self, Bundle, CLASSES};
use support::running::Running;
use support::{png, to_bytes, to_values};
use tonic::Code;
use tonic::transport::Channel;

const IMAGE: [f32; 16] = [
    0.0, 1.0, -1.0, 0.5, 2.0, -0.25, 0.125, 3.0, -3.0, 0.75, 1.5, -1.5, 0.0, 4.0, -0.5, 1.0,
];

fn tensor() -> Stimuli {
    Stimuli::Tensor(Tensor {
        shape: vec![2, 1, 4, 4],
        data_type: DataType::Float32 as i32,
        data: to_bytes(&[IMAGE, IMAGE.map(|value| 1.0 - value)].concat()).into(),
        ..Default::default()
    })
}

fn pixels(shape: &[u64], pixels: &[u8]) -> Stimuli {
    Stimuli::Tensor(Tensor {
        shape: shape.to_vec(),
        data_type: DataType::Uint8 as i32,
        data: pixels.to_vec().into(),
        ..Default::default()
    })
}

fn request(layers: &[&str], stimuli: Stimuli, options: ActivationOptions) -> GetActivationsRequest {
    GetActivationsRequest {
        model: "hand".into(),
        layers: layers.iter().map(ToString::to_string).collect(),
        stimuli: Some(stimuli),
        options: Some(options),
        ..Default::default()
    }
}

async fn answer(
    client: &mut VentralClient<Channel>,
    layers: &[&str],
    stimuli: Stimuli,
    options: ActivationOptions,
) -> Vec<Tensor> {
    let answer = client.get_activations(request(layers, stimuli, options)).await;
    answer.unwrap().into_inner().activations
}

async fn start() -> (tempfile::TempDir, Running) {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    (repository, running)
}

/// `relu` of both images.
fn relu() -> Vec<f32> {
    [
        bundle::relu(&IMAGE),
        bundle::relu(&IMAGE.map(|value| 1.0 - value)),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn spatial_dimensions_are_pooled() {
    let (_repository, running) = start().await;
    let mut client = running.client().await;
    for (pooling, pool) in [
        (
            Pooling::SpatialMean,
            (|channel| channel.iter().sum::<f32>() / 16.0) as fn(&[f32]) -> f32,
        ),
        (Pooling::SpatialMax, |channel| {
            channel.iter().copied().fold(f32::MIN, f32::max)
        }),
    ] {
        let options = ActivationOptions {
            pooling: pooling as i32,
            ..Default::default()
        };
        let found = answer(&mut client, &["relu", "fc"], tensor(), options).await;
        assert_eq!(found[0].shape, [2, 2]);
        let expected: Vec<_> = relu().chunks(16).map(pool).collect();
        assert_eq!(to_values(&found[0].data), expected);
        assert_eq!(found[1].shape, [2, 3], "the readout has nothing to pool");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn units_are_chosen_by_layer() {
    let (_repository, running) = start().await;
    let mut client = running.client().await;
    let units = |layer: &str, indices: &[u32]| Units {
        layer: layer.into(),
        indices: indices.to_vec(),
    };
    let options = ActivationOptions {
        units: vec![units("relu", &[31, 0, 0, 13])],
        ..Default::default()
    };
    let found = answer(&mut client, &["relu", "layer1"], tensor(), options).await;
    assert_eq!(found[0].shape, [2, 4]);
    let expected: Vec<_> = relu()
        .chunks(32)
        .flat_map(|row| [row[31], row[0], row[0], row[13]])
        .collect();
    assert_eq!(to_values(&found[0].data), expected);
    assert_eq!(found[1].shape, [2, 2, 4, 4], "the other layer is whole");

    for (units, pooling, expected) in [
        (vec![units("relu", &[32])], 0, "has no unit 32: it has 32 units"),
        (vec![units("relu", &[])], 0, "the list of units is empty"),
        (
            vec![units("layer1", &[0])],
            0,
            "units of layer `layer1` are asked for, but not the layer",
        ),
        (
            vec![units("relu", &[0]), units("relu", &[1])],
            0,
            "given more than once",
        ),
        (vec![units("relu", &[0])], 1, "either pooling or units"),
    ] {
        let options = ActivationOptions {
            units,
            pooling,
            ..Default::default()
        };
        let status = client
            .get_activations(request(&["relu"], tensor(), options))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_rounded_and_packed() {
    let (_repository, running) = start().await;
    let mut client = running.client().await;
    let whole = answer(&mut client, &["relu"], tensor(), ActivationOptions::default()).await;
    let expected = to_values(&whole[0].data);
    assert_eq!(expected, relu());
    for compression in [Compression::Unspecified, Compression::Zstd] {
        for data_type in [DataType::Float32, DataType::Float16, DataType::Bfloat16] {
            let options = ActivationOptions {
                data_type: data_type as i32,
                compression: compression as i32,
                ..Default::default()
            };
            let found = &answer(&mut client, &["relu"], tensor(), options).await[0];
            assert_eq!((found.data_type(), found.compression()), (data_type, compression));
            let bytes = match compression {
                Compression::Zstd => zstd::decode_all(&found.data[..]).unwrap(),
                Compression::Unspecified => found.data.to_vec(),
            };
            let expected: Vec<u8> = match data_type {
                DataType::Float16 => expected
                    .iter()
                    .flat_map(|&x| f16::from_f32(x).to_le_bytes())
                    .collect(),
                DataType::Bfloat16 => expected
                    .iter()
                    .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
                    .collect(),
                _ => to_bytes(&expected),
            };
            assert_eq!(bytes, expected, "{data_type:?} {compression:?}");
        }
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pixels_are_normalised_as_those_of_an_image() {
    let repository = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new();
    bundle.manifest.preprocessing.mean = vec![0.25];
    bundle.manifest.preprocessing.std = vec![0.5];
    bundle.write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    let values: [u8; 16] = std::array::from_fn(|index| index as u8 * 17);
    let image = Stimuli::Images(EncodedImages {
        images: vec![png(4, 4, &values).into()],
    });
    let expected = answer(&mut client, &["relu"], image, ActivationOptions::default()).await;
    assert_eq!(
        to_values(&expected[0].data),
        bundle::relu(&values.map(|pixel| (f32::from(pixel) / 255.0 - 0.25) / 0.5))
    );
    for shape in [[1, 1, 4, 4], [1, 4, 4, 1]] {
        let found = answer(
            &mut client,
            &["relu"],
            pixels(&shape, &values),
            ActivationOptions::default(),
        )
        .await;
        assert_eq!(found, expected);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_stretched_or_cropped() {
    let repository = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new();
    bundle.manifest.preprocessing.resize = Resize::ShortSide { size: 4 };
    bundle.write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    // Black at the sides, which the crop cuts off, and white in the middle.
    let row = [[0; 4], [255; 4], [0; 4]].concat();
    let image = || {
        Stimuli::Images(EncodedImages {
            images: vec![png(12, 4, &row.repeat(4)).into()],
        })
    };
    let choose = |preprocessing: Preprocessing| ActivationOptions {
        preprocessing: preprocessing as i32,
        ..Default::default()
    };
    for preprocessing in [Preprocessing::Unspecified, Preprocessing::Model] {
        let found = answer(&mut client, &["relu"], image(), choose(preprocessing)).await;
        assert_eq!(to_values(&found[0].data), bundle::relu(&[1.0; 16]));
    }
    let found = answer(&mut client, &["relu"], image(), choose(Preprocessing::Stretch)).await;
    let first = to_values(&found[0].data)[..4].to_vec();
    assert!(
        first[0] < 0.2 && first[1] > 0.5 && first[2] > 0.5 && first[3] < 0.2,
        "{first:?}"
    );

    for (stimuli, preprocessing, expected) in [
        (image(), Preprocessing::None, "`none` is for tensors"),
        (
            tensor(),
            Preprocessing::Stretch,
            "`stretch` needs images or uint8",
        ),
        (
            pixels(&[1, 1, 4, 4], &[0; 16]),
            Preprocessing::None,
            "`none` needs float32",
        ),
    ] {
        let request = request(&["relu"], stimuli, choose(preprocessing));
        let status = client.get_activations(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    answer(&mut client, &["relu"], tensor(), choose(Preprocessing::None)).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_classified() {
    let (_repository, running) = start().await;
    let mut client = running.client().await;
    let request = |top_k, logits| ClassifyRequest {
        model: "hand".into(),
        stimuli: match tensor() {
            Stimuli::Tensor(tensor) => Some(classify_request::Stimuli::Tensor(tensor)),
            Stimuli::Images(images) => Some(classify_request::Stimuli::Images(images)),
        },
        top_k,
        logits,
        ..Default::default()
    };
    let answer = client.classify(request(2, true)).await.unwrap().into_inner();
    assert_eq!((answer.model.as_str(), answer.version.as_str()), ("hand", "1"));
    assert_eq!(answer.classifications.len(), 2);
    for (found, image) in answer
        .classifications
        .iter()
        .zip([IMAGE, IMAGE.map(|value| 1.0 - value)])
    {
        let logits = bundle::fc(&image);
        for (found, expected) in found.logits.iter().zip(&logits) {
            assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
        }
        let mut classes = [0, 1, 2];
        classes.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        assert_eq!(found.predictions.len(), 2);
        for (prediction, class) in found.predictions.iter().zip(classes) {
            assert_eq!(prediction.class as usize, class);
            assert_eq!(prediction.name, CLASSES[class]);
            assert_eq!(prediction.logit, found.logits[class]);
            let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            let expected = f64::from(logits[class]).exp() / sum;
            assert!((prediction.probability - expected).abs() < 1e-5);
        }
    }
    let answer = client.classify(request(0, false)).await.unwrap().into_inner();
    assert_eq!(answer.classifications[0].predictions.len(), 3);
    assert_eq!(answer.classifications[0].logits, [0.0; 0]);
    for (position, value) in [(3, f32::INFINITY), (17, f32::NEG_INFINITY)] {
        let mut wrong = request(1, false);
        let Some(classify_request::Stimuli::Tensor(tensor)) = &mut wrong.stimuli else {
            unreachable!("these stimuli are a tensor");
        };
        let mut values = to_values(&tensor.data);
        values[position] = value;
        tensor.data = to_bytes(&values).into();
        let status = client.classify(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let expected = format!("position {position} (counted from 0) is {value}");
        assert!(status.message().contains(&expected), "{status}");
    }
    running.stop().await;
}
