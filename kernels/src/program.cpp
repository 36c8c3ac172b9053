#include "program.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "checks.hpp"
#include "dispatch.hpp"
#include "functions.hpp"
#include "staged_conv.hpp"

namespace prunemap {
namespace {

std::vector<std::int64_t> equal_work(std::int64_t units) {
  return std::vector<std::int64_t>(static_cast<std::size_t>(units), 1);
}

std::vector<std::int64_t> run_work(const FilterData& filters) {
  std::vector<std::int64_t> work;
  for (const Run& run : filters.runs) work.push_back(std::int64_t{run.size} * (run.count + 8));
  return work;
}

const PixelFamily& pixel_family(const KernelTable& table, const Tile& tile) {
  for (int i = 0; i < table.families; ++i)
    if (table.pixel[i].lanes == tile.lanes) return table.pixel[i];
  throw std::invalid_argument("no pixel kernels with so many lanes");
}

const ChannelFamily& channel_family(const KernelTable& table, const Tile& tile) {
  for (int i = 0; i < table.families; ++i)
    if (table.channel[i].lanes == tile.lanes) return table.channel[i];
  throw std::invalid_argument("no channel kernels with so many lanes");
}

// Floats of a buffer: offsets have 32 bits, and sums of such numbers cannot overflow in what follows.
std::int64_t buffer_size(std::int64_t count) {
  require(count > 0 && count <= INT32_MAX, "buffer sizes must be positive and below 2^31 floats");
  return count;
}

constexpr std::int32_t kMaxWindow = 1 << 15;  // of a pool: its positions are walked, padding or not

int checked_threads(int threads) {
  require(threads >= 1 && threads <= 256, "threads must be from 1 to 256");
  return threads;
}

// `count` steps, which must not lead further than any buffer.
std::int64_t distance(std::int64_t step, std::int64_t count, const char* what) {
  require(count == 0 || step <= INT32_MAX / count, what);
  return step * count;
}

// Blocks of every run whose lists are sorted by sets of filters; 0: they are not.
std::int64_t blocks_of(const FilterData& data) {
  const auto values = static_cast<std::int64_t>(data.sets->size()), runs = static_cast<std::int64_t>(data.runs.size());
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
    const std::int64_t count = data.sets->at(first + i);
    require(count >= 0 && (count == 0 || set < 1U << run.size), "filters: a set holds filters that the run has not");
    entries += count;
    weights += count * __builtin_popcount(set);
  }
  require(entries == run.count, "filters: the sets do not make up the run's list");
  return weights;
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

Planes absent() { return {Space::arena, -1, 0, 0, 0, 0, 0, 0}; }

}  // namespace

Program::Program(const std::string& isa, int threads, std::int64_t arena, std::int64_t input, std::int64_t output,
                 std::int64_t scratch)
    : table_(find_table(isa)),
      threads_(checked_threads(threads)),
      arena_size_(buffer_size(arena)),
      input_(buffer_size(input)),
      output_(buffer_size(output)),
      scratch_(scratch == 0 ? 0 : buffer_size(scratch)),
      arena_(static_cast<std::size_t>(buffer_size(arena + threads * scratch_))),
      pool_(threads) {}

template <class T>
const T* Program::keep(const std::vector<T>& values) {
  auto buffer = std::make_shared<Buffer<T>>(values.data(), values.size());
  kept_.push_back(buffer);
  return buffer->data();
}

template <class T>
const T* Program::keep(const Shared<T>& values) {
  kept_.push_back(std::const_pointer_cast<Buffer<T>>(values));
  return values->data();
}

template <class P>
void Program::push(StepFunction run, const P& parameters, const std::vector<std::int64_t>& work, const Planes& to,
                   std::int64_t covered, bool clear) {
  const bool clears = clear && to.space == Space::arena;
  if (clears) check_span(to, to.stride, "margins to clear end outside the arena");
  Step step;
  step.run = run;
  step.parameters = keep(std::vector<P>{parameters});
  std::int64_t total = 0;
  for (const std::int64_t w : work) total += w;
  step.bounds.push_back(0);
  std::int64_t done = 0, unit = 0;
  const auto units = static_cast<std::int64_t>(work.size());
  for (int part = 1; part < threads_; ++part) {
    while (unit < units && done * threads_ < total * part) done += work[static_cast<std::size_t>(unit++)];
    step.bounds.push_back(unit);
  }
  step.bounds.push_back(units);
  if (clears) step.margins.push_back({to, covered});
  steps_.push_back(std::move(step));
}

Filters Program::keep_filters(const FilterData& data, const Planes& to, std::int32_t lanes) {
  const auto offsets = static_cast<std::int64_t>(data.offsets->size());
  const auto weights = static_cast<std::int64_t>(data.weights->size());
  const auto slots = static_cast<std::int64_t>(data.rows->size());
  require(static_cast<std::int64_t>(data.bias->size()) == slots, "filters: one bias per slot");
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
      require(data.rows->at(static_cast<std::size_t>(run.filter + i)) >= 0, "filters: a run without an output row");
  }
  for (const std::int32_t row : *data.rows) require(row >= -1 && row < to.channels, "filters: output row out of range");
  return {keep(data.runs), keep(data.offsets), keep(data.weights), keep(data.bias), keep(data.rows),
          blocks > 0 ? keep(data.sets) : nullptr, static_cast<std::int32_t>(data.runs.size()),
          static_cast<std::int32_t>(blocks), data.low, data.high};
}

// All ones where a flat position is a pixel whose neighbour `shift` columns on is one too.
const std::int32_t* Program::mask(const Planes& to, std::int64_t lanes, std::int64_t vectors, std::int32_t shift) {
  const auto key = std::make_tuple(to.height, to.width, to.pitch, lanes, shift);
  const auto found = masks_.find(key);
  if (found != masks_.end()) return found->second;
  std::vector<std::int32_t> mask(static_cast<std::size_t>(vectors * lanes), 0);
  for (std::int64_t y = 0; y < to.height; ++y)
    for (std::int64_t x = std::max(0, -shift); x < std::min(to.width, to.width - shift); ++x)
      mask[static_cast<std::size_t>(y * to.pitch + x)] = -1;
  return masks_[key] = keep(mask);
}

PixelConv Program::make_pixel_conv(const FilterData& filters, const Tile& tile, const Planes& from, const Planes& to,
                                   const Planes* residual) {
  const PixelFamily& family = pixel_family(table_, tile);
  const Planes other = residual != nullptr ? *residual : absent();
  check_planes(from, "convolution: bad input planes");
  check_planes(to, "convolution: bad output planes");
  const std::int64_t vectors = vectors_of(to, family.lanes), span = vectors * family.lanes;
  require(to.space == Space::arena, "convolution: the output must lie in the arena");
  check_span(to, span, "convolution: output planes end outside the arena");
  require(to.stride >= span, "convolution: output planes overlap");
  check_reach(filters, from, span);
  if (residual != nullptr) {
    check_residual(other, to);
    check_span(other, span, "convolution: residual planes end outside the arena");
  }
  require(tile.vectors >= 1, "convolution: a tile needs a vector");
  for (const Run& run : filters.runs)
    require(tile.vectors <= family.max_vectors[log2_exact(run.size, kSizes)], "convolution: no kernel for this tile");
  const std::int64_t whole = check_rest(filters, tile, to, family);
  const std::int64_t tiles = (whole + tile.vectors - 1) / tile.vectors;
  const Filters kept = keep_filters(filters, to, 0);
  return {kept, from.base, to.base, to.stride, other.base, other.stride, mask(to, family.lanes, vectors),
          static_cast<std::int32_t>(whole), static_cast<std::int32_t>(tiles), tile.runs_outer, tile.rest,
          ChannelConv{kept, from.base, 0, to.base, to.stride, other.base, other.stride, 1, to.pitch, 1, tile.rest,
                      1, tile.rest, true, false}};
}

void Program::pixel_conv(const FilterData& filters, const Tile& tile, const Planes& from, const Planes& to,
                         const Planes* residual, bool clear) {
  require(from.space == Space::arena, "convolution: the input must lie in the arena");
  const PixelConv c = make_pixel_conv(filters, tile, from, to, residual);
  const std::int64_t units = c.tiles + (c.rest > 0 ? 1 : 0);
  push(pixel_family(table_, tile).run, c, tile.runs_outer ? run_work(filters) : equal_work(units), to,
       std::int64_t{c.vectors} * tile.lanes, clear);
}

void Program::staged_conv(const FilterData& filters, const Tile& tile, const std::vector<std::int32_t>& channels,
                          const Planes& from, const Planes& to, const Planes* residual, const Planes& scratch,
                          const std::vector<Phase>& phases, std::int32_t step_y, std::int32_t step_x, bool clear) {
  require(from.space != Space::scratch && scratch.space == Space::scratch, "convolution: stages into the scratch memory");
  require(scratch.channels == static_cast<std::int64_t>(phases.size()), "convolution: one scratch plane per phase");
  require(channels.size() == filters.runs.size(), "convolution: one channel per run");
  for (const std::int32_t channel : channels) require(channel < from.channels, "convolution: channel out of range");
  require(tile.runs_outer && filters.sets->size() == 0, "convolution: channels are staged run by run");
  Stage stage = make_stage(from, scratch, phases, step_y, step_x);
  check_span(scratch, scratch.stride, "convolution: scratch planes end outside their memory");
  stage.from.channels = 1;
  const PixelFamily& family = pixel_family(table_, tile);
  const StagedConv c{stage, make_pixel_conv(filters, tile, scratch, to, residual), table_.stage, family.run,
                     keep(channels), std::int64_t{stage.vectors} * table_.pixel[0].lanes};
  push(prunemap::staged_conv, c, run_work(filters), to, std::int64_t{c.conv.vectors} * tile.lanes, clear);
}

void Program::channel_conv(const FilterData& filters, const Tile& tile, const Planes& from, const Planes& target,
                           const Planes* residual, std::int32_t step_y, std::int32_t step_x, bool clear) {
  const ChannelFamily& family = channel_family(table_, tile);
  const std::int32_t most = family.max_pixels[log2_exact(tile.vectors, 3)], wide = tile.lanes * tile.vectors;
  check_planes(from, "convolution: bad input planes");
  check_planes(target, "convolution: bad output planes");
  if (residual != nullptr) check_residual(*residual, target);
  require(tile.joined == 1 || (from.pitch == target.pitch && step_y == 1 && step_x == 1),
          "convolution: rows are joined where input and output are walked in step");
  const Planes to = with_joined_rows(target, tile.joined);
  const Planes other = residual != nullptr ? with_joined_rows(*residual, tile.joined) : absent();
  const std::int64_t row_step = std::int64_t{from.pitch} * step_y * tile.joined;  // only one of the two is not 1
  require(from.space == Space::arena, "convolution: the input must lie in the arena");
  require(to.space == Space::arena, "convolution: the output must lie in the arena");
  require(step_y >= 1 && step_x >= 1, "convolution: a step must be at least 1");
  require(tile.rows >= 1 && tile.rows <= kMaxRows && has_columns(tile.columns, step_x), "convolution: no kernel for this tile");
  require((tile.columns <= kMaxEvenColumns && step_x == 1) || to.width % tile.columns == 0,
          "convolution: the tile must divide the width");
  require(tile.rows * tile.columns <= most, "convolution: no kernel for this tile");
  const char* far = "convolution: a step leads outside the arena";
  check_reach(filters, from, distance(row_step, to.height - 1, far) +
                                 distance(step_x, to.width - 1, far) + 1);
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

Stage Program::make_stage(const Planes& from, const Planes& to, const std::vector<Phase>& phases, std::int32_t step_y,
                          std::int32_t step_x) {
  check_planes(from, "stage: bad input planes");
  check_planes(to, "stage: bad output planes");
  require(step_y >= 1 && step_x >= 1 && !phases.empty(), "stage: bad steps");
  require(std::int64_t{step_y} * (to.height - 1) < from.height, "stage: output planes are too high");
  for (const Phase& p : phases)
    require(p.row >= 0 && p.row < from.height && p.column > -kMaxWindow && p.column < from.width,
            "stage: a phase lies outside the input");
  if (step_x == 2) check_span(to, to.stride, "stage: output planes end outside their buffer");  // stores whole vectors
  Stage s{from, to, keep(phases), static_cast<std::int32_t>(phases.size()), step_y, step_x,
          capacity(from.space), nullptr, 0};
  const std::int64_t lanes = table_.pixel[0].lanes, vectors = vectors_of(to, lanes);
  if (step_y == 1 && step_x == 1 && are_alike(from, to, phases, vectors * lanes)) {
    std::vector<const std::int32_t*> masks;
    for (const Phase& p : phases) masks.push_back(mask(to, lanes, vectors, p.column));
    s.mask = keep(masks);
    s.vectors = static_cast<std::int32_t>(vectors);
  }
  return s;
}

void Program::stage(const Planes& from, const Planes& to, const std::vector<Phase>& phases, std::int32_t step_y,
                    std::int32_t step_x, bool clear) {
  require(to.space != Space::input, "stage: the input cannot be written");
  require(from.space != Space::scratch && to.space != Space::scratch, "stage: scratch memory is for steps in between");
  require(to.channels == from.channels * static_cast<std::int64_t>(phases.size()), "stage: channels do not fit");
  const Stage s = make_stage(from, to, phases, step_y, step_x);
  push(table_.stage, s, equal_work(from.channels), to, std::int64_t{s.vectors} * table_.pixel[0].lanes, clear);
}

void Program::pool(Pool p, bool clear) {
  check_planes(p.from, "pool: bad input planes");
  check_planes(p.to, "pool: bad output planes");
  require(p.from.space == Space::arena && p.to.space == Space::arena, "pool: planes must lie in the arena");
  require(p.from.channels == p.to.channels, "pool: channels do not fit");
  const auto windows = [](std::int32_t kernel, std::int32_t step, std::int32_t pad, std::int32_t in, std::int32_t out) {
    require(kernel >= 1 && kernel <= std::max(in, kMaxWindow) && step >= 1, "pool: bad window");
    require(pad >= 0 && pad < kernel, "pool: bad padding");
    require(std::int64_t{step} * (out - 1) - pad < in, "pool: a window lies outside the input");
  };
  windows(p.kernel_y, p.step_y, p.pad_y, p.from.height, p.to.height);
  windows(p.kernel_x, p.step_x, p.pad_x, p.from.width, p.to.width);
  const std::int64_t lanes = table_.pixel[0].lanes, span = vectors_of(p.from, lanes) * lanes;
  p.whole = p.kind == PoolKind::average && p.to.height == 1 && p.to.width == 1 && p.pad_y == 0 && p.pad_x == 0 &&
            p.kernel_y == p.from.height && p.kernel_x == p.from.width && p.from.stride >= span;
  if (p.whole) check_span(p.from, span, "pool: input planes end outside the arena");
  push(table_.pool, p, equal_work(p.to.channels), p.to, 0, clear);
}

void Program::add(const Planes& from, const Planes* other, const Planes& to, float low, float high, bool clear) {
  check_planes(to, "add: bad planes");
  const std::int64_t lanes = table_.pixel[0].lanes, vectors = vectors_of(to, lanes), span = vectors * lanes;
  const Planes second = other != nullptr ? *other : absent();
  for (const Planes* p : {&from, other, &to}) {
    if (p == nullptr) continue;
    check_planes(*p, "add: bad planes");
    require(p->space == Space::arena && p->pitch == to.pitch && p->channels == to.channels && p->height == to.height &&
                p->width == to.width,
            "add: planes differ");
    check_span(*p, span, "add: planes end outside the arena");
  }
  require(to.stride >= span, "add: output planes overlap");
  Add a{from, second, to, mask(to, lanes, vectors), static_cast<std::int32_t>(vectors), low, high};
  push(table_.add, a, equal_work(to.channels), to, span, clear);
}

void Program::function(const std::string& name, const Planes& from, const Planes& to, bool clear) {
  check_planes(from, "function: bad planes");
  check_planes(to, "function: bad planes");
  require(from.space == Space::arena && to.space == Space::arena, "function: planes must lie in the arena");
  require(from.channels == to.channels && from.height == to.height && from.width == to.width, "function: planes differ");
  push(apply_function, Function{from, to, find_function(name)}, equal_work(to.channels), to, 0, clear);
}

}  // namespace prunemap
