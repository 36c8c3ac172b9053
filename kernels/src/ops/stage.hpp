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

// Every second float of the rows of phase f; with Both also the others, which are phase f + 1. A row's last vector may
// run on into the zeros and the next row, which is written after it; it may not leave the plane, nor be read beyond
// the buffer. What lies well within a row needs neither masks nor checks.
template <class T, bool Both>
void stage_halves(const Stage& s, const Frame& frame, std::int64_t channel, std::int64_t f) {
  const Columns c = columns_of(s, f);
  const std::int64_t even = count_of(s, c.begin, c.first), odd = count_of(s, c.begin, c.first + 1);
  const float* from = plane(s.from, frame, channel) + c.first;
  const std::int64_t left = s.readable - s.from.base - channel * s.from.stride - c.first - 2 * T::lanes;
  const std::int64_t pitch = s.to.pitch, width = s.to.width - c.begin, stride = s.to.stride;
  float* to = plane(s.to, frame, channel * s.phases + f) + c.begin;
  clear_left(s, to - c.begin, c.begin);
  for (std::int64_t y = 0; y < s.to.height; ++y) {
    const std::int64_t row = s.phase[f].row + y * s.step_y, at = row * s.from.pitch;
    float* line = to + y * pitch;
    const std::int64_t within = row >= s.from.height ? 0 : Both ? odd : even - 1;
    std::int64_t x = 0;
    for (; x + T::lanes <= within; x += T::lanes) {
      typename T::Vector a, b;
      T::split(from + at + 2 * x, a, b);
      T::store(line + x, a);
      if (Both) T::store(line + stride + x, b);
    }
    for (; row < s.from.height && x < width; x += T::lanes) {
      if (at + 2 * x > left || c.begin + y * pitch + x + T::lanes > stride) break;
      typename T::Vector a, b;
      T::split(from + at + 2 * x, a, b);
      T::store(line + x, T::keep(a, first_lanes<T>(even - x)));
      if (Both) T::store(line + stride + x, T::keep(b, first_lanes<T>(odd - x)));
    }
    for (; x < width; ++x) {
      line[x] = row < s.from.height && x < even ? from[at + 2 * x] : 0.0F;
      if (Both) line[stride + x] = row < s.from.height && x < odd ? from[at + 2 * x + 1] : 0.0F;
    }
  }
}

inline bool is_pair(const Stage& s, std::int64_t f) {
  return s.step_x == 2 && f + 1 < s.phases && s.phase[f].row == s.phase[f + 1].row && s.phase[f].column == 0 &&
         s.phase[f + 1].column == 1 && s.from.width > 1;
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
    for (std::int64_t f = 0; f < s.phases; ++f) {
      if (is_pair(s, f)) {
        stage_halves<T, true>(s, frame, channel, f++);
      } else if (s.step_x == 2) {
        stage_halves<T, false>(s, frame, channel, f);
      } else {
        stage_plane(s, frame, channel, f);
      }
    }
  }
}

}  // namespace
}  // namespace prunemap
