// A locally connected layer as libtorch's operations, for devices and types that have no kernels of their own here.

#include "locally_connected.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>

#include <vector>

namespace ventral::composed {

namespace {

// What one offset of the window sees of the padded input: [H_out, W_out, N, Cin].
at::Tensor slice(const Geometry &geometry, const at::Tensor &padded, int64_t offset) {
  const int64_t row = offset / geometry.kernel, column = offset % geometry.kernel;
  const auto end = [&](int64_t start, int64_t outputs) { return start + (outputs - 1) * geometry.stride + 1; };
  return padded.slice(0, row, end(row, geometry.out_height), geometry.stride)
      .slice(1, column, end(column, geometry.out_width), geometry.stride);
}

// [H_out · W_out, N, K]
at::Tensor unfolded(const Geometry &geometry, const at::Tensor &input) {
  const int64_t p = geometry.padding;
  const at::Tensor padded = p == 0 ? input : at::constant_pad_nd(input, {0, 0, 0, 0, p, p, p, p});
  std::vector<at::Tensor> slices;
  for (int64_t offset = 0; offset < geometry.window(); ++offset) {
    slices.push_back(slice(geometry, padded, offset));
  }
  return at::cat(slices, -1).view({geometry.outputs(), input.size(2), -1});
}

at::Tensor positions(const at::Tensor &tensor) {
  return tensor.view({-1, tensor.size(2), tensor.size(3)});
}

// `result` = (or +=) `a` · `b`, of factors of `type`. Where that is the result's own type, its memory is written directly.
void multiply(at::ScalarType type, bool add, const at::Tensor &a, const at::Tensor &b, at::Tensor result) {
  if (result.scalar_type() != type) {
    const at::Tensor product = at::bmm(a, b);
    add ? result.add_(product) : result.copy_(product);
  } else if (add) {
    result.baddbmm_(a, b);
  } else {
    at::bmm_out(result, a, b);
  }
}

} // namespace

void output(
    const Geometry &geometry,
    at::ScalarType type,
    const at::Tensor &input,
    const at::Tensor &weights,
    at::Tensor &output) {
  multiply(type, /*add=*/false, unfolded(geometry, input.to(type)), positions(weights.to(type)), positions(output));
}

at::Tensor input_gradient(
    const Geometry &geometry,
    at::ScalarType type,
    const at::Tensor &weights,
    const at::Tensor &gradient,
    int64_t channels) {
  const int64_t images = gradient.size(2);
  const at::Tensor patches =
      at::bmm(positions(gradient.to(type)), positions(weights.to(type)).transpose(1, 2))
          .view({geometry.out_height, geometry.out_width, images, geometry.window(), channels});
  const int64_t p = geometry.padding;
  const at::Tensor padded =
      at::zeros({geometry.in_height + 2 * p, geometry.in_width + 2 * p, images, channels}, gradient.options());
  for (int64_t offset = 0; offset < geometry.window(); ++offset) {
    slice(geometry, padded, offset).add_(patches.select(3, offset));
  }
  return padded.slice(0, p, p + geometry.in_height).slice(1, p, p + geometry.in_width);
}

void weight_gradient(
    const Geometry &geometry,
    at::ScalarType type,
    const at::Tensor &input,
    const at::Tensor &gradient,
    bool add,
    at::Tensor &result) {
  multiply(
      type,
      add,
      unfolded(geometry, input.to(type)).transpose(1, 2),
      positions(gradient.to(type)),
      positions(result));
}

} // namespace ventral::composed
