//! Where to compute: parsed from `--device`, resolved when the program runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::{Cuda, Device};
use thiserror::Error;

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// CUDA where there is a device, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// One CUDA device, counted from 0.
    Cuda(usize),
}

/// Why a device can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// Not one of the forms that `--device` takes.
    #[error("`{0}` is no device; use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    /// libtorch sees no CUDA device.
    #[error(
        "no CUDA device: libtorch was installed without CUDA (`cargo xtask setup --cuda` installs the CUDA build), or \
         no GPU is visible (see `nvidia-smi`)"
    )]
    NoCuda,
    /// There are fewer devices.
    #[error("no CUDA device {wanted}: this machine has {count}, counted from 0")]
    NoSuchCuda {
        /// The device asked for.
        wanted: usize,
        /// How many there are.
        count: usize,
    },
}

impl DeviceChoice {
    /// The device itself.
    ///
    /// # Errors
    /// [`DeviceError`] where a CUDA device is asked for by name that isn't there.
    pub fn resolve(self) -> Result<Device, DeviceError> {
        let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
        let available = Cuda::is_available() && count > 0;
        match self {
            Self::Auto if available => Ok(Device::Cuda(0)),
            Self::Auto | Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !available => Err(DeviceError::NoCuda),
            Self::Cuda(wanted) if wanted >= count => Err(DeviceError::NoSuchCuda { wanted, count }),
            Self::Cuda(index) => Ok(Device::Cuda(index)),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Unknown(text.into())),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl From<Device> for DeviceChoice {
    /// The choice of this device by name.
    fn from(device: Device) -> Self {
        match device {
            Device::Cuda(index) => Self::Cuda(index),
            // The trainer computes on nothing else.
            _ => Self::Cpu,
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_alike() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        assert!(
            "gpu"
                .parse::<DeviceChoice>()
                .unwrap_err()
                .to_string()
                .contains("cuda:N")
        );
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
    }

    #[test]
    fn a_missing_cuda_device_is_an_error_by_name_only() {
        if Cuda::is_available() {
            let far = DeviceChoice::Cuda(10_000).resolve().unwrap_err();
            assert!(matches!(far, DeviceError::NoSuchCuda { wanted: 10_000, .. }));
        } else {
            assert_eq!(DeviceChoice::Auto.resolve().unwrap(), Device::Cpu);
            assert_eq!(DeviceChoice::Cuda(0).resolve().unwrap_err(), DeviceError::NoCuda);
        }
    }
}
