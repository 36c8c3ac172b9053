// Copying planes, or taking them apart by phases for convolutions with a stride.
#pragma once
#include <cstdint>

#include "../table.hpp"
#include "planes.hpp"

namespace prunemap {
namespace {

template <int Step>
void copy_row(const float* from, float* to, std::int64_t count, std::int64_t step) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i * (Step > 0 ? Step : step)];
}

// A compile-time step lets the compiler turn the loop into vector code.
inline void copy_row(const float* from, float* to, std::int64_t count, std::int64_t step) {
  if (step == 1) return copy_row<1>(from, to, count, step);
  copy_row<0>(from, to, count, step);
}

// The columns of a phase that lie in the source: of the target from `begin`, to be read from `first` on.
struct Columns {
  std::int64_t begin, first;
};

inline Columns columns_of(const Stage& s, std::int64_t f) {
  const std::int64_t column = s.phase[f].column, left = column < 0 ? (s.step_x - 1 - column) / s.step_x : 0;
  const std::int64_t begin = left < s.to.width ? left : s.to.width;
  return {begin, column + begin * s.step_x};
}

// How many columns from `first` on there are, to be written from `begin` on.
inline std::int64_t count_of(const Stage& s, std::int64_t begin, std::int64_t first) {
  const std::int64_t reach = first < s.from.width ? (s.from.width - first + s.step_x - 1) / s.step_x : 0;
  return reach < s.to.width - begin ? reach : s.to.width - begin;
}

inline void clear_left(const Stage& s, float* to, std::int64_t count) {
  for (std::int64_t y = 0; y < s.to.height; ++y)
    for (std::int64_t x = 0; x < count; ++x) to[y * s.to.pitch + x] = 0.0F;
}

inline void stage_plane(const Stage& s, const Frame& frame, std::int64_t channel, std::int64_t f) {
  const Columns c = columns_of(s, f);
  const float* from = plane(s.from, frame, channel) + c.first;
  float* to = plane(s.to, frame, channel * s.phases + f);
  clear_left(s, to, c.begin);
  const std::int64_t columns = count_of(s, c.begin, c.first), width = s.to.width - c.begin;
  for (std::int64_t y = 0; y < s.to.height; ++y) {
    const std::int64_t row = s.phase[f].row + y * s.step_y;
    float* line = to + y * s.to.pitch + c.begin;
    const std::int64_t copied = row < s.from.height ? columns : 0;
    copy_row(from + row * s.from.pitch, line, copied, s.step_x);
    for (std::int64_t x = copied; x < width; ++x) line[x] = 0.0F;
  }
}

// Planes that are alike but for a shift, walked flat.
template <class T>
void stage_flat(const Stage& s, const Frame& frame, std::int64_t channel) {
  const float* from = plane(s.from, frame, channel);
  for (std::int64_t f = 0; f < s.phases; ++f) {
    const float* shifted = from + s.phase[f].column;
    float* to = plane(s.to, frame, channel * s.phases + f);
    const std::int32_t* mask = s.mask[f];
    for (std::int64_t i = 0; i < std::int64_t{s.vectors} * T::lanes; i += T::lanes)
      T::store(to + i, T::keep(T::load(shifted + i), T::mask(mask + i)));
  }
}

alignas(64) constexpr std::int32_t edge[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

// All ones in the first `count` of T::lanes lanes.
template <class T>
typename T::Vector first_lanes(std::int64_t count) {
  return T::mask(edge + 16 - (count < 0 ? 0 : count < T::lanes ? count : T::lanes));
}

// Phases of one row with a stride of two along it: those of the columns 0, 1 and -1, where they are, and the first phase
// that is none of them.
struct Halves {
  std::int64_t even, odd, before, end;
};

inline Halves halves_at(const Stage& s, std::int64_t f) {
  Halves found{-1, -1, -1, f};
  for (std::int64_t& i = found.end; i < s.phases && s.phase[i].row == s.phase[f].row; ++i) {
    const std::int32_t column = s.phase[i].column;
    if (column < -1 || column > 1) break;
    std::int64_t& place = column < 0 ? found.before : column == 0 ? found.even : found.odd;
    if (place >= 0) break;  // there twice
    place = i;
  }
  return found;
}

// Every second float of the rows of a plane, and the others, as they are and behind a zero. A row's last vector may run
// on into zeros and the next row, which is written after it; it may not leave the plane, nor be read beyond the buffer.
// What lies well within a row needs no masks.
template <class T>
void stage_halves(const Stage& s, const Frame& frame, std::int64_t channel, const Halves& h, std::int64_t phase_row) {
  const std::int64_t width = s.to.width, pitch = s.to.pitch, space = s.to.stride;
  const std::int64_t evens = (s.from.width + 1) / 2, odds = s.from.width / 2;
  const std::int64_t even_end = evens < width ? evens : width, odd_end = odds < width ? odds : width;
  const std::int64_t within = odd_end < width ? odd_end : width - 1;  // floats that all three have
  const float* from = plane(s.from, frame, channel);
  const std::int64_t left = s.readable - s.from.base - channel * s.from.stride - 2 * T::lanes;
  const auto to = [&](std::int64_t f) { return f < 0 ? nullptr : plane(s.to, frame, channel * s.phases + f); };
  float *even = to(h.even), *odd = to(h.odd), *before = to(h.before);
  const std::int64_t whole = within / T::lanes * T::lanes;
  const typename T::Vector keep_even = first_lanes<T>(even_end - whole), keep_odd = first_lanes<T>(odd_end - whole),
                           keep_before = first_lanes<T>(within - whole);
  for (std::int64_t y = 0, line = 0; y < s.to.height; ++y, line += pitch) {
    const std::int64_t row = phase_row + y * s.step_y, at = row * s.from.pitch;
    const bool there = row < s.from.height;
    std::int64_t x = 0;
    if (before != nullptr) before[line] = 0.0F;
    typename T::Vector a, b;
    for (; there && x < whole; x += T::lanes) {
      T::split(from + at + 2 * x, a, b);
      if (even != nullptr) T::store(even + line + x, a);
      if (odd != nullptr) T::store(odd + line + x, b);
      if (before != nullptr) T::store(before + line + x + 1, b);
    }
    if (there && width - x <= T::lanes && at + 2 * x <= left && line + x + T::lanes + 1 <= space) {
      T::split(from + at + 2 * x, a, b);
      if (even != nullptr) T::store(even + line + x, T::keep(a, keep_even));
      if (odd != nullptr) T::store(odd + line + x, T::keep(b, keep_odd));
      if (before != nullptr) T::store(before + line + x + 1, T::keep(b, keep_before));
      continue;
    }
    for (; x < width; ++x) {
      if (even != nullptr) even[line + x] = there && x < evens ? from[at + 2 * x] : 0.0F;
      if (odd != nullptr) odd[line + x] = there && x < odds ? from[at + 2 * x + 1] : 0.0F;
      if (before != nullptr && x + 1 < width) before[line + x + 1] = there && x < odds ? from[at + 2 * x + 1] : 0.0F;
    }
  }
}

// Units: channels of the source.
template <class T>
void stage(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Stage& s = *static_cast<const Stage*>(parameters);
  for (std::int64_t channel = begin; channel < end; ++channel) {
    if (s.mask != nullptr) {
      stage_flat<T>(s, frame, channel);
      continue;
    }
    for (std::int64_t f = 0; f < s.phases;) {
      const Halves halves = s.step_x == 2 ? halves_at(s, f) : Halves{-1, -1, -1, f};
      if (halves.end > f) {
        stage_halves<T>(s, frame, channel, halves, s.phase[f].row);
        f = halves.end;
      } else {
        stage_plane(s, frame, channel, f++);
      }
    }
  }
}

}  // namespace
}  // namespace prunemap
