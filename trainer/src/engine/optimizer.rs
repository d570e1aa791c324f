//! The optimisers' steps: every parameter, gradient and moment is read and written once.

use std::ffi::{c_char, c_int};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor};

use super::{TensorPointer, call, pointer, pointers};

/// How gradients become steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
#[repr(i32)]
pub enum Algorithm {
    /// Adam whose weight decay goes off the parameters themselves; the paper's.
    #[default]
    AdamW = 0,
    /// Adam, weight decay being part of the gradient.
    Adam = 1,
    /// Stochastic gradient descent, with momentum if it is above 0; weight decay is part of the gradient.
    Sgd = 2,
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Step {
    /// How gradients become steps.
    pub algorithm: Algorithm,
    /// Decides which moments of bfloat16 are rounded up and which down.
    pub noise: u32,
    /// Steps made, this one too.
    pub number: f64,
    /// The size of the step.
    pub learning_rate: f64,
    /// Fraction of a parameter.
    pub weight_decay: f64,
    /// Adam's: decay of the first moment.
    pub beta1: f64,
    /// Adam's: decay of the second moment.
    pub beta2: f64,
    /// Adam's: added to the root of the second moment.
    pub epsilon: f64,
    /// Stochastic gradient descent's: decay of the sum of past gradients.
    pub momentum: f64,
}

/// What the optimiser does to one parameter. Moments have its shape and device, and its type or, both, bfloat16; those
/// that the algorithm has none of are `None`.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The numbers.
    pub step: Step,
    /// Adam's first moment, or the momentum.
    pub first_moment: Option<&'a Tensor>,
    /// Adam's second moment.
    pub second_moment: Option<&'a Tensor>,
}

/// Makes a step with all `parameters` whose gradients, of the last backward pass, are there. A list of moments is empty
/// where the algorithm has none.
///
/// # Errors
/// [`TchError`] where the lists differ in length or a tensor doesn't fit its parameter.
pub fn optimizer_step(
    parameters: &[&Tensor],
    first_moments: &[&Tensor],
    second_moments: &[&Tensor],
    step: &Step,
) -> Result<(), TchError> {
    for moments in [first_moments, second_moments] {
        if !moments.is_empty() && moments.len() != parameters.len() {
            let message = format!("{} parameters have {} moments", parameters.len(), moments.len());
            return Err(TchError::Shape(message));
        }
    }
    let (parameters, first, second) = (
        pointers(parameters),
        pointers(first_moments),
        pointers(second_moments),
    );
    let or_null = |list: &[TensorPointer]| {
        if list.is_empty() {
            std::ptr::null()
        } else {
            list.as_ptr()
        }
    };
    call(|message| {
        // SAFETY: a list has as many pointers as is said or is null, each to a tensor that lives until the call returns.
        #[expect(unsafe_code, reason = "a call of the shim")]
        unsafe {
            ventral_optimizer_step(
                parameters.as_ptr(),
                or_null(&first),
                or_null(&second),
                parameters.len() as i64,
                step,
                message,
            )
        }
    })
}

/// Makes a step with one parameter and a gradient that is given.
///
/// # Errors
/// [`TchError`] where a tensor doesn't fit the parameter.
pub fn update(parameter: &Tensor, gradient: &Tensor, update: &Update<'_>) -> Result<(), TchError> {
    let or_null = |moment: Option<&Tensor>| moment.map_or(std::ptr::null(), pointer);
    call(|message| {
        // SAFETY: the tensors live until the call returns, and moments may be null.
        #[expect(unsafe_code, reason = "a call of the shim")]
        unsafe {
            ventral_update(
                pointer(parameter),
                pointer(gradient),
                or_null(update.first_moment),
                or_null(update.second_moment),
                &raw const update.step,
                message,
            )
        }
    })
}

/// Multiplies gradients by a factor, in place. False where one of their numbers is infinite or not a number.
///
/// # Errors
/// [`TchError`] where the gradients aren't on one device.
pub fn unscale(gradients: &[&Tensor], factor: f64) -> Result<bool, TchError> {
    let gradients = pointers(gradients);
    let mut finite = false;
    call(|message| {
        // SAFETY: the list has as many pointers as is said, each to a tensor that lives until the call returns.
        #[expect(unsafe_code, reason = "a call of the shim")]
        unsafe {
            ventral_unscale(
                gradients.as_ptr(),
                gradients.len() as i64,
                factor,
                &raw mut finite,
                message,
            )
        }
    })?;
    Ok(finite)
}

/// Makes a parameter's gradient undefined, so that the next backward pass writes it and doesn't add to it.
///
/// # Errors
/// [`TchError`] where the tensor is undefined.
pub fn clear_gradient(parameter: &Tensor) -> Result<(), TchError> {
    // SAFETY: the tensor lives until the call returns.
    #[expect(unsafe_code, reason = "a call of the shim")]
    call(|message| unsafe { ventral_clear_gradient(pointer(parameter), message) })
}

#[expect(unsafe_code, reason = "the shim is C++")]
// SAFETY: the declarations are those of trainer/shim/optimizer.cpp.
unsafe extern "C" {
    fn ventral_optimizer_step(
        parameters: *const TensorPointer,
        first_moments: *const TensorPointer,
        second_moments: *const TensorPointer,
        count: i64,
        step: *const Step,
        message: *mut *mut c_char,
    ) -> c_int;

    fn ventral_update(
        parameter: TensorPointer,
        gradient: TensorPointer,
        first_moment: TensorPointer,
        second_moment: TensorPointer,
        step: *const Step,
        message: *mut *mut c_char,
    ) -> c_int;

    fn ventral_unscale(
        gradients: *const TensorPointer,
        count: i64,
        factor: f64,
        finite: *mut bool,
        message: *mut *mut c_char,
    ) -> c_int;

    fn ventral_clear_gradient(parameter: TensorPointer, message: *mut *mut c_char) -> c_int;
}
