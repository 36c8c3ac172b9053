#include "layer.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace prunemap {

namespace {

constexpr double kSame = 1e-3;      // of a step that is not another one
constexpr double kShortest = 1e-9;  // ms that a layer is divided by at least

// A share of the outputs, rounded up to what is computed together.
double in_steps(double share, double step) {
  return step > 0.0 ? std::min(1.0, std::max(1.0, std::ceil(share / step - kSame)) * step) : share;
}

}  // namespace

Option Layer::dense() const { return {{}, whole_, 1.0, 0.0, true, nullptr, 1.0, "dense", {}}; }

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

ChannelLayer::ChannelLayer(Priced whole, double least, bool follows, std::shared_ptr<const Surface> surface,
                           std::shared_ptr<const Surface> staged)
    : Layer(whole),
      least_(least),
      follows_(follows),
      surface_(std::move(surface)),
      staged_(std::move(staged)),
      full_(std::max(surface_->at(1.0, 1.0), kShortest)) {}

Priced ChannelLayer::on_curve(const Option& option, const Extent& left) const {
  const auto [kept, stored, own] = left;
  // Filters that are stored, but zero, cost next to nothing: what is computed is those that the option keeps.
  const bool removes = option.effect.written < 1.0;
  const double computed = removes ? 1.0 : in_steps(stored, option.together);
  const double density = removes ? in_steps(own, option.together) : own;
  const auto [ms, error, staged] = option.curve->at(kept / computed * density);
  const Priced sparse{least_ + computed * (ms - least_), error * computed, staged};
  if (kept == 1.0 && stored == 1.0) return sparse;
  const Priced dense = narrowed(kept, stored);
  return dense.ms < sparse.ms ? dense : sparse;
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
