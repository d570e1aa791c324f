// What a device can do, and what memory it has.

#include "locally_connected.h"
#include "status.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>

// Whether the processor, or the current CUDA device, has instructions for products of bfloat16.
extern "C" int ventral_has_bf16(bool cuda, bool *result, char **message) {
  return ventral::guarded(message, [&] {
    *result = cuda ? at::detail::getCUDAHooks().supportsBFloat16ConvolutionWithCuDNNv8()
                   : ventral::direct_bf16::processor_has_it();
  });
}

// Bytes of a CUDA device's memory: free ones, and all.
extern "C" int ventral_device_memory(int32_t index, uint64_t *unused, uint64_t *all, char **message) {
  return ventral::guarded(message, [&] {
    const auto [free, total] = at::getDeviceAllocator(at::kCUDA)->getMemoryInfo(static_cast<c10::DeviceIndex>(index));
    *unused = free;
    *all = total;
  });
}
