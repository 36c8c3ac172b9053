// Convolution with pixels of one row in the lanes: for filters that have their inputs to themselves. Rows need nothing
// between them, since lanes beyond the edges are masked, and may be read with a step.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "fetch.hpp"

namespace prunemap {
namespace {

constexpr int kRowVectors = 4;  // widest tile; eight accumulators in all hide the latency of a multiply-add

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

// R rows of V vectors; the last vector of a row has `last` pixels.
template <class T, int S, int R, int V>
void rows_tile(const RowsConv& c, const Run& run, float* arena, std::int64_t y, std::int64_t x, int last) {
  typename T::Vector acc[R][V];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = T::set1(c.filters.bias[run.filter]);
  const float* in = arena + c.in + y * c.row_step + S * x;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const std::int32_t* column = c.columns + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  for (std::int32_t k = 0; k < run.count; ++k) {
    const std::int32_t* mask = c.masks + column[k] + x;
    const float* row = at(in, offset[k]);
    const typename T::Vector w = T::set1(weight[k]);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, row += c.row_step)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        acc[r][v] = T::fma(w, T::keep(row_vector<T, S>(row + S * v * T::lanes), mask + v * T::lanes), acc[r][v]);
  }
  const typename T::Vector low = T::set1(c.filters.low), high = T::set1(c.filters.high);
  const std::int64_t filter = c.filters.rows[run.filter], here = y * c.out_pitch + x;
  float* out = arena + c.out + filter * c.out_stride + here;
  const float* residual = arena + c.residual + filter * c.residual_stride + here;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r, out += c.out_pitch, residual += c.out_pitch)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      typename T::Vector a = row_in_order<T, S>(acc[r][v]);
      if (c.residual >= 0) a = T::add(a, T::load(residual + v * T::lanes));
      a = T::min(high, T::max(low, a));
      if (v < V - 1) {
        T::store(out + v * T::lanes, a);
      } else {
        T::store_first(out + v * T::lanes, a, last);
      }
    }
}

using RowsTile = void (*)(const RowsConv&, const Run&, float*, std::int64_t, std::int64_t, int);

template <class T, int S>
constexpr RowsTile rows_tiles[kRowVectors][3] = {  // vectors - 1, log2 rows
    {rows_tile<T, S, 1, 1>, rows_tile<T, S, 2, 1>, rows_tile<T, S, 4, 1>},
    {rows_tile<T, S, 1, 2>, rows_tile<T, S, 2, 2>, rows_tile<T, S, 4, 2>},
    {rows_tile<T, S, 1, 3>, rows_tile<T, S, 2, 3>, nullptr},
    {rows_tile<T, S, 1, 4>, rows_tile<T, S, 2, 4>, nullptr},
};

// Units: runs, of one filter each.
template <class T, int S>
void rows_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const RowsConv& c = *static_cast<const RowsConv*>(parameters);
  const std::int64_t vectors = (c.width + T::lanes - 1) / T::lanes;
  const std::int64_t across = (vectors + kRowVectors - 1) / kRowVectors;
  for (std::int64_t r = begin; r < end; ++r)
    for (std::int64_t t = 0, from = 0; t < across; ++t) {
      const std::int64_t wide = vectors / across + (t < vectors % across ? 1 : 0), x = from * T::lanes;
      const std::int64_t left = c.width - x - (wide - 1) * T::lanes;
      const int last = static_cast<int>(left < T::lanes ? left : T::lanes);
      for (std::int64_t y = 0; y < c.height;) {
        int rows = wide <= 2 ? 2 : 1;  // log2
        while ((1 << rows) > c.height - y) --rows;
        rows_tiles<T, S>[wide - 1][rows](c, c.filters.run[r], frame.arena, y, x, last);
        y += 1 << rows;
      }
      from += wide;
    }
}

}  // namespace
}  // namespace prunemap
