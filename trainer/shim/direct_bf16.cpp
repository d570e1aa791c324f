// A locally connected layer on the CPU whose products are of bfloat16 and whose sums, inputs and outputs are float32.
//
// As direct.cpp; weights are rounded position by position on their way into the cache, so that no copy of them is made.
// The instructions multiply pairs along the summed dimension: the right factor of every product lies in memory as
// [k / 2, n, 2].

#include "bits.h"
#include "locally_connected.h"
#include "positions.h"
#include "wide.h"
#include "windows.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>

namespace ventral::direct_bf16 {

namespace {

VENTRAL_WIDE void round_all(int64_t count, const float *source, uint16_t *target) {
  for (int64_t i = 0; i < count; ++i) {
    target[i] = static_cast<uint16_t>(rounded(bits_of(source[i])) >> 16);
  }
}

// `source` [rows, columns] as pairs of rows, [⌈rows / 2⌉, columns, 2]; an odd last row is paired with zeros.
VENTRAL_WIDE void pack(int64_t rows, int64_t columns, const float *source, uint32_t *target) {
  for (int64_t row = 0; row + 1 < rows; row += 2) {
    const float *upper = source + row * columns, *lower = upper + columns;
    for (int64_t column = 0; column < columns; ++column) {
      target[column] = (rounded(bits_of(upper[column])) >> 16) | (rounded(bits_of(lower[column])) & 0xffff0000U);
    }
    target += columns;
  }
  if (rows % 2 == 1) {
    const float *last = source + (rows - 1) * columns;
    for (int64_t column = 0; column < columns; ++column) {
      target[column] = rounded(bits_of(last[column])) >> 16;
    }
  }
}

// `c` [m, n] = (or +=) `a` [m, k] · `b` [k, n] in pairs; `a` has rows of `ld_a` values, the others no gaps.
void multiply(int64_t m, int64_t n, int64_t k, bool add, const uint16_t *a, int64_t ld_a, const uint32_t *b, float *c) {
  at::native::cpublas::brgemm(
      m,
      n,
      k,
      ld_a,
      /*ld_b=*/n,
      /*ld_c=*/n,
      add,
      reinterpret_cast<const at::BFloat16 *>(a),
      reinterpret_cast<const at::BFloat16 *>(b),
      c,
      /*is_vnni=*/true);
}

void release() { at::native::cpublas::brgemm_release(); }

const uint16_t *halves(const at::Tensor &tensor) {
  return reinterpret_cast<const uint16_t *>(tensor.const_data_ptr<at::BFloat16>());
}

} // namespace

bool processor_has_it() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

bool supports(const at::Tensor &input, const at::Tensor &weights) {
  // Pairs of images, of output channels.
  return input.size(2) % 2 == 0 && weights.size(3) % 2 == 0 && processor_has_it();
}

void output(const Geometry &geometry, const at::Tensor &input, const at::Tensor &weights, at::Tensor &output) {
  const int64_t images = input.size(2), in = input.size(3), out = weights.size(3);
  const int64_t window_row = geometry.kernel * in, row_length = geometry.padded_width() * in;
  // With an odd window, the value after it is multiplied by zero. Pairs must not cross the edge of a pixel.
  const bool by_rows = in < windows::kFewChannels || in % 2 == 1;
  const int64_t length = by_rows ? window_row : geometry.kernel * window_row, pairs = (length + 1) / 2;
  const at::Tensor narrow = input.to(at::kBFloat16);
  const at::Tensor source = by_rows ? windows::rows(geometry, narrow) : narrow;
  const uint16_t *x = halves(source);
  const float *w = weights.const_data_ptr<float>();
  float *y = output.mutable_data_ptr<float>();
  for_positions(
      geometry.outputs(),
      [&](int64_t position) {
        uint32_t *kernel = scratch<uint32_t>(pairs * out);
        float *result = y + position * images * out;
        const float *kernels = w + position * geometry.kernel * window_row * out;
        bool add = false;
        if (by_rows) {
          geometry.each_row(position, [&](int64_t a, int64_t row, int64_t column) {
            pack(length, out, kernels + a * length * out, kernel);
            const uint16_t *window = x + row * images * row_length + column * in;
            multiply(images, out, 2 * pairs, add, window, row_length, kernel, result);
            add = true;
          });
        } else {
          pack(length, out, kernels, kernel);
          geometry.each_input(position, [&](int64_t offset, int64_t pixel) {
            multiply(images, out, in, add, x + pixel * images * in, in, kernel + offset * in / 2 * out, result);
            add = true;
          });
        }
        if (!add) {
          std::fill_n(result, images * out, 0.0F);
        }
      },
      release);
}

at::Tensor input_gradient(
    const Geometry &geometry,
    const at::Tensor &weights,
    const at::Tensor &gradient,
    int64_t in) {
  const int64_t images = gradient.size(2), out = gradient.size(3), fan_in = geometry.window() * in;
  // Two channels are one element of a matrix [N, Cout / 2], whose transpose is in pairs.
  const at::Tensor narrow = gradient.to(at::kBFloat16);
  const at::Tensor columns = windows::transposed(narrow.view(at::kFloat));
  const auto *pairs = reinterpret_cast<const uint32_t *>(columns.const_data_ptr<float>());
  const float *w = weights.const_data_ptr<float>();
  const auto add = [&](int64_t position, int64_t line, int64_t lines, bool accumulate, float *sum) {
    uint16_t *kernel = scratch<uint16_t>(lines * out);
    round_all(lines * out, w + (position * fan_in + line) * out, kernel);
    multiply(lines, images, out, accumulate, kernel, out, pairs + position * images * out / 2, sum);
  };
  return windows::input_gradient(geometry, gradient, in, add, release);
}

void weight_gradient(
    const Geometry &geometry,
    const at::Tensor &input,
    const at::Tensor &gradient,
    const GradientBlocks &result) {
  const int64_t images = input.size(2), out = gradient.size(3);
  const at::Tensor columns = windows::columns(geometry, input.to(at::kBFloat16));
  const float *g = gradient.const_data_ptr<float>();
  for_positions(
      geometry.outputs(),
      [&](int64_t position) {
        uint32_t *gradients = scratch<uint32_t>(images / 2 * out);
        pack(images, out, g + position * images * out, gradients);
        const auto compute = [&](const uint16_t *lines, int64_t count, float *block) {
          multiply(count, out, images, result.adds(), lines, images, gradients, block);
        };
        windows::each_block<uint16_t>(geometry, position, columns, out, result, compute);
      },
      release);
}

} // namespace ventral::direct_bf16
