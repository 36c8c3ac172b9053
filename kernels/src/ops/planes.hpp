// Where the planes of a step lie.
#pragma once
#include <cstdint>

#include "../table.hpp"

namespace prunemap {
namespace {

inline float* plane(const Planes& p, const Frame& frame, std::int64_t channel) {
  float* base = p.space == Space::arena    ? frame.arena
                : p.space == Space::output ? frame.output
                                           : const_cast<float*>(frame.input);
  return base + p.base + channel * p.stride;
}

}  // namespace
}  // namespace prunemap
