#include "layer.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace prunemap {

namespace {

constexpr double kSame = 1e-3;      // of a step that is not another one
constexpr double kLone = 1.8;       // times what a filter of a block takes: one that has a list of its own
constexpr double kShortest = 1e-9;  // ms that a layer is divided by at least

int round_up(int count, int step) { return (count + step - 1) / step * step; }

}  // namespace

double computed_share(double stored, int filters, int together, int rows) {
  if (together <= 0 || stored >= 1.0) return std::min(stored, 1.0);
  if (rows <= 1 || rows >= filters) {
    const int count = std::max(1, static_cast<int>(std::ceil(stored * filters - kSame)));
    return std::min(1.0, static_cast<double>(round_up(count, together)) / filters);
  }
  // How many of a block's filters are stored is binomially distributed.
  const int step = std::min(together, rows);
  double chance = std::pow(1.0 - stored, rows), computed = 0.0;
  for (int count = 1; count <= rows; ++count) {
    chance *= stored / (1.0 - stored) * (rows - count + 1) / count;
    computed += chance * round_up(count, step);
  }
  return std::min({1.0, computed / rows, kLone * stored});
}

Option Layer::dense() const { return {{}, whole_, 1.0, 0, true, nullptr, 1.0, "dense", {}}; }

Option Layer::prepared(Option option) const {
  if (option.whole)
    option.alone = narrowed(option.density, 1.0);
  else
    option.alone = option.curve ? sparse(option, {1.0, 1.0, option.density}) : whole_;
  return option;
}

Priced Layer::sparse(const Option& option, const Extent& left) const {
  if (!option.curve) throw Unmeasured(option.unmeasured);
  return on_curve(option, left);
}

ChannelLayer::ChannelLayer(Priced whole, int filters, double least, bool follows, std::shared_ptr<const Surface> surface,
                           std::shared_ptr<const Surface> staged)
    : Layer(whole),
      filters_(filters),
      least_(least),
      follows_(follows),
      surface_(std::move(surface)),
      staged_(std::move(staged)),
      full_(std::max(surface_->at(1.0, 1.0), kShortest)),
      empty_(surface_->at(0.0, 1.0)) {}

Priced ChannelLayer::on_curve(const Option& option, const Extent& left) const {
  if (option.effect.written < 1.0) return between(option, left);
  const auto [kept, stored, own] = left;
  const double computed = computed_share(stored, filters_, option.together, option.effect.rows);
  const double inputs = follows_ ? 1.0 : std::min(1.0, kept / stored);
  const auto [ms, error, staged] = option.curve->at(kept / (inputs * stored) * own);
  const double empty = std::min(empty_, ms), full = empty + inputs * (ms - empty);
  const Priced sparse{least_ + computed * (full - least_), error * computed, staged};
  if (kept == 1.0 && stored == 1.0) return sparse;
  const Priced dense = narrowed(kept, stored);
  return dense.ms < sparse.ms ? dense : sparse;
}

Priced ChannelLayer::between(const Option& option, const Extent& left) const {
  const auto [kept, stored, own] = left;
  const Priced all = option.curve->at(kept * computed_share(own, filters_, option.together, 0));
  if (stored == 1.0 || own >= 1.0) return all;
  const Priced few = narrowed(kept * own, std::min(own, stored));
  if (few.ms >= all.ms) return all;
  const double places = std::max(0.0, stored - own) / (1.0 - own), none = 1.0 - places;
  return {none * few.ms + places * all.ms, std::hypot(none * few.error, places * all.error),
          none * few.staged + places * all.staged};
}

Priced ChannelLayer::narrowed(double kept, double stored) const {
  if (kept == 1.0 && stored == 1.0) return whole();
  const double inputs = follows_ ? stored : kept / stored;
  const double share = surface_->at(inputs, stored) / full_;
  return {whole().ms * share, whole().error * share, staged_ ? staged_->at(inputs, stored) : whole().staged};
}

WeightLayer::WeightLayer(Priced whole, std::shared_ptr<const Curve> dense) : Layer(whole), dense_(std::move(dense)) {}

Priced WeightLayer::on_curve(const Option& option, const Extent& left) const {
  return option.curve->at(left.kept * left.density);
}

Priced WeightLayer::narrowed(double kept, double) const { return dense_->at(kept); }

}  // namespace prunemap
