// float32 as its bits, and the upper half of them: bfloat16.
#pragma once

#include "wide.h"

#include <cstdint>
#include <cstring>

namespace ventral {

VENTRAL_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

VENTRAL_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounded to the nearest, ties to even, in the upper half; what is not a number stays so.
VENTRAL_INLINE uint32_t rounded(uint32_t bits) {
  const uint32_t nearest = bits + 0x7fffU + ((bits >> 16) & 1U);
  return (bits & 0x7fffffffU) > 0x7f800000U ? bits | 0x400000U : nearest;
}

// Rounded up or down, in the upper half, with probabilities whose mean is the value. `noise` is uniform below 2^16.
VENTRAL_INLINE uint32_t rounded_at_random(uint32_t bits, uint32_t noise) {
  const bool finite = (bits & 0x7f800000U) != 0x7f800000U;
  return bits + (finite ? noise : 0);
}

} // namespace ventral
