#include "pricer.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace prunemap {

namespace {

constexpr double kLeastShare = 1e-3;  // of outputs, or of a chance, that is divided by
constexpr double kLeastKept = 1e-9;   // share of weights that is divided by

std::size_t at(int number) { return static_cast<std::size_t>(number); }

// Standard deviation of the cost of a layer that is alive with some probability.
double deviation(const Priced& alive, const Priced& dead, double chance) {
  return std::abs(alive.ms - dead.ms) * std::sqrt(chance * (1.0 - chance));
}

// What is expected of a layer that is alive with some probability; that it may be dead is part of the error. A dead layer
// still has outputs to fill.
Priced mixed(const Priced& alive, const Priced& dead, double chance) {
  const double rest = 1.0 - chance, error = chance * alive.error + rest * dead.error;
  return {chance * alive.ms + rest * dead.ms, std::hypot(error, deviation(alive, dead, chance)), chance * alive.staged};
}

}  // namespace

Pricer::Pricer(std::vector<std::shared_ptr<const Layer>> layers, std::shared_ptr<const Graph> graph,
               std::vector<int> writes, std::vector<Removable> removable, std::vector<Sharers> sharers)
    : layers_(std::move(layers)),
      graph_(std::move(graph)),
      writes_(std::move(writes)),
      removable_(std::move(removable)),
      sharers_(std::move(sharers)) {
  check();
  for (const auto& layer : layers_) whole_ += layer->dense().alone.ms;
}

// Numbers are used unchecked from here on.
void Pricer::check() const {
  const auto require = [](bool condition) {
    if (!condition) throw std::invalid_argument("pricer: no such layer or group");
  };
  const std::size_t groups = graph_->none_alike().size();
  const auto layer = [this](int number) { return number >= 0 && at(number) < layers_.size(); };
  const auto group = [groups](int number) { return number >= 0 && at(number) < groups; };
  require(layers_.size() == graph_->layers() && writes_.size() == layers_.size());
  require(std::all_of(writes_.begin(), writes_.end(), group));
  for (const Removable& one : removable_)
    require(group(one.group) && layer(one.first) && std::all_of(one.others.begin(), one.others.end(), layer));
  for (const Sharers& sharers : sharers_)
    for (const Sharer& one : sharers) require(layer(one.layer) && one.staging);
}

Costs Pricer::costs(const std::vector<const Option*>& chosen, const std::vector<Left>& left) const {
  if (!left.empty() && left.size() != layers_.size())
    throw std::invalid_argument("pricer: it must be told of every layer what is left, or of none");
  const Alike same = alike(chosen);
  return left.empty() ? likely(chosen, same) : known(chosen, same, left);
}

Costs Pricer::likely(const std::vector<const Option*>& chosen, const Alike& same) const {
  std::vector<Effect> effects(chosen.size());
  std::transform(chosen.begin(), chosen.end(), effects.begin(), [](const Option* option) { return option->effect; });
  const Shares shares = graph_->shares(effects, same);
  Costs costs{std::vector<Priced>(chosen.size())};
  std::vector<double> planes(chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const std::size_t source = at(graph_->sources()[i]);
    planes[i] = shares.held[source];
    // What there is where the layer is needed at all: then it is more than on average.
    const double alive = std::max(shares.alive[i], kLeastShare), wanted = 1.0 - shares.unneeded[i];
    const double kept = (1.0 - shares.zero[source]) * std::min(1.0, wanted / alive);
    const double stored = std::min(1.0, std::max({shares.held[i], wanted * (1.0 - shares.zero[i]) / alive, kLeastShare}));
    Priced& found = costs.layers[i];
    found = priced(i, *chosen[i], {kept, stored, chosen[i]->density}, same);
    const double spread = found.ms * std::min(shares.chance[i], 1.0);
    found.error = std::hypot(found.error, spread);
    costs.doubt = std::hypot(costs.doubt, shares.alive[i] * spread);
    if (shares.alive[i] == 1.0) continue;
    const Priced dead = layers_[i]->narrowed(0.0, stored);
    costs.doubt = std::hypot(costs.doubt, deviation(found, dead, shares.alive[i]));
    found = mixed(found, dead, shares.alive[i]);
  }
  add_staging(costs.layers, planes);
  return costs;
}

Costs Pricer::known(const std::vector<const Option*>& chosen, const Alike& same, const std::vector<Left>& left) const {
  Costs costs;
  std::vector<double> planes;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const Left& own = left[i];
    planes.push_back(own.planes);
    const double stored = std::max(own.stored, kLeastShare);
    if (!own.alive) {
      costs.layers.push_back(mixed({}, layers_[i]->narrowed(0.0, stored), 0.0));
      continue;
    }
    // Filters that a layer removes are a share of all of them, stored or not.
    const double kept = own.inputs * (chosen[i]->effect.written < 1.0 ? 1.0 : stored);
    costs.layers.push_back(priced(i, *chosen[i], {kept, stored, own.kept / std::max(kept, kLeastKept)}, same));
  }
  add_staging(costs.layers, planes);
  return costs;
}

Priced Pricer::priced(std::size_t layer, const Option& option, const Extent& left, const Alike& same) const {
  if (left.kept == 1.0 && left.stored == 1.0 && left.density == option.density) return option.alone;
  if (option.whole || (option.effect.written < 1.0 && same[at(writes_[layer])]))
    return layers_[layer]->narrowed(left.kept * left.density, left.stored);
  return layers_[layer]->sparse(option, left);
}

Total Pricer::total(const Costs& costs) {
  double ms = 0.0, errors = 0.0, squares = 0.0;
  for (const Priced& cost : costs.layers) {
    ms += cost.ms;
    errors += cost.error * cost.error;
    squares += cost.ms * cost.ms;
  }
  return {ms, std::sqrt(errors), std::sqrt(squares), costs.doubt};
}

// Channel groups whose producers all remove the same filters: the neighbours lose these channels too.
Alike Pricer::alike(const std::vector<const Option*>& chosen) const {
  Alike found = graph_->none_alike();
  for (const Removable& one : removable_) {
    const Option& first = *chosen[at(one.first)];
    found[at(one.group)] =
        first.effect.written < 1.0 && std::all_of(one.others.begin(), one.others.end(), [&](int other) {
          return chosen[at(other)]->same_choice(first);
        });
  }
  return found;
}

// The first layer that needs its input rearranged pays for all that share it.
void Pricer::add_staging(std::vector<Priced>& costs, const std::vector<double>& planes) const {
  const int image = static_cast<int>(layers_.size());  // number of the network's input
  double all = 0.0;
  for (const Priced& cost : costs) all += cost.ms;
  const double touched = whole_ > 0.0 ? std::min(1.0, all / whole_) : 1.0;
  for (const Sharers& sharers : sharers_) {
    double left = 1.0;
    for (const Sharer& one : sharers) {
      Priced& cost = costs[at(one.layer)];
      if (cost.staged == 0.0) continue;
      const double share = graph_->sources()[at(one.layer)] == image ? touched : planes[at(one.layer)];
      cost.ms += left * cost.staged * one.staging->at(share).ms;
      left *= 1.0 - cost.staged;
    }
  }
}

}  // namespace prunemap
