//! What a comparison has found: a table for people, JSON for programs.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use model::checkpoint::PendingFile;
use model::{Layer, Manifest};
use serde::{Serialize, Serializer};

use super::VerifyRequest;
use super::comparison::TensorError;

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
    /// Whether every layer passes.
    pub passed: bool,
    /// The layer with the largest relative error.
    pub worst_layer: String,
    /// The layers that were compared, in the order in which they are computed.
    pub layers: Vec<LayerReport>,
    /// Layers of the bundle that the recording lacks.
    pub not_recorded: Vec<String>,
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
    pub(super) fn new(
        request: &VerifyRequest,
        manifest: &Manifest,
        images: usize,
        layers: Vec<LayerReport>,
        not_recorded: Vec<String>,
    ) -> Self {
        let mut report = Self {
            bundle: request.bundle.display().to_string(),
            recording: request.recording.display().to_string(),
            checkpoint_digest: manifest.checkpoint_digest.clone(),
            images,
            tolerance: request.tolerance,
            passed: layers.iter().all(|layer| layer.passed),
            worst_layer: String::new(),
            layers,
            not_recorded,
        };
        report.worst_layer = report.worst().map(|layer| layer.name.clone()).unwrap_or_default();
        report
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
        let pending = PendingFile::for_path(path);
        let written = File::create(pending.temporary()).and_then(|mut file| {
            file.write_all(&json)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // The error says more than a failed clean-up would.
            let _ = fs::remove_file(pending.temporary());
            return Err(error);
        }
        pending.publish().map_err(io::Error::other)
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
