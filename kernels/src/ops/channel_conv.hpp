// Convolution with output channels in the lanes: inputs are broadcast, so that small maps and vectors waste no lanes.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "clamp.hpp"
#include "fetch.hpp"

namespace prunemap {
namespace {

// Of a power of two.
inline int size_code(std::int32_t size) { return __builtin_ctz(static_cast<unsigned>(size)); }

// Output pixels per tile for `vectors` vectors of output channels: what leaves registers for the weights and an input.
template <class T>
constexpr int max_pixels(int vectors) {
  if (T::registers >= 32) return vectors == 1 ? 28 : vectors == 2 ? 14 : 6;
  return vectors == 1 ? 12 : vectors == 2 ? 6 : 2;
}

// Independent partial sums per accumulator: enough in flight to hide the latency of a multiply-add.
template <class T>
constexpr int split(int accumulators) {
  return accumulators >= 8 ? 1 : accumulators >= 4 ? 2 : accumulators >= 2 ? 4 : 8;
}

template <class T, int Q, int P>
using ChannelBlock = typename T::Vector[P][Q];

// One list entry: R x C inputs, each times Q vectors of weights. Inputs of a row are S floats apart: a constant, so that
// they are operands of the multiply-adds and need no registers for their addresses.
template <class T, int Q, int R, int C, int S>
[[gnu::always_inline]] inline void channel_step(std::int64_t row_step, const float* in, const float* weight,
                                                ChannelBlock<T, Q, R * C>& acc) {
  typename T::Vector wide[Q];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) wide[q] = T::load(weight + q * T::lanes);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r, in += row_step)
#pragma GCC unroll 28
    for (int p = 0; p < C; ++p) {
      const typename T::Vector value = T::set1(in[p * S]);
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) acc[r * C + p][q] = T::fma(value, wide[q], acc[r * C + p][q]);
    }
}

// What a list entry reads: R rows of so many floats.
template <int R, int Floats>
[[gnu::always_inline]] inline void fetch_rows(std::int64_t row_step, const float* in) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r, in += row_step) fetch<Floats>(in);
}

// The next entries of a list, one for each of U partial sums. Fetches the inputs that are read `Ahead` entries later.
template <class T, int Q, int R, int C, int S, int Ahead, int U>
[[gnu::always_inline]] inline void channel_steps(std::int64_t row_step, const float* in, const std::int32_t* offset,
                                                 const float* weight, ChannelBlock<T, Q, R * C> (&acc)[U]) {
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u) {
    if constexpr (Ahead > 0) fetch_rows<R, 1 + (C - 1) * S>(row_step, at(in, offset[u + Ahead]));
    channel_step<T, Q, R, C, S>(row_step, at(in, offset[u]), weight + u * Q * T::lanes, acc[u]);
  }
}

// A vector of output channels, as it is.
template <class T, int Q>
[[gnu::always_inline]] inline void store_direct(const ChannelConv& c, const Run& run, float* arena,
                                                ChannelBlock<T, Q, 1>& acc) {
  const std::int64_t row = c.filters.rows[run.filter];
  float* to = arena + c.out + row;
  if (c.residual >= 0) {
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) acc[0][q] = T::add(acc[0][q], T::load(arena + c.residual + row + q * T::lanes));
  }
  clamp<T>(c.filters.low, c.filters.high, acc);
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) T::store(to + q * T::lanes, acc[0][q]);
}

// Into planes: lanes are channels here and pixels there, so that squares of both are transposed. Nothing of `c` but the
// rows is read between stores, which could have changed it for all the compiler knows.
template <class T, int Q, int R, int C>
[[gnu::always_inline]] inline void store_planes(const ChannelConv& c, const Run& run, float* arena, std::int64_t at,
                                                const ChannelBlock<T, Q, R * C>& acc) {
  using Square = typename T::Square;
  constexpr int B = Square::lanes;
  const std::int32_t* rows = c.filters.rows + run.filter;
  const std::int64_t pitch = c.out_pitch, out_stride = c.out_stride, residual_stride = c.residual_stride;
  const bool adds = c.residual >= 0;
  const float low = c.filters.low, high = c.filters.high;
  const float* from = arena + c.residual + at;
  float* to = arena + c.out + at;
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (int part = 0; part < T::lanes / B; ++part, rows += B)
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int x = 0; x < C; x += B) {
          const int count = C - x < B ? C - x : B;
          typename Square::Vector square[1][B];
#pragma GCC unroll 8
          for (int p = 0; p < B; ++p) square[0][p] = T::part(acc[r * C + (p < count ? x + p : x)][q], part);
          Square::transpose(square[0]);
          const std::int64_t here = r * pitch + x;
          if (adds) {
#pragma GCC unroll 8
            for (int g = 0; g < B; ++g) {
              if (rows[g] < 0) break;
              square[0][g] = Square::add(square[0][g], Square::load(from + rows[g] * residual_stride + here));
            }
          }
          clamp<Square>(low, high, square);
#pragma GCC unroll 8
          for (int g = 0; g < B; ++g) {
            if (rows[g] < 0) break;
            Square::store_first(to + rows[g] * out_stride + here, square[0][g], count);
          }
        }
}

template <class T, int Q, int R, int C, int S>
void channel_tile(const ChannelConv& c, const Run& run, float* arena, std::int64_t y, std::int64_t x) {
  constexpr int U = split<T>(Q * R * C), W = Q * T::lanes;
  constexpr int ahead = Q > 1 && Q * R * C >= kBusy ? kEntriesAhead : 0;  // of one vector of weights, loads are too many
  ChannelBlock<T, Q, R * C> acc[U];
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 28
    for (int p = 0; p < R * C; ++p)
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q)
        acc[u][p][q] = u == 0 ? T::load(c.filters.bias + run.filter + q * T::lanes) : T::set1(0.0F);
  const float* in = arena + c.in + y * c.row_step + x * c.column_step;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  std::int32_t k = 0;
  if constexpr (ahead > 0)
    for (; k + ahead + U <= run.count; k += U, offset += U, weight += U * W)
      channel_steps<T, Q, R, C, S, ahead>(c.row_step, in, offset, weight, acc);
  for (; k + U <= run.count; k += U, offset += U, weight += U * W)
    channel_steps<T, Q, R, C, S, 0>(c.row_step, in, offset, weight, acc);
  for (; k < run.count; ++k, ++offset, weight += W)
    channel_step<T, Q, R, C, S>(c.row_step, at(in, *offset), weight, acc[0]);
#pragma GCC unroll 8
  for (int u = 1; u < U; ++u)
#pragma GCC unroll 28
    for (int p = 0; p < R * C; ++p)
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) acc[0][p][q] = T::add(acc[0][p][q], acc[u][p][q]);
  if constexpr (R * C == 1) {
    if (c.direct) return store_direct<T, Q>(c, run, arena, acc[0]);
  }
  store_planes<T, Q, R, C>(c, run, arena, y * c.out_pitch + x, acc[0]);
}

using ChannelTile = void (*)(const ChannelConv&, const Run&, float*, std::int64_t, std::int64_t);

struct ChannelTiles {
  ChannelTile tile[3][2][kMaxRows][kMaxColumns];  // log2 vectors, column step - 1, rows - 1, columns - 1
};

template <class T, int Q, int S, int R, int C>
constexpr ChannelTile channel_entry() {
  if constexpr (R * C <= max_pixels<T>(Q) && has_columns(C, S)) {
    return channel_tile<T, Q, R, C, C == 1 ? 1 : S>;  // one column serves every step
  } else {
    return nullptr;
  }
}

#define PRUNEMAP_FOUR(Q, S, R, C)                                             \
  channel_entry<T, Q, S, R, C>(), channel_entry<T, Q, S, R, C + 1>(),         \
      channel_entry<T, Q, S, R, C + 2>(), channel_entry<T, Q, S, R, C + 3>()
#define PRUNEMAP_COLUMNS(Q, S, R)                                                                              \
  {PRUNEMAP_FOUR(Q, S, R, 1),  PRUNEMAP_FOUR(Q, S, R, 5),  PRUNEMAP_FOUR(Q, S, R, 9), PRUNEMAP_FOUR(Q, S, R, 13), \
   PRUNEMAP_FOUR(Q, S, R, 17), PRUNEMAP_FOUR(Q, S, R, 21), PRUNEMAP_FOUR(Q, S, R, 25)}
#define PRUNEMAP_ROWS(Q, S)                                                         \
  {PRUNEMAP_COLUMNS(Q, S, 1), PRUNEMAP_COLUMNS(Q, S, 2), PRUNEMAP_COLUMNS(Q, S, 3), \
   PRUNEMAP_COLUMNS(Q, S, 4), PRUNEMAP_COLUMNS(Q, S, 5), PRUNEMAP_COLUMNS(Q, S, 6)}
#define PRUNEMAP_STEPS(Q) {PRUNEMAP_ROWS(Q, 1), PRUNEMAP_ROWS(Q, 2)}

template <class T>
constexpr ChannelTiles channel_tiles = {{PRUNEMAP_STEPS(1), PRUNEMAP_STEPS(2), PRUNEMAP_STEPS(4)}};

#undef PRUNEMAP_STEPS
#undef PRUNEMAP_ROWS
#undef PRUNEMAP_COLUMNS
#undef PRUNEMAP_FOUR

// Units: runs when they are the outer loop, else bands of tile_rows output rows.
template <class T>
void channel_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const ChannelConv& c = *static_cast<const ChannelConv*>(parameters);
  const std::int64_t across = (c.width + c.tile_columns - 1) / c.tile_columns;
  const std::int64_t each = c.width / across, longer = c.width % across;
  const std::int64_t run_begin = c.runs_outer ? begin : 0, run_end = c.runs_outer ? end : c.filters.runs;
  const std::int64_t bands = (c.height + c.tile_rows - 1) / c.tile_rows;
  const std::int64_t band_begin = c.runs_outer ? 0 : begin, band_end = c.runs_outer ? bands : end;
  const auto band = [&](const Run& run, std::int64_t b) {
    const std::int64_t y = b * c.tile_rows, left = c.height - y;
    const auto& tiles = channel_tiles<T>.tile[size_code(channel_vectors(run.size, T::lanes))][c.column_step == 2 ? 1 : 0];
    const auto& row = tiles[(left < c.tile_rows ? left : c.tile_rows) - 1];
    for (std::int64_t t = 0, x = 0; t < across; ++t) {
      const std::int64_t columns = each + (t < longer ? 1 : 0);
      row[columns - 1](c, run, frame.arena, y, x);
      x += columns;
    }
  };
  if (c.runs_outer) {
    for (std::int64_t r = run_begin; r < run_end; ++r)
      for (std::int64_t b = band_begin; b < band_end; ++b) band(c.filters.run[r], b);
  } else {
    for (std::int64_t b = band_begin; b < band_end; ++b)
      for (std::int64_t r = run_begin; r < run_end; ++r) band(c.filters.run[r], b);
  }
}

}  // namespace
}  // namespace prunemap
