// Weights of sparse lists, gathered in the order that the kernels read them.
#pragma once
#include <cstdint>
#include <vector>

#include "table.hpp"

namespace prunemap {

struct Gather {
  const float* weights;         // (filters, positions)
  const bool* listed;           // (runs, positions): what a run's list holds
  const std::int64_t* filters;  // (runs, size)
  std::int64_t runs, positions, size, width;
};

// Writes, for each run and listed position, `size` weights and `width - size` zeros.
void gather(const Gather& from, float* to);

struct Jam {
  const float* weights;         // (filters, positions)
  const bool* mask;             // (filters, positions): what must be computed
  const std::int64_t* filters;  // (runs, kMaxJammed); negative: none
  const std::int32_t* offsets;  // (groups, positions)
  const std::int64_t* groups;   // of every run
  std::int64_t runs, positions, block;
};

// Lists whose entries are sorted, block of positions by block, by the set of the run's filters that read them.
struct Jammed {
  std::vector<std::int32_t> offsets;
  std::vector<float> weights;       // of an entry, one for each filter of its set
  std::vector<std::int32_t> sets;   // kSets per block: how many entries each set reads
  std::vector<std::int64_t> entries, stored;  // per run: entries and weights
};

Jammed jam(const Jam& from);

}  // namespace prunemap
