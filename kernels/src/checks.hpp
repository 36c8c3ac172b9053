// What checks and steps have in common: sizes of planes, units of work, and the error where something does not fit.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "table.hpp"

namespace prunemap {

inline void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

inline int log2_exact(std::int32_t value, int limit) {
  for (int i = 0; i < limit; ++i)
    if (value == 1 << i) return i;
  throw std::invalid_argument("size is not a power of two that has kernels");
}

// Floats from the first to the last pixel of a plane.
inline std::int64_t flat_size(const Planes& p) { return std::int64_t{p.pitch} * (p.height - 1) + p.width; }

// Vectors that cover one plane, walked flat.
inline std::int64_t vectors_of(const Planes& p, std::int64_t lanes) { return (flat_size(p) + lanes - 1) / lanes; }

// Offsets from `base` on that lead to `reach` floats each, of a buffer of `room`.
inline void check_reach(const std::vector<std::int32_t>& offsets, std::int64_t base, std::int64_t reach, std::int64_t room) {
  for (const std::int32_t offset : offsets)
    require(base + offset >= 0 && base + offset + reach <= room,
            "convolution: an offset leads outside the memory of the input");
}

inline std::vector<std::int64_t> equal_work(std::int64_t units) {
  return std::vector<std::int64_t>(static_cast<std::size_t>(units), 1);
}

inline const PixelFamily& pixel_family(const KernelTable& table, std::int32_t lanes) {
  for (int i = 0; i < table.families; ++i)
    if (table.pixel[i].lanes == lanes) return table.pixel[i];
  throw std::invalid_argument("no pixel kernels with so many lanes");
}

// `count` steps, which must not lead further than any buffer.
inline std::int64_t distance(std::int64_t step, std::int64_t count, const char* what) {
  require(count == 0 || step <= INT32_MAX / count, what);
  return step * count;
}

inline Planes absent() { return {Space::arena, -1, 0, 0, 0, 0, 0, 0}; }

}  // namespace prunemap
