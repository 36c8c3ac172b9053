#include "staged_conv.hpp"

#include "margins.hpp"

namespace prunemap {

void staged_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const StagedConv& c = *static_cast<const StagedConv*>(parameters);
  Stage stage = c.stage;
  PixelConv conv = c.conv;
  conv.in += frame.scratch;
  conv.rest_conv.in += frame.scratch;
  clear_margins(frame.arena + frame.scratch + stage.to.base, stage.to, c.covered);
  std::int32_t staged = -1;
  for (std::int64_t run = begin; run < end; ++run) {
    const std::int32_t channel = c.channel[run];
    if (channel >= 0 && channel != staged) {
      stage.from.base = c.stage.from.base + channel * stage.from.stride;
      c.run_stage(&stage, frame, 0, 1);
      staged = channel;
    }
    c.run_conv(&conv, frame, run, run + 1);
  }
}

}  // namespace prunemap
