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

namespace {

// The run's filters that read a position: bit i for filter i.
int readers(const Jam& from, const std::int64_t* filters, std::int64_t position) {
  int code = 0;
  for (int g = 0; g < kMaxJammed; ++g)
    if (filters[g] >= 0 && from.mask[filters[g] * from.positions + position]) code |= 1 << g;
  return code;
}

}  // namespace

Jammed jam(const Jam& from) {
  const std::int64_t blocks = std::max<std::int64_t>(1, (from.positions + from.block - 1) / from.block);
  Jammed made;
  made.sets.resize(static_cast<std::size_t>(from.runs * blocks) * kSets);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(from.positions));
  std::int32_t* counts = made.sets.data();
  for (std::int64_t run = 0; run < from.runs; ++run, counts += blocks * kSets) {
    const std::int64_t* filters = from.filters + run * kMaxJammed;
    for (std::int64_t k = 0; k < from.positions; ++k) {
      const int code = readers(from, filters, k);
      codes[static_cast<std::size_t>(k)] = static_cast<std::uint8_t>(code);
      if (code > 0) ++counts[k / from.block * kSets + code - 1];
    }
    const std::size_t listed = made.offsets.size(), stored = made.weights.size();
    std::size_t entry = listed, weight = stored;
    for (std::int64_t b = 0; b < blocks; ++b) {
      std::size_t entries[kSets], weights[kSets];  // where the next of each set goes
      for (int s = 0; s < kSets; ++s) {
        const auto count = static_cast<std::size_t>(counts[b * kSets + s]);
        entries[s] = entry;
        weights[s] = weight;
        entry += count;
        weight += count * static_cast<std::size_t>(__builtin_popcount(static_cast<unsigned>(s + 1)));
      }
      made.offsets.resize(entry);
      made.weights.resize(weight);
      for (std::int64_t k = b * from.block; k < std::min((b + 1) * from.block, from.positions); ++k) {
        const int code = codes[static_cast<std::size_t>(k)];
        if (code == 0) continue;
        made.offsets[entries[code - 1]++] = from.offsets[from.groups[run] * from.positions + k];
        for (int g = 0; g < kMaxJammed; ++g)
          if ((code >> g & 1) != 0) made.weights[weights[code - 1]++] = from.weights[filters[g] * from.positions + k];
      }
    }
    made.entries.push_back(static_cast<std::int64_t>(entry - listed));
    made.stored.push_back(static_cast<std::int64_t>(weight - stored));
  }
  return made;
}

}  // namespace prunemap
