#include "graph.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace prunemap {

namespace {

std::size_t at(int number) { return static_cast<std::size_t>(number); }

bool among(const Alike& alike, int group) { return group >= 0 && alike[at(group)]; }

bool of_layer(const Operation& operation) {
  return operation.kind == Kind::layer || operation.kind == Kind::depthwise;
}

// Share of its source's channels that an operation does not need, given the share of its own that nobody needs.
double skipped(const Operation& operation, const std::vector<Effect>& effects, double unneeded) {
  if (operation.kind == Kind::opaque) return 0.0;
  if (operation.kind == Kind::addition) return unneeded;
  const Effect& effect = effects[at(operation.value)];
  if (operation.kind == Kind::depthwise) return 1.0 - (1.0 - effect.unread) * (1.0 - unneeded);
  if (effect.unread == 0.0 || unneeded == 0.0 || effect.rows == 0) return effect.unread;
  // Each block of filters reads its own channels: where fewer are needed, more channels are left out.
  return std::pow(effect.unread, 1.0 - std::pow(unneeded, effect.rows));
}

// How likely any of the filters that are written is needed, where both are chosen independently of so many.
double any_needed(double written, double needed, double filters) {
  if (written <= 0.0 || needed <= 0.0) return 0.0;
  const double neither = filters * (1.0 - written - needed);
  if (neither <= -1.0) return 1.0;
  const auto log_factorial = [](double count) { return std::lgamma(count + 1.0); };
  const double none = std::exp(log_factorial(filters * (1.0 - written)) + log_factorial(filters * (1.0 - needed)) -
                               log_factorial(filters) - log_factorial(neither));
  return std::max(0.0, 1.0 - none);
}

// Relative variance of how many of some channels are left to both sides, which take shares of them independently of one
// another: so many each (the hypergeometric distribution), or, of the other side, as many as happen to be read.
double variance(double one, double other, double channels, bool happens) {
  if (one <= 0.0 || other <= 0.0 || other >= 1.0) return 0.0;
  return (1.0 - other) / other * ((1.0 - one) / one + (happens ? 1.0 : 0.0)) / std::max(channels - 1.0, 1.0);
}

// Whether it happens, and is not chosen, which channels a layer reads.
bool reads_by_chance(const Effect& effect) { return effect.rows > 0 && effect.unread > 0.0; }

}  // namespace

Graph::Graph(std::vector<int> filters, int groups, int output, std::vector<Operation> operations,
             std::vector<int> whole, std::vector<Tie> ties)
    : filters_(std::move(filters)),
      output_(output),
      operations_(std::move(operations)),
      whole_(std::move(whole)),
      ties_(std::move(ties)),
      sources_(filters_.size(), -1),
      values_(sources_.size() + 1),
      groups_(at(std::max(groups, 0))) {
  for (const Operation& operation : operations_) values_ = std::max(values_, at(std::max(operation.value, 0)) + 1);
  check();
  for (const Operation& operation : operations_)
    if (of_layer(operation)) sources_[at(operation.value)] = operation.source;
  if (std::find(sources_.begin(), sources_.end(), -1) != sources_.end())
    throw std::invalid_argument("graph: every layer must have an operation");
  channels_.assign(values_, 1);
  for (const Operation& o : operations_)
    channels_[at(o.value)] = of_layer(o) ? filters_[at(o.value)] : channels_[at(o.source)];
}

// Numbers are used unchecked from here on.
void Graph::check() const {
  const auto require = [](bool condition) {
    if (!condition) throw std::invalid_argument("graph: no such value, layer or group");
  };
  const auto value = [this](int number) { return number >= 0 && at(number) < values_; };
  const auto group = [this](int number) { return number >= -1 && number < static_cast<int>(groups_); };
  require(value(output_) && std::all_of(whole_.begin(), whole_.end(), value));
  require(std::all_of(filters_.begin(), filters_.end(), [](int count) { return count > 0; }));
  for (const Operation& o : operations_) {
    require(value(o.value) && value(o.source) && value(o.other) && group(o.group));
    require(of_layer(o) == (at(o.value) < sources_.size()));
  }
  for (const Tie& tie : ties_)
    require(!tie.values.empty() && std::all_of(tie.values.begin(), tie.values.end(), value) && group(tie.group));
}

Shares Graph::shares(const std::vector<Effect>& effects, const Alike& alike) const {
  if (effects.size() != layers() || alike.size() != groups_)
    throw std::invalid_argument("graph: there must be one effect per layer, and the graph's groups");
  Shares found;
  std::vector<double> unread;
  found.zero = zero_shares(effects, alike);
  follow_needs(effects, found, unread);
  found.held = held_shares(found.zero, unread, alike);
  return found;
}

std::vector<double> Graph::zero_shares(const std::vector<Effect>& effects, const Alike& alike) const {
  std::vector<double> zero(values_);
  for (std::size_t layer = 0; layer < effects.size(); ++layer) zero[layer] = 1.0 - effects[layer].written;
  for (const Operation& o : operations_) {
    if (o.kind != Kind::depthwise && o.kind != Kind::addition) continue;
    const double one = zero[at(o.source)], other = zero[at(o.other)];
    zero[at(o.value)] = o.source == o.other || among(alike, o.group) ? std::min(one, other) : one * other;
  }
  return zero;
}

void Graph::follow_needs(const std::vector<Effect>& effects, Shares& found, std::vector<double>& unread) const {
  std::vector<double>& unneeded = found.unneeded;
  unneeded.assign(values_, 1.0);
  unread.assign(values_, 1.0);
  found.alive.assign(layers(), 1.0);
  found.chance.assign(layers(), 0.0);
  std::vector<bool> happens(values_);         // by value: whether what is read of it is by chance
  std::vector<double> unasked(values_, 1.0);  // by value: how likely everything that takes it is dead
  unneeded[at(output_)] = unasked[at(output_)] = 0.0;
  for (auto o = operations_.rbegin(); o != operations_.rend(); ++o) {
    const std::size_t value = at(o->value), source = at(o->source), other = at(o->other);
    const double asked = 1.0 - unasked[value];
    const double wanted = asked > 0.0 ? std::min(1.0, (1.0 - unneeded[value]) / asked) : 0.0;  // where anything asks
    double share = skipped(*o, effects, o->kind == Kind::layer ? 1.0 - wanted : unneeded[value]);
    double alive = o->kind == Kind::opaque ? 1.0 : asked;
    if (of_layer(*o)) {
      const double written = 1.0 - found.zero[value], there = 1.0 - found.zero[source], read = 1.0 - effects[value].unread;
      const double meet = any_needed(written, wanted, filters_[value]);
      alive *= meet;
      found.alive[value] = alive;
      // Of outputs where there are some at all: that there may be none is told by `alive`.
      const double outputs = meet * (1.0 + variance(written, wanted, filters_[value], happens[value])) - 1.0;
      const bool own = reads_by_chance(effects[value]);
      const double inputs = source < layers() ? variance(there, read, channels_[source], own) : 0.0;  // an image is whole
      found.chance[value] = std::sqrt(std::max(0.0, outputs) + inputs);
      happens[source] = happens[source] || own;
      if (o->kind == Kind::layer) share = 1.0 - alive * (1.0 - share);  // channel by channel it is in the share already
      unread[source] *= share;
    } else if (other != source) {
      unneeded[other] *= share;
      unasked[other] *= 1.0 - alive;
      happens[other] = happens[other] || happens[value];
    }
    if (o->kind != Kind::layer) happens[source] = happens[source] || happens[value];
    unneeded[source] *= share;
    unasked[source] *= 1.0 - alive;
  }
}

std::vector<double> Graph::held_shares(const std::vector<double>& zero, const std::vector<double>& unread,
                                       const Alike& alike) const {
  std::vector<double> held(values_);
  for (std::size_t value = 0; value < values_; ++value) held[value] = (1.0 - zero[value]) * (1.0 - unread[value]);
  for (const int value : whole_) held[at(value)] = 1.0;
  for (const Tie& tie : ties_) {
    const double present = 1.0 - zero[at(tie.values.back())];  // what no summand holds, the sum does not hold
    const bool same = among(alike, tie.group);
    double absent = 1.0;  // shares of channels that none of the values asks for
    for (const int value : tie.values) absent *= same ? unread[at(value)] : 1.0 - held[at(value)];
    const double share = same ? (1.0 - absent) * present : std::min(1.0 - absent, present);
    for (const int value : tie.values) held[at(value)] = share;
  }
  return held;
}

}  // namespace prunemap
