// A locally connected layer of float32 on the CPU, from libtorch's small matrix products: one for every row of a window, or
// for every pixel of it where that needs no other layout.

#include "locally_connected.h"
#include "positions.h"
#include "windows.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>

namespace ventral::direct {

namespace {

// `c` [m, n] = (or +=) `a` [m, k] · `b` [k, n]; `a` has rows of `ld_a` values, the others no gaps.
void multiply(int64_t m, int64_t n, int64_t k, bool add, const float *a, int64_t ld_a, const float *b, float *c) {
  at::native::cpublas::brgemm(m, n, k, ld_a, /*ld_b=*/n, /*ld_c=*/n, add, a, b, c, /*is_vnni=*/false);
}

} // namespace

void output(const Geometry &geometry, const at::Tensor &input, const at::Tensor &weights, at::Tensor &output) {
  const int64_t images = input.size(2), in = input.size(3), out = weights.size(3);
  const int64_t window_row = geometry.kernel * in, row_length = geometry.padded_width() * in;
  const bool by_rows = in < windows::kFewChannels;
  const at::Tensor source = by_rows ? windows::rows(geometry, input) : input;
  const float *x = source.const_data_ptr<float>(), *w = weights.const_data_ptr<float>();
  float *y = output.mutable_data_ptr<float>();
  for_positions(geometry.outputs(), [&](int64_t position) {
    float *result = y + position * images * out;
    const float *kernels = w + position * geometry.kernel * window_row * out;
    bool add = false;
    if (by_rows) {
      geometry.each_row(position, [&](int64_t a, int64_t row, int64_t column) {
        const float *window = x + row * images * row_length + column * in;
        multiply(images, out, window_row, add, window, row_length, kernels + a * window_row * out, result);
        add = true;
      });
    } else {
      geometry.each_input(position, [&](int64_t offset, int64_t pixel) {
        multiply(images, out, in, add, x + pixel * images * in, in, kernels + offset * in * out, result);
        add = true;
      });
    }
    if (!add) {
      std::fill_n(result, images * out, 0.0F);
    }
  });
}

at::Tensor input_gradient(
    const Geometry &geometry,
    const at::Tensor &weights,
    const at::Tensor &gradient,
    int64_t in) {
  const int64_t images = gradient.size(2), out = gradient.size(3), fan_in = geometry.window() * in;
  const at::Tensor columns = windows::transposed(gradient);
  const float *w = weights.const_data_ptr<float>(), *g = columns.const_data_ptr<float>();
  const auto add = [&](int64_t position, int64_t line, int64_t lines, bool accumulate, float *sum) {
    const float *kernel = w + (position * fan_in + line) * out;
    multiply(lines, images, out, accumulate, kernel, out, g + position * out * images, sum);
  };
  return windows::input_gradient(geometry, gradient, in, add, [] {});
}

void weight_gradient(
    const Geometry &geometry,
    const at::Tensor &input,
    const at::Tensor &gradient,
    const GradientBlocks &result) {
  const int64_t images = input.size(2), out = gradient.size(3);
  const at::Tensor columns = windows::columns(geometry, input);
  const float *g = gradient.const_data_ptr<float>();
  for_positions(geometry.outputs(), [&](int64_t position) {
    const auto compute = [&](const float *lines, int64_t count, float *block) {
      multiply(count, out, images, result.adds(), lines, images, g + position * images * out, block);
    };
    windows::each_block<float>(geometry, position, columns, out, result, compute);
  });
}

} // namespace ventral::direct
