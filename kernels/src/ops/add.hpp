// Sum of two values, or the clamp of one.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "planes.hpp"

namespace prunemap {
namespace {

// Units: channels.
template <class T>
void add(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Add& a = *static_cast<const Add*>(parameters);
  using Vector = typename T::Vector;
  const Vector low = T::set1(a.low), high = T::set1(a.high);
  for (std::int64_t channel = begin; channel < end; ++channel) {
    const float* from = plane(a.from, frame, channel);
    const float* other = a.other.base < 0 ? nullptr : plane(a.other, frame, channel);
    float* to = plane(a.to, frame, channel);
    for (std::int64_t i = 0; i < std::int64_t{a.vectors} * T::lanes; i += T::lanes) {
      Vector value = T::load(from + i);
      if (other != nullptr) value = T::add(value, T::load(other + i));
      T::store(to + i, T::keep(T::min(high, T::max(low, value)), T::mask(a.mask + i)));
    }
  }
}

}  // namespace
}  // namespace prunemap
