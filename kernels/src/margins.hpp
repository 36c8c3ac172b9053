// Zeros around the pixels of planes whose memory held something else before.
#pragma once
#include <cstdint>
#include <cstring>

#include "table.hpp"

namespace prunemap {

inline void zero(float* from, std::int64_t count) {
  if (count > 0) std::memset(from, 0, static_cast<std::size_t>(count) * sizeof(float));
}

// Everything of planes from `base` on that is not a pixel, nor among the first `covered` floats of each, which the step
// writes itself.
inline void clear_margins(float* base, const Planes& p, std::int64_t covered) {
  zero(base - p.before, p.before);
  const std::int64_t body = std::int64_t{p.pitch} * (p.height - 1) + p.width;
  const std::int64_t written = covered > body ? covered : body;
  for (std::int64_t channel = 0; channel < p.channels; ++channel) {
    float* plane = base + channel * p.stride;
    zero(plane + written, p.stride - written);
    if (covered > 0 || p.pitch == p.width) continue;
    for (std::int64_t y = 0; y + 1 < p.height; ++y) zero(plane + y * p.pitch + p.width, p.pitch - p.width);
  }
}

}  // namespace prunemap
