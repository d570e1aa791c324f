//! Activations in one of two layouts, and the few operations that don't care which.
//!
//! Locally connected layers want `[H, W, N, C]`: what a neuron sees at one offset of its window is then a matrix that lies
//! in one piece. Convolutions want `[N, C, H, W]`. A tensor changes its layout only where it must.

use model::network::MaxPool;
use tch::{TchError, Tensor};

use crate::engine::backward;

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

    /// The same values as the start of a computation that is to be differentiated.
    pub(super) fn leaf(&self) -> Result<Self, TchError> {
        Ok(Self {
            tensor: self.tensor.detach().f_set_requires_grad(true)?,
            layout: self.layout,
        })
    }

    /// The gradient of a leaf after the backward pass, in the same layout.
    pub(super) fn gradient(&self) -> Result<Self, TchError> {
        Ok(Self {
            tensor: self.tensor.f_grad()?,
            layout: self.layout,
        })
    }

    /// Differentiates what this was computed from; `gradient` is its own, in the same layout.
    pub(super) fn backward(&self, gradient: &Self) -> Result<(), TchError> {
        backward(&self.tensor, &gradient.tensor)
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
        let pooled = |image: &Tensor| {
            let [kernel, stride, padding] =
                [pool.kernel_size, pool.stride, pool.padding].map(|length| [length as i64; 2]);
            image.f_max_pool2d(kernel, stride, padding, [1, 1], false)
        };
        match self.layout {
            Layout::ChannelsFirst => Ok(Self::nchw(pooled(&self.tensor.f_contiguous()?)?)),
            Layout::PositionMajor => {
                // Shown to libtorch as one image of N·C channels in its channels-last form, which it pools where it lies.
                let size = self.tensor.size();
                let image = self
                    .tensor
                    .f_contiguous()?
                    .f_view([1, size[0], size[1], size[2] * size[3]])?
                    .f_permute([0, 3, 1, 2])?;
                let (height, width) = (pool.output.height as i64, pool.output.width as i64);
                let result = pooled(&image)?.f_permute([0, 2, 3, 1])?;
                Ok(Self::hwnc(result.f_reshape([height, width, size[2], size[3]])?))
            }
        }
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
