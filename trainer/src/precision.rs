//! How exactly products are computed: parsed from `--precision`, resolved when the program runs.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::engine::has_bf16;

/// The type of the factors in matrix products and convolutions. Weights, sums, BatchNorm and losses are float32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    #[default]
    Fp32,
    /// bfloat16: the range of float32 with 8 bits of precision.
    Bf16,
    /// float16: 11 bits of precision, a narrow range; losses are scaled, so that gradients don't vanish.
    Fp16,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bf16 where the device has instructions for it; else fp16 on GPUs, fp32 on CPUs.
    Auto,
    /// float32.
    Fp32,
    /// bfloat16 in matrix products and convolutions; weights, sums, BatchNorm and losses stay float32.
    Bf16,
    /// As bf16, with float16 and scaled losses: for GPUs without bfloat16.
    Fp16,
}

impl Precision {
    /// libtorch's name of the factors' type.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Self::Fp32,
            Precision::Bf16 => Self::Bf16,
            Precision::Fp16 => Self::Fp16,
        }
    }
}

impl PrecisionChoice {
    /// The precision on a device.
    pub fn resolve(self, device: Device) -> Precision {
        match self {
            Self::Auto if has_bf16(device) => Precision::Bf16,
            Self::Auto if device.is_cuda() => Precision::Fp16,
            Self::Auto | Self::Fp32 => Precision::Fp32,
            Self::Bf16 => Precision::Bf16,
            Self::Fp16 => Precision::Fp16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_by_name_is_taken() {
        assert_eq!(PrecisionChoice::Fp32.resolve(Device::Cpu), Precision::Fp32);
        assert_eq!(PrecisionChoice::Bf16.resolve(Device::Cpu), Precision::Bf16);
        assert_eq!(PrecisionChoice::Fp16.resolve(Device::Cpu), Precision::Fp16);
    }

    #[test]
    fn auto_is_what_the_processor_has() {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let expected = if flags.contains("avx512_bf16") {
            Precision::Bf16
        } else {
            Precision::Fp32
        };
        assert_eq!(PrecisionChoice::Auto.resolve(Device::Cpu), expected);
    }
}
