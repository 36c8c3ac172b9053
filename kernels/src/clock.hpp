// The clock that everything is timed with.
#pragma once
#include <chrono>

namespace prunemap {

inline double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace prunemap
