// What crosses the border between the part compiled once and the part compiled per ISA: plain structs and pointers.
#pragma once
#include <cstdint>

namespace prunemap {

// Where one run finds its data. Offsets and sizes everywhere are counted in floats.
struct Frame {
  float* arena;
  const float* input;
  float* output;
  std::int64_t scratch;  // floats from the arena to memory that no other thread uses
};

// Runs the units [begin, end) of a step; which units there are depends on the operation.
using StepFunction = void (*)(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end);

enum class Space : std::int32_t { arena, input, output, scratch };  // scratch: within one step only

// Planes of one tensor: pixel (c, y, x) lies at base + c * stride + y * pitch + x. In the arena everything between the
// pixels, and `before` floats ahead of the first, is zero: rows and planes share these margins as their padding.
struct Planes {
  Space space;
  std::int64_t base, stride, before;
  std::int32_t pitch, channels, height, width;
};

// Filters that share one list of input offsets; `weights` holds one weight per list entry and slot (`size` of them, in the
// channel family filled up to whole vectors) or, where the list is sorted by the sets of filters that read an entry, as
// many as the set has filters.
struct Run {
  std::int64_t offsets, weights;
  std::int32_t count, filter, size;
};

// Lists, weights and epilogue of a convolution: acc = bias + sum, + residual, clamped to [low, high].
struct Filters {
  const Run* run;
  const std::int32_t* offsets;  // in bytes
  const float* weights;
  const float* bias;         // per filter slot
  const std::int32_t* rows;  // output channel of a filter slot, -1 for a slot that only pads
  const std::int32_t* sets;  // kSets per block of a run: how many entries each set of its filters reads; null: all read all
  std::int32_t runs, blocks;  // runs: of each pass, where there are several
  float low, high;
};

// Output channels in the lanes, of each run in as few vectors as hold its filters. Output pixel (y, x) reads at
// in + y * row_step + x * column_step + offset.
struct ChannelConv {
  Filters filters;
  std::int64_t in, row_step, out, out_stride, residual, residual_stride;
  std::int32_t column_step, out_pitch, height, width;
  std::int32_t tile_rows, tile_columns;
  bool runs_outer;
  bool direct;  // the output is a plain vector, written without transposing
};

// What a tile of pixels reads in a pass, copied together into the thread's own memory: row after row of `pitch` floats.
struct Panel {
  const std::int32_t* rows;  // where each is read, in bytes, `count` for each pass; null: inputs are read where they are
  std::int64_t in;           // of the whole input, where the rows are counted from
  std::int32_t count, pitch;
};

// Passes over a tile, each with a part of the input channels, that all runs read while the first-level cache holds it.
// Meanwhile the sums of the tile wait in the thread's own memory, `pitch` floats of each filter slot.
struct Passes {
  std::int32_t count, pitch;
  bool first, last;   // which one is under way
  std::int64_t sums;  // from the arena
};

// Pixels in the lanes. Input and output have one pitch, so that planes are walked as flat arrays of `vectors` vectors.
struct PixelConv {
  Filters filters;
  std::int64_t in, out, out_stride, residual, residual_stride;  // residual < 0: none
  const std::int32_t* mask;                                     // all ones where a flat position is a pixel; null: each is
  std::int32_t vectors, tiles;
  bool runs_outer;
  Panel panel;            // only where tiles are the outer loop
  Passes passes;          // several only where tiles are the outer loop
  std::int32_t rest;      // pixels beyond the last vector: few, so that filters are in the lanes there
  ChannelConv rest_conv;  // the same convolution
};

// As many rows (columns) of transformed inputs as they are sums of, each times a factor. Inputs are counted from the first
// that a cell reads; of columns, floats from where the first phase of a row begins.
constexpr int kMostInputs = 6;
constexpr std::int64_t kCellRows = 3;  // rows of cells whose inputs are transformed step by step: what is written is read later
constexpr std::int64_t kSlack = 16;  // floats behind a line, over which vectors may run: as many as any has
struct Part {
  std::int32_t size;
  std::int32_t input[kMostInputs];
  float factor[kMostInputs][kMostInputs];
};

// Inputs of a channel that count as zeros, since no weight reads them and they might be anything.
struct Span {
  std::int32_t first, end, step;
};
struct Hole {
  std::int32_t channel;
  Span rows, columns;
};

// Winograd's minimal filtering along one axis: cells of outputs, and the terms of the inputs that these read, part by part.
struct Cells {
  const Part* part;
  std::int32_t parts, terms;
  std::int32_t components;  // sums of products that make up a cell: two more than outputs, or one
  std::int32_t step, pad;   // from one output to the next; before the first input
  std::int32_t reach;       // inputs that a cell reads, or some more
  std::int32_t count;       // of cells
};

// A convolution by Winograd's minimal filtering, a square of outputs at a time: inputs are transformed, `products` sums
// up over channels, and the sums are transformed to outputs. A band of rows of cells after the other, in the thread's own
// memory; there the planes of transformed inputs, (channel, row term, column term), lie `stride` apart from the beginning
// on, then those of sums, (filter of the chunk, row component, column component), then rows as they are, while they are
// taken apart, and with their columns transformed.
struct Winograd {
  Planes from, to, residual;  // residual.base < 0: none
  PixelConv products;
  StepFunction multiply;
  std::int32_t cell;  // outputs along each axis: 2 or 4
  Cells rows, columns;
  const std::int32_t* channels;  // of the input
  std::int32_t channel_count;
  const Hole* holes;
  const std::int32_t* hole_starts;  // where those of each channel begin, and where the last end
  std::int32_t band, chunks, chunk;        // rows of cells of a band, at most; filters of a chunk, at most
  std::int64_t ring;                       // rows of the input that are there at once, a power of two
  const std::int32_t* runs;                // where the runs of each chunk begin, and where the last ends
  std::int64_t stride, sums, lines, line;  // line: floats of one phase of a row
  const float* bias;
  float low, high;
};

// Pixels of a row in the lanes, for runs of one filter. Output pixel (y, x) reads at in + y * row_step + step * x + offset,
// unless that lies beyond the edges of the row: the masks of an entry, one per output, tell.
struct RowsConv {
  Filters filters;
  std::int64_t in, row_step, out, out_stride, residual, residual_stride;
  std::int32_t out_pitch, height, width;
  const std::int32_t* columns;  // where the masks of an entry begin
  const std::int32_t* masks;
  const std::int32_t* tall;  // of each run, whether its list is three rows of equal taps, one after the other
};

// Every `step`-th pixel of the source, starting at (row, column), for each phase; outside the source: zero. The column
// may lie left of the source.
struct Phase {
  std::int32_t row, column;
};
struct Stage {
  Planes from, to;  // to.channels = from.channels * phases, the phases of one channel together
  const Phase* phase;
  std::int32_t phases, step_y, step_x;
  std::int64_t readable;            // floats of the source's buffer
  const std::int32_t* const* mask;  // per phase: all ones where a flat position gets a pixel; null: planes are not alike
  std::int32_t vectors;             // of a plane walked flat
};

enum class PoolKind : std::int32_t { max, average };

struct Pool {
  Planes from, to;
  PoolKind kind;
  std::int32_t kernel_y, kernel_x, step_y, step_x, pad_y, pad_x;
  bool count_padding;
  bool whole;  // the window is the whole plane, and whole vectors of it are summed: its margins are zero
};

// to = clamp(from + other), other.base < 0: only the clamp. All three have one pitch.
struct Add {
  Planes from, other, to;
  const std::int32_t* mask;
  std::int32_t vectors;
  float low, high;
};

constexpr int kMaxJammed = 4;  // filters of a run whose list may be sorted by sets of filters
constexpr int kSets = (1 << kMaxJammed) - 1;
constexpr int kSizes = 5;       // filters per run in the pixel family: 1, 2, 4, 8, 16
constexpr int kMaxRows = 6;      // tallest tile of the channel family
constexpr int kMaxColumns = 28;  // and widest
constexpr int kMaxEvenColumns = 12;

// The tiles of the channel family: with a column step of 1 all widths up to kMaxEvenColumns, so that a row can be cut into
// tiles that differ by one column at most, and some that divide common widths; with a column step of 2 only such; one
// column with any step.
constexpr bool has_columns(std::int32_t columns, std::int32_t step) {
  const bool common = columns == 4 || columns == 7 || columns == 8 || columns == 14 || columns == 16 || columns == 28;
  return columns == 1 || (common && step <= 2) || (columns > 1 && columns <= kMaxEvenColumns && step == 1);
}

// Vectors of output channels that hold so many filters: 1, 2 or 4.
constexpr std::int32_t channel_vectors(std::int32_t filters, std::int32_t lanes) {
  return filters <= lanes ? 1 : filters <= 2 * lanes ? 2 : 4;
}

struct PixelFamily {
  std::int32_t lanes;
  std::int32_t max_vectors[kSizes];  // by log2(size); 0: no such tile
  std::int32_t max_rest[kSizes];     // most pixels beyond the last vector; 0: such runs compute one more vector
  StepFunction run;
};

constexpr int kRowSteps = 2;  // largest step along a row
constexpr int kWinogradSteps = 2;  // largest step of a convolution by Winograd's filtering

struct RowsFamily {
  std::int32_t lanes;
  const std::int32_t* disorder;  // with a step above 1: the output that each lane has
  StepFunction run[kRowSteps];   // by step
};

struct ChannelFamily {
  std::int32_t lanes;
  std::int32_t max_pixels[3];  // by log2(vectors of output channels per tile)
  StepFunction run;
};

// Goes `passes` times over `count` floats, a multiple of `step`. Returns a sum of all, so that nothing can be left out.
using RoofFunction = float (*)(const float* data, std::int64_t count, std::int64_t passes);

struct RoofFamily {
  std::int32_t lanes;
  std::int64_t step;
  RoofFunction registers, memory, broadcast, read;
};

struct KernelTable {
  const char* name;
  bool (*supported)();
  std::int32_t families;
  PixelFamily pixel[2];
  ChannelFamily channel[2];
  RoofFamily roof[2];
  RowsFamily rows;
  StepFunction stage, pool, add, winograd;
};

}  // namespace prunemap
