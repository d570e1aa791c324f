//! Numbers that were computed outside of libtorch, as one tensor.

use tch::{Device, Kind, TchError, Tensor};

/// The values of parts, one after the other, as a tensor `shape` on the CPU. They are copied once: a tensor made of a slice
/// is filled with zeros first, and joining such tensors takes the memory of a batch anew.
///
/// # Errors
/// [`TchError`] where the parts have more or fewer values than the shape.
pub(crate) fn joined(parts: &[Vec<f32>], shape: &[i64]) -> Result<Tensor, TchError> {
    let views: Vec<Tensor> = parts.iter().map(|part| view(part)).collect::<Result<_, _>>()?;
    // Also where there is one part only, the result has memory of its own.
    let joined = Tensor::f_cat(&views, 0)?;
    joined.f_view(shape)
}

/// A tensor `[values.len()]` in the memory of `values`, which it must not outlive.
fn view(values: &[f32]) -> Result<Tensor, TchError> {
    let length = [values.len() as i64];
    // SAFETY: the memory holds so many floats, one after the other. `joined`, the only caller, drops the view before them,
    // and neither keeps a tensor that shares its memory nor writes to it.
    #[expect(unsafe_code, reason = "a view of memory that isn't libtorch's")]
    unsafe {
        Tensor::f_from_blob(values.as_ptr().cast(), &length, &[], Kind::Float, Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_a_tensor_of_its_own() {
        for parts in [
            vec![vec![1.0, 2.0], vec![3.0, 4.0, 5.0, 6.0]],
            vec![vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
        ] {
            let joined = joined(&parts, &[3, 2]).unwrap();
            drop(parts);
            assert_eq!(joined.size(), [3, 2]);
            assert_eq!(
                Vec::<f32>::try_from(joined.view(-1)).unwrap(),
                [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
            );
        }
        joined(&[vec![1.0]], &[2]).unwrap_err();
        assert_eq!(super::joined(&[vec![]], &[0, 4]).unwrap().size(), [0, 4]);
    }
}
