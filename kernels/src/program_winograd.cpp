// Convolutions by Winograd's minimal filtering as steps of a program.
#include <algorithm>
#include <cstdint>
#include <iterator>

#include "checks.hpp"
#include "program.hpp"

namespace prunemap {
namespace {

constexpr std::int32_t kMostTerms = 256, kMostInputs = 1 << 15;  // of two outputs, along one axis
constexpr std::int64_t kLine = 16;  // floats: a multiple of every vector

std::int64_t round_up(std::int64_t count) { return (count + kLine - 1) / kLine * kLine; }

// Inputs, from the first, that two outputs read.
std::int32_t reach_of(const std::vector<Term>& terms) {
  std::int32_t reach = 0;
  for (const Term& t : terms) {
    require(t.first >= 0 && t.second >= 0 && t.first < kMostInputs && t.second < kMostInputs, "winograd: bad terms");
    reach = std::max({reach, t.first + 1, t.second + 1});
  }
  return reach;
}

// Whether the terms are those of `three_taps` in ops/winograd.hpp.
bool is_three_taps(const std::vector<Term>& terms, std::int32_t step) {
  constexpr Term known[] = {{0, 2, -1.0F}, {1, 2, 1.0F}, {2, 1, -1.0F}, {1, 3, -1.0F}};
  const auto same = [](const Term& a, const Term& b) {
    return a.first == b.first && a.second == b.second && a.sign == b.sign;
  };
  return step == 1 && std::equal(terms.begin(), terms.end(), std::begin(known), std::end(known), same);
}

// Where the runs of each chunk begin, and where the last ends. Slots are (chunk, component, filter).
std::vector<std::int32_t> chunk_runs(const std::vector<Run>& runs, std::int64_t slots, std::int32_t chunks) {
  std::vector<std::int32_t> starts;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::int64_t chunk = runs[i].filter / slots, last = (std::int64_t{runs[i].filter} + runs[i].size - 1) / slots;
    require(chunk == last && chunk < chunks, "winograd: a run crosses chunks");
    require(i == 0 || chunk >= runs[i - 1].filter / slots, "winograd: the runs of a chunk must lie together");
    while (static_cast<std::int64_t>(starts.size()) <= chunk) starts.push_back(static_cast<std::int32_t>(i));
  }
  starts.resize(static_cast<std::size_t>(chunks) + 1, static_cast<std::int32_t>(runs.size()));
  return starts;
}

// All but where the terms lie.
Pairs make_pairs(const std::vector<Term>& terms, std::int32_t components, std::int32_t step, std::int32_t pad,
                 std::int32_t outputs) {
  require(!terms.empty() && terms.size() <= kMostTerms, "winograd: bad number of terms");
  require(components == 3 || components == 4, "winograd: a pair of outputs has three components, or four");
  require(step >= 1 && step <= kWinogradSteps && pad >= 0 && pad < kMostInputs, "winograd: no kernel for this step or padding");
  return {nullptr, static_cast<std::int32_t>(terms.size()), components, step, pad, std::max(reach_of(terms), 2 * step),
          outputs / 2 + outputs % 2};
}

}  // namespace

void Program::winograd_conv(const FilterData& products, const Filtering& f, const Tile& tile, const Planes& from,
                            const Planes& to, const Planes* residual, bool clear) {
  check_planes(from, "winograd: bad input planes");
  check_planes(to, "winograd: bad output planes");
  require(from.space == Space::arena || from.space == Space::input, "winograd: the input must lie in arena or input");
  require(to.space == Space::arena, "winograd: the output must lie in the arena");
  if (residual != nullptr) check_residual(*residual, to);
  require(tile.passes == 1 && tile.lanes <= kLine, "winograd: products are computed in one pass");
  require(products.sets.size() == 0, "winograd: lists sorted by sets of filters cannot be taken chunk by chunk");
  require(static_cast<std::int64_t>(f.bias.size()) == to.channels, "winograd: one bias per filter");
  require(f.band >= 1 && f.chunk >= 1 && !f.channels.empty(), "winograd: empty bands, chunks or inputs");
  for (const std::int32_t c : f.channels) require(c >= 0 && c < from.channels, "winograd: no such input channel");

  Pairs rows = make_pairs(f.rows, f.row_components, f.step_y, f.pad_y, to.height);
  rows.term = memory_.copy(f.rows);
  const std::int32_t phases = 2 * f.step_x, chunk = std::min(f.chunk, to.channels);
  Pairs columns = make_pairs(f.columns, f.column_components, f.step_x, f.pad_x, to.width);
  const std::int64_t line = round_up(columns.count + (columns.reach + phases - 1) / phases + f.pad_x) + kLine;
  std::vector<Term> placed;
  for (const Term& t : f.columns) {
    const auto place = [&](std::int32_t i) { return static_cast<std::int32_t>(i % phases * line + i / phases); };
    placed.push_back({place(t.first), place(t.second), t.sign});
  }
  columns.term = memory_.copy(placed);

  const char* large = "winograd: planes in between are too large";
  const std::int32_t band = std::min(f.band, rows.count);
  const std::int64_t pixels = distance(columns.count, band, large);
  require(f.stride >= pixels + kLine && f.stride <= INT32_MAX, "winograd: planes in between overlap");
  const std::int64_t inputs = static_cast<std::int64_t>(f.channels.size()) * rows.terms * columns.terms;
  const std::int64_t slots = std::int64_t{rows.components} * columns.components * chunk;
  require(slots <= INT32_MAX && inputs <= INT32_MAX, large);
  const std::int64_t sums = distance(f.stride, inputs, large), lines = sums + distance(f.stride, slots, large);
  require(lines + (rows.reach + 2) * phases * line <= scratch_, "winograd: planes in between do not fit their memory");

  const Planes between{Space::scratch, sums, f.stride, 0, static_cast<std::int32_t>(pixels),
                       static_cast<std::int32_t>(slots), 1, static_cast<std::int32_t>(pixels)};
  const PixelConv conv = make_pixel_conv(products, tile, 0, between, nullptr, 0);
  check_reach(products.offsets, 0, vectors_of(between, tile.lanes) * tile.lanes, sums);
  const std::int32_t bands = (rows.count - 1) / band + 1, chunks = (to.channels - 1) / chunk + 1;
  const Winograd w{from, to, residual != nullptr ? *residual : absent(), conv, pixel_family(table_, tile.lanes).run, rows,
                   columns, memory_.copy(f.channels), static_cast<std::int32_t>(f.channels.size()), band, chunks, chunk,
                   memory_.copy(chunk_runs(products.runs, slots, chunks)), f.stride, sums, lines, line,
                   memory_.copy(f.bias), f.low, f.high, is_three_taps(f.rows, f.step_y) && is_three_taps(f.columns, f.step_x)};
  push(table_.winograd, w, equal_work(std::int64_t{bands} * chunks), to, 0, clear);
}

}  // namespace prunemap
