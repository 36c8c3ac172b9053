// Convolutions as steps of a program.
#include <algorithm>
#include <cstdint>
#include <map>
#include <stdexcept>

#include "checks.hpp"
#include "program.hpp"

namespace prunemap {
namespace {

std::vector<std::int64_t> run_work(const FilterData& filters) {
  std::vector<std::int64_t> work;
  for (const Run& run : filters.runs) work.push_back(std::int64_t{run.size} * (run.count + 8));
  return work;
}

const ChannelFamily& channel_family(const KernelTable& table, const Tile& tile) {
  for (int i = 0; i < table.families; ++i)
    if (table.channel[i].lanes == tile.lanes) return table.channel[i];
  throw std::invalid_argument("no channel kernels with so many lanes");
}

// Pixels of a tile of the pixel family.
std::int32_t tile_floats(const Tile& tile) {
  require(tile.vectors >= 1 && tile.lanes >= 1 && tile.vectors <= INT32_MAX / tile.lanes,
          "convolution: a tile needs a vector, and no more than there is memory");
  return tile.vectors * tile.lanes;
}

// Tiles of a plane, the rest included.
std::int64_t tiles_of(const PixelConv& c) { return c.tiles + (c.rest > 0 ? 1 : 0); }

// Whether some run computes whole vectors of pixels that hold something else too.
bool has_others(const Planes& to, const PixelFamily& family, const Tile& tile, const FilterData& data) {
  if (to.pitch != to.width) return true;
  if (flat_size(to) % family.lanes == 0) return false;
  const auto narrow = [&](const Run& run) { return family.max_rest[log2_exact(run.size, kSizes)] == 0; };
  return tile.rest == 0 || std::any_of(data.runs.begin(), data.runs.end(), narrow);
}

// Blocks of every run whose lists are sorted by sets of filters; 0: they are not.
std::int64_t blocks_of(const FilterData& data) {
  const auto values = static_cast<std::int64_t>(data.sets.size()), runs = static_cast<std::int64_t>(data.runs.size());
  require(values == 0 || (runs > 0 && values % (runs * kSets) == 0), "filters: sets must be an (n * blocks, 15) array");
  return values == 0 ? 0 : values / (runs * kSets);
}

// Weights of a run whose list is sorted by sets of filters.
std::int64_t jammed_weights(const FilterData& data, const Run& run) {
  require(run.size <= kMaxJammed, "filters: a run is too large to be sorted by sets");
  const auto values = static_cast<std::size_t>(blocks_of(data)) * kSets;
  const auto first = static_cast<std::size_t>(&run - data.runs.data()) * values;
  std::int64_t entries = 0, weights = 0;
  for (std::size_t i = 0; i < values; ++i) {
    const auto set = static_cast<unsigned>(i % kSets) + 1;
    const std::int64_t count = data.sets.at(first + i);
    require(count >= 0 && (count == 0 || set < 1U << run.size), "filters: a set holds filters that the run has not");
    entries += count;
    weights += count * __builtin_popcount(set);
  }
  require(entries == run.count, "filters: the sets do not make up the run's list");
  return weights;
}

// Every pass must have the same filters in the same runs: what one leaves the next takes up.
void check_passes(const FilterData& data, const Tile& tile) {
  require(tile.passes >= 1 && data.runs.size() % static_cast<std::size_t>(tile.passes) == 0,
          "convolution: every pass must have equally many runs");
  if (tile.passes == 1) return;
  require(!data.runs.empty(), "convolution: passes without runs");
  require(!tile.runs_outer && tile.rest == 0, "convolution: passes serve all runs of a tile, and whole vectors");
  const std::size_t each = data.runs.size() / static_cast<std::size_t>(tile.passes);
  for (std::size_t i = each; i < data.runs.size(); ++i) {
    const Run &run = data.runs[i], &before = data.runs[i - each];
    require(run.filter == before.filter && run.size == before.size, "convolution: passes differ in their runs");
  }
}

// Offsets as kernels take them.
std::vector<std::int32_t> in_bytes(const std::vector<std::int32_t>& floats) {
  constexpr std::int32_t size = sizeof(float), most = INT32_MAX / size;
  std::vector<std::int32_t> bytes;
  bytes.reserve(floats.size());
  for (const std::int32_t offset : floats) {
    require(-most <= offset && offset <= most, "filters: an offset leads further than 2 GiB");
    bytes.push_back(offset * size);
  }
  return bytes;
}

// For each entry where its masks begin, and the masks: all ones for an output whose input lies in the row.
struct RowMasks {
  std::vector<std::int32_t> starts, lanes;
};

RowMasks row_masks(const std::vector<std::int32_t>& columns, const RowsFamily& family, std::int64_t width,
                   std::int64_t wide, std::int64_t step) {
  RowMasks masks;
  std::map<std::int32_t, std::int32_t> known;  // by column
  masks.starts.reserve(columns.size());
  for (const std::int32_t column : columns) {
    const auto [found, added] = known.try_emplace(column, static_cast<std::int32_t>(masks.lanes.size()));
    masks.starts.push_back(found->second);
    if (!added) continue;
    require(static_cast<std::int64_t>(masks.lanes.size()) <= INT32_MAX - wide, "convolution: too many columns");
    for (std::int64_t x = 0; x < wide; ++x) {
      const std::int64_t lane = x % family.lanes, output = step == 1 ? x : x - lane + family.disorder[lane];
      const std::int64_t input = step * output + column;
      masks.lanes.push_back(input >= 0 && input < width ? -1 : 0);
    }
  }
  return masks;
}

// Whether a list is three rows of equal taps, `pitch` floats apart, one after the other.
bool is_tall(const Run& run, const std::vector<std::int32_t>& offsets, const std::vector<std::int32_t>& columns,
             std::int64_t pitch) {
  if (run.count == 0 || run.count % 3 != 0) return false;
  for (std::int64_t i = run.offsets + run.count / 3; i < run.offsets + run.count; ++i) {
    const auto at = static_cast<std::size_t>(i), above = static_cast<std::size_t>(i - run.count / 3);
    if (columns.at(at) != columns.at(above) || offsets.at(at) - std::int64_t{offsets.at(above)} != pitch) return false;
  }
  return true;
}

// Rows with nothing between them are as well fewer and longer ones.
Planes with_joined_rows(Planes p, std::int32_t rows) {
  require(rows == 1 || (rows > 1 && p.pitch == p.width && p.height % rows == 0),
          "convolution: rows with something between them cannot be joined");
  p.height /= rows;
  p.width *= rows;
  p.pitch *= rows;
  return p;
}

}  // namespace

Filters Program::keep_filters(const FilterData& data, const Planes& to, std::int32_t lanes, std::int32_t passes) {
  const auto offsets = static_cast<std::int64_t>(data.offsets.size());
  const auto weights = static_cast<std::int64_t>(data.weights.size());
  const auto slots = static_cast<std::int64_t>(data.rows.size());
  require(static_cast<std::int64_t>(data.bias.size()) == slots, "filters: one bias per slot");
  const std::int64_t blocks = blocks_of(data);
  require(blocks == 0 || lanes == 0, "filters: sets are for the pixel family");
  for (const Run& run : data.runs) {
    require(run.count >= 0 && run.size > 0, "filters: bad run");
    const std::int64_t size = lanes > 0 ? std::int64_t{channel_vectors(run.size, lanes)} * lanes : run.size;
    require(run.offsets >= 0 && run.offsets <= offsets - run.count, "filters: a run's offsets lie outside the list");
    const std::int64_t stored = blocks > 0 ? jammed_weights(data, run) : run.count * size;
    require(run.weights >= 0 && run.weights <= weights - stored, "filters: a run's weights lie outside");
    require(run.filter >= 0 && run.filter <= slots - size, "filters: a run's slots lie outside");
    for (std::int64_t i = 0; i < run.size; ++i)
      require(data.rows.at(static_cast<std::size_t>(run.filter + i)) >= 0, "filters: a run without an output row");
  }
  for (const std::int32_t row : data.rows) require(row >= -1 && row < to.channels, "filters: output row out of range");
  return {memory_.copy(data.runs), memory_.copy(in_bytes(data.offsets)), memory_.copy(data.weights),
          memory_.copy(data.bias), memory_.copy(data.rows), blocks > 0 ? memory_.copy(data.sets) : nullptr,
          static_cast<std::int32_t>(data.runs.size()) / passes, static_cast<std::int32_t>(blocks), data.low, data.high};
}

PixelConv Program::make_pixel_conv(const FilterData& filters, const Tile& tile, std::int64_t in, const Planes& to,
                                   const Planes* residual, std::int64_t scratch) {
  const PixelFamily& family = pixel_family(table_, tile.lanes);
  require(tile.vectors >= 1, "convolution: a tile needs a vector");
  const Planes other = residual != nullptr ? *residual : absent();
  check_planes(to, "convolution: bad output planes");
  const std::int64_t vectors = vectors_of(to, family.lanes), span = vectors * family.lanes;
  check_span(to, span, "convolution: output planes end outside their memory");
  require(to.stride >= span, "convolution: output planes overlap");
  if (residual != nullptr) {
    check_residual(other, to);
    check_span(other, span, "convolution: residual planes end outside the arena");
  }
  for (const Run& run : filters.runs)
    require(tile.vectors <= family.max_vectors[log2_exact(run.size, kSizes)], "convolution: no kernel for this tile");
  const std::int64_t whole = check_rest(filters, tile, to, family);
  const std::int64_t tiles = (whole + tile.vectors - 1) / tile.vectors;
  const bool masked = has_others(to, family, tile, filters);
  check_passes(filters, tile);
  const std::int32_t pitch = tile.passes > 1 ? tile_floats(tile) : 0;
  require(std::int64_t{pitch} * static_cast<std::int64_t>(filters.rows.size()) <= scratch_ - scratch,
          "convolution: sums between passes do not fit their memory");
  const Filters kept = keep_filters(filters, to, 0, tile.passes);
  return {kept, in, to.base, to.stride, other.base, other.stride,
          masked ? mask(to, family.lanes, vectors) : nullptr,
          static_cast<std::int32_t>(whole), static_cast<std::int32_t>(tiles), tile.runs_outer, Panel{},
          Passes{tile.passes, pitch, true, true, 0}, tile.rest,
          ChannelConv{kept, in, 0, to.base, to.stride, other.base, other.stride, 1, to.pitch, 1, tile.rest, 1, tile.rest,
                      true, false}};
}

void Program::pixel_conv(const FilterData& filters, const Tile& tile, const Planes& from, const Planes& to,
                         const Planes* residual, bool clear) {
  require(to.space == Space::arena, "convolution: the output must lie in the arena");
  const PixelConv c = make_pixel_conv(filters, tile, from.base, to, residual, 0);
  check_input(from, filters.offsets, vectors_of(to, tile.lanes) * tile.lanes);
  push(pixel_family(table_, tile.lanes).run, c, tile.runs_outer ? run_work(filters) : equal_work(tiles_of(c)), to,
       std::int64_t{c.vectors} * tile.lanes, clear);
}

void Program::panel_conv(const FilterData& filters, const std::vector<std::int32_t>& panel, const Tile& tile,
                         const Planes& from, const Planes& to, const Planes* residual, bool clear) {
  require(!tile.runs_outer, "convolution: a panel serves all runs of a tile");
  require(tile.passes >= 1, "convolution: a panel for no pass");
  const std::int32_t pitch = tile_floats(tile);
  const std::int64_t rows = static_cast<std::int64_t>(panel.size()) / tile.passes;
  require(rows > 0 && rows * tile.passes == static_cast<std::int64_t>(panel.size()),
          "convolution: every pass must have equally many rows of the panel");
  require(rows <= scratch_ / pitch, "convolution: the panel does not fit its memory");
  require(to.space == Space::arena, "convolution: the output must lie in the arena");
  PixelConv c = make_pixel_conv(filters, tile, 0, to, residual, rows * pitch);
  check_input(from, panel, vectors_of(to, tile.lanes) * tile.lanes);
  check_reach(filters.offsets, 0, pitch, rows * pitch);
  c.panel = {memory_.copy(in_bytes(panel)), from.base, static_cast<std::int32_t>(rows), pitch};
  push(pixel_family(table_, tile.lanes).run, c, equal_work(tiles_of(c)), to, std::int64_t{c.vectors} * tile.lanes, clear);
}

void Program::channel_conv(const FilterData& filters, const Tile& tile, const Planes& from, const Planes& target,
                           const Planes* residual, std::int32_t step_y, std::int32_t step_x, bool clear) {
  const ChannelFamily& family = channel_family(table_, tile);
  const std::int32_t most = family.max_pixels[log2_exact(tile.vectors, 3)], wide = tile.lanes * tile.vectors;
  check_planes(target, "convolution: bad output planes");
  if (residual != nullptr) check_residual(*residual, target);
  require(tile.joined == 1 || (from.pitch == target.pitch && step_y == 1 && step_x == 1),
          "convolution: rows are joined where input and output are walked in step");
  const Planes to = with_joined_rows(target, tile.joined);
  const Planes other = residual != nullptr ? with_joined_rows(*residual, tile.joined) : absent();
  const std::int64_t row_step = std::int64_t{from.pitch} * step_y * tile.joined;  // only one of the two is not 1
  require(to.space == Space::arena, "convolution: the output must lie in the arena");
  require(step_y >= 1 && step_x >= 1, "convolution: a step must be at least 1");
  require(tile.rows >= 1 && tile.rows <= kMaxRows && has_columns(tile.columns, step_x), "convolution: no kernel for this tile");
  require((tile.columns <= kMaxEvenColumns && step_x == 1) || to.width % tile.columns == 0,
          "convolution: the tile must divide the width");
  require(tile.rows * tile.columns <= most, "convolution: no kernel for this tile");
  const char* far = "convolution: a step leads outside the arena";
  check_input(from, filters.offsets, distance(row_step, to.height - 1, far) + distance(step_x, to.width - 1, far) + 1);
  require(tile.passes == 1, "convolution: passes are for the pixel family");
  for (const Run& run : filters.runs) require(run.size <= wide, "convolution: a run has more filters than its tile");
  const Filters kept = keep_filters(filters, to, tile.lanes);
  const bool direct = whole_vectors(filters, tile.lanes, to, residual != nullptr ? &other : nullptr);
  if (residual != nullptr && !direct)  // read in whole vectors
    check_span(other, flat_size(to) + family.lanes, "convolution: residual planes end outside the arena");
  ChannelConv c{kept, from.base, row_step, to.base, to.stride,
                other.base, other.stride, step_x, to.pitch, to.height, to.width, tile.rows,
                tile.columns, tile.runs_outer, direct};
  const std::int64_t bands = (to.height + tile.rows - 1) / tile.rows;
  push(family.run, c, tile.runs_outer ? run_work(filters) : equal_work(bands), to, 0, clear && !direct);
}

void Program::rows_conv(const FilterData& filters, const std::vector<std::int32_t>& columns, const Tile& tile,
                        const Planes& from, const Planes& to, const Planes* residual, std::int32_t step_y,
                        std::int32_t step_x, bool clear) {
  const RowsFamily& family = table_.rows;
  const Planes other = residual != nullptr ? *residual : absent();
  require(tile.lanes == family.lanes, "convolution: no kernels for rows with so many lanes");
  require(tile.passes == 1, "convolution: passes are for the pixel family");
  check_planes(to, "convolution: bad output planes");
  require(to.space == Space::arena, "convolution: the output must lie in the arena");
  require(step_y >= 1 && step_x >= 1 && step_x <= kRowSteps, "convolution: no kernel for these steps");
  require(columns.size() == filters.offsets.size(), "convolution: one column per entry");
  const std::int64_t wide = (std::int64_t{to.width} + family.lanes - 1) / family.lanes * family.lanes;  // whole vectors
  const std::int64_t row_step = std::int64_t{from.pitch} * step_y;
  check_input(from, filters.offsets,
              distance(row_step, to.height - 1, "convolution: a step leads outside the arena") + step_x * wide);
  if (residual != nullptr) {
    check_residual(other, to);
    check_span(other, flat_size(to) + family.lanes, "convolution: residual planes end outside the arena");
  }
  for (const Run& run : filters.runs) require(run.size == 1, "convolution: rows are for runs of one filter");
  require(filters.sets.size() == 0, "filters: sets are for runs of several filters");
  RowsConv c{keep_filters(filters, to, 0), from.base, row_step, to.base, to.stride, other.base, other.stride,
             to.pitch, to.height, to.width, nullptr, nullptr, nullptr};
  const RowMasks masks = row_masks(columns, family, from.width, wide, step_x);
  c.columns = memory_.copy(masks.starts);
  c.masks = memory_.copy(masks.lanes);
  std::vector<std::int32_t> tall;
  for (const Run& run : filters.runs)
    tall.push_back(step_y == step_x && is_tall(run, filters.offsets, columns, from.pitch) ? 1 : 0);
  c.tall = memory_.copy(tall);
  push(family.run[step_x - 1], c, run_work(filters), to, 0, clear);
}

}  // namespace prunemap
