// A step of the optimiser: one pass over parameters, gradients and moments instead of one for every operation. Moments of
// the parameters' type go through libtorch's fused kernels.
//
// Parameters without a gradient keep their values and their moments, as in PyTorch.

#include "positions.h"
#include "status.h"
#include "update.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace ventral {

namespace {

// What libtorch's fused kernels update in one call.
struct Lists {
  std::vector<at::Tensor> weights, gradients, first, second;

  void add(const Updated &updated, const at::Tensor &gradient) {
    weights.push_back(updated.weights);
    gradients.push_back(gradient);
    if (updated.first.defined()) {
      first.push_back(updated.first);
    }
    if (updated.second.defined()) {
      second.push_back(updated.second);
    }
  }
};

void update_fused(const Step &step, const Lists &lists) {
  if (lists.weights.empty()) {
    return;
  }
  if (step.algorithm == Algorithm::kSgd) {
    return at::_fused_sgd_(
        lists.weights,
        lists.gradients,
        lists.first,
        step.weight_decay,
        step.momentum,
        step.learning_rate,
        /*dampening=*/0.0,
        /*nesterov=*/false,
        /*maximize=*/false,
        /*is_first_step=*/false);
  }
  const auto options = lists.weights.front().options().dtype(at::kFloat).requires_grad(false);
  const std::vector<at::Tensor> state_steps(lists.weights.size(), at::full({}, step.number, options));
  const auto fused =
      step.algorithm == Algorithm::kAdamW ? &at::_ops::_fused_adamw_::call : &at::_ops::_fused_adam_::call;
  fused(
      lists.weights,
      lists.gradients,
      lists.first,
      lists.second,
      /*max_exp_avg_sqs=*/{},
      state_steps,
      step.learning_rate,
      step.beta1,
      step.beta2,
      step.weight_decay,
      step.epsilon,
      /*amsgrad=*/false,
      /*maximize=*/false,
      /*grad_scale=*/{},
      /*found_inf=*/{});
}

void update_reduced(const Step &step, const Updated &updated, const at::Tensor &gradient) {
  if (!updated.weights.is_cpu() || updated.weights.scalar_type() != at::kFloat) {
    return update_composed(step, updated, gradient);
  }
  constexpr int64_t kGrain = int64_t{1} << 15;
  const Updater updater(step, updated);
  const float *values = gradient.const_data_ptr<float>();
  at::parallel_for(0, updated.weights.numel(), kGrain, [&](int64_t begin, int64_t end) {
    updater(values + begin, begin, end - begin);
  });
}

// The kernels read raw memory, element i of a parameter with element i of its gradient.
at::Tensor checked(const at::Tensor &gradient, const at::Tensor &weights) {
  TORCH_CHECK(
      gradient.sizes() == weights.sizes() && gradient.scalar_type() == weights.scalar_type() &&
          gradient.device() == weights.device(),
      "a gradient differs from its parameter in shape, type or device");
  return gradient.contiguous();
}

} // namespace

void update(const Step &step, const Updated &updated, const at::Tensor &gradient) {
  updated.check(step);
  const at::Tensor values = checked(gradient, updated.weights);
  if (updated.reduced()) {
    return update_reduced(step, updated, values);
  }
  Lists lists;
  lists.add(updated, values);
  update_fused(step, lists);
}

} // namespace ventral

extern "C" {

using TensorPointers = const at::Tensor *const *;

void ventral_free_message(char *message) { std::free(message); }

// Updates every parameter that has a gradient. `first` and `second` are null where the algorithm has no such moments.
int ventral_optimizer_step(
    TensorPointers parameters,
    TensorPointers first,
    TensorPointers second,
    int64_t count,
    const ventral::Step *step,
    char **message) {
  return ventral::guarded(message, [&] {
    at::NoGradGuard no_grad;
    ventral::Lists lists;
    for (int64_t i = 0; i < count; ++i) {
      const at::Tensor &gradient = parameters[i]->grad();
      if (!gradient.defined()) {
        continue;
      }
      const auto moment = [i](TensorPointers all) { return all == nullptr ? at::Tensor() : *all[i]; };
      const ventral::Updated updated{*parameters[i], moment(first), moment(second)};
      if (updated.reduced()) {
        ventral::update(*step, updated, gradient);
      } else {
        updated.check(*step);
        lists.add(updated, ventral::checked(gradient, updated.weights));
      }
    }
    ventral::update_fused(*step, lists);
  });
}

// Updates one parameter with a given gradient; moments may be null.
int ventral_update(
    const at::Tensor *parameter,
    const at::Tensor *gradient,
    const at::Tensor *first,
    const at::Tensor *second,
    const ventral::Step *step,
    char **message) {
  return ventral::guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto or_undefined = [](const at::Tensor *moment) { return moment == nullptr ? at::Tensor() : *moment; };
    ventral::update(*step, {*parameter, or_undefined(first), or_undefined(second)}, *gradient);
  });
}

// Multiplies the gradients by a number; `*finite` tells whether all of them were finite.
int ventral_unscale(TensorPointers gradients, int64_t count, double factor, bool *finite, char **message) {
  return ventral::guarded(message, [&] {
    at::NoGradGuard no_grad;
    *finite = true;
    std::vector<at::Tensor> list;
    for (int64_t i = 0; i < count; ++i) {
      list.push_back(*gradients[i]);
    }
    if (list.empty()) {
      return;
    }
    const auto options = list.front().options().dtype(at::kFloat).requires_grad(false);
    at::Tensor found = at::full({}, 0.0, options);
    at::_amp_foreach_non_finite_check_and_unscale_(list, found, at::full({}, factor, options));
    *finite = found.item<float>() == 0;
  });
}

// Unlike filling it with zeros, this costs nothing and lets the next backward pass write instead of add.
int ventral_clear_gradient(const at::Tensor *parameter, char **message) {
  return ventral::guarded(message, [&] { parameter->mutable_grad().reset(); });
}

} // extern "C"
