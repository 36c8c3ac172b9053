#include "gather.hpp"

#include <algorithm>

namespace prunemap {

void gather(const Gather& from, float* to) {
  constexpr std::int64_t block = 16;  // positions: one cache line of every filter at a time
  for (std::int64_t run = 0; run < from.runs; ++run) {
    const bool* listed = from.listed + run * from.positions;
    const std::int64_t* filters = from.filters + run * from.size;
    for (std::int64_t begin = 0; begin < from.positions; begin += block) {
      std::int64_t picked[block];
      std::int64_t count = 0;
      for (std::int64_t k = begin; k < std::min(begin + block, from.positions); ++k)
        if (listed[k]) picked[count++] = k;
      for (std::int64_t g = 0; g < from.size; ++g) {
        const float* row = from.weights + filters[g] * from.positions;
        for (std::int64_t k = 0; k < count; ++k) to[k * from.width + g] = row[picked[k]];
      }
      for (std::int64_t k = 0; k < count; ++k)
        std::fill(to + k * from.width + from.size, to + (k + 1) * from.width, 0.0F);
      to += count * from.width;
    }
  }
}

}  // namespace prunemap
