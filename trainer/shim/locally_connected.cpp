// The locally connected layer as an operation of automatic differentiation.
//
// Nothing is kept for the backward pass but input and weights. The weights' gradient updates them where it is computed, or
// is written into memory that the caller keeps from step to step: fresh memory costs more than the products, as the system
// has to clear it.

#include "locally_connected.h"
#include "status.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <torch/custom_class.h>

#include <optional>
#include <vector>

namespace ventral {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum class Path { kDirect, kDirectBf16, kComposed };

// How products whose factors are rounded to `type` are computed.
Path path(const at::Tensor &input, const at::Tensor &weights, at::ScalarType type) {
  if (!input.device().is_cpu() || input.scalar_type() != at::kFloat) {
    return Path::kComposed;
  }
  if (type == at::kHalf) {
    return Path::kComposed;
  }
  // What has no kernel for bfloat16 is faster without rounding, and no worse.
  return type == at::kBFloat16 && direct_bf16::supports(input, weights) ? Path::kDirectBf16 : Path::kDirect;
}

// `memory` where nothing else refers to it (a gradient that is still to be used, say), else new memory.
at::Tensor gradient_memory(const at::Tensor &memory, const at::Tensor &weights) {
  const bool free = memory.defined() && memory.is_contiguous() && memory.sizes() == weights.sizes() &&
      memory.scalar_type() == weights.scalar_type() && memory.device() == weights.device() &&
      memory.storage().use_count() == 1;
  // Another tensor on the same memory: the engine makes a gradient its own only where it holds the sole reference.
  return free ? memory.detach() : at::empty(weights.sizes(), weights.options().requires_grad(false));
}

// What becomes of the gradient of the weights. Automatic differentiation takes no notice of its tensors.
struct WeightGradient : torch::CustomClassHolder {
  // As the weights' `grad`; else it stays in `memory`, where there is one.
  bool kept = true;
  at::Tensor memory;
  // What `memory` holds is part of the gradient.
  bool add = false;
  // The weights are updated with it.
  std::optional<Step> step;
  at::Tensor first, second;

  void check(const at::Tensor &weights) const {
    TORCH_CHECK(
        kept || !memory.defined() ||
            (memory.is_contiguous() && memory.sizes() == weights.sizes() &&
             memory.scalar_type() == weights.scalar_type() && memory.device() == weights.device()),
        "the memory for a gradient isn't contiguous or differs from the weights in shape, type or device");
    TORCH_CHECK(kept || memory.defined() || step.has_value(), "a gradient that is neither kept nor used");
    TORCH_CHECK(memory.defined() || !add, "a gradient without memory has nothing to be added to");
    if (step.has_value()) {
      Updated{weights, first, second}.check(*step);
    }
  }
};

class LocallyConnected : public torch::autograd::Function<LocallyConnected> {
 public:
  static at::Tensor forward(
      AutogradContext *context,
      const at::Tensor &input,
      const at::Tensor &weights,
      const std::optional<at::Tensor> &bias,
      const c10::intrusive_ptr<WeightGradient> &wanted,
      int64_t kernel,
      int64_t stride,
      int64_t padding,
      at::ScalarType type) {
    check(input, weights, bias, kernel, stride, padding);
    wanted->check(weights);
    const at::Tensor x = input.contiguous();
    const Geometry geometry{
        kernel, stride, padding, x.size(0), x.size(1), weights.size(0), weights.size(1)};
    at::Tensor y = at::empty({weights.size(0), weights.size(1), x.size(2), weights.size(3)}, x.options());
    switch (path(x, weights, type)) {
      case Path::kDirect:
        direct::output(geometry, x, weights, y);
        break;
      case Path::kDirectBf16:
        direct_bf16::output(geometry, x, weights, y);
        break;
      case Path::kComposed:
        composed::output(geometry, type, x, weights, y);
        break;
    }
    if (bias.has_value()) {
      y.add_(*bias);
    }
    context->save_for_backward({x, weights});
    context->saved_data["gradient"] = c10::IValue::make_capsule(wanted);
    context->saved_data["bias"] = bias.has_value();
    context->saved_data["type"] = static_cast<int64_t>(type);
    context->saved_data["geometry"] = std::vector<int64_t>{kernel, stride, padding};
    return y;
  }

  static variable_list backward(AutogradContext *context, const variable_list &gradients) {
    variable_list results(8);
    if (!gradients[0].defined()) {
      return results;
    }
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weights = saved[1];
    const at::Tensor g = gradients[0].contiguous();
    const auto type = static_cast<at::ScalarType>(context->saved_data["type"].toInt());
    const auto window = context->saved_data["geometry"].toIntVector();
    const Geometry geometry{
        window[0], window[1], window[2], x.size(0), x.size(1), weights.size(0), weights.size(1)};
    if (context->needs_input_grad(0)) {
      results[0] = input_gradient(geometry, type, x, weights, g);
    }
    if (context->needs_input_grad(1)) {
      // The weights may change from here on; the input's gradient doesn't need them any more.
      const auto wanted = c10::static_intrusive_pointer_cast<WeightGradient>(context->saved_data["gradient"].toCapsule());
      results[1] = weight_gradient(geometry, type, x, weights, g, *wanted);
    }
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) {
      results[2] = g.sum({0, 1, 2});
    }
    return results;
  }

 private:
  static at::Tensor input_gradient(
      const Geometry &geometry,
      at::ScalarType type,
      const at::Tensor &x,
      const at::Tensor &weights,
      const at::Tensor &gradient) {
    switch (path(x, weights, type)) {
      case Path::kDirect:
        return direct::input_gradient(geometry, weights, gradient, x.size(3));
      case Path::kDirectBf16:
        return direct_bf16::input_gradient(geometry, weights, gradient, x.size(3));
      case Path::kComposed:
        break;
    }
    return composed::input_gradient(geometry, type, weights, gradient, x.size(3));
  }

  // The gradient, or nothing where it isn't kept.
  static at::Tensor weight_gradient(
      const Geometry &geometry,
      at::ScalarType type,
      const at::Tensor &x,
      const at::Tensor &weights,
      const at::Tensor &gradient,
      const WeightGradient &wanted) {
    const Updated updated{weights, wanted.first, wanted.second};
    at::Tensor memory = wanted.kept ? gradient_memory(wanted.memory, weights) : wanted.memory;
    const Path chosen = path(x, weights, type);
    if (chosen == Path::kComposed) {
      if (!memory.defined()) {
        memory = at::empty(weights.sizes(), weights.options().requires_grad(false));
      }
      composed::weight_gradient(geometry, type, x, gradient, wanted.add, memory);
      if (wanted.step.has_value()) {
        update(*wanted.step, updated, memory);
      }
    } else {
      std::optional<Updater> updater;
      if (wanted.step.has_value()) {
        updater.emplace(*wanted.step, updated);
      }
      const GradientBlocks blocks(memory, wanted.add, updater.has_value() ? &*updater : nullptr);
      const auto compute = chosen == Path::kDirect ? &direct::weight_gradient : &direct_bf16::weight_gradient;
      compute(geometry, x, gradient, blocks);
    }
    return wanted.kept ? memory : at::Tensor();
  }

  static void check(
      const at::Tensor &input,
      const at::Tensor &weights,
      const std::optional<at::Tensor> &bias,
      int64_t kernel,
      int64_t stride,
      int64_t padding) {
    TORCH_CHECK(input.dim() == 4 && weights.dim() == 4, "input and weights of a layer have four dimensions");
    TORCH_CHECK(weights.is_contiguous(), "a layer's weights must be contiguous");
    TORCH_CHECK(
        input.scalar_type() == weights.scalar_type() && input.device() == weights.device(),
        "input and weights differ in type or device");
    TORCH_CHECK(
        kernel > 0 && stride > 0 && padding >= 0, "a window of ", kernel, ", stride ", stride, ", padding ", padding);
    const auto outputs = [&](int64_t inputs) { return (inputs + 2 * padding - kernel) / stride + 1; };
    TORCH_CHECK(
        input.size(0) + 2 * padding >= kernel && input.size(1) + 2 * padding >= kernel &&
            weights.size(0) == outputs(input.size(0)) && weights.size(1) == outputs(input.size(1)) &&
            weights.size(2) == kernel * kernel * input.size(3),
        "weights ", weights.sizes(), " don't fit an input ", input.sizes(), " with windows of ", kernel, ", stride ",
        stride, " and padding ", padding);
    TORCH_CHECK(
        !bias.has_value() ||
            (bias->dim() == 1 && bias->size(0) == weights.size(3) && bias->scalar_type() == input.scalar_type() &&
             bias->device() == input.device()),
        "the bias must have one value per output channel, of the input's type and on its device");
  }
};

} // namespace

} // namespace ventral

// `bias` may be null. The factors of all products are rounded to `precision`: 0 float32, 1 bfloat16, 2 float16.
//
// `kept`, `memory` and `add`: as in WeightGradient; `memory` may be null. Where `step` isn't null the weights are updated
// with it, and with those moments that it needs.
//
// `*result` becomes a new tensor, which the caller owns.
extern "C" int ventral_locally_connected(
    const at::Tensor *input,
    const at::Tensor *weights,
    const at::Tensor *bias,
    int64_t kernel,
    int64_t stride,
    int64_t padding,
    int32_t precision,
    bool kept,
    const at::Tensor *memory,
    bool add,
    const ventral::Step *step,
    const at::Tensor *first,
    const at::Tensor *second,
    at::Tensor **result,
    char **message) {
  return ventral::guarded(message, [&] {
    const auto or_undefined = [](const at::Tensor *tensor) { return tensor == nullptr ? at::Tensor() : *tensor; };
    auto gradient = c10::make_intrusive<ventral::WeightGradient>();
    gradient->kept = kept;
    gradient->memory = or_undefined(memory);
    gradient->add = add;
    if (step != nullptr) {
      gradient->step = *step;
    }
    gradient->first = or_undefined(first);
    gradient->second = or_undefined(second);
    using Bias = std::optional<at::Tensor>;
    *result = new at::Tensor(ventral::LocallyConnected::apply(
        *input,
        *weights,
        bias == nullptr ? Bias() : Bias(*bias),
        gradient,
        kernel,
        stride,
        padding,
        precision == 1   ? at::kBFloat16
            : precision == 2 ? at::kHalf
                             : input->scalar_type()));
  });
}

// The gradient of whatever `output` was computed from, given its own.
extern "C" int ventral_backward(const at::Tensor *output, const at::Tensor *gradient, char **message) {
  return ventral::guarded(message, [&] { output->backward(*gradient); });
}
