// AVX2 with FMA: eight floats, sixteen registers.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace prunemap {
namespace {

struct Avx2 {
  using Vector = __m256;
  static constexpr int lanes = 8;
  static constexpr int registers = 16;
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vector a) { _mm256_storeu_ps(p, a); }
  static Vector set1(float a) { return _mm256_set1_ps(a); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  // A NaN in b comes out: the instruction returns its second operand then.
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
  // The even and the odd ones of 2 * lanes floats.
  static void split(const float* p, Vector& even, Vector& odd) {
    const Vector a = load(p), b = load(p + lanes);
    even = in_order(_mm256_shuffle_ps(a, b, 0x88));
    odd = in_order(_mm256_shuffle_ps(a, b, 0xDD));
  }
  // The shuffles above work on halves of 128 bits; this puts their four pairs into the order of the input.
  static Vector in_order(Vector a) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xD8)); }
  static Vector keep(Vector a, const std::int32_t* mask) {
    return _mm256_and_ps(a, _mm256_loadu_ps(reinterpret_cast<const float*>(mask)));
  }
};

#define PRUNEMAP_VECTORS Avx2

bool cpu_supports() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace
}  // namespace prunemap
