// Vectors of eight floats, for AVX2 and for the narrower half of AVX-512.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace prunemap {
namespace {

struct Ymm {
  using Vector = __m256;
  static constexpr int lanes = 8;
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vector a) { _mm256_storeu_ps(p, a); }
  static Vector set1(float a) { return _mm256_set1_ps(a); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  // A NaN in b comes out: the instruction returns its second operand then.
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
  // A NaN in either comes out.
  static Vector max_nan(Vector a, Vector b) { return _mm256_blendv_ps(max(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
  // The even and the odd ones of 2 * lanes floats.
  static void split(const float* p, Vector& even, Vector& odd) {
    const Vector a = load(p), b = load(p + lanes);
    even = in_order(_mm256_shuffle_ps(a, b, 0x88));
    odd = in_order(_mm256_shuffle_ps(a, b, 0xDD));
  }
  // Floats of two vectors in turn: what `split` takes apart.
  static void join(Vector even, Vector odd, Vector& low, Vector& high) {
    const Vector a = _mm256_unpacklo_ps(even, odd), b = _mm256_unpackhi_ps(even, odd);
    low = _mm256_permute2f128_ps(a, b, 0x20);
    high = _mm256_permute2f128_ps(a, b, 0x31);
  }
  // The even ones of 2 * lanes floats, in an order of their own: which one each lane has.
  static constexpr std::int32_t disorder[] = {0, 1, 4, 5, 2, 3, 6, 7};
  static Vector evens(const float* p) { return _mm256_shuffle_ps(load(p), load(p + lanes), 0x88); }
  // The shuffles above work on halves of 128 bits; this puts their four pairs into the order of the input.
  static Vector in_order(Vector a) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xD8)); }
  // Lanes and vectors change places.
  static void transpose(Vector (&a)[8]) {
    Vector b[8], c[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
      b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
      c[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
      c[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xEE);
      c[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
      c[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      a[i] = _mm256_permute2f128_ps(c[i], c[i + 4], 0x20);
      a[i + 4] = _mm256_permute2f128_ps(c[i], c[i + 4], 0x31);
    }
  }
  static Vector part(Vector a, int) { return a; }
  static Vector mask(const std::int32_t* p) { return load(reinterpret_cast<const float*>(p)); }
  static Vector keep(Vector a, Vector mask) { return _mm256_and_ps(a, mask); }
};

}  // namespace
}  // namespace prunemap
