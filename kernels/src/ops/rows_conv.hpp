// Convolution with pixels of one row in the lanes: for filters that have their inputs to themselves. Rows need nothing
// between them, since lanes beyond the edges are masked, and may be read with a step.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "clamp.hpp"
#include "fetch.hpp"

namespace prunemap {
namespace {

constexpr int kRowVectors = 4;  // widest tile
constexpr int kTallest = 7;     // tallest, of one vector

// Rows per tile of so many vectors: sums that hide the latency of a multiply-add and have room in registers.
constexpr int tile_rows(std::int64_t vectors) { return vectors == 1 ? kTallest : vectors == 2 ? 5 : vectors == 3 ? 3 : 2; }

// What an entry reads for T::lanes outputs. With a step the lanes are in disorder, the same for every entry.
template <class T, int S>
[[gnu::always_inline]] inline typename T::Vector row_vector(const float* p) {
  if constexpr (S == 1) {
    return T::load(p);
  } else {
    return T::evens(p);
  }
}

template <class T, int S>
[[gnu::always_inline]] inline typename T::Vector row_in_order(typename T::Vector a) {
  if constexpr (S == 1) {
    return a;
  } else {
    return T::in_order(a);
  }
}

// Residual, clamp and stores of a tile.
template <class T, int S, int R, int V>
[[gnu::always_inline]] inline void rows_end(const RowsConv& c, const Run& run, float* arena, std::int64_t y, std::int64_t x,
                                            int last, typename T::Vector (&acc)[R][V]) {
  const std::int64_t filter = c.filters.rows[run.filter], here = y * c.out_pitch + x, pitch = c.out_pitch;
  float* out = arena + c.out + filter * c.out_stride + here;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = row_in_order<T, S>(acc[r][v]);
  if (c.residual >= 0) {
    const float* from = arena + c.residual + filter * c.residual_stride + here;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r, from += pitch)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = T::add(acc[r][v], T::load(from + v * T::lanes));
  }
  clamp<T>(c.filters.low, c.filters.high, acc);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r, out += pitch) {
#pragma GCC unroll 4
    for (int v = 0; v < V - 1; ++v) T::store(out + v * T::lanes, acc[r][v]);
    T::store_first(out + (V - 1) * T::lanes, acc[r][V - 1], last);
  }
}

// R rows of V vectors; the last vector of a row has `last` pixels.
template <class T, int S, int R, int V>
void rows_tile(const RowsConv& c, const Run& run, float* arena, std::int64_t y, std::int64_t x, int last) {
  typename T::Vector acc[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = T::set1(c.filters.bias[run.filter]);
  const float* in = arena + c.in + y * c.row_step + S * x;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const std::int32_t* column = c.columns + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  for (std::int32_t k = 0; k < run.count; ++k) {
    typename T::Vector mask[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) mask[v] = T::mask(c.masks + column[k] + x + v * T::lanes);
    const float* row = at(in, offset[k]);
    const typename T::Vector w = T::set1(weight[k]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r, row += c.row_step)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        acc[r][v] = T::fma(w, T::keep(row_vector<T, S>(row + S * v * T::lanes), mask[v]), acc[r][v]);
  }
  rows_end<T, S, R, V>(c, run, arena, y, x, last, acc);
}

constexpr int kTallVectors = 2;  // widest tile of the following
constexpr int tall_rows(std::int64_t vectors) { return vectors == 1 ? kTallest : 5; }

// The same for three rows of taps, the list one row after the other, and steps that are equal: what is read of a row of
// inputs serves all outputs whose kernel meets it.
template <class T, int S, int R, int V>
void tall_tile(const RowsConv& c, const Run& run, float* arena, std::int64_t y, std::int64_t x, int last) {
  typename T::Vector acc[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = T::set1(c.filters.bias[run.filter]);
  const float* in = arena + c.in + y * c.row_step + S * x;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const std::int32_t* column = c.columns + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  const std::int32_t taps = run.count / 3;
  const std::int64_t pitch = c.row_step / S;
  for (std::int32_t k = 0; k < taps; ++k) {
    typename T::Vector w[3], mask[V];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) w[i] = T::set1(weight[k + i * taps]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) mask[v] = T::mask(c.masks + column[k] + x + v * T::lanes);
    const float* row = at(in, offset[k]);
#pragma GCC unroll 16
    for (int i = 0; i < S * (R - 1) + 3; ++i, row += pitch)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const typename T::Vector pixels = T::keep(row_vector<T, S>(row + S * v * T::lanes), mask[v]);
#pragma GCC unroll 3
        for (int t = 0; t < 3; ++t)
          if (i >= t && (i - t) % S == 0 && (i - t) / S < R) acc[(i - t) / S][v] = T::fma(w[t], pixels, acc[(i - t) / S][v]);
      }
  }
  rows_end<T, S, R, V>(c, run, arena, y, x, last, acc);
}

using RowsTile = void (*)(const RowsConv&, const Run&, float*, std::int64_t, std::int64_t, int);

template <class T, int S, bool Tall, int R, int V>
constexpr RowsTile rows_entry() {
  if constexpr (Tall && V <= kTallVectors && R <= tall_rows(V)) {
    return tall_tile<T, S, R, V>;
  } else if constexpr (!Tall && R <= tile_rows(V)) {
    return rows_tile<T, S, R, V>;
  } else {
    return nullptr;
  }
}

#define PRUNEMAP_ROWS(V)                                                                                     \
  {rows_entry<T, S, Tall, 1, V>(), rows_entry<T, S, Tall, 2, V>(), rows_entry<T, S, Tall, 3, V>(),           \
   rows_entry<T, S, Tall, 4, V>(), rows_entry<T, S, Tall, 5, V>(), rows_entry<T, S, Tall, 6, V>(),           \
   rows_entry<T, S, Tall, 7, V>()}

template <class T, int S, bool Tall>
constexpr RowsTile rows_tiles[kRowVectors][kTallest] = {PRUNEMAP_ROWS(1), PRUNEMAP_ROWS(2), PRUNEMAP_ROWS(3),
                                                        PRUNEMAP_ROWS(4)};

#undef PRUNEMAP_ROWS

// `count` cut into parts that differ by one at most.
struct Parts {
  std::int64_t parts, each, longer;
  Parts(std::int64_t count, std::int64_t most)
      : parts((count + most - 1) / most), each(count / parts), longer(count % parts) {}
  std::int64_t size(std::int64_t i) const { return each + (i < longer ? 1 : 0); }
};

// One run, in tiles of the rows and columns that its kernel is best at.
template <class T, int S, bool Tall>
void rows_run(const RowsConv& c, const Run& run, float* arena) {
  const Parts across((c.width + T::lanes - 1) / T::lanes, Tall ? kTallVectors : kRowVectors);
  for (std::int64_t i = 0, x = 0; i < across.parts; ++i) {
    const std::int64_t vectors = across.size(i), left = c.width - x - (vectors - 1) * T::lanes;
    const int last = static_cast<int>(left < T::lanes ? left : T::lanes);
    const Parts down(c.height, Tall ? tall_rows(vectors) : tile_rows(vectors));
    for (std::int64_t j = 0, y = 0; j < down.parts; y += down.size(j++))
      rows_tiles<T, S, Tall>[vectors - 1][down.size(j) - 1](c, run, arena, y, x, last);
    x += vectors * T::lanes;
  }
}

// Units: runs, of one filter each.
template <class T, int S>
void rows_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const RowsConv& c = *static_cast<const RowsConv*>(parameters);
  for (std::int64_t r = begin; r < end; ++r) {
    const Run& run = c.filters.run[r];
    c.tall[r] != 0 ? rows_run<T, S, true>(c, run, frame.arena) : rows_run<T, S, false>(c, run, frame.arena);
  }
}

}  // namespace
}  // namespace prunemap
