// Convolutions by Winograd's minimal filtering as steps of a program.
#include <algorithm>
#include <cstdint>

#include "checks.hpp"
#include "program.hpp"

namespace prunemap {
namespace {

constexpr std::int32_t kMostTerms = 256, kFarthest = 1 << 15;  // of a cell, along one axis
std::int64_t round_up(std::int64_t count) { return (count + kSlack - 1) / kSlack * kSlack; }

// Inputs, from the first, that a cell reads.
std::int32_t reach_of(const std::vector<Part>& parts) {
  std::int32_t reach = 0;
  for (const Part& part : parts)
    for (std::int32_t i = 0; i < part.size; ++i) {
      require(part.input[i] >= 0 && part.input[i] < kFarthest, "winograd: inputs too far away");
      reach = std::max(reach, part.input[i] + 1);
    }
  return reach;
}

// Where the runs of each chunk begin, and where the last ends. Slots are (chunk, component, filter); the last chunk may
// have more or fewer than the others.
std::vector<std::int32_t> chunk_runs(const std::vector<Run>& runs, std::int64_t slots, std::int32_t chunks) {
  std::vector<std::int32_t> starts;
  const auto chunk_of = [&](std::int64_t slot) { return std::min<std::int64_t>(slot / slots, chunks - 1); };
  std::int64_t before = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::int64_t chunk = chunk_of(runs[i].filter);
    require(chunk == chunk_of(std::int64_t{runs[i].filter} + runs[i].size - 1), "winograd: a run crosses chunks");
    require(chunk >= before, "winograd: the runs of a chunk must lie together");
    before = chunk;
    while (static_cast<std::int64_t>(starts.size()) <= chunk) starts.push_back(static_cast<std::int32_t>(i));
  }
  starts.resize(static_cast<std::size_t>(chunks) + 1, static_cast<std::int32_t>(runs.size()));
  return starts;
}

// Where the holes of each channel begin, and where the last end.
std::vector<std::int32_t> hole_starts(const std::vector<Hole>& holes, std::size_t channels, const Planes& from) {
  const auto within = [](const Span& s, std::int32_t size) { return s.first >= 0 && s.step >= 1 && s.end <= size; };
  std::vector<std::int32_t> starts;
  for (std::size_t i = 0; i < holes.size(); ++i) {
    const Hole& hole = holes[i];
    require(hole.channel >= 0 && static_cast<std::size_t>(hole.channel) < channels, "winograd: a hole in no channel");
    require(i == 0 || hole.channel >= holes[i - 1].channel, "winograd: the holes of a channel must lie together");
    require(within(hole.rows, from.height) && within(hole.columns, from.width), "winograd: a hole beyond the input");
    while (starts.size() <= static_cast<std::size_t>(hole.channel)) starts.push_back(static_cast<std::int32_t>(i));
  }
  starts.resize(channels + 1, static_cast<std::int32_t>(holes.size()));
  return starts;
}

// All but where the parts lie.
Cells make_cells(const std::vector<Part>& parts, std::int32_t cell, std::int32_t components, std::int32_t step,
                 std::int32_t pad, std::int32_t outputs) {
  std::int32_t terms = 0;
  for (const Part& part : parts) {
    require(part.size >= 2 && part.size <= kMostInputs, "winograd: no kernel for parts of so many inputs");
    terms += part.size;
    require(terms <= kMostTerms, "winograd: too many terms");
  }
  require(terms > 0, "winograd: no terms");
  require(components == cell + 1 || components == cell + 2, "winograd: a cell has one or two components more than outputs");
  require(step >= 1 && step <= kWinogradSteps && pad >= 0 && pad < kFarthest, "winograd: no kernel for this step or padding");
  return {nullptr, static_cast<std::int32_t>(parts.size()), terms, components, step, pad, std::max(reach_of(parts), cell * step),
          (outputs - 1) / cell + 1};
}

}  // namespace

void Program::winograd_conv(const FilterData& products, const Filtering& f, const Tile& tile, const Planes& from,
                            const Planes& to, const Planes* residual, bool clear) {
  check_planes(from, "winograd: bad input planes");
  check_planes(to, "winograd: bad output planes");
  require(from.space == Space::arena || from.space == Space::input, "winograd: the input must lie in arena or input");
  require(to.space == Space::arena, "winograd: the output must lie in the arena");
  if (residual != nullptr) check_residual(*residual, to);
  require(tile.passes == 1 && tile.lanes <= kSlack, "winograd: products are computed in one pass");
  require(products.sets.size() == 0, "winograd: lists sorted by sets of filters cannot be taken chunk by chunk");
  require(static_cast<std::int64_t>(f.bias.size()) == to.channels, "winograd: one bias per filter");
  require(f.band >= 1 && f.chunk >= 1 && !f.channels.empty(), "winograd: empty bands, chunks or inputs");
  for (const std::int32_t c : f.channels) require(c >= 0 && c < from.channels, "winograd: no such input channel");

  require(f.cell == 2 || f.cell == 4, "winograd: no kernel for cells of so many outputs");
  Cells rows = make_cells(f.rows, f.cell, f.row_components, f.step_y, f.pad_y, to.height);
  rows.part = memory_.copy(f.rows);
  Cells columns = make_cells(f.columns, f.cell, f.column_components, f.step_x, f.pad_x, to.width);
  const std::int32_t phases = f.cell * f.step_x, chunk = std::min(f.chunk, to.channels);
  const std::int64_t line = round_up(columns.count + (columns.reach - 1) / phases) + kSlack;
  require(f.pad_x <= phases * line, "winograd: rows are all padding");
  std::vector<Part> placed = f.columns;
  for (Part& part : placed)
    for (std::int32_t& i : part.input) i = static_cast<std::int32_t>(i % phases * line + i / phases);
  columns.part = memory_.copy(placed);

  const char* large = "winograd: planes in between are too large";
  const std::int32_t band = std::min(f.band, rows.count);
  const std::int64_t pixels = distance(columns.count, band, large);
  require(f.stride >= pixels + kSlack && f.stride <= INT32_MAX, "winograd: planes in between overlap");
  const std::int64_t inputs = static_cast<std::int64_t>(f.channels.size()) * rows.terms * columns.terms;
  const std::int64_t slots = std::int64_t{rows.components} * columns.components * chunk;
  require(slots <= INT32_MAX && inputs <= INT32_MAX, large);
  const std::int64_t sums = distance(f.stride, inputs, large), lines = sums + distance(f.stride, slots, large);
  std::int64_t ring = 1;
  while (ring < rows.reach + (kCellRows - 1) * f.cell * f.step_y) ring *= 2;
  const std::int64_t kept = ring * (columns.terms + 2 * phases) + 2 * phases;
  require(lines + kept * line <= scratch_, "winograd: planes in between do not fit their memory");

  const Planes between{Space::scratch, sums, f.stride, 0, static_cast<std::int32_t>(pixels),
                       static_cast<std::int32_t>(slots), 1, static_cast<std::int32_t>(pixels)};
  const PixelConv conv = make_pixel_conv(products, tile, 0, between, nullptr, 0);
  check_reach(products.offsets, 0, vectors_of(between, tile.lanes) * tile.lanes, sums);
  const std::int32_t bands = (rows.count - 1) / band + 1, chunks = (to.channels - 1) / chunk + 1;
  const Winograd w{from, to, residual != nullptr ? *residual : absent(), conv, pixel_family(table_, tile.lanes).run, f.cell,
                   rows, columns, memory_.copy(f.channels), static_cast<std::int32_t>(f.channels.size()),
                   memory_.copy(f.holes), memory_.copy(hole_starts(f.holes, f.channels.size(), from)), band, chunks, chunk, ring,
                   memory_.copy(chunk_runs(products.runs, slots, chunks)), f.stride, sums, lines, line,
                   memory_.copy(f.bias), f.low, f.high};
  push(table_.winograd, w, equal_work(std::int64_t{bands} * chunks), to, 0, clear);
}

}  // namespace prunemap
