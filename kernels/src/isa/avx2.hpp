// AVX2 with FMA: eight floats, sixteen registers.
#pragma once
#include "ymm.hpp"

namespace prunemap {
namespace {

struct Avx2 : Ymm {
  using Square = Avx2;  // squares of eight are transposed
  static constexpr int registers = 16;
  // The first `count` lanes, a constant where this is inlined. A masked store would be slow on AMD.
  static void store_first(float* p, Vector a, int count) {
    if (count == 8) return store(p, a);
    __m128 rest = _mm256_castps256_ps128(a);
    if (count & 4) {
      _mm_storeu_ps(p, rest);
      p += 4;
      rest = _mm256_extractf128_ps(a, 1);
    }
    if (count & 2) {
      _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
      p += 2;
      rest = _mm_movehl_ps(rest, rest);
    }
    if (count & 1) _mm_store_ss(p, rest);
  }
};

#define PRUNEMAP_VECTORS Avx2

bool cpu_supports() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace
}  // namespace prunemap
