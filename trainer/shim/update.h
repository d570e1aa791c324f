// How weights change with their gradient: AdamW, Adam or stochastic gradient descent, as PyTorch defines them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ventral {

enum class Algorithm : int32_t { kAdamW = 0, kAdam = 1, kSgd = 2 };

// The numbers of one step; as `Step` in trainer/src/engine/optimizer.rs.
struct Step {
  Algorithm algorithm;
  // Decides which moments of bfloat16 are rounded up and which down.
  uint32_t noise;
  // Steps made, this one too.
  double number;
  double learning_rate, weight_decay, beta1, beta2, epsilon, momentum;

  int moments() const { return algorithm != Algorithm::kSgd ? 2 : momentum != 0 ? 1 : 0; }
};

// What the loops need of a step, each computed once.
struct Constants {
  float learning_rate, weight_decay, kept, beta1_complement, beta2, beta2_complement, step_size, root_correction, epsilon,
      momentum;

  explicit Constants(const Step &step);
};

// Weights with what the optimiser remembers of them. Moments that the algorithm has none of are undefined.
struct Updated {
  at::Tensor weights, first, second;

  // Everything has the shape and device of the weights; moments are of their type or, both, bfloat16.
  void check(const Step &step) const;
  bool reduced() const { return first.defined() && first.scalar_type() == at::kBFloat16; }
};

// Updates float32 weights on the CPU, some at a time.
class Updater {
 public:
  Updater(const Step &step, const Updated &updated);
  // `gradient` holds `count` values, for the weights from `begin` on.
  void operator()(const float *gradient, int64_t begin, int64_t count) const;

 private:
  Step step_;
  Constants constants_;
  float *weights_;
  void *first_, *second_;
  bool reduced_;
};

// As libtorch's operations: updates weights with moments of bfloat16, on any device and of any type.
void update_composed(const Step &step, const Updated &updated, const at::Tensor &gradient);

// Updates the weights on any device, with the fastest kernels that it has; `gradient` has their type.
void update(const Step &step, const Updated &updated, const at::Tensor &gradient);

} // namespace ventral
