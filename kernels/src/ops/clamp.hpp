// What activations do to the sums of a convolution.
#pragma once
#include <limits>

namespace prunemap {
namespace {

// Clamps A x B sums to [low, high]; most have no upper bound.
template <class T, int A, int B>
[[gnu::always_inline]] inline void clamp(float low, float high, typename T::Vector (&acc)[A][B]) {
  const typename T::Vector lowest = T::set1(low), highest = T::set1(high);
#pragma GCC unroll 28
  for (int a = 0; a < A; ++a)
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) acc[a][b] = T::max(lowest, acc[a][b]);
  if (high == std::numeric_limits<float>::infinity()) return;
#pragma GCC unroll 28
  for (int a = 0; a < A; ++a)
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) acc[a][b] = T::min(highest, acc[a][b]);
}

}  // namespace
}  // namespace prunemap
