// Convolution of channels one by one, each rearranged just before it is read: what would go through far caches, were a
// whole input rearranged first, stays in the nearest.
#pragma once
#include <cstdint>

#include "table.hpp"

namespace prunemap {

struct StagedConv {
  Stage stage;  // from the first channel into the scratch memory
  PixelConv conv;
  StepFunction run_stage, run_conv;
  const std::int32_t* channel;  // that a run reads; negative: none
  std::int64_t covered;         // floats of each plane that the stage writes itself; 0: only the pixels
};

// Units: runs.
void staged_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end);

}  // namespace prunemap
