#include "dispatch.hpp"

#include <stdexcept>

namespace prunemap {

#define PRUNEMAP_ENTRY(name) extern const KernelTable kernels_##name;
#include "isa_list.inc"
#undef PRUNEMAP_ENTRY

namespace {

const std::vector<const KernelTable*>& tables() {
  static const std::vector<const KernelTable*> all = {
#define PRUNEMAP_ENTRY(name) &kernels_##name,
#include "isa_list.inc"
#undef PRUNEMAP_ENTRY
  };
  return all;
}

}  // namespace

std::vector<std::string> built_isas() {
  std::vector<std::string> names;
  for (const KernelTable* table : tables()) names.emplace_back(table->name);
  return names;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const KernelTable* table : tables())
    if (table->supported()) names.emplace_back(table->name);
  return names;
}

const KernelTable& find_table(const std::string& isa) {
  for (const KernelTable* table : tables()) {
    if (isa != table->name) continue;
    if (!table->supported()) throw std::invalid_argument("this CPU does not support the ISA " + isa);
    return *table;
  }
  throw std::invalid_argument("unknown ISA " + isa);
}

}  // namespace prunemap
