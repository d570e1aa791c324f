// See windows.h.

#include "windows.h"

namespace ventral::windows {

namespace {

at::Tensor with_padding(const Geometry &geometry, at::IntArrayRef shape, const at::Tensor &like) {
  return geometry.padding == 0 ? at::empty(shape, like.options()) : at::zeros(shape, like.options());
}

template <typename Element>
void transpose_all(int64_t count, int64_t rows, int64_t columns, const Element *source, Element *target) {
  for_positions(count, [&](int64_t position) {
    const int64_t start = position * rows * columns;
    transpose(rows, columns, source + start, target + start);
  });
}

template <typename Element>
void copy_columns(const Geometry &geometry, int64_t images, int64_t channels, const Element *source, Element *target) {
  for_positions(geometry.inputs(), [&](int64_t position) {
    const int64_t row = position / geometry.in_width, column = position % geometry.in_width + geometry.padding;
    const int64_t place = row * geometry.padded_width() + column, size = images * channels;
    transpose(images, channels, source + position * size, target + place * size);
  });
}

template <typename Element>
void copy_rows(const Geometry &geometry, int64_t images, int64_t channels, const Element *source, Element *target) {
  const int64_t length = geometry.padded_width() * channels;
  for_positions(geometry.in_height, [&](int64_t row) {
    for (int64_t image = 0; image < images; ++image) {
      const Element *from = source + (row * geometry.in_width * images + image) * channels;
      Element *to = target + (row * images + image) * length + geometry.padding * channels;
      for (int64_t column = 0; column < geometry.in_width; ++column) {
        for (int64_t channel = 0; channel < channels; ++channel) {
          *to++ = from[channel];
        }
        from += images * channels;
      }
    }
  });
}

} // namespace

at::Tensor rows(const Geometry &geometry, const at::Tensor &input) {
  const int64_t images = input.size(2), width = geometry.padded_width(), channels = input.size(3);
  // Products of pairs read one value past the last row of an odd window.
  const at::Tensor memory = with_padding(geometry, {geometry.in_height * images * width * channels + 1}, input);
  const auto copy = [&](auto element) {
    using Element = decltype(element);
    const auto *source = static_cast<const Element *>(input.const_data_ptr());
    auto *target = static_cast<Element *>(memory.mutable_data_ptr());
    copy_rows(geometry, images, channels, source, target);
    target[geometry.in_height * images * width * channels] = Element{};
  };
  input.element_size() == sizeof(float) ? copy(float{}) : copy(uint16_t{});
  return memory;
}

at::Tensor columns(const Geometry &geometry, const at::Tensor &input) {
  const int64_t images = input.size(2), channels = input.size(3);
  const at::Tensor result =
      with_padding(geometry, {geometry.in_height, geometry.padded_width(), channels, images}, input);
  const auto copy = [&](auto element) {
    using Element = decltype(element);
    const auto *source = static_cast<const Element *>(input.const_data_ptr());
    copy_columns(geometry, images, channels, source, static_cast<Element *>(result.mutable_data_ptr()));
  };
  input.element_size() == sizeof(float) ? copy(float{}) : copy(uint16_t{});
  return result;
}

at::Tensor transposed(const at::Tensor &tensor) {
  const int64_t count = tensor.size(0) * tensor.size(1), rows = tensor.size(2), columns = tensor.size(3);
  const at::Tensor result = at::empty({count, columns, rows}, tensor.options());
  transpose_all(count, rows, columns, tensor.const_data_ptr<float>(), result.mutable_data_ptr<float>());
  return result;
}

at::Tensor gathered(const Geometry &geometry, const at::Tensor &columns) {
  const int64_t channels = columns.size(2), images = columns.size(3);
  const at::Tensor result = at::empty({geometry.in_height, geometry.in_width, images, channels}, columns.options());
  const float *source = columns.const_data_ptr<float>();
  float *target = result.mutable_data_ptr<float>();
  for_positions(geometry.inputs(), [&](int64_t position) {
    const int64_t row = position / geometry.in_width, column = position % geometry.in_width + geometry.padding;
    const int64_t place = row * geometry.padded_width() + column, size = images * channels;
    transpose(channels, images, source + place * size, target + position * size);
  });
  return result;
}

} // namespace ventral::windows
