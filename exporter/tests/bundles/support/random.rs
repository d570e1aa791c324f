//! Random numbers that are the same on every machine.

use model::network::TensorSpec;

use super::Activation;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform between two bounds.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        low + (high - low) * (bits >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Numbers with which activations stay of the order of 1, and with which no two channels are scaled alike.
    pub fn tensor(&mut self, spec: &TensorSpec) -> Vec<f32> {
        let count: usize = spec.shape.iter().product();
        let (low, high) = match (spec.name.rsplit('.').next().unwrap(), spec.shape.as_slice()) {
            ("running_mean" | "bias", _) => (-0.7, 0.7),
            ("running_var", _) => (0.2, 2.5),
            // BatchNorm's γ, a few of them negative.
            ("weight", [_]) => (-0.4, 2.0),
            ("weights", [_, _, fan_in, _]) => symmetric(*fan_in),
            ("weight", [_, rest @ ..]) => symmetric(rest.iter().product()),
            other => panic!("unknown tensor {other:?}"),
        };
        (0..count).map(|_| self.between(low, high) as f32).collect()
    }

    pub fn images(&mut self, images: usize, [channels, height, width]: [usize; 3]) -> Activation {
        let count = images * channels * height * width;
        // As float32 holds them, so that both sides begin with the same numbers.
        let values = (0..count)
            .map(|_| f64::from(self.between(-1.5, 1.5) as f32))
            .collect();
        Activation {
            shape: vec![images, channels, height, width],
            values,
        }
    }
}

/// He's uniform distribution.
fn symmetric(fan_in: usize) -> (f64, f64) {
    let bound = (6.0 / fan_in as f64).sqrt();
    (-bound, bound)
}
