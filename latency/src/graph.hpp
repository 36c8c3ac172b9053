// What neighbours leave of every layer, as expected shares of channels, by its place in the graph.
#pragma once

#include <cstddef>
#include <vector>

#include "layer.hpp"

namespace prunemap {

enum class Kind { layer, depthwise, addition, opaque };

// What makes a value: a layer, an addition, or a function with f(0) != 0 (opaque).
struct Operation {
  int value;
  int source;  // the first value that it takes
  int other;   // the last one
  Kind kind;   // depthwise: a layer whose channels are those of the one before
  int group;   // channel group of the value, -1 for none
};

// Values that hold the same channels, since additions tie them, the last sum at the end; and their channel group.
struct Tie {
  std::vector<int> values;
  int group;
};

// Shares of channels, by number of value.
struct Shares {
  std::vector<double> zero;      // channels that are zero
  std::vector<double> unneeded;  // channels that nobody reads, or only for what nobody reads
  std::vector<double> held;      // channels that have a place in memory: more where other summands of a sum need them
  std::vector<double> alive;     // by layer: how likely any of its filters is needed
  std::vector<double> chance;    // by layer: relative standard deviation of what is left of it, where it is needed
};

// Channel groups whose producers all keep the same filters.
using Alike = std::vector<bool>;

// Values are numbered: first those that layers make, in the network's order, then the input, then all others. Layers
// choose channels independently of one another, unless they choose as a group.
class Graph {
 public:
  // filters: of every layer. operations: in execution order. whole: values that hold all channels, whatever is chosen.
  Graph(std::vector<int> filters, int groups, int output, std::vector<Operation> operations, std::vector<int> whole,
        std::vector<Tie> ties);

  std::size_t layers() const { return sources_.size(); }
  // Per layer, the number of the value that it reads.
  const std::vector<int>& sources() const { return sources_; }
  Alike none_alike() const { return Alike(groups_); }

  // effects: per layer, what its choice does to channels.
  Shares shares(const std::vector<Effect>& effects, const Alike& alike) const;

 private:
  void check() const;
  std::vector<double> zero_shares(const std::vector<Effect>& effects, const Alike& alike) const;
  // From the end on: `unneeded`, `alive`, `chance` and, into unread, channels that no layer that reads the value reads.
  void follow_needs(const std::vector<Effect>& effects, Shares& found, std::vector<double>& unread) const;
  std::vector<double> held_shares(const std::vector<double>& zero, const std::vector<double>& unread,
                                  const Alike& alike) const;

  std::vector<int> filters_;
  int output_;
  std::vector<Operation> operations_;
  std::vector<int> whole_;
  std::vector<Tie> ties_;
  std::vector<int> sources_;
  std::vector<int> channels_;  // of every value but the input
  std::size_t values_;
  std::size_t groups_;
};

}  // namespace prunemap
