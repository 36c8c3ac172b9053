// Convolution with pixels in the lanes: the filters of a run share one list of input offsets.
#pragma once
#include <cstdint>

#include "../table.hpp"

namespace prunemap {
namespace {

// Vectors per tile for `size` filters: what keeps the accumulators and the operands in registers.
template <class T>
constexpr int max_vectors(int size) {
  if (T::registers >= 32) return size == 1 ? 12 : size == 2 ? 12 : size == 4 ? 6 : size == 8 ? 3 : 1;
  return size == 1 ? 12 : size == 2 ? 6 : size == 4 ? 3 : size == 8 ? 1 : 0;
}

// One list entry: V vectors of pixels times G weights. The shorter side is held in registers, the other streamed.
template <class T, int G, int V>
[[gnu::always_inline]] inline void pixel_step(const float* x, const float* weight, typename T::Vector (&acc)[G][V]) {
  typename T::Vector held[G < V ? G : V];
  if constexpr (G < V) {
#pragma GCC unroll 16
    for (int g = 0; g < G; ++g) held[g] = T::set1(weight[g]);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      const typename T::Vector pixels = T::load(x + v * T::lanes);
#pragma GCC unroll 16
      for (int g = 0; g < G; ++g) acc[g][v] = T::fma(held[g], pixels, acc[g][v]);
    }
  } else {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) held[v] = T::load(x + v * T::lanes);
#pragma GCC unroll 16
    for (int g = 0; g < G; ++g) {
      const typename T::Vector w = T::set1(weight[g]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[g][v] = T::fma(w, held[v], acc[g][v]);
    }
  }
}

template <class T, int G, int V>
void pixel_tile(const PixelConv& c, const Run& run, float* arena, std::int64_t p) {
  using Vector = typename T::Vector;
  Vector acc[G][V];
  const float* bias = c.filters.bias + run.filter;
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[g][v] = T::set1(bias[g]);
  }
  const float* in = arena + c.in + p;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  for (std::int32_t k = 0; k < run.count; ++k, weight += G) pixel_step<T, G, V>(in + offset[k], weight, acc);

  const Vector low = T::set1(c.filters.low), high = T::set1(c.filters.high);
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g) {
    const std::int64_t row = c.filters.rows[run.filter + g];
    float* y = arena + c.out + row * c.out_stride + p;
    const float* r = arena + c.residual + row * c.residual_stride + p;
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      Vector a = acc[g][v];
      if (c.residual >= 0) a = T::add(a, T::load(r + v * T::lanes));
      a = T::min(high, T::max(low, a));
      T::store(y + v * T::lanes, T::keep(a, c.mask + p + v * T::lanes));
    }
  }
}

using PixelTile = void (*)(const PixelConv&, const Run&, float*, std::int64_t);

struct PixelTiles {
  PixelTile tile[kSizes][12];
};

template <class T, int G, int V>
constexpr PixelTile pixel_entry() {
  if constexpr (V <= max_vectors<T>(G)) {
    return pixel_tile<T, G, V>;
  } else {
    return nullptr;
  }
}

#define PRUNEMAP_ROW(G)                                                                                     \
  {pixel_entry<T, G, 1>(), pixel_entry<T, G, 2>(), pixel_entry<T, G, 3>(),  pixel_entry<T, G, 4>(),         \
   pixel_entry<T, G, 5>(), pixel_entry<T, G, 6>(), pixel_entry<T, G, 7>(),  pixel_entry<T, G, 8>(),         \
   pixel_entry<T, G, 9>(), pixel_entry<T, G, 10>(), pixel_entry<T, G, 11>(), pixel_entry<T, G, 12>()}

template <class T>
constexpr PixelTiles pixel_tiles = {
    {PRUNEMAP_ROW(1), PRUNEMAP_ROW(2), PRUNEMAP_ROW(4), PRUNEMAP_ROW(8), PRUNEMAP_ROW(16)}};

#undef PRUNEMAP_ROW

inline int size_code(std::int32_t size) { return __builtin_ctz(static_cast<unsigned>(size)); }

// Units: runs when they are the outer loop, else tiles. Tiles differ by at most one vector, so that none is a short rest.
template <class T>
void pixel_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const PixelConv& c = *static_cast<const PixelConv*>(parameters);
  const std::int64_t each = c.vectors / c.tiles, longer = c.vectors % c.tiles;
  const std::int64_t tile_begin = c.runs_outer ? 0 : begin, tile_end = c.runs_outer ? c.tiles : end;
  const std::int64_t run_begin = c.runs_outer ? begin : 0, run_end = c.runs_outer ? end : c.filters.runs;
  const auto first = [=](std::int64_t t) { return t * each + (t < longer ? t : longer); };
  const auto one = [&](std::int64_t t, std::int64_t r) {
    const Run& run = c.filters.run[r];
    const std::int64_t vectors = each + (t < longer ? 1 : 0);
    pixel_tiles<T>.tile[size_code(run.size)][vectors - 1](c, run, frame.arena, first(t) * T::lanes);
  };
  if (c.runs_outer) {
    for (std::int64_t r = run_begin; r < run_end; ++r)
      for (std::int64_t t = tile_begin; t < tile_end; ++t) one(t, r);
  } else {
    for (std::int64_t t = tile_begin; t < tile_end; ++t)
      for (std::int64_t r = run_begin; r < run_end; ++r) one(t, r);
  }
}

}  // namespace
}  // namespace prunemap
