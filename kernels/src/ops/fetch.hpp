// Asking for memory before it is read.
#pragma once
#include <cstdint>

namespace prunemap {
namespace {

constexpr int kLine = 16;  // floats of a cache line

// Weights are read in order, but within a network from far away: they are fetched so many floats ahead, a line at a time.
constexpr int kWeightsAhead = 512;

// Inputs are fetched so many entries of a list ahead, into the first-level cache: what a list reads of a tile hardly fits
// there, and no CPU foresees where lists lead.
constexpr std::int32_t kEntriesAhead = 16;
constexpr int kBusy = 12;  // multiply-adds per entry that leave time for that

// What an entry of a list leads to: bytes, so that no instruction goes into counting floats.
[[gnu::always_inline]] inline const float* at(const float* p, std::int32_t bytes) {
  return reinterpret_cast<const float*>(reinterpret_cast<const char*>(p) + bytes);
}

// Every line of so many floats.
template <int Floats>
[[gnu::always_inline]] inline void fetch_lines(const float* p) {
#pragma GCC unroll 16
  for (int at = 0; at < Floats; at += kLine) __builtin_prefetch(p + at);
}

// The lines of so many floats; of a few, one in the middle is left to the loads themselves.
template <int Floats>
[[gnu::always_inline]] inline void fetch(const float* p) {
  constexpr int step = Floats > 2 * kLine ? kLine : Floats;
#pragma GCC unroll 16
  for (int at = 0; at < Floats - 1; at += step) __builtin_prefetch(p + at);
  __builtin_prefetch(p + Floats - 1);
}

}  // namespace
}  // namespace prunemap
