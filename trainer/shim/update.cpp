// Moments are float32, as in PyTorch, or bfloat16, rounded at random: their mean is then exact. Rounded to the nearest, a
// second moment that changes by a thousandth a step would never change.
//
// Every number is read and written once a step. Moments of bfloat16 are widened, updated and rounded where they lie.

#include "update.h"

#include "bits.h"
#include "positions.h"
#include "wide.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>

#include <cmath>

namespace ventral {

namespace {

// 32 bits that look random, from a number and the step's noise: two rounds of Murmur3's finaliser (Appleby 2011).
constexpr uint32_t kFirst = 0x85ebca6bU, kSecond = 0xc2b2ae35U;

VENTRAL_INLINE uint32_t scrambled(uint32_t x) {
  x *= kFirst;
  x ^= x >> 15;
  return x * kSecond;
}

VENTRAL_INLINE float read(const float *moment) { return *moment; }
VENTRAL_INLINE float read(const uint16_t *moment) { return float_of(static_cast<uint32_t>(*moment) << 16); }
VENTRAL_INLINE void write(float *moment, float value, uint32_t) { *moment = value; }
VENTRAL_INLINE void write(uint16_t *moment, float value, uint32_t noise) {
  *moment = static_cast<uint16_t>(rounded_at_random(bits_of(value), noise) >> 16);
}

template <bool kDecoupled, typename Moment>
VENTRAL_INLINE void adam(
    const Constants &c,
    const float *__restrict gradient,
    float *__restrict weights,
    Moment *__restrict first,
    Moment *__restrict second,
    uint32_t noise,
    uint32_t begin,
    int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    const uint32_t random = sizeof(Moment) == 2 ? scrambled((begin + static_cast<uint32_t>(i)) ^ noise) : 0;
    const float g = kDecoupled ? gradient[i] : gradient[i] + c.weight_decay * weights[i];
    const float m = read(first + i) + c.beta1_complement * (g - read(first + i));
    const float v = c.beta2 * read(second + i) + c.beta2_complement * g * g;
    const float w = kDecoupled ? weights[i] * c.kept : weights[i];
    weights[i] = w - c.step_size * m / (__builtin_sqrtf(v) * c.root_correction + c.epsilon);
    write(first + i, m, random & 0xffffU);
    write(second + i, v, random >> 16);
  }
}

template <typename Moment>
VENTRAL_INLINE void sgd(
    const Constants &c,
    const float *__restrict gradient,
    float *__restrict weights,
    Moment *__restrict momenta,
    uint32_t noise,
    uint32_t begin,
    int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    const float g = gradient[i] + c.weight_decay * weights[i];
    const float m = c.momentum * read(momenta + i) + g;
    weights[i] -= c.learning_rate * m;
    write(momenta + i, m, sizeof(Moment) == 2 ? scrambled((begin + static_cast<uint32_t>(i)) ^ noise) & 0xffffU : 0);
  }
}

#define VENTRAL_ADAM(name, decoupled, Moment)                                                                            \
  VENTRAL_WIDE void name(                                                                                                \
      const Constants &c, const float *g, float *w, Moment *m, Moment *v, uint32_t noise, uint32_t begin, int32_t count) { \
    adam<decoupled>(c, g, w, m, v, noise, begin, count);                                                                 \
  }
VENTRAL_ADAM(adamw_full, true, float)
VENTRAL_ADAM(adamw_reduced, true, uint16_t)
VENTRAL_ADAM(adam_full, false, float)
VENTRAL_ADAM(adam_reduced, false, uint16_t)

VENTRAL_WIDE void sgd_plain(const Constants &c, const float *g, float *w, int32_t count) {
  for (int32_t i = 0; i < count; ++i) {
    w[i] -= c.learning_rate * (g[i] + c.weight_decay * w[i]);
  }
}
VENTRAL_WIDE void sgd_full(
    const Constants &c, const float *g, float *w, float *m, uint32_t noise, uint32_t begin, int32_t count) {
  sgd(c, g, w, m, noise, begin, count);
}
VENTRAL_WIDE void sgd_reduced(
    const Constants &c, const float *g, float *w, uint16_t *m, uint32_t noise, uint32_t begin, int32_t count) {
  sgd(c, g, w, m, noise, begin, count);
}

// The same bits as `scrambled`, as a tensor: numbers from `begin` to `end`, and the noise.
at::Tensor scrambled(int64_t begin, int64_t end, uint32_t noise, const at::Tensor &like) {
  const auto wrapped = [](uint32_t value) { return static_cast<int64_t>(static_cast<int32_t>(value)); };
  at::Tensor x = at::arange(begin, end, like.options().dtype(at::kLong)).to(at::kInt).bitwise_xor(wrapped(noise));
  x = x.mul(wrapped(kFirst));
  // int32 has a sign, which must not be copied.
  x = x.bitwise_xor(x.bitwise_right_shift(15).bitwise_and(0x1ffff));
  return x.mul(wrapped(kSecond));
}

// Rounded as by `rounded_at_random`; `noise` is below 2^16.
void write_reduced(const at::Tensor &moment, const at::Tensor &value, const at::Tensor &noise) {
  const at::Tensor single = value.to(at::kFloat);
  const at::Tensor bits = single.view(at::kInt);
  const at::Tensor random = bits.add(noise).bitwise_and(static_cast<int64_t>(-0x10000)).view(at::kFloat);
  moment.copy_(at::where(single.isfinite(), random, single));
}

void check_moment(const at::Tensor &moment, const at::Tensor &weights, bool wanted, const char *what) {
  TORCH_CHECK(
      moment.defined() == wanted &&
          (!wanted ||
           (moment.is_contiguous() && moment.sizes() == weights.sizes() && moment.device() == weights.device() &&
            (moment.scalar_type() == weights.scalar_type() || moment.scalar_type() == at::kBFloat16))),
      what,
      " isn't contiguous or differs from its parameter in shape, type or device");
}

} // namespace

Constants::Constants(const Step &step)
    : learning_rate(step.learning_rate),
      weight_decay(step.weight_decay),
      kept(1 - step.learning_rate * step.weight_decay),
      beta1_complement(1 - step.beta1),
      beta2(step.beta2),
      beta2_complement(1 - step.beta2),
      step_size(step.learning_rate / (1 - std::pow(step.beta1, step.number))),
      root_correction(1 / std::sqrt(1 - std::pow(step.beta2, step.number))),
      epsilon(step.epsilon),
      momentum(step.momentum) {}

void Updated::check(const Step &step) const {
  TORCH_CHECK(weights.defined() && weights.is_contiguous(), "a parameter isn't contiguous");
  check_moment(first, weights, step.moments() > 0, "a first moment");
  check_moment(second, weights, step.moments() > 1, "a second moment");
  TORCH_CHECK(!second.defined() || second.scalar_type() == first.scalar_type(), "moments differ in type");
}

Updater::Updater(const Step &step, const Updated &updated) : step_(step), constants_(step), reduced_(updated.reduced()) {
  updated.check(step);
  TORCH_CHECK(
      updated.weights.is_cpu() && updated.weights.scalar_type() == at::kFloat, "weights that aren't float32 on the CPU");
  const auto memory = [](const at::Tensor &tensor) { return tensor.defined() ? tensor.mutable_data_ptr() : nullptr; };
  weights_ = static_cast<float *>(memory(updated.weights));
  first_ = memory(updated.first);
  second_ = memory(updated.second);
}

void Updater::operator()(const float *gradient, int64_t begin, int64_t all) const {
  // Numbers of 32 bits go through the loops as fast as the values.
  constexpr int64_t kMost = int64_t{1} << 30;
  if (all > kMost) {
    (*this)(gradient, begin, kMost);
    return (*this)(gradient + kMost, begin + kMost, all - kMost);
  }
  const auto count = static_cast<int32_t>(all);
  const Constants &c = constants_;
  const auto number = static_cast<uint32_t>(begin);
  float *weights = weights_ + begin;
  if (step_.moments() == 0) {
    return sgd_plain(c, gradient, weights, count);
  }
  const auto run = [&](auto *first, auto *second, auto adamw, auto adam, auto sgd) {
    first += begin;
    switch (step_.algorithm) {
      case Algorithm::kAdamW:
        return adamw(c, gradient, weights, first, second + begin, step_.noise, number, count);
      case Algorithm::kAdam:
        return adam(c, gradient, weights, first, second + begin, step_.noise, number, count);
      case Algorithm::kSgd:
        return sgd(c, gradient, weights, first, step_.noise, number, count);
    }
  };
  if (reduced_) {
    run(static_cast<uint16_t *>(first_), static_cast<uint16_t *>(second_), adamw_reduced, adam_reduced, sgd_reduced);
  } else {
    run(static_cast<float *>(first_), static_cast<float *>(second_), adamw_full, adam_full, sgd_full);
  }
}

void update_composed(const Step &step, const Updated &all, const at::Tensor &whole_gradient) {
  // Every part needs memory for several copies of it.
  constexpr int64_t kPart = int64_t{1} << 24;
  const Constants c(step);
  const at::Tensor weights = all.weights.view(-1), gradient = whole_gradient.reshape(-1), first = all.first.view(-1);
  for (int64_t begin = 0; begin < weights.numel(); begin += kPart) {
    const int64_t end = std::min(begin + kPart, weights.numel());
    const at::Tensor random = scrambled(begin, end, step.noise, weights);
    const at::Tensor low = random.bitwise_and(int64_t{0xffff});
    at::Tensor w = weights.slice(0, begin, end), g = gradient.slice(0, begin, end);
    at::Tensor m = first.slice(0, begin, end).to(w.scalar_type());
    if (step.algorithm == Algorithm::kAdamW) {
      w.mul_(c.kept);
    } else {
      g = g.add(w, c.weight_decay);
    }
    if (step.algorithm == Algorithm::kSgd) {
      m.mul_(c.momentum).add_(g);
      w.sub_(m, c.learning_rate);
    } else {
      const at::Tensor second = all.second.view(-1).slice(0, begin, end);
      m.lerp_(g, c.beta1_complement);
      const at::Tensor v = second.to(w.scalar_type()).mul_(c.beta2).addcmul_(g, g, c.beta2_complement);
      w.addcdiv_(m, v.sqrt().mul_(c.root_correction).add_(c.epsilon), -c.step_size);
      write_reduced(second, v, random.bitwise_right_shift(16).bitwise_and(int64_t{0xffff}));
    }
    write_reduced(first.slice(0, begin, end), m, low);
  }
}

} // namespace ventral
