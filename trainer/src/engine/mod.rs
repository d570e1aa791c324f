//! What libtorch can do but tch's bindings don't offer, through a small C++ shim (`trainer/shim`).
//!
//! tch's tensors reach the shim as the `at::Tensor*` that they hold. C++ exceptions are caught there and come back as
//! [`TchError::Torch`].

mod hardware;
mod joining;
mod locally_connected;
mod optimizer;

pub use hardware::{cuda_memory, has_bf16};
pub use locally_connected::{Execution, WeightGradient, Window, backward, locally_connected};
pub use optimizer::{Algorithm, Step, Update, clear_gradient, optimizer_step, unscale, update};

pub(crate) use joining::Joiner;

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{TchError, Tensor};

/// An `at::Tensor*` of tch's.
type TensorPointer = *const c_void;

fn pointer(tensor: &Tensor) -> TensorPointer {
    tensor.as_ptr().cast()
}

fn pointers(tensors: &[&Tensor]) -> Vec<TensorPointer> {
    tensors.iter().map(|tensor| pointer(tensor)).collect()
}

/// Calls a function of the shim, whose last argument is where it puts its message.
fn call(function: impl FnOnce(*mut *mut c_char) -> c_int) -> Result<(), TchError> {
    let mut message = std::ptr::null_mut();
    if function(&raw mut message) == 0 {
        return Ok(());
    }
    if message.is_null() {
        return Err(TchError::Torch("out of memory".into()));
    }
    // SAFETY: the shim puts a C string there that is ours, and null where it has none.
    #[expect(unsafe_code, reason = "the shim's message is a C string")]
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ventral_free_message(message);
        text
    };
    Err(TchError::Torch(text))
}

#[expect(unsafe_code, reason = "the shim is C++")]
// SAFETY: the declaration is that of trainer/shim/optimizer.cpp.
unsafe extern "C" {
    fn ventral_free_message(message: *mut c_char);
}
