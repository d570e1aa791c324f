//! What a comparison has found: a table for people, JSON for programs.

use std::fmt;
use std::io;
use std::path::Path;

use model::checkpoint::PendingFile;
use model::verification::VerifiedLayer;
use model::{Layer, Manifest, Verification, WeightType};
use serde::{Serialize, Serializer};

use super::VerifyRequest;
use super::comparison::TensorError;

/// What computes the bundle's graph; the version is that of the workspace's dependency.
const RUNTIME: &str = "tract 0.23";

/// A bundle compared with a recording. As JSON, errors that aren't finite are the strings `NaN` and `inf`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The bundle's folder.
    pub bundle: String,
    /// The recording's file.
    pub recording: String,
    /// Digest of the checkpoint that both come from.
    pub checkpoint_digest: String,
    /// How many images were compared.
    pub images: usize,
    /// The largest relative error that passes.
    pub tolerance: f64,
    /// Whether every layer passes and the data file is unchanged.
    pub passed: bool,
    /// The layer with the largest relative error.
    pub worst_layer: String,
    /// The layers that were compared, in the order in which they are computed.
    pub layers: Vec<LayerReport>,
    /// Layers of the bundle that the recording lacks.
    pub not_recorded: Vec<String>,
    /// How the bundle stores its weights.
    pub weights: WeightType,
    /// What computed the bundle's graph.
    pub runtime: String,
    /// BLAKE3 of every image, `[C, H, W]` little-endian float32.
    pub image_digests: Vec<String>,
    /// BLAKE3 of the bundle's data file.
    pub data_digest: String,
    /// Whether it is the one that the file had when it was exported.
    pub data_unchanged: bool,
}

/// What a comparison has found.
pub(super) struct Findings<'a> {
    pub(super) request: &'a VerifyRequest,
    pub(super) manifest: &'a Manifest,
    pub(super) tolerance: f64,
    pub(super) layers: Vec<LayerReport>,
    pub(super) not_recorded: Vec<String>,
    pub(super) image_digests: Vec<String>,
    pub(super) data_digest: String,
}

/// One layer compared.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// The layer's name.
    pub name: String,
    /// Of the activations, images first.
    pub shape: Vec<usize>,
    /// The largest absolute error.
    #[serde(serialize_with = "number_or_name")]
    pub absolute_error: f64,
    /// The largest absolute error over the largest magnitude of the recorded activations.
    #[serde(serialize_with = "number_or_name")]
    pub relative_error: f64,
    /// Whether the relative error is within the tolerance; NaN isn't.
    pub passed: bool,
}

impl LayerReport {
    pub(super) fn new(layer: &Layer, shape: &[usize], error: TensorError, tolerance: f64) -> Self {
        Self {
            name: layer.name.clone(),
            shape: shape.to_vec(),
            absolute_error: error.absolute,
            relative_error: error.relative,
            passed: error.relative <= tolerance,
        }
    }
}

impl Report {
    pub(super) fn new(findings: Findings<'_>) -> Self {
        let Findings {
            request, manifest, ..
        } = findings;
        let expected = &manifest.data_digest;
        let data_unchanged = expected.is_empty() || *expected == findings.data_digest;
        let mut report = Self {
            bundle: request.bundle.display().to_string(),
            recording: request.recording.display().to_string(),
            checkpoint_digest: manifest.checkpoint_digest.clone(),
            images: findings.image_digests.len(),
            tolerance: findings.tolerance,
            passed: data_unchanged && findings.layers.iter().all(|layer| layer.passed),
            worst_layer: String::new(),
            layers: findings.layers,
            not_recorded: findings.not_recorded,
            weights: manifest.weights,
            runtime: RUNTIME.into(),
            image_digests: findings.image_digests,
            data_digest: findings.data_digest,
            data_unchanged,
        };
        report.worst_layer = report.worst().map(|layer| layer.name.clone()).unwrap_or_default();
        report
    }

    /// What the bundle is to say of itself.
    pub(super) fn verification(&self) -> Verification {
        let layers = self.layers.iter().map(|layer| VerifiedLayer {
            name: layer.name.clone(),
            relative_error: layer.relative_error,
        });
        Verification {
            runtime: self.runtime.clone(),
            tolerance: self.tolerance,
            worst_layer: self.worst_layer.clone(),
            worst_error: self.worst().map_or(0.0, |layer| layer.relative_error),
            layers: layers.collect(),
            image_digests: self.image_digests.clone(),
            data_digest: self.data_digest.clone(),
        }
    }

    /// The layer with the largest relative error, NaN being the largest.
    pub fn worst(&self) -> Option<&LayerReport> {
        // Of equal ones the first, where the error came from.
        self.layers
            .iter()
            .rev()
            .max_by(|one, other| rank(one).total_cmp(&rank(other)))
    }

    /// How many layers don't pass.
    pub fn failed(&self) -> usize {
        self.layers.iter().filter(|layer| !layer.passed).count()
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        PendingFile::replace(path, &json)
    }
}

/// The table, and a summary of one line.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<_> = self
            .layers
            .iter()
            .map(|layer| format!("{:?}", layer.shape))
            .collect();
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0).max(5);
        let name_width = longest(&mut self.layers.iter().map(|layer| layer.name.len()));
        let shape_width = longest(&mut shapes.iter().map(String::len));
        writeln!(
            formatter,
            "{:name_width$}  {:shape_width$}  {:>14}  {:>14}",
            "layer", "shape", "absolute error", "relative error"
        )?;
        for (layer, shape) in self.layers.iter().zip(&shapes) {
            writeln!(
                formatter,
                "{:name_width$}  {shape:shape_width$}  {:>14.3e}  {:>14.3e}  {}",
                layer.name,
                layer.absolute_error,
                layer.relative_error,
                if layer.passed { "ok" } else { "FAILED" }
            )?;
        }
        if !self.not_recorded.is_empty() {
            let names = self.not_recorded.join(", ");
            writeln!(formatter, "not in the recording, so not compared: {names}")?;
        }
        if !self.data_unchanged {
            writeln!(formatter, "model.onnx.data has changed since it was exported")?;
        }
        let (compared, images) = (self.layers.len(), self.images);
        let passed = compared - self.failed();
        write!(
            formatter,
            "{passed} of {compared} layers within {:e} for {images} images",
            self.tolerance
        )?;
        match self.worst() {
            Some(worst) => write!(
                formatter,
                "; worst: {} ({:.3e})",
                worst.name, worst.relative_error
            ),
            None => Ok(()),
        }
    }
}

fn rank(layer: &LayerReport) -> f64 {
    if layer.relative_error.is_nan() {
        f64::INFINITY
    } else {
        layer.relative_error
    }
}

/// JSON has no NaN and no infinity.
fn number_or_name<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else {
        serializer.collect_str(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, relative: f64) -> LayerReport {
        LayerReport {
            name: name.into(),
            shape: vec![2, 3],
            absolute_error: relative,
            relative_error: relative,
            passed: relative <= 1e-4,
        }
    }

    fn report(layers: Vec<LayerReport>) -> Report {
        Report {
            bundle: "repository/net/1".into(),
            recording: "net.activations.safetensors".into(),
            checkpoint_digest: "00".into(),
            images: 2,
            tolerance: 1e-4,
            passed: false,
            worst_layer: String::new(),
            layers,
            not_recorded: vec!["conv1".into()],
            weights: WeightType::Fp32,
            runtime: RUNTIME.into(),
            image_digests: vec!["00".into(); 2],
            data_digest: "00".into(),
            data_unchanged: true,
        }
    }

    #[test]
    fn the_table_says_what_failed_and_what_is_worst() {
        let table = report(vec![
            layer("bn1", 1e-6),
            layer("layer1.0.relu1", 0.5),
            layer("fc", 0.25),
        ]);
        let text = table.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[1].starts_with("bn1 ") && lines[1].ends_with("1.000e-6  ok"),
            "{text}"
        );
        assert!(lines[2].ends_with("5.000e-1  FAILED"), "{text}");
        assert_eq!(lines[4], "not in the recording, so not compared: conv1");
        assert_eq!(
            lines[5],
            "1 of 3 layers within 1e-4 for 2 images; worst: layer1.0.relu1 (5.000e-1)"
        );
    }

    #[test]
    fn what_is_no_number_is_worst_and_written_as_a_name() {
        let report = report(vec![
            layer("bn1", 0.5),
            layer("relu", f64::NAN),
            layer("fc", f64::INFINITY),
        ]);
        assert_eq!(report.worst().unwrap().name, "relu");
        assert_eq!(report.failed(), 3);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["layers"][1]["relative_error"], "NaN");
        assert_eq!(json["layers"][2]["relative_error"], "inf");
        assert_eq!(json["layers"][0]["relative_error"], 0.5);
    }
}
