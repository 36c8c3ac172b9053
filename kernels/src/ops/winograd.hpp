// Convolution by Winograd's minimal filtering (Lavin and Gray, CVPR 2016): of cells of outputs, with fewer products.
#pragma once
#include <cstdint>
#include <cstring>

#include "../table.hpp"
#include "clamp.hpp"
#include "planes.hpp"

namespace prunemap {
namespace {

template <class T>
typename T::Vector scaled(float factor, typename T::Vector a, typename T::Vector b) {
  return T::fma(T::set1(factor), a, b);
}

template <class T>
typename T::Vector sub(typename T::Vector a, typename T::Vector b) {
  return scaled<T>(-1.0F, b, a);
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

// The N sums of a part, of N inputs each: `from` leads to these, sums go to `to`, `apart` floats from one to the next.
template <class T, int N>
void sum_part(const Part& part, const float* const (&from)[kMostInputs], float* to, std::int64_t apart, std::int64_t count) {
  for (std::int64_t x = 0; x < count; x += T::lanes) {
    typename T::Vector in[N];
#pragma GCC unroll 6
    for (int i = 0; i < N; ++i) in[i] = T::load(from[i] + x);
#pragma GCC unroll 6
    for (int i = 0; i < N; ++i) {
      typename T::Vector sum = T::set1(0.0F);
#pragma GCC unroll 6
      for (int j = 0; j < N; ++j) sum = scaled<T>(part.factor[i][j], in[j], sum);
      T::store(to + i * apart + x, sum);
    }
  }
}

template <class T>
void sum_part(const Part& part, const float* const (&from)[kMostInputs], float* to, std::int64_t apart, std::int64_t count) {
  switch (part.size) {
    case 2: return sum_part<T, 2>(part, from, to, apart, count);
    case 3: return sum_part<T, 3>(part, from, to, apart, count);
    case 4: return sum_part<T, 4>(part, from, to, apart, count);
    case 5: return sum_part<T, 5>(part, from, to, apart, count);
    default: return sum_part<T, 6>(part, from, to, apart, count);
  }
}

// Rows of one channel, as many as some rows of cells read, in rings: as they are, with their padding, taken apart, and with
// their columns transformed. Cells that follow one another share rows. Phase p of a row that is taken apart has the columns
// p, p + cell * step, ..., one for each cell.
struct Rows {
  float *plain, *phases, *between[2], *done;
  std::int64_t size, done_size;  // floats of a row
  std::int64_t ring;             // rows, a power of two: dividing takes as long as a row does otherwise
  std::int64_t end;              // rows before this one are there

  float* place(float* of, std::int64_t y) const { return of + (y & (ring - 1)) * (of == done ? done_size : size); }
};

// Takes a row apart. Only what cells read of it.
template <class T>
void make_phases(const Winograd& w, const Rows& rows, const float* row, float* into) {
  const std::int64_t phases = w.cell * w.columns.step, needed = w.line - kSlack;
  int next = 0;
  for (std::int64_t n = 1, apart = phases / 2; apart > 0; n *= 2, apart /= 2, next = 1 - next) {
    float* to = apart == 1 ? into : rows.between[next];
    for (std::int64_t p = 0; p < n; ++p)
      take_apart<T>(row + 2 * p * apart * w.line, to + p * apart * w.line, to + (p + n) * apart * w.line, apart * needed);
    row = to;
  }
}

// What no weight reads of a row is not told from zeros.
inline void fill_holes(const Winograd& w, std::int32_t channel, std::int64_t y, float* row, std::int64_t width) {
  for (std::int32_t i = w.hole_starts[channel]; i < w.hole_starts[channel + 1]; ++i) {
    const auto& [_, rows, columns] = w.holes[i];
    if (y < rows.first || y >= rows.end || (y - rows.first) % rows.step != 0) continue;
    const std::int64_t end = columns.end < width ? columns.end : width;
    for (std::int64_t x = columns.first; x < end; x += columns.step) row[x] = 0.0F;
  }
}

// Takes rows from `from` on, down to the one before `end`. Step by step for all of them: what was written a moment ago in
// other pieces than it is read in would be waited for.
template <class T>
void take_rows(const Winograd& w, Rows& rows, std::int32_t channel, const float* from, std::int64_t end) {
  const std::int64_t room = rows.size - w.columns.pad, width = w.from.width < room ? w.from.width : room;
  const std::int64_t begin = rows.end;
  rows.end = end;
  const auto padding = [&](std::int64_t y) { return y < w.rows.pad || y >= w.rows.pad + w.from.height; };
  for (std::int64_t y = begin; y < end; ++y) {
    if (padding(y)) continue;
    const std::int64_t source = y - w.rows.pad;
    float* row = rows.place(rows.plain, y) + w.columns.pad;
    std::memcpy(row, from + source * w.from.pitch, static_cast<std::size_t>(width) * sizeof(float));
    fill_holes(w, channel, source, row, width);
  }
  for (std::int64_t y = begin; y < end; ++y)
    if (!padding(y)) make_phases<T>(w, rows, rows.place(rows.plain, y), rows.place(rows.phases, y));
  for (std::int64_t y = begin; y < end; ++y) {
    float* to = rows.place(rows.done, y);
    if (padding(y)) {
      for (std::int64_t i = 0; i < rows.done_size; ++i) to[i] = 0.0F;
      continue;
    }
    const float* phases = rows.place(rows.phases, y);
    for (std::int32_t i = 0; i < w.columns.parts; ++i) {
      const Part& part = w.columns.part[i];
      const float* inputs[kMostInputs];
      for (int j = 0; j < kMostInputs; ++j) inputs[j] = phases + part.input[j];
      sum_part<T>(part, inputs, to, w.line, w.columns.count);
      to += part.size * w.line;
    }
  }
}

// What a row of cells reads, transformed: all terms of the rows with all of the columns, to planes from `to` on.
template <class T>
void spread_cells(const Winograd& w, const Rows& rows, std::int64_t top, float* to) {
  const std::int64_t below = w.columns.terms * w.stride;
  for (std::int32_t i = 0; i < w.rows.parts; ++i) {
    const Part& part = w.rows.part[i];
    const float* inputs[kMostInputs];
    for (int j = 0; j < kMostInputs; ++j) inputs[j] = rows.place(rows.done, top + part.input[j]);
    for (std::int32_t c = 0; c < w.columns.terms; ++c) {
      sum_part<T>(part, inputs, to + c * w.stride, below, w.columns.count);
      for (const float*& input : inputs) input += w.line;
    }
    to += part.size * below;
  }
}

// The inputs of a band of rows of cells. Rows are counted from the first of the padding.
template <class T>
void spread(const Winograd& w, const Frame& frame, std::int64_t first, std::int64_t cells) {
  float* memory = frame.arena + frame.scratch;
  const std::int64_t size = w.cell * w.columns.step * w.line, step = w.cell * w.rows.step, ring = w.ring;
  float *plain = memory + w.lines, *phases = plain + ring * size, *between = phases + ring * size;
  Rows rows{plain, phases, {between, between + size}, between + 2 * size, size, w.columns.terms * w.line, ring, 0};
  for (std::int64_t i = 0; i < ring * size; ++i) plain[i] = 0.0F;
  for (std::int32_t i = 0; i < w.channel_count; ++i) {
    const float* from = plane(w.from, frame, w.channels[i]);
    float* to = memory + std::int64_t{i} * w.rows.terms * w.columns.terms * w.stride;
    rows.end = first * step;
    for (std::int64_t cell = first; cell < first + cells; cell += kCellRows) {
      const std::int64_t left = first + cells - cell, together = left < kCellRows ? left : kCellRows;
      take_rows<T>(w, rows, i, from, (cell + together - 1) * step + w.rows.reach);
      for (std::int64_t c = 0; c < together; ++c, to += w.columns.count) spread_cells<T>(w, rows, (cell + c) * step, to);
    }
  }
}

// The outputs of a cell from its components, along one axis: of the points 0, 1, -1 and infinity.
template <class T>
[[gnu::always_inline]] inline void merge_cell(const typename T::Vector (&sum)[4], typename T::Vector (&out)[2]) {
  out[0] = T::add(T::add(sum[1], sum[2]), sum[0]);
  out[1] = T::add(sub<T>(sum[1], sum[2]), sum[3]);
}

// And of 0, 1, -1, 2, -2 and infinity.
template <class T>
[[gnu::always_inline]] inline void merge_cell(const typename T::Vector (&sum)[6], typename T::Vector (&out)[4]) {
  const typename T::Vector near = T::add(sum[1], sum[2]), far = T::add(sum[3], sum[4]);
  const typename T::Vector near_odd = sub<T>(sum[1], sum[2]), far_odd = sub<T>(sum[3], sum[4]);
  out[0] = T::add(T::add(near, far), sum[0]);
  out[1] = scaled<T>(2.0F, far_odd, near_odd);
  out[2] = scaled<T>(4.0F, far, near);
  out[3] = T::add(scaled<T>(8.0F, far_odd, near_odd), sum[5]);
}

// The components of a cell, `apart` floats from one to the next, of which that of the last finite point may be missing.
template <class T, int M, bool All>
[[gnu::always_inline]] inline void load_cell(const float* from, std::int64_t apart, typename T::Vector (&sum)[M + 2]) {
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i) sum[i] = T::load(from + i * apart);
  sum[M] = All ? T::load(from + M * apart) : T::set1(0.0F);
  sum[M + 1] = T::load(from + (All ? M + 1 : M) * apart);
}

// Outputs of cells next to one another, in the order of the row.
template <class T>
[[gnu::always_inline]] inline void join_cells(const typename T::Vector (&out)[2], typename T::Vector (&row)[2]) {
  T::join(out[0], out[1], row[0], row[1]);
}

template <class T>
[[gnu::always_inline]] inline void join_cells(const typename T::Vector (&out)[4], typename T::Vector (&row)[4]) {
  typename T::Vector even[2], odd[2];
  T::join(out[0], out[2], even[0], even[1]);
  T::join(out[1], out[3], odd[0], odd[1]);
  T::join(even[0], odd[0], row[0], row[1]);
  T::join(even[1], odd[1], row[2], row[3]);
}

// Stores the first `count` of a vector of outputs.
template <class T>
[[gnu::always_inline]] inline void finish(const Winograd& w, const float* residual, float* to, std::int64_t count,
                                          typename T::Vector value) {
  float kept[T::lanes];
  const bool whole = count >= T::lanes;
  if (residual != nullptr && !whole) {
    for (std::int64_t i = 0; i < T::lanes; ++i) kept[i] = i < count ? residual[i] : 0.0F;
    residual = kept;
  }
  typename T::Vector sum[1][1] = {{residual != nullptr ? T::add(value, T::load(residual)) : value}};
  clamp<T>(w.low, w.high, sum);
  if (whole) return T::store(to, sum[0][0]);
  T::store(kept, sum[0][0]);
  for (std::int64_t i = 0; i < count; ++i) to[i] = kept[i];
}

// Where the outputs of one filter for one row of cells go, and what is added to them.
struct Outputs {
  const float* residual;
  float* to;
  std::int64_t rows, pitch;
};

// The outputs of one filter for one row of cells, from the sums of its components.
template <class T, int M, bool AllRows, bool AllColumns>
void merge_rows(const Winograd& w, const Outputs& out, const float* sums, std::int64_t apart, float bias_value) {
  using Vector = typename T::Vector;
  const Vector bias = T::set1(bias_value);
  const std::int64_t width = w.to.width, cells = w.columns.count, down = (AllColumns ? M + 2 : M + 1) * apart;
  for (std::int64_t x = 0; x < cells; x += T::lanes) {
    Vector across[M][M + 2];
#pragma GCC unroll 6
    for (int c = 0; c < M + 2; ++c) {
      Vector sum[M + 2], rows[M];
      if (c == M && !AllColumns) {
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) across[i][c] = T::set1(0.0F);
        continue;
      }
      load_cell<T, M, AllRows>(sums + x + (c > M && !AllColumns ? M : c) * apart, down, sum);
      merge_cell<T>(sum, rows);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) across[i][c] = rows[i];
    }
#pragma GCC unroll 4
    for (int row = 0; row < M; ++row) {
      if (row == out.rows) break;
      Vector values[M], line[M];
      merge_cell<T>(across[row], values);
      join_cells<T>(values, line);
      const std::int64_t at = row * out.pitch + M * x, left = width - M * x;
#pragma GCC unroll 4
      for (int v = 0; v < M; ++v) {
        if (v * T::lanes >= left) break;
        const float* residual = out.residual == nullptr ? nullptr : out.residual + at + v * T::lanes;
        finish<T>(w, residual, out.to + at + v * T::lanes, left - v * T::lanes, T::add(line[v], bias));
      }
    }
  }
}

// The outputs of a chunk of filters for a band.
template <class T, int M, bool AllRows, bool AllColumns>
void merge(const Winograd& w, const Frame& frame, std::int64_t chunk, std::int64_t first, std::int64_t cells) {
  const std::int64_t begin = chunk * w.chunk, left = w.to.channels - begin, filters = left < w.chunk ? left : w.chunk;
  const std::int64_t each = w.rows.components * w.columns.components * w.stride;
  const float* sums = frame.arena + frame.scratch + w.sums;
  for (std::int64_t f = 0; f < filters; ++f, sums += each) {
    float* to = plane(w.to, frame, begin + f);
    const float* residual = w.residual.base < 0 ? nullptr : plane(w.residual, frame, begin + f);
    for (std::int64_t y = 0; y < cells; ++y) {
      const std::int64_t row = M * (first + y), at = row * w.to.pitch, rows = w.to.height - row;
      const Outputs out{residual == nullptr ? nullptr : residual + at, to + at, rows < M ? rows : M, w.to.pitch};
      merge_rows<T, M, AllRows, AllColumns>(w, out, sums + y * w.columns.count, w.stride, w.bias[begin + f]);
    }
  }
}

using Merge = void (*)(const Winograd&, const Frame&, std::int64_t, std::int64_t, std::int64_t);

template <class T, int M>
Merge merge_of(const Winograd& w) {
  const bool column = w.columns.components == M + 2;
  if (w.rows.components == M + 2) return column ? merge<T, M, true, true> : merge<T, M, true, false>;
  return column ? merge<T, M, false, true> : merge<T, M, false, false>;
}

// Units: chunks of filters of bands, those of one band together.
template <class T>
void winograd(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Winograd& w = *static_cast<const Winograd*>(parameters);
  const Frame own{frame.arena + frame.scratch, nullptr, nullptr, 0};  // products see the thread's memory only
  const Merge merge_chunk = w.cell == 4 ? merge_of<T, 4>(w) : merge_of<T, 2>(w);
  std::int64_t transformed = -1;
  for (std::int64_t unit = begin; unit < end; ++unit) {
    const std::int64_t band = unit / w.chunks, chunk = unit % w.chunks, first = band * w.band;
    const std::int64_t left = w.rows.count - first, cells = left < w.band ? left : w.band;
    if (band != transformed) spread<T>(w, frame, first, cells);
    transformed = band;
    PixelConv c = w.products;
    c.filters.run += w.runs[chunk];
    c.filters.runs = w.runs[chunk + 1] - w.runs[chunk];
    w.multiply(&c, own, 0, c.runs_outer ? c.filters.runs : c.tiles + (c.rest > 0 ? 1 : 0));
    merge_chunk(w, frame, chunk, first, cells);
  }
}

}  // namespace
}  // namespace prunemap
