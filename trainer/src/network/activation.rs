//! Activations in one of two layouts, and the few operations that don't care which.
//!
//! Locally connected layers want `[H, W, N, C]`: unfolding is then copies of whole rows and the layer one batched
//! matrix product. Convolutions and max pooling want `[N, C, H, W]`. A tensor changes its layout only where it must.

use model::network::MaxPool;
use tch::{TchError, Tensor};

/// The order of an activation's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[N, C, H, W]`, what users see; `[N, features]` after pooling.
    ChannelsFirst,
    /// `[H, W, N, C]`.
    PositionMajor,
}

/// A batch of one layer's activations.
#[derive(Debug)]
pub struct Activation {
    tensor: Tensor,
    layout: Layout,
}

impl Activation {
    /// A tensor `[N, C, H, W]`.
    pub fn nchw(tensor: Tensor) -> Self {
        Self {
            tensor,
            layout: Layout::ChannelsFirst,
        }
    }

    /// A tensor `[H, W, N, C]`.
    pub fn hwnc(tensor: Tensor) -> Self {
        Self {
            tensor,
            layout: Layout::PositionMajor,
        }
    }

    /// The tensor as `[N, C, H, W]`, for convolutions and for users. A view, not a copy.
    ///
    /// # Errors
    /// libtorch's.
    pub fn channels_first(&self) -> Result<Tensor, TchError> {
        match self.layout {
            Layout::ChannelsFirst => Ok(self.tensor.shallow_clone()),
            Layout::PositionMajor => self.tensor.f_permute([2, 3, 0, 1]),
        }
    }

    /// The tensor as `[H, W, N, C]`, contiguous.
    ///
    /// # Errors
    /// libtorch's.
    pub fn position_major(&self) -> Result<Tensor, TchError> {
        match self.layout {
            Layout::PositionMajor => Ok(self.tensor.shallow_clone()),
            Layout::ChannelsFirst => self.tensor.f_permute([2, 3, 0, 1])?.f_contiguous(),
        }
    }

    pub(super) fn relu(&self) -> Result<Self, TchError> {
        Ok(Self {
            tensor: self.tensor.f_relu()?,
            layout: self.layout,
        })
    }

    /// The sum, in the layout of `self`.
    pub(super) fn add(&self, other: &Self) -> Result<Self, TchError> {
        let other = match self.layout {
            Layout::ChannelsFirst => other.channels_first()?,
            Layout::PositionMajor => other.position_major()?,
        };
        Ok(Self {
            tensor: self.tensor.f_add(&other)?,
            layout: self.layout,
        })
    }

    /// Applies `operation` to a tensor whose second dimension is the channels, and keeps the layout.
    pub(super) fn map_channels(
        &self,
        operation: impl FnOnce(&Tensor) -> Result<Tensor, TchError>,
    ) -> Result<Self, TchError> {
        let tensor = match self.layout {
            Layout::ChannelsFirst => operation(&self.tensor)?,
            Layout::PositionMajor => {
                // Shown to libtorch as one image of H·W·N pixels in its channels-last form, which it reads row by row.
                let size = self.tensor.size();
                let (pixels, channels) = (size[..3].iter().product::<i64>(), size[3]);
                let image = self
                    .tensor
                    .f_view([1, pixels, 1, channels])?
                    .f_permute([0, 3, 1, 2])?;
                operation(&image)?.f_permute([0, 2, 3, 1])?.f_reshape(&size)?
            }
        };
        Ok(Self {
            tensor,
            layout: self.layout,
        })
    }

    pub(super) fn max_pool(&self, pool: &MaxPool) -> Result<Self, TchError> {
        let (kernel, stride) = (pool.kernel_size as i64, pool.stride as i64);
        let padding = pool.padding as i64;
        let input = self.channels_first()?.f_contiguous()?;
        Ok(Self::nchw(input.f_max_pool2d(
            [kernel, kernel],
            [stride, stride],
            [padding, padding],
            [1, 1],
            false,
        )?))
    }

    /// The mean over all positions, `[N, C]`.
    pub(super) fn spatial_mean(&self) -> Result<Tensor, TchError> {
        let positions = match self.layout {
            Layout::ChannelsFirst => [2, 3],
            Layout::PositionMajor => [0, 1],
        };
        self.tensor
            .f_mean_dim(positions.as_slice(), false, None::<tch::Kind>)
    }
}
