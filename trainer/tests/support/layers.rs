//! The single layers of the golden files, `lc_layers.json`.

use model::Convolution;
use model::network::Resolution;
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Case {
    pub in_height: usize,
    pub in_width: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub kernel_size: usize,
    pub stride: usize,
    pub bias: bool,
    pub snr_before: f64,
    pub snr_after_instant_sharing: f64,
    pub border: Border,
}

#[derive(Deserialize)]
pub struct Border {
    pub top: i64,
    pub bottom: i64,
    pub left: i64,
    pub right: i64,
}

impl Case {
    pub fn geometry(&self) -> Convolution {
        let input = Resolution {
            height: self.in_height,
            width: self.in_width,
        };
        let channels = (self.in_channels, self.out_channels);
        Convolution::new("layer", true, channels, (self.kernel_size, self.stride), input).unwrap()
    }
}

pub fn cases() -> Vec<Case> {
    serde_json::from_str(&super::text("lc_layers.json")).unwrap()
}
