// AVX-512: sixteen floats; the same unit also offers eight-lane vectors (AVX-512VL) with all 32 registers.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "ymm.hpp"

namespace prunemap {
namespace {

struct Avx512Half : Ymm {
  using Square = Avx512Half;
  static constexpr int registers = 32;
  static void store_first(float* p, Vector a, int count) {
    _mm256_mask_storeu_ps(p, static_cast<__mmask8>((1 << count) - 1), a);
  }
};

struct Avx512 {
  using Vector = __m512;
  using Square = Avx512Half;  // squares of eight are transposed
  static constexpr int lanes = 16;
  static constexpr int registers = 32;
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vector a) { _mm512_storeu_ps(p, a); }
  static Vector set1(float a) { return _mm512_set1_ps(a); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  // A NaN in b comes out: the instruction returns its second operand then. The maskz forms with all lanes on are the
  // plain instructions; gcc 12 warns of an uninitialised variable in its own header for the plain intrinsics.
  static Vector max(Vector a, Vector b) { return _mm512_maskz_max_ps(0xFFFF, a, b); }
  static Vector min(Vector a, Vector b) { return _mm512_maskz_min_ps(0xFFFF, a, b); }
  // A NaN in either comes out.
  static Vector max_nan(Vector a, Vector b) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), max(a, b), a);
  }
  // The even and the odd ones of 2 * lanes floats.
  static void split(const float* p, Vector& even, Vector& odd) {
    const Vector a = load(p), b = load(p + lanes);
    const __m512i pick = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even = _mm512_permutex2var_ps(a, pick, b);
    odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(pick, _mm512_set1_epi32(1)), b);
  }
  // Floats of two vectors in turn: what `split` takes apart.
  static void join(Vector even, Vector odd, Vector& low, Vector& high) {
    const __m512i pick = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    low = _mm512_permutex2var_ps(even, pick, odd);
    high = _mm512_permutex2var_ps(even, _mm512_add_epi32(pick, _mm512_set1_epi32(8)), odd);
  }
  // The lower or the upper eight lanes.
  static Square::Vector part(Vector a, int which) {
    return which == 0 ? _mm512_maskz_extractf32x8_ps(0xFF, a, 0) : _mm512_maskz_extractf32x8_ps(0xFF, a, 1);
  }
  static Vector mask(const std::int32_t* p) { return load(reinterpret_cast<const float*>(p)); }
  static Vector keep(Vector a, Vector mask) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_castps_si512(mask)));
  }
};

#define PRUNEMAP_VECTORS Avx512, Avx512Half

bool cpu_supports() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

}  // namespace
}  // namespace prunemap
