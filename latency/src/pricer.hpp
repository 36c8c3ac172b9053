// A network's layers priced beside one another.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "graph.hpp"
#include "layer.hpp"

namespace prunemap {

// A channel group that may lose filters, and its producers.
struct Removable {
  int group;
  int first;
  std::vector<int> others;
};

// Layers that read one value with equal strides, in the network's order, and what rearranging it costs each that is
// the first to: over the share of planes, or of the dense layers' time.
struct Sharer {
  int layer;
  std::shared_ptr<const Curve> staging;
};
using Sharers = std::vector<Sharer>;

// What is left of a layer of known weights, as shares.
struct Left {
  double kept;    // of its weights, that are not zero and meet live channels
  double inputs;  // of its input channels, that are not always zero
  double stored;  // of its outputs, that have a place in memory
  double planes;  // of the channels of the value that it reads, that have
  bool alive;     // whether any of its filters is needed
};

// What layers cost, each with its error and how often its input is staged.
struct Costs {
  std::vector<Priced> layers;
  double doubt = 0.0;  // ms, root of the sum of the squares: standard deviation of costs by chance
};

// Sums over the layers, the errors taken as independent.
struct Total {
  double ms;
  double error;   // root of the sum of the squared errors
  double spread;  // root of the sum of the squared ms
  double doubt;   // of Costs
};

class Pricer {
 public:
  // writes: per layer, the channel group that it writes.
  Pricer(std::vector<std::shared_ptr<const Layer>> layers, std::shared_ptr<const Graph> graph, std::vector<int> writes,
         std::vector<Removable> removable, std::vector<Sharers> sharers);

  // left: of every layer, where the weights are known; empty: chance tells.
  Costs costs(const std::vector<const Option*>& chosen, const std::vector<Left>& left) const;
  static Total total(const Costs& costs);

 private:
  void check() const;
  Alike alike(const std::vector<const Option*>& chosen) const;
  Costs likely(const std::vector<const Option*>& chosen, const Alike& same) const;
  Costs known(const std::vector<const Option*>& chosen, const Alike& same, const std::vector<Left>& left) const;
  Priced priced(std::size_t layer, const Option& option, const Extent& left, const Alike& same) const;
  // planes: per layer, share of the channels that it reads that have a place in memory. Of the network's input all have;
  // there it is the time of all layers, as a share of the dense ones', that tells what is still in a cache.
  void add_staging(std::vector<Priced>& costs, const std::vector<double>& planes) const;

  std::vector<std::shared_ptr<const Layer>> layers_;
  std::shared_ptr<const Graph> graph_;
  std::vector<int> writes_;
  std::vector<Removable> removable_;
  std::vector<Sharers> sharers_;
  double whole_ = 0.0;  // ms of all dense layers
};

}  // namespace prunemap
