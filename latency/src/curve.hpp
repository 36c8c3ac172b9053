// What a layer costs over the share of its weights that are left.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace prunemap {

// Milliseconds without staging the input, their standard error, and how often, from 0 to 1, the input is staged.
struct Priced {
  double ms;
  double error;
  double staged;
};

// Shares from 0 to 1 are cut into equal cells, so that a curve is read without a search.
class Curve {
 public:
  // The cost at a cell's start, and what it grows to the cell's end. One cell lies in one cache line: thousands of
  // curves are read here and there.
  struct alignas(32) Cell {
    double ms;
    double rise;
    double error;
    double staged;
  };

  // The last cell is that of share 1.
  explicit Curve(std::vector<Cell> cells);

  Priced at(double share) const {
    const double place = share < 1.0 ? std::max(share, 0.0) * last_ : last_;
    const auto index = static_cast<std::size_t>(place);
    const Cell& cell = cells_[index];
    return {cell.ms + cell.rise * (place - static_cast<double>(index)), cell.error, cell.staged};
  }

 private:
  std::vector<Cell> cells_;
  double last_;
};

}  // namespace prunemap
