// Convolution with output channels in the lanes: inputs are broadcast, so that small maps and vectors waste no lanes.
#pragma once
#include <cstdint>

#include "../table.hpp"

namespace prunemap {
namespace {

// Output pixels per tile for `vectors` vectors of output channels.
template <class T>
constexpr int max_pixels(int vectors) {
  if (T::registers >= 32) return vectors == 1 ? 16 : vectors == 2 ? 14 : 6;
  return vectors == 1 ? 12 : vectors == 2 ? 6 : 2;
}

// Independent partial sums per accumulator: enough in flight to hide the latency of a multiply-add.
template <class T>
constexpr int split(int accumulators) {
  return accumulators >= 8 ? 1 : accumulators >= 4 ? 2 : accumulators >= 2 ? 4 : 8;
}

template <class T, int Q, int P>
using ChannelBlock = typename T::Vector[P][Q];

// One list entry: R x C inputs, each times Q vectors of weights.
template <class T, int Q, int R, int C>
[[gnu::always_inline]] inline void channel_step(const ChannelConv& c, const float* in, const float* weight,
                                                ChannelBlock<T, Q, R * C>& acc) {
  typename T::Vector wide[Q];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) wide[q] = T::load(weight + q * T::lanes);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int p = 0; p < C; ++p) {
      const typename T::Vector value = T::set1(in[r * c.row_step + std::int64_t{p} * c.column_step]);
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) acc[r * C + p][q] = T::fma(value, wide[q], acc[r * C + p][q]);
    }
}

// A vector of output channels, as it is.
template <class T, int Q>
[[gnu::always_inline]] inline void store_direct(const ChannelConv& c, const Run& run, float* arena,
                                                const ChannelBlock<T, Q, 1>& acc) {
  const typename T::Vector low = T::set1(c.filters.low), high = T::set1(c.filters.high);
  const std::int64_t row = c.filters.rows[run.filter];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) {
    typename T::Vector a = acc[0][q];
    if (c.residual >= 0) a = T::add(a, T::load(arena + c.residual + row + q * T::lanes));
    T::store(arena + c.out + row + q * T::lanes, T::min(high, T::max(low, a)));
  }
}

// Into planes, through a small block in memory: lanes are channels here and pixels there.
template <class T, int Q, int R, int C>
[[gnu::always_inline]] inline void store_planes(const ChannelConv& c, const Run& run, float* arena, std::int64_t at,
                                                const ChannelBlock<T, Q, R * C>& acc) {
  const typename T::Vector low = T::set1(c.filters.low), high = T::set1(c.filters.high);
  alignas(64) float block[R * C][Q * T::lanes];
#pragma GCC unroll 16
  for (int p = 0; p < R * C; ++p)
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      const typename T::Vector a = acc[p][q];
      T::store(&block[p][q * T::lanes], c.residual < 0 ? T::min(high, T::max(low, a)) : a);
    }
  for (int g = 0; g < Q * T::lanes; ++g) {
    const std::int64_t row = c.filters.rows[run.filter + g];
    if (row < 0) break;
    float* to = arena + c.out + row * c.out_stride + at;
    const float* other = arena + c.residual + row * c.residual_stride + at;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int p = 0; p < C; ++p) {
        float a = block[r * C + p][g];
        if (c.residual >= 0) {
          a += other[r * c.out_pitch + p];
          a = c.filters.low > a ? c.filters.low : a;
          a = c.filters.high < a ? c.filters.high : a;
        }
        to[r * c.out_pitch + p] = a;
      }
  }
}

template <class T, int Q, int R, int C>
void channel_tile(const ChannelConv& c, const Run& run, float* arena, std::int64_t y, std::int64_t x) {
  constexpr int U = split<T>(Q * R * C), W = Q * T::lanes;
  ChannelBlock<T, Q, R * C> acc[U];
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 16
    for (int p = 0; p < R * C; ++p)
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q)
        acc[u][p][q] = u == 0 ? T::load(c.filters.bias + run.filter + q * T::lanes) : T::set1(0.0F);
  const float* in = arena + c.in + y * c.row_step + x * c.column_step;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  std::int32_t k = 0;
  for (; k + U <= run.count; k += U, weight += U * W) {
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) channel_step<T, Q, R, C>(c, in + offset[k + u], weight + u * W, acc[u]);
  }
  for (; k < run.count; ++k, weight += W) channel_step<T, Q, R, C>(c, in + offset[k], weight, acc[0]);
#pragma GCC unroll 8
  for (int u = 1; u < U; ++u)
#pragma GCC unroll 16
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
  ChannelTile tile[3][3][kMaxColumns];  // log2 vectors, log2 rows, columns - 1
};

template <class T, int Q, int R, int C>
constexpr ChannelTile channel_entry() {
  if constexpr (R * C <= max_pixels<T>(Q) && (C <= 8 || C == 14 || C == 16 || C == 12)) {
    return channel_tile<T, Q, R, C>;
  } else {
    return nullptr;
  }
}

#define PRUNEMAP_COLUMNS(Q, R)                                                                                \
  {channel_entry<T, Q, R, 1>(),  channel_entry<T, Q, R, 2>(),  channel_entry<T, Q, R, 3>(),                   \
   channel_entry<T, Q, R, 4>(),  channel_entry<T, Q, R, 5>(),  channel_entry<T, Q, R, 6>(),                   \
   channel_entry<T, Q, R, 7>(),  channel_entry<T, Q, R, 8>(),  channel_entry<T, Q, R, 9>(),                   \
   channel_entry<T, Q, R, 10>(), channel_entry<T, Q, R, 11>(), channel_entry<T, Q, R, 12>(),                  \
   channel_entry<T, Q, R, 13>(), channel_entry<T, Q, R, 14>(), channel_entry<T, Q, R, 15>(),                  \
   channel_entry<T, Q, R, 16>()}
#define PRUNEMAP_ROWS(Q) {PRUNEMAP_COLUMNS(Q, 1), PRUNEMAP_COLUMNS(Q, 2), PRUNEMAP_COLUMNS(Q, 4)}

template <class T>
constexpr ChannelTiles channel_tiles = {{PRUNEMAP_ROWS(1), PRUNEMAP_ROWS(2), PRUNEMAP_ROWS(4)}};

#undef PRUNEMAP_ROWS
#undef PRUNEMAP_COLUMNS

// Units: runs when they are the outer loop, else bands of tile_rows output rows.
template <class T>
void channel_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const ChannelConv& c = *static_cast<const ChannelConv*>(parameters);
  const std::int64_t across = (c.width + c.tile_columns - 1) / c.tile_columns;
  const std::int64_t each = c.width / across, longer = c.width % across;
  const std::int64_t run_begin = c.runs_outer ? begin : 0, run_end = c.runs_outer ? end : c.filters.runs;
  const std::int64_t bands = (c.height + c.tile_rows - 1) / c.tile_rows;
  const std::int64_t band_begin = c.runs_outer ? 0 : begin, band_end = c.runs_outer ? bands : end;
  const auto& tiles = channel_tiles<T>.tile[size_code(c.vectors)];
  const auto band = [&](const Run& run, std::int64_t b) {
    std::int64_t y = b * c.tile_rows;
    const std::int64_t stop = y + c.tile_rows < c.height ? y + c.tile_rows : c.height;
    for (std::int32_t rows = c.tile_rows; y < stop; rows /= 2) {  // a short last band: 2 rows, then 1
      for (; y + rows <= stop; y += rows)
        for (std::int64_t t = 0, x = 0; t < across; ++t) {
          const std::int64_t columns = each + (t < longer ? 1 : 0);
          tiles[size_code(rows)][columns - 1](c, run, frame.arena, y, x);
          x += columns;
        }
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
