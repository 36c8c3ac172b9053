// Compiled once per ISA, with that ISA's flags and -DPRUNEMAP_ISA=<name>. Everything but the table is local to the
// unit and nothing of the standard library is used: a weak symbol from here could be linked into code for every CPU.
#define PRUNEMAP_TEXT2(x) #x
#define PRUNEMAP_TEXT(x) PRUNEMAP_TEXT2(x)
#define PRUNEMAP_JOIN2(a, b) a##b
#define PRUNEMAP_JOIN(a, b) PRUNEMAP_JOIN2(a, b)

#include PRUNEMAP_TEXT(isa/PRUNEMAP_ISA.hpp)
#include "ops/channel_conv.hpp"
#include "ops/pixel_conv.hpp"
#include "ops/pool.hpp"
#include "ops/rows_conv.hpp"
#include "ops/stage.hpp"
#include "ops/add.hpp"
#include "ops/roof.hpp"
#include "ops/winograd.hpp"
#include "table.hpp"

namespace prunemap {
namespace {

template <class T>
constexpr PixelFamily pixel_family() {
  return {T::lanes,
          {max_vectors<T>(1), max_vectors<T>(2), max_vectors<T>(4), max_vectors<T>(8), max_vectors<T>(16)},
          {max_rest<T>(1), max_rest<T>(2), max_rest<T>(4), max_rest<T>(8), max_rest<T>(16)},
          pixel_conv<T>};
}

template <class T>
constexpr ChannelFamily channel_family() {
  return {T::lanes, {max_pixels<T>(1), max_pixels<T>(2), max_pixels<T>(4)}, channel_conv<T>};
}

template <class T>
constexpr RowsFamily rows_family() {
  return {T::lanes, T::disorder, {rows_conv<T, 1>, rows_conv<T, 2>}};
}

template <class T>
constexpr RoofFamily roof_family() {
  return {T::lanes,          roof_sums<T>() * T::lanes, roof_registers<T>, roof_memory<T>,
          roof_broadcast<T>, roof_read<T>};
}

template <class First, class... Rest>
constexpr KernelTable make_table(const char* name) {
  return {name,
          cpu_supports,
          1 + sizeof...(Rest),
          {pixel_family<First>(), pixel_family<Rest>()...},
          {channel_family<First>(), channel_family<Rest>()...},
          {roof_family<First>(), roof_family<Rest>()...},
          rows_family<typename First::Square>(),  // rows are short
          stage<First>,
          pool<typename First::Square>,  // its shuffles are no faster on wider vectors
          add<First>,
          winograd<First>};
}

}  // namespace

extern const KernelTable PRUNEMAP_JOIN(kernels_, PRUNEMAP_ISA);
const KernelTable PRUNEMAP_JOIN(kernels_, PRUNEMAP_ISA) =
    make_table<PRUNEMAP_VECTORS>(PRUNEMAP_TEXT(PRUNEMAP_ISA));

}  // namespace prunemap
