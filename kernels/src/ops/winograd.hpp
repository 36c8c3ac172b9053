// Convolution by Winograd's minimal filtering (Lavin and Gray, CVPR 2016): of two by two outputs, with fewer products.
#pragma once
#include <cstdint>
#include <cstring>

#include "../table.hpp"
#include "clamp.hpp"
#include "planes.hpp"

namespace prunemap {
namespace {

template <class T>
typename T::Vector sub(typename T::Vector a, typename T::Vector b) {
  return T::fma(T::set1(-1.0F), b, a);
}

// Every second float of 2 * count, and the others.
template <class T>
void take_apart(const float* from, float* even, float* odd, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += T::lanes) {
    typename T::Vector a, b;
    T::split(from + 2 * i, a, b);
    T::store(even + i, a);
    T::store(odd + i, b);
  }
}

// Rows of one channel taken apart, as many as a pair of rows of outputs reads: phase p of a row has the columns p,
// p + 2 * step, ... of it and its padding, one for each pair of outputs. Pairs that follow one another share rows.
struct Taken {
  float *rows, *row, *halves;
  std::int64_t end;  // rows before this one are there
};

template <class T>
void take_row(const Winograd& w, const Taken& taken, const float* from, std::int64_t y) {
  const std::int64_t size = 2 * w.columns.step * w.line, room = size - w.columns.pad;
  const std::int64_t width = w.from.width < room ? w.from.width : room;
  float* to = taken.rows + (y + w.rows.pad) % w.rows.reach * size;
  if (y < 0 || y >= w.from.height) {
    for (std::int64_t i = 0; i < size; ++i) to[i] = 0.0F;
    return;
  }
  std::memcpy(taken.row + w.columns.pad, from + y * w.from.pitch, static_cast<std::size_t>(width) * sizeof(float));
  if (w.columns.step == 1) return take_apart<T>(taken.row, to, to + w.line, w.line);
  take_apart<T>(taken.row, taken.halves, taken.halves + 2 * w.line, 2 * w.line);
  take_apart<T>(taken.halves, to, to + 2 * w.line, w.line);
  take_apart<T>(taken.halves + 2 * w.line, to + w.line, to + 3 * w.line, w.line);
}

// The sum of the inputs of one term.
template <class T>
[[gnu::always_inline]] inline typename T::Vector term_of(const Term& t, const typename T::Vector& a,
                                                         const typename T::Vector& b) {
  return t.sign == 0.0F ? a : t.sign > 0.0F ? T::add(a, b) : sub<T>(a, b);
}

// What a pair of rows reads, transformed: all terms of the rows with all of the columns, to planes from `to` on.
template <class T>
void spread_terms(const Winograd& w, const Taken& taken, std::int64_t top, float* to) {
  const std::int64_t size = 2 * w.columns.step * w.line;
  for (std::int32_t r = 0; r < w.rows.terms; ++r) {
    const Term& down = w.rows.term[r];
    const float* first = taken.rows + (top + down.first) % w.rows.reach * size;
    const float* second = taken.rows + (top + down.second) % w.rows.reach * size;
    for (std::int32_t c = 0; c < w.columns.terms; ++c, to += w.stride) {
      const Term& along = w.columns.term[c];
      for (std::int64_t x = 0; x < w.columns.count; x += T::lanes) {
        const auto load = [&](const float* row) {
          return term_of<T>(along, T::load(row + along.first + x), T::load(row + along.second + x));
        };
        T::store(to + x, term_of<T>(down, load(first), load(second)));
      }
    }
  }
}

// The terms of F(2, 3).
template <class T>
[[gnu::always_inline]] inline void three_taps(const typename T::Vector (&d)[4], typename T::Vector (&t)[4]) {
  t[0] = sub<T>(d[0], d[2]);
  t[1] = T::add(d[1], d[2]);
  t[2] = sub<T>(d[2], d[1]);
  t[3] = sub<T>(d[1], d[3]);
}

// The same where both axes have three taps and no stride, which leaves everything in registers.
template <class T>
void spread_three_taps(const Winograd& w, const Taken& taken, std::int64_t top, float* to) {
  const std::int64_t stride = w.stride, count = w.columns.count, line = w.line;  // not read again after every store
  const float* row[4];
  for (int i = 0; i < 4; ++i) row[i] = taken.rows + (top + i) % 4 * 2 * w.line;
  for (std::int64_t x = 0; x < count; x += T::lanes) {
    typename T::Vector along[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float *even = row[i] + x, *odd = even + line;
      const typename T::Vector d[4] = {T::load(even), T::load(odd), T::load(even + 1), T::load(odd + 1)};
      three_taps<T>(d, along[i]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const typename T::Vector d[4] = {along[0][c], along[1][c], along[2][c], along[3][c]};
      typename T::Vector t[4];
      three_taps<T>(d, t);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) T::store(to + (4 * r + c) * stride + x, t[r]);
    }
  }
}

// The inputs of a band of pairs of rows. Rows are counted from the first of the padding.
template <class T>
void spread(const Winograd& w, const Frame& frame, std::int64_t first, std::int64_t pairs) {
  float* memory = frame.arena + frame.scratch;
  const std::int64_t size = 2 * w.columns.step * w.line, step = 2 * w.rows.step;
  Taken taken{memory + w.lines, memory + w.lines + w.rows.reach * size, memory + w.lines + (w.rows.reach + 1) * size, 0};
  for (std::int64_t i = 0; i < size; ++i) taken.row[i] = 0.0F;
  for (std::int32_t i = 0; i < w.channel_count; ++i) {
    const float* from = plane(w.from, frame, w.channels[i]);
    float* to = memory + std::int64_t{i} * w.rows.terms * w.columns.terms * w.stride;
    taken.end = first * step;
    for (std::int64_t pair = first; pair < first + pairs; ++pair, to += w.columns.count) {
      for (; taken.end < pair * step + w.rows.reach; ++taken.end) take_row<T>(w, taken, from, taken.end - w.rows.pad);
      if (w.three_taps) {
        spread_three_taps<T>(w, taken, pair * step, to);
      } else {
        spread_terms<T>(w, taken, pair * step, to);
      }
    }
  }
}

// Both outputs of a pair from the sums of its components.
template <class T>
[[gnu::always_inline]] inline void merge_pair(const typename T::Vector (&sum)[4], typename T::Vector& first,
                                              typename T::Vector& second) {
  first = T::add(T::add(sum[0], sum[1]), sum[2]);
  second = sub<T>(sub<T>(sum[1], sum[2]), sum[3]);
}

// The components of a pair, `apart` floats from one to the next, of which the third may be missing.
template <class T, bool Third>
[[gnu::always_inline]] inline void load_pair(const float* from, std::int64_t apart, typename T::Vector (&sum)[4]) {
  sum[0] = T::load(from);
  sum[1] = T::load(from + apart);
  sum[2] = Third ? T::load(from + 2 * apart) : T::set1(0.0F);
  sum[3] = T::load(from + (Third ? 3 : 2) * apart);
}

// Stores the first `count` of two vectors of outputs.
template <class T>
[[gnu::always_inline]] inline void finish(const Winograd& w, const float* residual, float* to, std::int64_t count,
                                          typename T::Vector (&value)[1][2]) {
  constexpr std::int64_t both = 2 * T::lanes;
  float kept[both];
  const bool whole = count >= both;
  if (residual != nullptr && !whole) {
    for (std::int64_t i = 0; i < both; ++i) kept[i] = i < count ? residual[i] : 0.0F;
    residual = kept;
  }
  if (residual != nullptr)
    for (int v = 0; v < 2; ++v) value[0][v] = T::add(value[0][v], T::load(residual + v * T::lanes));
  clamp<T>(w.low, w.high, value);
  float* target = whole ? to : kept;
  for (int v = 0; v < 2; ++v) T::store(target + v * T::lanes, value[0][v]);
  for (std::int64_t i = 0; !whole && i < count; ++i) to[i] = kept[i];
}

// Where the outputs of one filter for one pair of rows go, and what is added to them.
struct Outputs {
  const float* residual;
  float* to;
  std::int64_t rows, pitch;
};

// The outputs of one filter for one pair of rows, from the sums of its components.
template <class T, bool ThirdRow, bool ThirdColumn>
void merge_rows(const Winograd& w, const Outputs& out, const float* sums, std::int64_t apart, float bias_value) {
  using Vector = typename T::Vector;
  const Vector bias = T::set1(bias_value);
  const std::int64_t width = w.to.width, pairs = w.columns.count, down = (ThirdColumn ? 4 : 3) * apart;
  for (std::int64_t x = 0; x < pairs; x += T::lanes) {
    Vector across[2][4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      if (c == 2 && !ThirdColumn) {
        across[0][c] = across[1][c] = T::set1(0.0F);
        continue;
      }
      Vector sum[4];
      load_pair<T, ThirdRow>(sums + x + (c == 3 && !ThirdColumn ? 2 : c) * apart, down, sum);
      merge_pair<T>(sum, across[0][c], across[1][c]);
    }
#pragma GCC unroll 2
    for (int row = 0; row < 2; ++row) {
      if (row == out.rows) break;
      Vector even, odd, value[1][2];
      merge_pair<T>(across[row], even, odd);
      T::join(T::add(even, bias), T::add(odd, bias), value[0][0], value[0][1]);
      const std::int64_t at = row * out.pitch + 2 * x;
      finish<T>(w, out.residual == nullptr ? nullptr : out.residual + at, out.to + at, width - 2 * x, value);
    }
  }
}

// The outputs of a chunk of filters for a band.
template <class T, bool ThirdRow, bool ThirdColumn>
void merge(const Winograd& w, const Frame& frame, std::int64_t chunk, std::int64_t first, std::int64_t pairs) {
  const std::int64_t begin = chunk * w.chunk, left = w.to.channels - begin, filters = left < w.chunk ? left : w.chunk;
  const float* sums = frame.arena + frame.scratch + w.sums;
  for (std::int64_t f = 0; f < filters; ++f, sums += w.stride) {
    float* to = plane(w.to, frame, begin + f);
    const float* residual = w.residual.base < 0 ? nullptr : plane(w.residual, frame, begin + f);
    for (std::int64_t y = 0; y < pairs; ++y) {
      const std::int64_t row = 2 * (first + y), at = row * w.to.pitch, rows = w.to.height - row;
      const Outputs out{residual == nullptr ? nullptr : residual + at, to + at, rows < 2 ? rows : 2, w.to.pitch};
      merge_rows<T, ThirdRow, ThirdColumn>(w, out, sums + y * w.columns.count, filters * w.stride, w.bias[begin + f]);
    }
  }
}

// Units: chunks of filters of bands, those of one band together.
template <class T>
void winograd(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Winograd& w = *static_cast<const Winograd*>(parameters);
  const Frame own{frame.arena + frame.scratch, nullptr, nullptr, 0};  // products see the thread's memory only
  const bool row = w.rows.components == 4, column = w.columns.components == 4;
  const auto merge_chunk = row ? (column ? merge<T, true, true> : merge<T, true, false>)
                               : (column ? merge<T, false, true> : merge<T, false, false>);
  std::int64_t transformed = -1;
  for (std::int64_t unit = begin; unit < end; ++unit) {
    const std::int64_t band = unit / w.chunks, chunk = unit % w.chunks, first = band * w.band;
    const std::int64_t left = w.rows.count - first, pairs = left < w.band ? left : w.band;
    if (band != transformed) spread<T>(w, frame, first, pairs);
    transformed = band;
    PixelConv c = w.products;
    c.filters.run += w.runs[chunk];
    c.filters.runs = w.runs[chunk + 1] - w.runs[chunk];
    w.multiply(&c, own, 0, c.runs_outer ? c.filters.runs : c.tiles + (c.rest > 0 ? 1 : 0));
    merge_chunk(w, frame, chunk, first, pairs);
  }
}

}  // namespace
}  // namespace prunemap
