// What the kernels share: positions in parallel, memory of a thread's own, transposition.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#if defined(__x86_64__)
#include <fbgemm/Utils.h>
#endif

#include <cstdint>
#include <vector>

namespace ventral {

// Calls `body(position)` for all positions, in parallel, and `finish()` on every thread that took part.
template <typename Body, typename Finish>
void for_positions(int64_t count, Body &&body, Finish &&finish) {
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position) {
      body(position);
    }
    finish();
  });
}

template <typename Body>
void for_positions(int64_t count, Body &&body) {
  for_positions(count, body, [] {});
}

// A thread's own memory, kept for the next position and the next layer. A second call for the same slot may move it.
template <typename Element, int kSlot = 0>
Element *scratch(int64_t size) {
  thread_local std::vector<Element> memory;
  if (memory.size() < static_cast<size_t>(size)) {
    memory.resize(size);
  }
  return memory.data();
}

// `target` [columns, rows] from `source` [rows, columns].
template <typename Element>
void transpose(int64_t rows, int64_t columns, const Element *source, Element *target) {
#if defined(__x86_64__)
  fbgemm::transpose_simd<Element>(rows, columns, source, columns, target, rows);
#else
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      target[column * rows + row] = source[row * columns + column];
    }
  }
#endif
}

} // namespace ventral
