// Activations beyond the clamp that every kernel's epilogue has: one pass over the pixels, libm where needed.
#pragma once
#include <string>
#include <vector>

#include "table.hpp"

namespace prunemap {

using Scalar = float (*)(float);

struct Function {
  Planes from, to;
  Scalar scalar;
};

// Throws std::invalid_argument for an unknown name.
Scalar find_function(const std::string& name);

// All names, sorted.
std::vector<std::string> function_names();

// The step: units are channels.
void apply_function(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end);

}  // namespace prunemap
