//! train → record → export → verify → serve → ask: what a client gets for an image is what the trainer computed for it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proto::ventral::v1::EncodedImages;
use proto::ventral::v1::get_activations_request::Stimuli;
use serde_json::Value;
use tests::images;
use tests::programs::{failure, run};
use tests::server::Server;
use tests::tensors::{self, Tensor};
use tests::wire::Client;

const NETWORK: [&str; 10] = [
    "--architecture",
    "resnet-cifar",
    "--blocks",
    "1,1",
    "--width",
    "4",
    "--initialisation",
    "conv",
    "--sleep-every",
    "2",
];

/// A trained network in all the forms that the programs give it.
struct Products {
    folder: tempfile::TempDir,
}

impl Products {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The path up to the server, walked once for all tests.
fn products() -> &'static Products {
    static PRODUCTS: OnceLock<Products> = OnceLock::new();
    PRODUCTS.get_or_init(|| {
        let products = Products {
            folder: tempfile::tempdir().unwrap(),
        };
        let path = |name: &str| text(&products.path(name)).to_owned();
        let (data, checkpoint, recording) = (
            path("data"),
            path("lc.safetensors"),
            path("lc.activations.safetensors"),
        );
        images::write(Path::new(&data), 512, 64);
        let mut arguments = vec!["train", "--output", &checkpoint, "--data", &data];
        arguments.extend(NETWORK);
        arguments.extend(["--epochs", "2", "--batch-size", "32"]);
        run("trainer", arguments);
        run(
            "trainer",
            ["record", &checkpoint, "--data", &data, "--output", &recording],
        );
        run(
            "trainer",
            ["stimuli", "--data", &data, "--output", &path("stimuli")],
        );
        let repository = path("models");
        run(
            "exporter",
            [
                "export",
                &checkpoint,
                "--repository",
                &repository,
                "--model",
                "lc",
            ],
        );
        run(
            "exporter",
            ["verify", &path("models/lc/1"), "--recording", &recording],
        );
        products
    })
}

/// The stimuli as files, in their order.
fn stimuli() -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<_> = std::fs::read_dir(products().path("stimuli"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn activations_of_image_files_are_those_of_the_trainer() {
    let products = products();
    let recorded = tensors::read(&products.path("lc.activations.safetensors"), "");
    let server = Server::start(&products.path("models"));
    let mut client = Client::connect(&server.grpc);
    let layers = client.layers("lc");
    assert!(layers.contains(&"layer1.0.relu1".to_owned()), "{layers:?}");
    let files = stimuli().into_iter().map(|(_, bytes)| bytes).collect();
    let activations = client.of_images("lc", &layers, files);
    for layer in &layers {
        let error = activations[layer].relative_error(&recorded[layer]);
        assert!(error < 1e-5, "{layer} differs by {error:e}");
    }
    let digest = client.model("lc").checkpoint_digest;
    let checkpoint = model::Checkpoint::open(&products.path("lc.safetensors")).unwrap();
    assert_eq!(digest, checkpoint.digest());
}

#[test]
fn images_are_classified_as_the_trainer_s_logits_say() {
    let products = products();
    let logits = &tensors::read(&products.path("lc.activations.safetensors"), "")["fc"];
    let server = Server::start(&products.path("models"));
    let class_names = Client::connect(&server.grpc).model("lc").class_names;
    let url = format!("{}/v1/models/lc/classify?top_k=1", server.http);
    for (index, (path, bytes)) in stimuli().into_iter().enumerate() {
        let mut answer = ureq::post(&url)
            .content_type("image/png")
            .send(&bytes[..])
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.body_mut().read_to_vec().unwrap()).unwrap();
        let expected = likeliest(logits, index);
        let prediction = &answer["predictions"][0];
        assert_eq!(prediction["class"], expected, "{}: {answer}", path.display());
        assert_eq!(prediction["name"], class_names[expected], "{}", path.display());
    }
}

#[test]
fn image_files_are_recorded_as_the_test_images_that_they_were() {
    let products = products();
    let recorded = tensors::read(&products.path("lc.activations.safetensors"), "");
    let folder = tempfile::tempdir().unwrap();
    let output = text(&folder.path().join("files.activations.safetensors")).to_owned();
    let checkpoint = text(&products.path("lc.safetensors")).to_owned();
    let images = text(&products.path("stimuli")).to_owned();
    run(
        "trainer",
        ["record", &checkpoint, "--output", &output, "--stimuli", &images],
    );
    assert_eq!(tensors::read(Path::new(&output), "")["input"], recorded["input"]);
    run(
        "exporter",
        [
            "verify",
            text(&products.path("models/lc/1")),
            "--recording",
            &output,
        ],
    );
}

fn likeliest(logits: &Tensor, image: usize) -> usize {
    let classes = logits.shape[1];
    let logits = &logits.values[image * classes..][..classes];
    (0..classes)
        .max_by(|&one, &other| logits[one].total_cmp(&logits[other]))
        .unwrap()
}

#[test]
fn mistakes_are_answered_with_what_would_be_right() {
    let products = products();
    let server = Server::start(&products.path("models"));
    let mut client = Client::connect(&server.grpc);
    let image = || {
        Stimuli::Images(EncodedImages {
            images: vec![stimuli()[0].1.clone().into()],
        })
    };
    let status = client.get("lc", &["layer9".into()], image()).unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(
        status.message().contains("layer9") && status.message().contains("layer2.0.relu1"),
        "{status}"
    );
    let status = client.get("cl", &["layer1".into()], image()).unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(status.message().contains("lc"), "{status}");
    let no_image = Stimuli::Images(EncodedImages {
        images: vec![b"not an image"[..].into()],
    });
    let status = client.get("lc", &["layer1".into()], no_image).unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);

    let checkpoint = text(&products.path("lc.safetensors")).to_owned();
    let repository = text(&products.path("elsewhere")).to_owned();
    let arguments = [
        "export",
        &checkpoint,
        "--repository",
        &repository,
        "--model",
        "lc",
        "--layers",
        "layer9",
    ];
    let stderr = failure("exporter", arguments);
    assert!(
        stderr.contains("layer9") && stderr.contains("layer2.0.relu1"),
        "{stderr}"
    );
}

#[test]
fn a_truncated_checkpoint_is_refused_by_every_program() {
    let products = products();
    let bytes = std::fs::read(products.path("lc.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let torn = text(&folder.path().join("torn.safetensors")).to_owned();
    let repository = text(&folder.path().join("models")).to_owned();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&torn, &bytes[..length]).unwrap();
        for stderr in [
            failure("trainer", ["eval", &torn]),
            failure(
                "exporter",
                ["export", &torn, "--repository", &repository, "--model", "torn"],
            ),
        ] {
            assert!(stderr.contains("torn.safetensors"), "{length} bytes: {stderr}");
            assert!(!stderr.contains("panicked"), "{stderr}");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
