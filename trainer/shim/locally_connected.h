// The three products of a locally connected layer, on any device and on the CPU.
//
// Shapes: input [H, W, N, Cin], weights [H_out, W_out, K, Cout], output [H_out, W_out, N, Cout]; all contiguous, of one
// type, on one device.
#pragma once

#include "geometry.h"
#include "gradient.h"

#include <ATen/core/Tensor.h>

namespace ventral {

// As libtorch's operations: unfolding and batched matrix products, whose factors are rounded to `type`.
namespace composed {
void output(
    const Geometry &, at::ScalarType type, const at::Tensor &input, const at::Tensor &weights, at::Tensor &output);
at::Tensor input_gradient(
    const Geometry &, at::ScalarType type, const at::Tensor &weights, const at::Tensor &gradient, int64_t channels);
// `add`: to what `result` holds.
void weight_gradient(
    const Geometry &,
    at::ScalarType type,
    const at::Tensor &input,
    const at::Tensor &gradient,
    bool add,
    at::Tensor &result);
} // namespace composed

// For float32 on the CPU: every position's window is one small matrix product after the other, added up where the result
// lies, so that nothing is unfolded and weights cross the memory bus once. Their gradients need not cross it at all.
namespace direct {
void output(const Geometry &, const at::Tensor &input, const at::Tensor &weights, at::Tensor &output);
at::Tensor input_gradient(const Geometry &, const at::Tensor &weights, const at::Tensor &gradient, int64_t channels);
void weight_gradient(const Geometry &, const at::Tensor &input, const at::Tensor &gradient, const GradientBlocks &result);
} // namespace direct

// As `direct`, but the factors of the products are rounded to bfloat16.
namespace direct_bf16 {
bool processor_has_it();
// Whether the processor has the instructions, and the sizes are even.
bool supports(const at::Tensor &input, const at::Tensor &weights);
void output(const Geometry &, const at::Tensor &input, const at::Tensor &weights, at::Tensor &output);
at::Tensor input_gradient(const Geometry &, const at::Tensor &weights, const at::Tensor &gradient, int64_t channels);
void weight_gradient(const Geometry &, const at::Tensor &input, const at::Tensor &gradient, const GradientBlocks &result);
} // namespace direct_bf16

} // namespace ventral
