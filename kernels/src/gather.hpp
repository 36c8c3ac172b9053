// Weights of sparse lists, gathered in the order that the kernels read them.
#pragma once
#include <cstdint>

namespace prunemap {

struct Gather {
  const float* weights;         // (filters, positions)
  const bool* listed;           // (runs, positions): what a run's list holds
  const std::int64_t* filters;  // (runs, size)
  std::int64_t runs, positions, size, width;
};

// Writes, for each run and listed position, `size` weights and `width - size` zeros.
void gather(const Gather& from, float* to);

}  // namespace prunemap
