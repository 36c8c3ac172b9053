// Four floats in the compiler's own vector type: any CPU that gcc or clang knows, with no flags.
#pragma once
#include <cstdint>
#include <cstring>

namespace prunemap {
namespace {

struct Portable {
  typedef float Vector __attribute__((vector_size(16)));
  typedef std::int32_t Mask __attribute__((vector_size(16)));
  using Square = Portable;  // squares of four are transposed
  static constexpr int lanes = 4;
  static constexpr int registers = 16;
  static Vector load(const float* p) {
    Vector a;
    std::memcpy(&a, p, sizeof a);
    return a;
  }
  static void store(float* p, Vector a) { std::memcpy(p, &a, sizeof a); }
  static Vector set1(float a) { return Vector{a, a, a, a}; }
  static Vector add(Vector a, Vector b) { return a + b; }
  static Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
  // A NaN in b comes out, as on x86.
  static Vector max(Vector a, Vector b) { return a > b ? a : b; }
  static Vector min(Vector a, Vector b) { return a < b ? a : b; }
  // A NaN in either comes out.
  static Vector max_nan(Vector a, Vector b) { return a > b ? a : a == a ? b : a; }
  // The even and the odd ones of 2 * lanes floats.
  static void split(const float* p, Vector& even, Vector& odd) {
    const Vector a = load(p), b = load(p + lanes);
    even = __builtin_shufflevector(a, b, 0, 2, 4, 6);
    odd = __builtin_shufflevector(a, b, 1, 3, 5, 7);
  }
  // Floats of two vectors in turn: what `split` takes apart.
  static void join(Vector even, Vector odd, Vector& low, Vector& high) {
    low = __builtin_shufflevector(even, odd, 0, 4, 1, 5);
    high = __builtin_shufflevector(even, odd, 2, 6, 3, 7);
  }
  // The even ones of 2 * lanes floats, in an order of their own: which one each lane has.
  static constexpr std::int32_t disorder[] = {0, 1, 2, 3};
  static Vector evens(const float* p) { return __builtin_shufflevector(load(p), load(p + lanes), 0, 2, 4, 6); }
  static Vector in_order(Vector a) { return a; }
  // Lanes and vectors change places.
  static void transpose(Vector (&a)[4]) {
    const Vector b = __builtin_shufflevector(a[0], a[1], 0, 4, 1, 5), c = __builtin_shufflevector(a[0], a[1], 2, 6, 3, 7);
    const Vector d = __builtin_shufflevector(a[2], a[3], 0, 4, 1, 5), e = __builtin_shufflevector(a[2], a[3], 2, 6, 3, 7);
    a[0] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    a[1] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
    a[2] = __builtin_shufflevector(c, e, 0, 1, 4, 5);
    a[3] = __builtin_shufflevector(c, e, 2, 3, 6, 7);
  }
  static Vector part(Vector a, int) { return a; }
  static void store_first(float* p, Vector a, int count) {
    std::memcpy(p, &a, static_cast<std::size_t>(count) * sizeof(float));
  }
  static Vector mask(const std::int32_t* p) {
    Vector a;
    std::memcpy(&a, p, sizeof a);
    return a;
  }
  static Vector keep(Vector a, Vector mask) {
    return reinterpret_cast<Vector>(reinterpret_cast<Mask>(a) & reinterpret_cast<Mask>(mask));
  }
};

#define PRUNEMAP_VECTORS Portable

bool cpu_supports() { return true; }

}  // namespace
}  // namespace prunemap
