//! Numbers that were computed outside of libtorch, as tensors.

use std::ffi::{c_char, c_int};

use tch::{Device, Kind, TchError, Tensor};

use super::{TensorPointer, call, pointer};

/// Memory that is kept for coming tensors: of one that is used, and one that is made.
const KEPT: usize = 2;

/// Makes tensors of parts. A tensor's memory is used again when nobody has the tensor any more: the first writing to fresh
/// memory takes longer than copying the values.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// `[length]` each.
    memory: Vec<Tensor>,
}

impl Joiner {
    /// The values of parts, one after the other, as a float32 tensor `shape` on the CPU. They are copied once.
    ///
    /// # Errors
    /// [`TchError`] where the parts have more or fewer values than the shape.
    pub(crate) fn join(&mut self, parts: &[Vec<f32>], shape: &[i64]) -> Result<Tensor, TchError> {
        let views: Vec<Tensor> = parts.iter().map(|part| view(part)).collect::<Result<_, _>>()?;
        let length = parts.iter().map(Vec::len).sum::<usize>() as i64;
        let joined = self.memory(length)?.f_narrow(0, 0, length)?;
        Tensor::f_cat_out(&joined, &views, 0)?.f_view(shape)
    }

    /// At least so many values, which are any, that no other tensor has.
    fn memory(&mut self, length: i64) -> Result<Tensor, TchError> {
        for memory in &self.memory {
            if memory.numel() as i64 >= length && !is_shared(memory)? {
                return Ok(memory.shallow_clone());
            }
        }
        let memory = Tensor::f_empty([length], (Kind::Float, Device::Cpu))?;
        // What is too small, or never comes back, makes room.
        if self.memory.len() == KEPT {
            drop(self.memory.remove(0));
        }
        self.memory.push(memory.shallow_clone());
        Ok(memory)
    }
}

/// Whether other tensors have the same memory; a shallow clone is the same tensor.
fn is_shared(tensor: &Tensor) -> Result<bool, TchError> {
    let mut result = false;
    // SAFETY: the pointers are to a tensor and a variable that live until the call returns.
    #[expect(unsafe_code, reason = "a call of the shim")]
    call(|message| unsafe { ventral_shares_memory(pointer(tensor), &raw mut result, message) })?;
    Ok(result)
}

/// A tensor `[values.len()]` in the memory of `values`, which it must not outlive.
fn view(values: &[f32]) -> Result<Tensor, TchError> {
    let length = [values.len() as i64];
    // SAFETY: the memory holds so many floats, one after the other. `Joiner::join`, the only caller, drops the view before
    // them, and neither keeps a tensor that shares its memory nor writes to it.
    #[expect(unsafe_code, reason = "a view of memory that isn't libtorch's")]
    unsafe {
        Tensor::f_from_blob(values.as_ptr().cast(), &length, &[], Kind::Float, Device::Cpu)
    }
}

#[expect(unsafe_code, reason = "the shim is C++")]
// SAFETY: the declaration is that of trainer/shim/memory.cpp.
unsafe extern "C" {
    fn ventral_shares_memory(tensor: TensorPointer, result: *mut bool, message: *mut *mut c_char) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.view(-1)).unwrap()
    }

    #[test]
    fn parts_become_a_tensor_of_its_own() {
        for parts in [
            vec![vec![1.0, 2.0], vec![3.0, 4.0, 5.0, 6.0]],
            vec![vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
        ] {
            let joined = Joiner::default().join(&parts, &[3, 2]).unwrap();
            drop(parts);
            assert_eq!(joined.size(), [3, 2]);
            assert_eq!(values(&joined), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        }
        Joiner::default().join(&[vec![1.0]], &[2]).unwrap_err();
        let empty = Joiner::default().join(&[vec![]], &[0, 4]).unwrap();
        assert_eq!(empty.size(), [0, 4]);
    }

    #[test]
    fn memory_is_used_again_only_when_nobody_has_it() {
        let mut joiner = Joiner::default();
        let first = joiner.join(&[vec![1.0, 2.0]], &[2]).unwrap();
        let second = joiner.join(&[vec![3.0, 4.0]], &[1, 2]).unwrap();
        assert_ne!(first.data_ptr(), second.data_ptr());
        // Whatever is made of a tensor holds its memory too.
        let (place, part) = (first.data_ptr(), first.narrow(0, 1, 1));
        drop(first);
        let third = joiner.join(&[vec![5.0, 6.0]], &[2]).unwrap();
        assert_ne!(third.data_ptr(), place);
        assert_eq!((values(&part), values(&second)), (vec![2.0], vec![3.0, 4.0]));
        let place = third.data_ptr();
        drop(third);
        let shorter = joiner.join(&[vec![7.0]], &[1]).unwrap();
        assert_eq!((shorter.data_ptr(), values(&shorter)), (place, vec![7.0]));
        drop(shorter);
        let longer = joiner.join(&[vec![8.0], vec![9.0; 99]], &[100]).unwrap();
        assert_eq!((longer.size(), values(&longer)[0]), (vec![100], 8.0));
    }
}
