// A layer's milliseconds over shares of its input and output channels.
#pragma once

#include <vector>

namespace prunemap {

// Bilinear between knots; beyond the first and the last knot it is flat.
class Surface {
 public:
  // values: one per pair of knots, those of the first input first.
  Surface(std::vector<double> inputs, std::vector<double> outputs, std::vector<double> values);

  double at(double inputs, double outputs) const;

 private:
  std::vector<double> inputs_;
  std::vector<double> outputs_;
  std::vector<double> values_;
};

}  // namespace prunemap
