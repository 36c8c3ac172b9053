// From a mapping, as Python has it, to what its layers cost.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "pricer.hpp"

namespace prunemap {

// A scheme's name and a rate, as they were asked for. Python remembers the hash of a name.
struct Asked {
  std::size_t layer;
  pybind11::object scheme;
  double rate;

  bool operator==(const Asked& other) const {
    return layer == other.layer && rate == other.rate && (scheme.is(other.scheme) || scheme.equal(other.scheme));
  }
};

struct HashAsked {
  std::size_t operator()(const Asked& asked) const;
};

// Remembers the options of single layers; of whole mappings nothing, since a search asks for new ones.
class Predictor {
 public:
  Predictor(const std::vector<std::string>& names, std::vector<std::shared_ptr<const Layer>> layers,
            std::shared_ptr<const Graph> graph, std::vector<int> writes, std::vector<Removable> removable,
            std::vector<Sharers> sharers);

  // items: pairs of a layer's name and its choice; the other layers are dense. prepare: called with such a pair that
  // was not seen before, makes the option or raises. left: as in Pricer.
  Costs costs(const pybind11::iterable& items, const pybind11::function& prepare, const std::vector<Left>& left);

 private:
  std::size_t number(const pybind11::handle& name, const pybind11::handle& choice,
                     const pybind11::function& prepare) const;
  const Option& option(std::size_t layer, const pybind11::handle& name, const pybind11::handle& choice,
                       const pybind11::function& prepare);

  Pricer pricer_;
  pybind11::dict numbers_;       // of layers, by name
  pybind11::str scheme_, rate_;  // attributes of a choice
  std::vector<Option> dense_;
  std::unordered_map<Asked, Option, HashAsked> known_;  // options stay where they are while others are added
};

}  // namespace prunemap
