// The kernel tables this build has, and those this CPU can run.
#pragma once
#include <string>
#include <vector>

#include "table.hpp"

namespace prunemap {

// Names of all ISAs in the build, best first.
std::vector<std::string> built_isas();

// Names of those that this CPU supports, best first.
std::vector<std::string> supported_isas();

// Throws std::invalid_argument when the name is unknown or the CPU lacks it.
const KernelTable& find_table(const std::string& isa);

}  // namespace prunemap
