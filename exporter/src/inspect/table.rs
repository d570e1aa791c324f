//! The inspection as people read it.

use std::fmt;

use indicatif::{HumanBytes, HumanCount};
use model::{ColorMode, Connectivity, Preprocessing, Resize};

use super::{DataCheck, InspectedConvolution, InspectedLayer, InspectedVerification, Inspection};

/// How many class names are shown.
const CLASS_NAMES: usize = 5;

impl fmt::Display for Inspection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = vec![
            ("bundle", self.bundle.clone()),
            (
                "format",
                format!(
                    "{}, ONNX opset {}, IR version {}",
                    self.format_version, self.opset_version, self.ir_version
                ),
            ),
        ];
        facts.extend(self.network());
        facts.push(("preprocessing", preprocessing(&self.preprocessing)));
        facts.extend([
            ("weights", self.weights.name().to_owned()),
            ("parameters", HumanCount(self.totals.parameters).to_string()),
            ("MACs", format!("{} for one image", HumanCount(self.totals.macs))),
            (
                "size",
                format!(
                    "{} model.onnx, {} model.onnx.data",
                    HumanBytes(self.totals.model_bytes),
                    HumanBytes(self.totals.data_bytes)
                ),
            ),
            ("checkpoint", self.checkpoint_digest.clone()),
            ("data", self.data()),
        ]);
        for (index, (key, value)) in self.provenance.iter().enumerate() {
            let label = if index == 0 { "provenance" } else { "" };
            facts.push((label, format!("{key}: {value}")));
        }
        facts.extend(verification(self.verification.as_ref()));
        for (label, value) in facts {
            writeln!(formatter, "{label:14}{}", printable(&value))?;
        }
        writeln!(formatter)?;
        rows(formatter, LAYER_COLUMNS, self.layers.iter().map(layer).collect())?;
        writeln!(formatter)?;
        let convolutions = self.convolutions.iter().map(convolution).collect();
        rows(formatter, CONVOLUTION_COLUMNS, convolutions)
    }
}

impl Inspection {
    fn network(&self) -> Vec<(&'static str, String)> {
        let architecture = &self.architecture;
        let (stem, input) = (architecture.stem, architecture.input);
        let connectivity = match architecture.connectivity {
            Connectivity::Convolutional => "convolutional".to_owned(),
            Connectivity::LocallyConnected { n_first_conv: 0 } => "locally connected".to_owned(),
            Connectivity::LocallyConnected { n_first_conv: 1 } => {
                "locally connected after a first convolution".to_owned()
            }
            Connectivity::LocallyConnected { n_first_conv } => {
                format!("locally connected after {n_first_conv} first convolutions")
            }
        };
        let pooling = if stem.max_pool { ", max pooling" } else { "" };
        let names = self.class_names.iter().take(CLASS_NAMES);
        let mut names = names.cloned().collect::<Vec<_>>().join(", ");
        if self.class_names.len() > CLASS_NAMES {
            names.push_str(", …");
        }
        let classes = if names.is_empty() {
            format!("{}, without names", architecture.classes)
        } else {
            format!("{}: {names}", architecture.classes)
        };
        vec![
            ("network", format!("{}, {connectivity}", self.family)),
            (
                "stem",
                format!(
                    "{0}x{0} kernels, stride {1}{pooling}",
                    stem.kernel_size, stem.stride
                ),
            ),
            (
                "stages",
                format!(
                    "{:?} blocks of {1}x{1} kernels, width {2}",
                    architecture.blocks, architecture.kernel_size, architecture.width
                ),
            ),
            (
                "input",
                format!("{}x{}, {} channels", input.height, input.width, input.channels),
            ),
            ("classes", classes),
        ]
    }

    fn data(&self) -> String {
        match (self.data_check, self.data_digest.as_str()) {
            (DataCheck::Impossible, _) => "can't be checked: the manifest has no digest".into(),
            (DataCheck::NotAsked, "") => "no digest".into(),
            (DataCheck::NotAsked, digest) => digest.into(),
            (DataCheck::Passed, digest) => format!("{digest}, checked"),
        }
    }
}

fn preprocessing(preprocessing: &Preprocessing) -> String {
    let color = match preprocessing.color {
        ColorMode::Rgb => "RGB",
        ColorMode::Grayscale => "grey",
    };
    let resize = match preprocessing.resize {
        Resize::ShortSide { size } => format!("short side to {size}, centre crop"),
        Resize::Stretch => "stretched".into(),
    };
    let (mean, std) = (&preprocessing.mean, &preprocessing.std);
    format!("{color}, {resize}, mean {mean:?}, std {std:?}")
}

fn verification(verification: Option<&InspectedVerification>) -> Vec<(&'static str, String)> {
    let Some(InspectedVerification {
        verification,
        of_these_weights,
    }) = verification
    else {
        return vec![("verification", "not verified".into())];
    };
    let what = format!(
        "{} layers within {:e} for {} images by {}",
        verification.layers.len(),
        verification.tolerance,
        verification.image_digests.len(),
        verification.runtime
    );
    let worst = format!(
        "worst: {} ({:.3e})",
        verification.worst_layer, verification.worst_error
    );
    let mut facts = vec![("verification", what), ("", worst)];
    if !of_these_weights {
        let warning = "of other weights, or of weights without a digest: verify the bundle again";
        facts.push(("", warning.into()));
    }
    facts
}

const LAYER_COLUMNS: [Column; 5] = [
    Column::text("layer"),
    Column::text("kind"),
    Column::text("shape"),
    Column::number("elements"),
    Column::number("bytes"),
];

fn layer(layer: &InspectedLayer) -> [String; 5] {
    [
        layer.name.clone(),
        // As in JSON.
        serde_json::to_value(layer.kind)
            .ok()
            .and_then(|kind| Some(kind.as_str()?.to_owned()))
            .unwrap_or_default(),
        format!("{:?}", layer.shape),
        HumanCount(layer.elements).to_string(),
        HumanCount(layer.bytes).to_string(),
    ]
}

const CONVOLUTION_COLUMNS: [Column; 7] = [
    Column::text("convolution"),
    Column::text("weights"),
    Column::number("parameters"),
    Column::number("MACs"),
    Column::text("stored as"),
    Column::text("shape"),
    Column::number("bytes"),
];

fn convolution(convolution: &InspectedConvolution) -> [String; 7] {
    let sharing = if convolution.locally_connected {
        "locally connected"
    } else {
        "shared"
    };
    let [element_type, shape, bytes] = match &convolution.stored {
        Some(stored) => [
            stored.element_type.clone(),
            format!("{:?}", stored.shape),
            HumanCount(stored.bytes).to_string(),
        ],
        None => ["not stored".into(), String::new(), String::new()],
    };
    [
        convolution.name.clone(),
        sharing.into(),
        HumanCount(convolution.parameters).to_string(),
        HumanCount(convolution.macs).to_string(),
        element_type,
        shape,
        bytes,
    ]
}

/// A column of a table.
#[derive(Clone, Copy)]
struct Column {
    title: &'static str,
    right_aligned: bool,
}

impl Column {
    const fn text(title: &'static str) -> Self {
        Self {
            title,
            right_aligned: false,
        }
    }

    const fn number(title: &'static str) -> Self {
        Self {
            title,
            right_aligned: true,
        }
    }
}

/// Aligned rows under their titles, two spaces between columns.
fn rows<const N: usize>(
    formatter: &mut fmt::Formatter<'_>,
    columns: [Column; N],
    rows: Vec<[String; N]>,
) -> fmt::Result {
    let titles = columns.map(|column| column.title.to_owned());
    let all: Vec<_> = std::iter::once(titles).chain(rows).collect();
    for row in &all {
        let mut line = String::new();
        for (index, (column, cell)) in columns.iter().zip(row).enumerate() {
            let lengths = all.iter().map(|row| row[index].chars().count());
            let width = lengths.max().unwrap_or(0);
            if column.right_aligned {
                line.push_str(&format!("{cell:>width$}  "));
            } else {
                line.push_str(&format!("{cell:width$}  "));
            }
        }
        writeln!(formatter, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Text from a bundle, which is a stranger's: a terminal must not take orders from it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(
            printable("cat\u{1b}[2J\nFrosch äß"),
            "cat\u{fffd}[2J\u{fffd}Frosch äß"
        );
    }
}
