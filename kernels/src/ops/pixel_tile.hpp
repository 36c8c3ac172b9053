// Tiles of convolutions with pixels in the lanes: the filters of a run share one list of input offsets.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "channel_conv.hpp"
#include "clamp.hpp"
#include "fetch.hpp"

namespace prunemap {
namespace {

// Entries of a list for which the filters of a run take turns: their inputs stay in the first-level cache meanwhile.
constexpr std::int32_t kTurn = 64;

// Vectors per tile for `size` filters: what keeps the accumulators and the operands of a turn in registers.
template <class T>
constexpr int max_vectors(int size) {
  if (T::registers >= 32) return size == 1 ? 12 : size == 2 ? 12 : size == 4 ? 6 : 3;
  return size == 1 ? 12 : size == 2 ? 6 : 3;
}

// Filters of a turn: as many as have their accumulators in registers beside `vectors` vectors.
template <class T>
constexpr int turn_size(int size, int vectors) {
  const int accumulators = T::registers >= 32 ? 24 : 12;
  return size * vectors > accumulators && size > 1 ? turn_size<T>(size / 2, vectors) : size;
}

constexpr int kMaxRest = 8;  // beyond, another vector of pixels costs as little

// Most pixels beyond the last vector of a plane that `size` filters compute with filters in the lanes.
template <class T>
constexpr int max_rest(int size) {
  const int vectors = size / T::Square::lanes;
  if (vectors == 0) return 0;
  return max_pixels<typename T::Square>(vectors) < kMaxRest ? max_pixels<typename T::Square>(vectors) : kMaxRest;
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
[[gnu::always_inline]] inline void pixel_begin(const PixelConv& c, std::int32_t filter, const float* arena,
                                               typename T::Vector (&acc)[G][V]) {
  const float* bias = c.filters.bias + filter;
  const float* sums = arena + c.passes.sums + std::int64_t{filter} * c.passes.pitch;
  if (c.passes.first) {
#pragma GCC unroll 16
    for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[g][v] = T::set1(bias[g]);
  } else {
#pragma GCC unroll 16
    for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[g][v] = T::load(sums + g * c.passes.pitch + v * T::lanes);
  }
}

// Sums that wait for the next pass.
template <class T, int G, int V>
[[gnu::always_inline]] inline void pixel_wait(const PixelConv& c, std::int32_t filter, float* arena,
                                              const typename T::Vector (&acc)[G][V]) {
  const std::int64_t pitch = c.passes.pitch;
  float* sums = arena + c.passes.sums + filter * pitch;
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g, sums += pitch)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) T::store(sums + v * T::lanes, acc[g][v]);
}

// One step for all sums before the next, and no parameter read between stores, which could have changed it for all the
// compiler knows: after short lists this is much of a tile's time.
template <class T, int G, int V>
[[gnu::always_inline]] inline void pixel_end(const PixelConv& c, std::int32_t filter, float* arena, std::int64_t p,
                                             const typename T::Vector (&sums)[G][V]) {
  if (!c.passes.last) return pixel_wait<T, G, V>(c, filter, arena, sums);
  const std::int32_t* rows = c.filters.rows + filter;
  const std::int32_t* mask = c.mask;
  typename T::Vector acc[G][V];
  float* to[G];
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g) {
    to[g] = arena + c.out + rows[g] * c.out_stride + p;
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[g][v] = sums[g][v];
  }
  if (c.residual >= 0) {
#pragma GCC unroll 16
    for (int g = 0; g < G; ++g) {
      const float* from = arena + c.residual + rows[g] * c.residual_stride + p;
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[g][v] = T::add(acc[g][v], T::load(from + v * T::lanes));
    }
  }
  clamp<T>(c.filters.low, c.filters.high, acc);
  if (mask != nullptr) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      const typename T::Vector keep = T::mask(mask + p + v * T::lanes);
#pragma GCC unroll 16
      for (int g = 0; g < G; ++g) acc[g][v] = T::keep(acc[g][v], keep);
    }
  }
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) T::store(to[g] + v * T::lanes, acc[g][v]);
}

// What is added in the end may come from far away, and where tiles go from plane to plane no prefetcher of a CPU
// foresees it.
template <int G, int Floats>
[[gnu::always_inline]] inline void fetch_residual(const PixelConv& c, const Run& run, const float* arena, std::int64_t p) {
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g) fetch<Floats>(arena + c.residual + c.filters.rows[run.filter + g] * c.residual_stride + p);
}

// The next U entries of a list, for filters that have G of the W weights stored with each, added to P partial sums in
// turn. Fetches the inputs that are read `Ahead` entries later, and weights.
template <class T, int G, int V, int W, int U, int Ahead, bool Weights, int P>
[[gnu::always_inline]] inline void pixel_steps(const float* in, const std::int32_t* offset, const float* weight,
                                               typename T::Vector (&acc)[P][G][V]) {
  if constexpr (Weights) fetch_lines<U * W>(weight + kWeightsAhead);
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u) {
    if constexpr (Ahead > 0) fetch<V * T::lanes>(at(in, offset[u + Ahead]));
    pixel_step<T, G, V>(at(in, offset[u]), weight + u * W, acc[u % P]);
  }
}

// Entries of a list per turn of its loop: several where they are few multiply-adds for what goes around them. Of more
// filters, the sums would not stay in their registers.
constexpr int entries_at_once(int size, int sums) { return size < 4 && sums < 4 ? 4 : sums; }

// `count` entries of a list, of which the inputs of the first `known` are followed by others `Ahead` entries later.
template <class T, int G, int V, int W, int Ahead, bool Weights, int P>
[[gnu::always_inline]] inline void pixel_list(const float* in, const std::int32_t* offset, const float* weight,
                                              std::int32_t count, std::int32_t known,
                                              typename T::Vector (&acc)[P][G][V]) {
  constexpr int U = entries_at_once(G, P);
  std::int32_t k = 0;
  if constexpr (Ahead > 0)
    for (const std::int32_t end = known < count ? known : count; k + U <= end; k += U, offset += U, weight += U * W)
      pixel_steps<T, G, V, W, U, Ahead, Weights>(in, offset, weight, acc);
  for (; k + U <= count; k += U, offset += U, weight += U * W)
    pixel_steps<T, G, V, W, U, 0, Weights>(in, offset, weight, acc);
  for (; k < count; ++k, ++offset, weight += W) pixel_step<T, G, V>(at(in, *offset), weight, acc[0]);
}

// H of a run's G filters, from `first` on, whose sums are in registers from the first entry to the last.
template <class T, int H, int V, int G, int Ahead>
[[gnu::always_inline]] inline void pixel_part(const PixelConv& c, const Run& run, int first, float* arena, std::int64_t p) {
  constexpr int P = split<T>(H * V);
  typename T::Vector acc[P][H][V] = {};
  pixel_begin<T, H, V>(c, run.filter + first, arena, acc[0]);
  pixel_list<T, H, V, G, Ahead, true>(arena + c.in + p, c.filters.offsets + run.offsets,
                                      c.filters.weights + run.weights + first, run.count,
                                      c.panel.rows == nullptr ? run.count - Ahead : 0, acc);
#pragma GCC unroll 8
  for (int u = 1; u < P; ++u)
#pragma GCC unroll 16
    for (int g = 0; g < H; ++g)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[0][g][v] = T::add(acc[0][g][v], acc[u][g][v]);
  pixel_end<T, H, V>(c, run.filter + first, arena, p, acc[0]);
}

// One turn: entries for H of the run's filters, whose sums are taken up where they were left.
template <class T, int H, int V, int G, int Ahead, bool Weights>
[[gnu::always_inline]] inline void pixel_turn(const float* in, const std::int32_t* offset, const float* weight,
                                              std::int32_t left, typename T::Vector (&sums)[H][V]) {
  typename T::Vector acc[1][H][V];
#pragma GCC unroll 16
  for (int g = 0; g < H; ++g)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[0][g][v] = sums[g][v];
  pixel_list<T, H, V, G, Ahead, Weights>(in, offset, weight, left < kTurn ? left : kTurn, left - kTurn, acc);
#pragma GCC unroll 16
  for (int g = 0; g < H; ++g)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sums[g][v] = acc[0][g][v];
}

// A run whose filters take turns of H.
template <class T, int G, int H, int V>
[[gnu::always_inline]] inline void pixel_turns(const PixelConv& c, const Run& run, float* arena, std::int64_t p) {
  constexpr int last = G / H - 1;
  typename T::Vector acc[G / H][H][V];
  const float* in = arena + c.in + p;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  for (int t = 0; t <= last; ++t) pixel_begin<T, H, V>(c, run.filter + t * H, arena, acc[t]);
  for (std::int32_t left = run.count; left > 0; left -= kTurn, offset += kTurn, weight += kTurn * G) {
    for (int t = 0; t < last; ++t) pixel_turn<T, H, V, G, 0, true>(in, offset, weight + t * H, left, acc[t]);
    pixel_turn<T, H, V, G, kTurn, false>(in, offset, weight + last * H, left, acc[last]);
  }
  for (int t = 0; t <= last; ++t) pixel_end<T, H, V>(c, run.filter + t * H, arena, p, acc[t]);
}

template <class T, int G, int V>
void pixel_tile(const PixelConv& c, const Run& run, float* arena, std::int64_t p) {
  constexpr int H = turn_size<T>(G, V);
  constexpr int ahead = H >= 4 && H * V >= kBusy ? kEntriesAhead : 0;  // of fewer filters, pixels are many loads
  if (c.residual >= 0 && !c.runs_outer && c.passes.last) fetch_residual<G, V * T::lanes>(c, run, arena, p);
  if constexpr (H == G) {
    pixel_part<T, G, V, G, ahead>(c, run, 0, arena, p);
  } else if (run.count > kTurn) {
    pixel_turns<T, G, H, V>(c, run, arena, p);
  } else {  // each filter has one turn
    pixel_part<T, H, V, G, ahead>(c, run, 0, arena, p);
    for (int first = H; first < G; first += H) pixel_part<T, H, V, G, 0>(c, run, first, arena, p);
  }
}

// Entries read by the filters of the set S (bit g: filter g of the run): loaded once, multiplied for those filters only.
template <class T, int G, int V, int S>
[[gnu::always_inline]] inline void jam_step(const float* x, const float* weight, typename T::Vector (&acc)[G][V]) {
  typename T::Vector held[V];
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) held[v] = T::load(x + v * T::lanes);
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    if ((S >> g & 1) == 0) continue;
    const typename T::Vector w = T::set1(weight[__builtin_popcount(S & ((1 << g) - 1))]);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) acc[g][v] = T::fma(w, held[v], acc[g][v]);
  }
}

// One loop per set of filters; moves on to what follows.
template <class T, int G, int V, int S>
[[gnu::always_inline]] inline void jam(const float* in, const std::int32_t* counts, const std::int32_t*& offset,
                                       const float*& weight, typename T::Vector (&acc)[G][V]) {
  for (const std::int32_t* end = offset + counts[S - 1]; offset < end; ++offset, weight += __builtin_popcount(S))
    jam_step<T, G, V, S>(at(in, *offset), weight, acc);
  if constexpr (S + 1 < 1 << G) jam<T, G, V, S + 1>(in, counts, offset, weight, acc);
}

// A block of input channels after the other, so that all taps of one find it in the first-level cache; the list of a
// block is sorted by the sets of filters that read an entry, so that no zeros are stored (unroll-and-sparse-jam,
// Wilkinson et al., PLDI 2023).
template <class T, int G, int V>
void jammed_tile(const PixelConv& c, const Run& run, float* arena, std::int64_t p) {
  typename T::Vector acc[G][V];
  pixel_begin<T, G, V>(c, run.filter, arena, acc);
  const std::int32_t* counts = c.filters.sets + (&run - c.filters.run) * c.filters.blocks * kSets;
  const std::int32_t* offset = c.filters.offsets + run.offsets;
  const float* weight = c.filters.weights + run.weights;
  for (std::int32_t b = 0; b < c.filters.blocks; ++b, counts += kSets)
    jam<T, G, V, 1>(arena + c.in + p, counts, offset, weight, acc);
  pixel_end<T, G, V>(c, run.filter, arena, p, acc);
}

using PixelTile = void (*)(const PixelConv&, const Run&, float*, std::int64_t);

struct PixelTiles {
  PixelTile tile[2][kSizes][12];  // jammed or not, log2 filters, vectors - 1
};

template <class T, bool Jammed, int G, int V>
constexpr PixelTile pixel_entry() {
  if constexpr (V > max_vectors<T>(G)) {
    return nullptr;
  } else if constexpr (!Jammed || G == 1) {  // one filter: nothing to share
    return pixel_tile<T, G, V>;
  } else if constexpr (G <= kMaxJammed) {
    return jammed_tile<T, G, V>;
  } else {
    return nullptr;
  }
}

#define PRUNEMAP_FOUR(J, G, V) \
  pixel_entry<T, J, G, V>(), pixel_entry<T, J, G, V + 1>(), pixel_entry<T, J, G, V + 2>(), pixel_entry<T, J, G, V + 3>()
#define PRUNEMAP_ROW(J, G) {PRUNEMAP_FOUR(J, G, 1), PRUNEMAP_FOUR(J, G, 5), PRUNEMAP_FOUR(J, G, 9)}
#define PRUNEMAP_SIZES(J) \
  {PRUNEMAP_ROW(J, 1), PRUNEMAP_ROW(J, 2), PRUNEMAP_ROW(J, 4), PRUNEMAP_ROW(J, 8), PRUNEMAP_ROW(J, 16)}

template <class T>
constexpr PixelTiles pixel_tiles = {{PRUNEMAP_SIZES(false), PRUNEMAP_SIZES(true)}};

#undef PRUNEMAP_SIZES
#undef PRUNEMAP_ROW
#undef PRUNEMAP_FOUR

}  // namespace
}  // namespace prunemap
