// Convolution with every second pixel in the lanes, picked from what is read as it lies: for filters that have their
// inputs to themselves, to which taking those apart first would cost more than it saves.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "fetch.hpp"

namespace prunemap {
namespace {

constexpr int kStridedVectors = 4;  // widest tile; eight accumulators in all hide the latency of a multiply-add

// R rows of V vectors; the last vector of a row has `last` pixels. The lanes are in order only in the end: each entry has
// them in the same disorder.
template <class T, int R, int V>
void strided_tile(const ChannelConv& c, const Run& run, float* arena, std::int64_t y, std::int64_t x, int last) {
  typename T::Vector acc[R][V];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = T::set1(c.filters.bias[run.filter]);
  const float* in = arena + c.in + y * c.row_step + 2 * x;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  for (std::int32_t k = 0; k < run.count; ++k) {
    const typename T::Vector w = T::set1(weight[k]);
    const float* row = at(in, offset[k]);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, row += c.row_step)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = T::fma(w, T::evens(row + 2 * v * T::lanes), acc[r][v]);
  }
  const typename T::Vector low = T::set1(c.filters.low), high = T::set1(c.filters.high);
  const std::int64_t filter = c.filters.rows[run.filter], here = y * c.out_pitch + x;
  float* out = arena + c.out + filter * c.out_stride + here;
  const float* residual = arena + c.residual + filter * c.residual_stride + here;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r, out += c.out_pitch, residual += c.out_pitch)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      typename T::Vector a = T::in_order(acc[r][v]);
      if (c.residual >= 0) a = T::add(a, T::load(residual + v * T::lanes));
      a = T::min(high, T::max(low, a));
      if (v < V - 1) {
        T::store(out + v * T::lanes, a);
      } else {
        T::store_first(out + v * T::lanes, a, last);
      }
    }
}

using StridedTile = void (*)(const ChannelConv&, const Run&, float*, std::int64_t, std::int64_t, int);

template <class T>
constexpr StridedTile strided_tiles[kStridedVectors][3] = {  // vectors - 1, log2 rows
    {strided_tile<T, 1, 1>, strided_tile<T, 2, 1>, strided_tile<T, 4, 1>},
    {strided_tile<T, 1, 2>, strided_tile<T, 2, 2>, strided_tile<T, 4, 2>},
    {strided_tile<T, 1, 3>, strided_tile<T, 2, 3>, nullptr},
    {strided_tile<T, 1, 4>, strided_tile<T, 2, 4>, nullptr},
};

// Units: runs, of one filter each.
template <class T>
void strided_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const ChannelConv& c = *static_cast<const ChannelConv*>(parameters);
  const std::int64_t vectors = (c.width + T::lanes - 1) / T::lanes;
  const std::int64_t across = (vectors + kStridedVectors - 1) / kStridedVectors;
  for (std::int64_t r = begin; r < end; ++r)
    for (std::int64_t t = 0, from = 0; t < across; ++t) {
      const std::int64_t wide = vectors / across + (t < vectors % across ? 1 : 0), x = from * T::lanes;
      const std::int64_t left = c.width - x - (wide - 1) * T::lanes;
      const int last = static_cast<int>(left < T::lanes ? left : T::lanes);
      for (std::int64_t y = 0; y < c.height;) {
        int rows = wide <= 2 ? 2 : 1;  // log2
        while ((1 << rows) > c.height - y) --rows;
        strided_tiles<T>[wide - 1][rows](c, c.filters.run[r], frame.arena, y, x, last);
        y += 1 << rows;
      }
      from += wide;
    }
}

}  // namespace
}  // namespace prunemap
