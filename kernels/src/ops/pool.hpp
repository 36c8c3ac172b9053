// Maxima and averages over windows.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "planes.hpp"

namespace prunemap {
namespace {

struct Window {
  std::int64_t begin, end;
};

// Output columns whose tap at `offset` from the window's corner lies inside the input.
inline Window inside(std::int64_t offset, std::int64_t step, std::int64_t size, std::int64_t outputs) {
  const std::int64_t begin = offset < 0 ? (-offset + step - 1) / step : 0;
  const std::int64_t last = size - 1 - offset;
  const std::int64_t end = last < 0 ? 0 : last / step + 1;
  return {begin < outputs ? begin : outputs, end < outputs ? end : outputs};
}

template <int Step, bool Max>
void pool_tap(const float* from, float* to, Window w, std::int64_t step) {
  for (std::int64_t x = w.begin; x < w.end; ++x) {
    const float value = from[x * (Step > 0 ? Step : step)];
    if (Max) {
      to[x] = to[x] > value || to[x] != to[x] ? to[x] : value;  // a NaN comes out
    } else {
      to[x] += value;
    }
  }
}

template <bool Max>
void pool_tap(const float* from, float* to, Window w, std::int64_t step) {
  if (step == 1) return pool_tap<1, Max>(from, to, w, step);
  if (step == 2) return pool_tap<2, Max>(from, to, w, step);
  pool_tap<0, Max>(from, to, w, step);
}

inline void pool_row(const Pool& p, const float* from, float* to, std::int64_t y) {
  const bool max = p.kind == PoolKind::max;
  for (std::int64_t x = 0; x < p.to.width; ++x) to[x] = max ? -__builtin_inff() : 0.0F;
  const std::int64_t top = y * p.step_y - p.pad_y;
  const std::int64_t bottom = p.from.height - top < p.kernel_y ? p.from.height - top : p.kernel_y;
  for (std::int64_t r = top < 0 ? -top : 0; r < bottom; ++r) {
    for (std::int64_t s = 0; s < p.kernel_x; ++s) {
      const Window w = inside(s - p.pad_x, p.step_x, p.from.width, p.to.width);
      const float* tap = from + (top + r) * p.from.pitch + s - p.pad_x;
      max ? pool_tap<true>(tap, to, w, p.step_x) : pool_tap<false>(tap, to, w, p.step_x);
    }
  }
}

// Positions of one window that count: those inside the input or, with padding counted, inside the padded input.
inline std::int64_t counted(std::int64_t start, std::int64_t kernel, std::int64_t size, std::int64_t pad, bool padding) {
  const std::int64_t first = padding ? -pad : 0, stop = padding ? size + pad : size;
  const std::int64_t begin = start > first ? start : first, end = start + kernel < stop ? start + kernel : stop;
  return end - begin;
}

inline void divide_row(const Pool& p, float* to, std::int64_t y) {
  const std::int64_t rows = counted(y * p.step_y - p.pad_y, p.kernel_y, p.from.height, p.pad_y, p.count_padding);
  for (std::int64_t x = 0; x < p.to.width; ++x) {
    const std::int64_t columns = counted(x * p.step_x - p.pad_x, p.kernel_x, p.from.width, p.pad_x, p.count_padding);
    to[x] /= static_cast<float>(rows * columns);
  }
}

template <class T>
float plane_mean(const Pool& p, const float* from) {
  const std::int64_t flat = std::int64_t{p.from.pitch} * (p.from.height - 1) + p.from.width;
  typename T::Vector sum = T::set1(0.0F), other = sum;
  std::int64_t i = 0;
  for (; i + T::lanes < flat; i += 2 * T::lanes) {
    sum = T::add(sum, T::load(from + i));
    other = T::add(other, T::load(from + i + T::lanes));
  }
  if (i < flat) sum = T::add(sum, T::load(from + i));
  alignas(64) float part[T::lanes];
  T::store(part, T::add(sum, other));
  for (int width = T::lanes / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) part[lane] += part[lane + width];
  return part[0] / static_cast<float>(p.from.height * p.from.width);
}

constexpr int kMaxLine = 1024, kMaxPad = 16;  // floats of a row, and beside it, that the fast path has room for

// Maxima of the rows of a window, column by column, with what stands for padding on both sides.
template <class T>
void max_rows(const Pool& p, const float* from, float* line, std::int64_t y) {
  const std::int64_t top = y * p.step_y - p.pad_y, bottom = top + p.kernel_y, width = p.from.width;
  const std::int64_t begin = top > 0 ? top : 0, end = bottom < p.from.height ? bottom : p.from.height;
  for (int i = 0; i < kMaxPad; ++i) line[i - kMaxPad] = line[width + i] = -__builtin_inff();
  std::int64_t x = 0;
  for (; x + T::lanes <= width; x += T::lanes) {
    typename T::Vector most = T::set1(-__builtin_inff());
    for (std::int64_t row = begin; row < end; ++row) most = T::max_nan(most, T::load(from + row * p.from.pitch + x));
    T::store(line + x, most);
  }
  for (; x < width; ++x) {
    float most = -__builtin_inff();
    for (std::int64_t row = begin; row < end; ++row) {
      const float value = from[row * p.from.pitch + x];
      most = most > value || most != most ? most : value;
    }
    line[x] = most;
  }
}

// Every second column, from the maxima of the rows. Whole vectors as long as they fit into the row.
template <class T>
void max_halves(const Pool& p, const float* line, float* to) {
  const float* first = line - p.pad_x;
  std::int64_t x = 0;
  for (; x + T::lanes <= p.to.width; x += T::lanes) {
    typename T::Vector most = T::set1(-__builtin_inff());
    for (std::int64_t s = 0; s < p.kernel_x; ++s) {
      typename T::Vector even, odd;
      T::split(first + 2 * x + s, even, odd);
      most = T::max_nan(most, even);
    }
    T::store(to + x, most);
  }
  for (; x < p.to.width; ++x) {
    float most = -__builtin_inff();
    for (std::int64_t s = 0; s < p.kernel_x; ++s) {
      const float value = first[2 * x + s];
      most = most > value || most != most ? most : value;
    }
    to[x] = most;
  }
}

// Whether windows move by two columns, reach no further than kMaxPad beyond the row, and the row is not too long.
inline bool halves(const Pool& p) {
  const std::int64_t reach = 2 * (std::int64_t{p.to.width} - 1) - p.pad_x + p.kernel_x;
  return p.kind == PoolKind::max && p.step_x == 2 && p.pad_x <= kMaxPad && p.from.width <= kMaxLine &&
         reach <= p.from.width + kMaxPad;
}

// Units: channels.
template <class T>
void pool(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Pool& p = *static_cast<const Pool*>(parameters);
  for (std::int64_t channel = begin; channel < end; ++channel) {
    const float* from = plane(p.from, frame, channel);
    float* to = plane(p.to, frame, channel);
    if (p.whole) {
      to[0] = plane_mean<T>(p, from);
      continue;
    }
    for (std::int64_t y = 0; y < p.to.height; ++y) {
      float* line = to + y * p.to.pitch;
      if (halves(p)) {
        alignas(64) float rows[kMaxLine + 2 * kMaxPad + 2 * T::lanes];
        max_rows<T>(p, from, rows + kMaxPad, y);
        max_halves<T>(p, rows + kMaxPad, line);
        continue;
      }
      pool_row(p, from, line, y);
      if (p.kind == PoolKind::average) divide_row(p, line, y);
    }
  }
}

}  // namespace
}  // namespace prunemap
