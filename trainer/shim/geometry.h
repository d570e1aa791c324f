// Which input position a weight of a locally connected layer looks at.
#pragma once

#include <cstdint>

namespace ventral {

struct Geometry {
  int64_t kernel, stride, padding;
  int64_t in_height, in_width, out_height, out_width;

  int64_t window() const { return kernel * kernel; }
  int64_t inputs() const { return in_height * in_width; }
  int64_t outputs() const { return out_height * out_width; }

  // Of an input with its zeros on the left and on the right.
  int64_t padded_width() const { return in_width + 2 * padding; }

  static constexpr int64_t kPadding = -1;

  // `visit(row of the window, row of the input or kPadding, column of the padded input where the window begins)` for all
  // rows of an output position's window.
  template <typename Visit>
  void each_row_or_padding(int64_t output, Visit &&visit) const {
    const int64_t top = output / out_width * stride - padding, column = output % out_width * stride;
    for (int64_t a = 0; a < kernel; ++a) {
      const int64_t row = top + a;
      visit(a, row >= 0 && row < in_height ? row : kPadding, column);
    }
  }

  // As above, without rows that are padding.
  template <typename Visit>
  void each_row(int64_t output, Visit &&visit) const {
    each_row_or_padding(output, [&](int64_t a, int64_t row, int64_t column) {
      if (row != kPadding) {
        visit(a, row, column);
      }
    });
  }

  // `visit(offset in the window, position of the input)` for all of an output position's inputs that aren't padding.
  template <typename Visit>
  void each_input(int64_t output, Visit &&visit) const {
    each_row(output, [&](int64_t a, int64_t row, int64_t begin) {
      for (int64_t b = 0; b < kernel; ++b) {
        const int64_t column = begin + b - padding;
        if (column >= 0 && column < in_width) {
          visit(a * kernel + b, row * in_width + column);
        }
      }
    });
  }

  // `visit(offset in the window, output position)` for all outputs that look at an input position.
  template <typename Visit>
  void each_output(int64_t input, Visit &&visit) const {
    const int64_t bottom = input / in_width + padding, right = input % in_width + padding;
    for (int64_t a = 0; a < kernel; ++a) {
      for (int64_t b = 0; b < kernel; ++b) {
        const int64_t row = bottom - a, column = right - b;
        if (row >= 0 && column >= 0 && row % stride == 0 && column % stride == 0 && row / stride < out_height &&
            column / stride < out_width) {
          visit(a * kernel + b, row / stride * out_width + column / stride);
        }
      }
    }
  }
};

} // namespace ventral
