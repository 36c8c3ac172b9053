// Convolution with pixels in the lanes: tile by tile, with what lies beyond the last vector of a plane.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "channel_conv.hpp"
#include "fetch.hpp"
#include "pixel_tile.hpp"

namespace prunemap {
namespace {

constexpr int kJoinedFilters = 8, kJoinedVectors = 3, kMostJoined = 4;

// Whether there are registers for such a tile.
template <class T>
constexpr bool has_joined = T::registers >= 32 && T::lanes > T::Square::lanes && T::Square::lanes == kJoinedFilters;

// Whether the last tile also computes the pixels beyond it, with filters in the lanes: a walk through the list for a few
// pixels alone takes half as long as one for a vector.
inline bool joins_rest(const PixelConv& c, const Run& run) {
  return run.size == kJoinedFilters && c.rest <= kMostJoined && c.vectors / c.tiles == kJoinedVectors &&
         c.filters.sets == nullptr && c.panel.rows == nullptr && c.passes.count == 1;
}

// Such a tile, and R pixels beyond it.
template <class T, int R>
void joined_tile(const PixelConv& c, const Run& run, float* arena, std::int64_t p) {
  using Narrow = typename T::Square;
  constexpr int G = kJoinedFilters, V = kJoinedVectors, beyond = V * T::lanes;
  if (c.residual >= 0 && !c.runs_outer) fetch_residual<G, beyond + R>(c, run, arena, p);
  typename T::Vector acc[G][V];
  typename Narrow::Vector rest[R][1];
  pixel_begin<T, G, V>(c, run.filter, arena, acc);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) rest[r][0] = Narrow::load(c.filters.bias + run.filter);
  const float* in = arena + c.in + p;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  const auto step = [&](const float* x) {
    pixel_step<T, G, V>(x, weight, acc);
    const typename Narrow::Vector w = Narrow::load(weight);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) rest[r][0] = Narrow::fma(Narrow::set1(x[beyond + r]), w, rest[r][0]);
  };
  std::int32_t k = 0;
  for (; k + kEntriesAhead < run.count; ++k, ++offset, weight += G) {
    fetch_lines<G>(weight + kWeightsAhead);
    fetch<beyond + R>(at(in, offset[kEntriesAhead]));
    step(at(in, *offset));
  }
  for (; k < run.count; ++k, ++offset, weight += G) step(at(in, *offset));
  pixel_end<T, G, V>(c, run.filter, arena, p, acc);
  store_planes<Narrow, 1, 1, R>(c.rest_conv, run, arena, p + beyond, rest);
}

template <class T>
constexpr PixelTile joined_tiles[kMostJoined] = {joined_tile<T, 1>, joined_tile<T, 2>, joined_tile<T, 3>, joined_tile<T, 4>};

// The pixels beyond the last vector. A run too small to fill a vector with filters computes one more vector of pixels.
template <class T>
void pixel_rest(const PixelConv& c, const Run& run, float* arena) {
  using Narrow = typename T::Square;
  const std::int64_t p = std::int64_t{c.vectors} * T::lanes;
  if (run.size < Narrow::lanes) return pixel_tiles<T>.tile[0][size_code(run.size)][0](c, run, arena, p);
  const auto& tiles = channel_tiles<Narrow>.tile[size_code(run.size / Narrow::lanes)][0][0];
  tiles[c.rest - 1](c.rest_conv, run, arena, 0, p);
}

// Copies what a tile reads in a pass next to one another, so that every run finds whole lines there, and has `c` read them.
template <class T>
void fill_panel(PixelConv& c, const Frame& frame, std::int32_t pass, std::int64_t p, std::int64_t vectors) {
  Panel panel = c.panel;
  panel.rows += std::int64_t{pass} * panel.count;
  const float* from = frame.arena + panel.in + p;
  float* to = frame.arena + frame.scratch;
  for (std::int32_t row = 0; row < panel.count; ++row, to += panel.pitch) {
    const std::int32_t ahead = row + kEntriesAhead;
    for (std::int64_t v = 0; v < vectors; ++v) {
      if (ahead < panel.count) __builtin_prefetch(at(from, panel.rows[ahead]) + v * T::lanes);
      T::store(to + v * T::lanes, T::load(at(from, panel.rows[row]) + v * T::lanes));
    }
  }
  c.in = c.rest_conv.in = frame.scratch - p;
}

// Units: runs when they are the outer loop, else tiles, of which the rest is the last, where no tile has joined it. The others differ by at most one
// vector, so that none is short.
template <class T>
void pixel_conv(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  PixelConv c = *static_cast<const PixelConv*>(parameters);
  const std::int64_t each = c.vectors / c.tiles, longer = c.vectors % c.tiles;
  const std::int64_t all_tiles = c.tiles + (c.rest > 0 ? 1 : 0);
  const std::int64_t tile_begin = c.runs_outer ? 0 : begin, tile_end = c.runs_outer ? all_tiles : end;
  const std::int64_t run_begin = c.runs_outer ? begin : 0, run_end = c.runs_outer ? end : c.filters.runs;
  const auto& tiles = pixel_tiles<T>.tile[c.filters.sets != nullptr ? 1 : 0];
  const auto first = [=](std::int64_t t) { return t * each + (t < longer ? t : longer); };
  const auto vectors_of = [=](std::int64_t t) { return each + (t < longer ? 1 : 0); };
  const auto one = [&](std::int64_t t, const Run& run) {
    if constexpr (has_joined<T>) {
      if (c.rest > 0 && t >= c.tiles - 1 && joins_rest(c, run)) {
        if (t < c.tiles) joined_tiles<T>[c.rest - 1](c, run, frame.arena, first(t) * T::lanes);
        return;
      }
    }
    if (t == c.tiles) return pixel_rest<T>(c, run, frame.arena);
    tiles[size_code(run.size)][vectors_of(t) - 1](c, run, frame.arena, first(t) * T::lanes);
  };
  if (c.runs_outer) {
    for (std::int64_t r = run_begin; r < run_end; ++r)
      for (std::int64_t t = tile_begin; t < tile_end; ++t) one(t, c.filters.run[r]);
  } else {
    c.passes.sums = frame.scratch + (c.panel.rows != nullptr ? std::int64_t{c.panel.count} * c.panel.pitch : 0);
    for (std::int64_t t = tile_begin; t < tile_end; ++t)
      for (std::int32_t pass = 0; pass < c.passes.count; ++pass) {
        const Run* run = c.filters.run + std::int64_t{pass} * c.filters.runs;
        c.passes.first = pass == 0;
        c.passes.last = pass == c.passes.count - 1;
        if (c.panel.rows != nullptr) fill_panel<T>(c, frame, pass, first(t) * T::lanes, t == c.tiles ? 1 : vectors_of(t));
        for (std::int64_t r = run_begin; r < run_end; ++r) one(t, run[r]);
      }
  }
}

}  // namespace
}  // namespace prunemap
