// Arm NEON as every AArch64 CPU has it: four floats, 32 registers.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace prunemap {
namespace {

struct Neon {
  using Vector = float32x4_t;
  using Square = Neon;  // squares of four are transposed
  static constexpr int lanes = 4;
  static constexpr int registers = 32;
  static Vector load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, Vector a) { vst1q_f32(p, a); }
  static Vector set1(float a) { return vdupq_n_f32(a); }
  static Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
  // A NaN in either comes out.
  static Vector max(Vector a, Vector b) { return vmaxq_f32(a, b); }
  static Vector min(Vector a, Vector b) { return vminq_f32(a, b); }
  static Vector max_nan(Vector a, Vector b) { return max(a, b); }
  // The even and the odd ones of 2 * lanes floats.
  static void split(const float* p, Vector& even, Vector& odd) {
    const Vector a = load(p), b = load(p + lanes);
    even = vuzp1q_f32(a, b);
    odd = vuzp2q_f32(a, b);
  }
  // Floats of two vectors in turn: what `split` takes apart.
  static void join(Vector even, Vector odd, Vector& low, Vector& high) {
    low = vzip1q_f32(even, odd);
    high = vzip2q_f32(even, odd);
  }
  // The even ones of 2 * lanes floats, in an order of their own: which one each lane has.
  static constexpr std::int32_t disorder[] = {0, 1, 2, 3};
  static Vector evens(const float* p) { return vuzp1q_f32(load(p), load(p + lanes)); }
  static Vector in_order(Vector a) { return a; }
  // Lanes and vectors change places.
  static void transpose(Vector (&a)[4]) {
    const Vector b = vtrn1q_f32(a[0], a[1]), c = vtrn2q_f32(a[0], a[1]);
    const Vector d = vtrn1q_f32(a[2], a[3]), e = vtrn2q_f32(a[2], a[3]);
    a[0] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    a[1] = vcombine_f32(vget_low_f32(c), vget_low_f32(e));
    a[2] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
    a[3] = vcombine_f32(vget_high_f32(c), vget_high_f32(e));
  }
  static Vector part(Vector a, int) { return a; }
  // The first `count` lanes, a constant where this is inlined.
  static void store_first(float* p, Vector a, int count) {
    if (count == 4) return store(p, a);
    float32x2_t rest = vget_low_f32(a);
    if (count & 2) {
      vst1_f32(p, rest);
      p += 2;
      rest = vget_high_f32(a);
    }
    if (count & 1) vst1_lane_f32(p, rest, 0);
  }
  static Vector mask(const std::int32_t* p) { return vreinterpretq_f32_s32(vld1q_s32(p)); }
  static Vector keep(Vector a, Vector mask) {
    return vreinterpretq_f32_s32(vandq_s32(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(mask)));
  }
};

#define PRUNEMAP_VECTORS Neon

bool cpu_supports() { return true; }

}  // namespace
}  // namespace prunemap
