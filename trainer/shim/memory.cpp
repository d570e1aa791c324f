// Who holds the memory of a tensor.

#include "status.h"

#include <ATen/core/Tensor.h>

// Whether other tensors have the same memory.
extern "C" int ventral_shares_memory(const at::Tensor *tensor, bool *result, char **message) {
  return ventral::guarded(message, [&] { *result = tensor->storage().use_count() > 1; });
}
