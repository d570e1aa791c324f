// Layouts in which a row of a window is one matrix, so that the products are few and large.
//
// Input positions have zeros on their left and right, as many as the padding, so that no row of a window ends early.
#pragma once

#include "geometry.h"
#include "gradient.h"
#include "positions.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace ventral::windows {

// Below so many channels a row of a window is worth more than the copy that it takes: products of single pixels are too
// small then.
constexpr int64_t kFewChannels = 8;

// `input` [H, W, N, C] as [H, N, W + 2p, C]: what an image shows to a row of a window lies in one piece.
at::Tensor rows(const Geometry &geometry, const at::Tensor &input);

// `input` [H, W, N, C] as [H, W + 2p, C, N]: a row of a window is a matrix [k · C, N] in one piece.
at::Tensor columns(const Geometry &geometry, const at::Tensor &input);

// Every position's [N, C] as [C, N].
at::Tensor transposed(const at::Tensor &tensor);

// [H, W, N, C] of what `columns` made.
at::Tensor gathered(const Geometry &geometry, const at::Tensor &columns);

// Adds up where the gradients lie, row by row of the windows.
template <typename Add, typename Finish>
at::Tensor scattered(const Geometry &geometry, const at::Tensor &gradient, int64_t in, Add &&add, Finish &&finish) {
  const int64_t images = gradient.size(2), window_row = geometry.kernel * in;
  const at::Tensor sums =
      at::zeros({geometry.in_height, geometry.padded_width(), in, images}, gradient.options());
  float *all = sums.mutable_data_ptr<float>();
  // Rows of positions so far apart share no input.
  const int64_t apart = (geometry.kernel + geometry.stride - 1) / geometry.stride;
  for (int64_t first = 0; first < std::min(apart, geometry.out_height); ++first) {
    const int64_t count = (geometry.out_height - first + apart - 1) / apart;
    const auto row_of_positions = [&](int64_t index) {
      const int64_t start = (first + index * apart) * geometry.out_width;
      for (int64_t position = start; position < start + geometry.out_width; ++position) {
        geometry.each_row(position, [&](int64_t a, int64_t row, int64_t column) {
          float *sum = all + (row * geometry.padded_width() + column) * in * images;
          add(position, a * window_row, window_row, /*accumulate=*/true, sum);
        });
      }
    };
    for_positions(count, row_of_positions, finish);
  }
  return gathered(geometry, sums);
}

// Adds up in the cache, one position of the input after the other.
template <typename Add, typename Finish>
at::Tensor summed(const Geometry &geometry, const at::Tensor &gradient, int64_t in, Add &&add, Finish &&finish) {
  const int64_t images = gradient.size(2);
  const at::Tensor result = at::empty({geometry.in_height, geometry.in_width, images, in}, gradient.options());
  float *target = result.mutable_data_ptr<float>();
  const auto sum_up = [&](int64_t position) {
    float *sum = scratch<float, 3>(in * images), *here = target + position * images * in;
    bool accumulate = false;
    geometry.each_output(position, [&](int64_t offset, int64_t output) {
      add(output, offset * in, in, accumulate, sum);
      accumulate = true;
    });
    if (accumulate) {
      transpose(in, images, sum, here);
    } else {
      std::fill_n(here, images * in, 0.0F);
    }
  };
  for_positions(geometry.inputs(), sum_up, finish);
  return result;
}

// The gradient [H, W, N, Cin] of a layer's input. `add(output position, line, lines, accumulate, sum)` writes to `sum`, or
// adds, what an output gives to so many lines [N] of its window, of k · k · Cin; `finish()` is called on every thread that
// took part.
template <typename Add, typename Finish>
at::Tensor input_gradient(
    const Geometry &geometry, const at::Tensor &gradient, int64_t in, Add &&add, Finish &&finish) {
  // What a row of a window adds to, with the weights, in a core's first cache.
  constexpr int64_t kMost = 1 << 13;
  return geometry.kernel * in * gradient.size(2) <= kMost ? scattered(geometry, gradient, in, add, finish)
                                                          : summed(geometry, gradient, in, add, finish);
}

// The weight gradient of an output position in blocks that fit in a core's cache. `compute(lines, count, block)` computes
// a block from so many lines [N] of what `columns` made.
template <typename Element, typename Compute>
void each_block(
    const Geometry &geometry,
    int64_t position,
    const at::Tensor &columns,
    int64_t out,
    const GradientBlocks &result,
    Compute &&compute) {
  constexpr int64_t kValues = 1 << 15;
  const int64_t in = columns.size(2), images = columns.size(3);
  const int64_t window_row = geometry.kernel * in, most = std::max<int64_t>(kValues / out, 1);
  const auto *x = static_cast<const Element *>(columns.const_data_ptr());
  const auto line = [&](int64_t row, int64_t column) {
    return x + (row * geometry.padded_width() + column) * in * images;
  };
  const int64_t start = position * geometry.kernel * window_row * out;
  if (in < kFewChannels) {
    // All rows of the window, one after the other.
    const int64_t size = window_row * images;
    Element *window = scratch<Element, 2>(geometry.kernel * size);
    geometry.each_row_or_padding(position, [&](int64_t a, int64_t row, int64_t column) {
      if (row == Geometry::kPadding) {
        std::fill_n(window + a * size, size, Element{});
      } else {
        std::copy_n(line(row, column), size, window + a * size);
      }
    });
    const int64_t count = geometry.kernel * window_row;
    float *block = result.block(start, count * out);
    compute(window, count, block);
    return result.complete(block, start, count * out);
  }
  geometry.each_row_or_padding(position, [&](int64_t a, int64_t row, int64_t column) {
    for (int64_t done = 0; done < window_row; done += most) {
      const int64_t count = std::min(most, window_row - done);
      const int64_t begin = start + (a * window_row + done) * out;
      if (row == Geometry::kPadding) {
        result.zeros(begin, count * out);
        continue;
      }
      float *block = result.block(begin, count * out);
      compute(line(row, column) + done * images, count, block);
      result.complete(block, begin, count * out);
    }
  });
}

} // namespace ventral::windows
