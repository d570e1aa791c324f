// Where the gradient of a layer's weights goes, block by block.
#pragma once

#include "positions.h"
#include "update.h"

#include <algorithm>

namespace ventral {

// Takes blocks of consecutive values: keeps them, adds them to those that are there, or updates the weights with them at
// once, so that a gradient never leaves the processor's cache.
class GradientBlocks {
 public:
  // Without `memory` a block lives until it is complete. `add`: what `memory` holds is part of the gradient.
  GradientBlocks(const at::Tensor &memory, bool add, const Updater *updater)
      : memory_(memory.defined() ? memory.mutable_data_ptr<float>() : nullptr), add_(add), updater_(updater) {}

  // Whether a block is to be added to what lies there, or written.
  bool adds() const { return add_; }

  // Where a block is to be computed, until the thread asks for the next.
  float *block(int64_t begin, int64_t count) const {
    return memory_ != nullptr ? memory_ + begin : scratch<float, kSlot>(count);
  }

  void complete(const float *block, int64_t begin, int64_t count) const {
    if (updater_ != nullptr) {
      (*updater_)(block, begin, count);
    }
  }

  // For weights that see nothing but padding.
  void zeros(int64_t begin, int64_t count) const {
    float *values = block(begin, count);
    if (!add_) {
      std::fill_n(values, count, 0.0F);
    }
    complete(values, begin, count);
  }

 private:
  static constexpr int kSlot = 1;

  float *memory_;
  bool add_;
  const Updater *updater_;
};

} // namespace ventral
