// C++ exceptions end here: every function of the shim reports failure by its result.
#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

namespace ventral {

constexpr int kSuccess = 0;
constexpr int kFailure = 1;

// Runs `body`. Where it throws, `*message` becomes a copy of what was said, which the caller frees, or stays null where
// there is no memory for one.
template <typename Body>
int guarded(char **message, Body &&body) noexcept {
  try {
    body();
    return kSuccess;
  } catch (const c10::Error &error) {
    *message = strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    *message = strdup(error.what());
  } catch (...) {
    *message = strdup("an exception of an unknown type");
  }
  return kFailure;
}

} // namespace ventral
