//! What a device can do, and what memory it has.

use std::ffi::{c_char, c_int};

use tch::{Device, TchError};

use super::call;

/// Whether a device has instructions for products of bfloat16; false where libtorch can't tell.
pub fn has_bf16(device: Device) -> bool {
    let mut result = false;
    // SAFETY: the pointer is to a variable that lives until the call returns.
    #[expect(unsafe_code, reason = "a call of the shim")]
    let asked = call(|message| unsafe { ventral_has_bf16(device.is_cuda(), &raw mut result, message) });
    asked.is_ok() && result
}

/// Bytes of a CUDA device's memory that are free, and all of them.
///
/// # Errors
/// [`TchError`] where there is no such device.
pub fn cuda_memory(index: usize) -> Result<(u64, u64), TchError> {
    let (mut free, mut all) = (0, 0);
    let index = i32::try_from(index).unwrap_or(i32::MAX);
    // SAFETY: the pointers are to variables that live until the call returns.
    #[expect(unsafe_code, reason = "a call of the shim")]
    call(|message| unsafe { ventral_device_memory(index, &raw mut free, &raw mut all, message) })?;
    Ok((free, all))
}

#[expect(unsafe_code, reason = "the shim is C++")]
// SAFETY: the declarations are those of trainer/shim/hardware.cpp.
unsafe extern "C" {
    fn ventral_has_bf16(cuda: bool, result: *mut bool, message: *mut *mut c_char) -> c_int;

    fn ventral_device_memory(index: i32, free: *mut u64, all: *mut u64, message: *mut *mut c_char) -> c_int;
}
