#include "surface.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <utility>

namespace prunemap {

namespace {

// The knot at or below a value, and how far from it towards the next, from 0 to 1, the value lies.
struct Place {
  std::size_t knot;
  double part;
};

Place place_of(const std::vector<double>& knots, double value) {
  const auto right = static_cast<std::size_t>(std::upper_bound(knots.begin(), knots.end(), value) - knots.begin());
  if (right == 0) return {0, 0.0};
  if (right == knots.size()) return {right - 1, 0.0};
  return {right - 1, (value - knots[right - 1]) / (knots[right] - knots[right - 1])};
}

double along(const double* row, Place place) {
  const double here = row[place.knot];
  return place.part > 0.0 ? here + place.part * (row[place.knot + 1] - here) : here;
}

bool ascending(const std::vector<double>& knots) {
  return std::adjacent_find(knots.begin(), knots.end(), std::greater_equal<>()) == knots.end();
}

}  // namespace

Surface::Surface(std::vector<double> inputs, std::vector<double> outputs, std::vector<double> values)
    : inputs_(std::move(inputs)), outputs_(std::move(outputs)), values_(std::move(values)) {
  if (inputs_.empty() || outputs_.empty() || values_.size() != inputs_.size() * outputs_.size())
    throw std::invalid_argument("surface: there must be one value for every pair of knots");
  if (!ascending(inputs_) || !ascending(outputs_)) throw std::invalid_argument("surface: knots must ascend");
}

double Surface::at(double inputs, double outputs) const {
  const Place down = place_of(inputs_, inputs), across = place_of(outputs_, outputs);
  const double* row = values_.data() + down.knot * outputs_.size();
  const double ms = along(row, across);
  return down.part > 0.0 ? ms + down.part * (along(row + outputs_.size(), across) - ms) : ms;
}

}  // namespace prunemap
