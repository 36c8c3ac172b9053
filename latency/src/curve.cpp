#include "curve.hpp"

#include <stdexcept>
#include <utility>

namespace prunemap {

Curve::Curve(std::vector<Cell> cells) : cells_(std::move(cells)), last_(static_cast<double>(cells_.size()) - 1.0) {
  if (cells_.empty()) throw std::invalid_argument("curve: it has no cells");
}

}  // namespace prunemap
