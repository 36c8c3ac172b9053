// What steps are refused for: memory that they could touch outside their buffers.
#include <algorithm>
#include <cstdint>

#include "checks.hpp"
#include "program.hpp"

namespace prunemap {

std::int64_t Program::capacity(Space space) const {
  switch (space) {
    case Space::arena: return arena_size_;
    case Space::input: return input_;
    case Space::output: return output_;
    case Space::scratch: return scratch_;
  }
  throw std::invalid_argument("planes in no known memory");
}

void Program::check_planes(const Planes& p, const char* what) const {
  require(p.channels > 0 && p.height > 0 && p.width > 0 && p.pitch >= p.width, what);
  require(p.stride > 0 && p.before >= 0 && p.base >= p.before, what);
  check_span(p, flat_size(p), what);
}

void Program::check_span(const Planes& p, std::int64_t span, const char* what) const {
  require(p.stride >= span || p.channels == 1 || p.space == Space::arena, what);
  const std::int64_t room = capacity(p.space) - span;  // where the last plane may begin
  require(p.base <= room && (p.channels == 1 || p.stride <= (room - p.base) / (p.channels - 1)), what);
}

void Program::check_input(const Planes& from, const std::vector<std::int32_t>& offsets, std::int64_t reach) const {
  check_planes(from, "convolution: bad input planes");
  require(from.space == Space::arena, "convolution: the input must lie in the arena");
  check_reach(offsets, from.base, reach, arena_size_);
}

void Program::check_residual(const Planes& residual, const Planes& to) const {
  check_planes(residual, "convolution: bad residual planes");
  require(residual.space == Space::arena && residual.pitch == to.pitch && residual.channels == to.channels &&
              residual.height == to.height && residual.width == to.width,
          "convolution: residual and output differ");
}

// Whether the output is a plain vector that runs can store whole vectors of: a short one must end at the last channel.
bool Program::whole_vectors(const FilterData& filters, std::int32_t lanes, const Planes& to, const Planes* residual) const {
  if (to.height > 1 || to.width > 1 || to.stride > 1 || (residual != nullptr && residual->stride > 1)) return false;
  for (const Run& run : filters.runs) {
    const std::int64_t wide = std::int64_t{channel_vectors(run.size, lanes)} * lanes;
    const std::int64_t first = filters.rows.at(static_cast<std::size_t>(run.filter));
    if (run.size < wide && first + run.size < to.channels) return false;
    const std::int64_t base = residual != nullptr ? std::max(to.base, residual->base) : to.base;
    if (base + first + wide > arena_size_) return false;
    for (std::int32_t i = 0; i < run.size; ++i)
      if (filters.rows.at(static_cast<std::size_t>(run.filter + i)) != first + i) return false;
  }
  return true;
}

// Vectors of a plane before the rest, which is stored without a mask: it must be pixels only.
std::int64_t Program::check_rest(const FilterData& filters, const Tile& tile, const Planes& to,
                                 const PixelFamily& family) const {
  if (tile.rest == 0) return vectors_of(to, family.lanes);
  require(tile.rest > 0 && tile.rest <= to.width && tile.rest == flat_size(to) % family.lanes &&
              flat_size(to) > family.lanes && filters.sets.size() == 0,
          "convolution: bad rest of a plane");
  for (const Run& run : filters.runs) {
    const std::int32_t most = family.max_rest[log2_exact(run.size, kSizes)];
    require(most == 0 || tile.rest <= most, "convolution: no kernel for this rest of a plane");
  }
  return flat_size(to) / family.lanes;
}

// Whether planes differ by shifts only and may be walked flat, `span` floats of each.
bool Program::are_alike(const Planes& from, const Planes& to, const std::vector<Phase>& phases, std::int64_t span) const {
  const auto fits = [&](const Planes& p, std::int64_t shift) {
    return p.base + shift >= 0 && p.base + (p.channels - 1) * p.stride + shift + span <= capacity(p.space);
  };
  if (from.pitch != to.pitch || from.height != to.height || from.width != to.width || span > to.stride || !fits(to, 0))
    return false;
  return std::all_of(phases.begin(), phases.end(), [&](const Phase& p) { return p.row == 0 && fits(from, p.column); });
}

}  // namespace prunemap
