//! The locally connected layer as one operation of automatic differentiation.

use std::ffi::{c_char, c_int, c_void};

use tch::{TchError, Tensor};

use super::optimizer::{Step, Update};
use super::{TensorPointer, call, pointer};
use crate::precision::Precision;

/// How a layer's neurons look at its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// k; windows are square.
    pub kernel_size: usize,
    /// The same in both directions.
    pub stride: usize,
    /// Zeros on every side of the input.
    pub padding: usize,
}

/// What decides how a layer is computed, but not what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Execution<'a> {
    /// What becomes of the weights' gradient.
    pub gradient: WeightGradient<'a>,
    /// Of the factors of all products. On the CPU, layers with an odd number of outputs or images, and processors without
    /// the instructions, compute bfloat16's in float32.
    pub precision: Precision,
}

/// What becomes of the gradient of a layer's weights in the backward pass.
#[derive(Clone, Copy, Debug)]
pub enum WeightGradient<'a> {
    /// It is the weights' `grad`, as automatic differentiation has it: in this memory, of the weights' shape, where nothing
    /// else refers to it, until [`super::clear_gradient`].
    Kept(Option<&'a Tensor>),
    /// It is written into a tensor of the weights' shape.
    Stored {
        /// The tensor.
        memory: &'a Tensor,
        /// It is added to what the tensor holds.
        add: bool,
    },
    /// It updates the weights in the backward pass, part by part as it is computed. On the CPU it never exists as a whole.
    /// The layer must not be differentiated a second time.
    Applied {
        /// The optimiser's step.
        update: Update<'a>,
        /// What [`WeightGradient::Stored`] left of earlier passes, a part of the gradient.
        stored: Option<&'a Tensor>,
    },
}

impl Default for WeightGradient<'_> {
    fn default() -> Self {
        Self::Kept(None)
    }
}

/// The output `[H_out, W_out, N, Cout]` of an input `[H, W, N, Cin]`, weights `[H_out, W_out, K, Cout]` with K in the order
/// (row, column, input channel), and a bias `[Cout]`.
///
/// The backward pass gives the gradients of all three; it can't be differentiated again.
///
/// # Errors
/// [`TchError`] where shapes, types or devices don't fit each other.
pub fn locally_connected(
    input: &Tensor,
    weights: &Tensor,
    bias: Option<&Tensor>,
    window: Window,
    execution: Execution<'_>,
) -> Result<Tensor, TchError> {
    let or_null = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null(), pointer);
    let (kept, memory, add, update) = match execution.gradient {
        WeightGradient::Kept(memory) => (true, memory, false, None),
        WeightGradient::Stored { memory, add } => (false, Some(memory), add, None),
        WeightGradient::Applied { update, stored } => (false, stored, stored.is_some(), Some(update)),
    };
    let step: *const Step = update
        .as_ref()
        .map_or(std::ptr::null(), |update| &raw const update.step);
    let mut result = std::ptr::null_mut();
    call(|message| {
        // SAFETY: the tensors and the step live until the call returns; it keeps references and copies of its own.
        #[expect(unsafe_code, reason = "a call of the shim")]
        unsafe {
            ventral_locally_connected(
                pointer(input),
                pointer(weights),
                or_null(bias),
                window.kernel_size as i64,
                window.stride as i64,
                window.padding as i64,
                match execution.precision {
                    Precision::Fp32 => 0,
                    Precision::Bf16 => 1,
                    Precision::Fp16 => 2,
                },
                kept,
                or_null(memory),
                add,
                step,
                or_null(update.and_then(|update| update.first_moment)),
                or_null(update.and_then(|update| update.second_moment)),
                &raw mut result,
                message,
            )
        }
    })?;
    // SAFETY: the call succeeded, so that this is a new tensor that nobody else owns.
    #[expect(unsafe_code, reason = "a tensor that the shim made")]
    Ok(unsafe { Tensor::from_ptr(result.cast()) })
}

/// Runs the backward pass from `output`, whose gradient is given.
///
/// # Errors
/// [`TchError`] where the shapes differ or an operation on the way fails.
pub fn backward(output: &Tensor, gradient: &Tensor) -> Result<(), TchError> {
    // SAFETY: the tensors live until the call returns.
    #[expect(unsafe_code, reason = "a call of the shim")]
    call(|message| unsafe { ventral_backward(pointer(output), pointer(gradient), message) })
}

#[expect(unsafe_code, reason = "the shim is C++")]
// SAFETY: the declarations are those of trainer/shim/locally_connected.cpp.
unsafe extern "C" {
    fn ventral_locally_connected(
        input: TensorPointer,
        weights: TensorPointer,
        bias: TensorPointer,
        kernel: i64,
        stride: i64,
        padding: i64,
        precision: i32,
        kept: bool,
        memory: TensorPointer,
        add: bool,
        step: *const Step,
        first_moment: TensorPointer,
        second_moment: TensorPointer,
        result: *mut *mut c_void,
        message: *mut *mut c_char,
    ) -> c_int;

    fn ventral_backward(output: TensorPointer, gradient: TensorPointer, message: *mut *mut c_char) -> c_int;
}
