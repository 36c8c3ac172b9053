// Loops that no kernel can beat: multiply-adds from registers and from L1, and reading memory as a stream.
#pragma once
#include <cstdint>

#include "../table.hpp"

namespace prunemap {
namespace {

// Independent sums: more than latency times throughput of a multiply-add, and as many as a wide tile of a kernel has.
template <class T>
constexpr int roof_sums() {
  return T::registers >= 32 ? 24 : 12;
}

template <class T>
using RoofSums = typename T::Vector[roof_sums<T>()];

template <class T>
[[gnu::always_inline]] inline void begin(RoofSums<T>& sum, const float* data) {
  constexpr int n = roof_sums<T>();
#pragma GCC unroll 24
  for (int k = 0; k < n; ++k) sum[k] = T::load(data + k * T::lanes);
}

template <class T>
[[gnu::always_inline]] inline float total(const RoofSums<T>& sum) {
  typename T::Vector all = sum[0];
  for (int k = 1; k < roof_sums<T>(); ++k) all = T::add(all, sum[k]);
  float lane[T::lanes];
  T::store(lane, all);
  float result = 0.0F;
  for (int i = 0; i < T::lanes; ++i) result += lane[i];
  return result;
}

// The sum itself is multiplied: without a fused instruction, a product of constants would be computed only once.
template <class T>
float roof_registers(const float* data, std::int64_t count, std::int64_t passes) {
  constexpr int n = roof_sums<T>();
  RoofSums<T> sum;
  begin<T>(sum, data);
  const typename T::Vector x = T::set1(0.999F * data[0]), y = T::set1(0.001F * data[1]);
  for (std::int64_t i = count / (n * T::lanes) * passes; i > 0; --i) {
#pragma GCC unroll 24
    for (int k = 0; k < n; ++k) sum[k] = T::fma(sum[k], x, y);
  }
  return total<T>(sum);
}

template <class T>
float roof_memory(const float* data, std::int64_t count, std::int64_t passes) {
  constexpr int n = roof_sums<T>();
  RoofSums<T> sum;
  begin<T>(sum, data);
  const typename T::Vector x = T::set1(1e-6F * data[0]);
  for (std::int64_t pass = 0; pass < passes; ++pass)
    for (std::int64_t i = 0; i < count; i += n * T::lanes) {
#pragma GCC unroll 24
      for (int k = 0; k < n; ++k) sum[k] = T::fma(x, T::load(data + i + k * T::lanes), sum[k]);
    }
  return total<T>(sum);
}

template <class T>
float roof_broadcast(const float* data, std::int64_t count, std::int64_t passes) {
  constexpr int n = roof_sums<T>();
  RoofSums<T> sum;
  begin<T>(sum, data);
  const typename T::Vector x = T::set1(1e-6F * data[0]);
  for (std::int64_t pass = 0; pass < passes; ++pass)
    for (std::int64_t i = 0; i < count; i += n) {
#pragma GCC unroll 24
      for (int k = 0; k < n; ++k) sum[k] = T::fma(x, T::set1(data[i + k]), sum[k]);
    }
  return total<T>(sum);
}

template <class T>
float roof_read(const float* data, std::int64_t count, std::int64_t passes) {
  constexpr int n = roof_sums<T>();
  RoofSums<T> sum;
  begin<T>(sum, data);
  for (std::int64_t pass = 0; pass < passes; ++pass)
    for (std::int64_t i = 0; i < count; i += n * T::lanes) {
#pragma GCC unroll 24
      for (int k = 0; k < n; ++k) sum[k] = T::add(sum[k], T::load(data + i + k * T::lanes));
    }
  return total<T>(sum);
}

}  // namespace
}  // namespace prunemap
