#include "functions.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

namespace prunemap {
namespace {

float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

const std::map<std::string, Scalar>& functions() {
  static const std::map<std::string, Scalar> all = {
      {"hardswish", [](float x) { return x * std::min(std::max(x + 3.0F, 0.0F), 6.0F) / 6.0F; }},
      {"sigmoid", sigmoid},
      {"silu", [](float x) { return x * sigmoid(x); }},
      {"tanh", [](float x) { return std::tanh(x); }},
  };
  return all;
}

}  // namespace

Scalar find_function(const std::string& name) {
  const auto found = functions().find(name);
  if (found == functions().end()) throw std::invalid_argument("unknown function " + name);
  return found->second;
}

std::vector<std::string> function_names() {
  std::vector<std::string> names;
  for (const auto& entry : functions()) names.push_back(entry.first);
  return names;
}

void apply_function(const void* parameters, const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Function& f = *static_cast<const Function*>(parameters);
  for (std::int64_t channel = begin; channel < end; ++channel) {
    const float* from = frame.arena + f.from.base + channel * f.from.stride;
    float* to = frame.arena + f.to.base + channel * f.to.stride;
    for (std::int64_t y = 0; y < f.to.height; ++y)
      for (std::int64_t x = 0; x < f.to.width; ++x)
        to[y * f.to.pitch + x] = f.scalar(from[y * f.from.pitch + x]);
  }
}

}  // namespace prunemap
