// One layer: its choices as they are priced, and what it costs under them where neighbours take channels from it.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "curve.hpp"
#include "surface.hpp"

namespace prunemap {

// What a choice does to channels.
struct Effect {
  double written = 1.0;  // share of the layer's filters that stay
  double unread = 0.0;   // share of its input channels that it does not read when all of its filters are needed
  int rows = 0;          // filters of a block that reads channels of its own; 0 where all filters read the same ones
};

// What is left of a layer, as shares; each by chance, or as the weights tell.
struct Extent {
  double kept;     // of its weights, that neighbours leave
  double stored;   // of its outputs, that have a place in memory
  double density;  // of the weights that neighbours leave, that the layer keeps
};

// A choice of a layer, prepared for pricing. What every prediction reads comes first.
struct Option {
  Effect effect;
  Priced alone;                        // what the layer costs where neighbours leave it whole
  double density;                      // share of the weights that it keeps
  int together;                        // filters that are computed together: fewer take about as long
  bool whole;                          // what the layer keeps is without zeros, whatever other layers choose
  std::shared_ptr<const Curve> curve;  // its scheme's; none where no layer chooses it by itself
  double rate;
  std::string scheme;
  std::string unmeasured;  // what to tell where the curve is asked for and there is none

  bool same_choice(const Option& other) const { return rate == other.rate && scheme == other.scheme; }
};

// A scheme had to be priced that the profile does not hold.
struct Unmeasured : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Layer {
 public:
  // whole: what the dense layer costs.
  explicit Layer(Priced whole) : whole_(whole) {}
  virtual ~Layer() = default;

  Option dense() const;
  // The option with what it costs alone.
  Option prepared(Option option) const;

  // Cost of an option that saves its own work alone.
  Priced sparse(const Option& option, const Extent& left) const;
  // What the layer costs without zeros in what is left of it: shares of its weights, and of its outputs that are stored.
  virtual Priced narrowed(double kept, double stored) const = 0;

 protected:
  virtual Priced on_curve(const Option& option, const Extent& left) const = 0;
  const Priced& whole() const { return whole_; }

 private:
  Priced whole_;
};

// The share of a layer's filters that are computed where a share of them is stored: rounded up to what is computed together,
// or of a block of `rows` filters that read channels of their own, of which chance leaves some in each: as a block, or one by
// one where that is faster.
double computed_share(double stored, int filters, int together, int rows);

// Each computed output costs something, and so does each live input of it: under a scheme as much as a curve over the share
// of its weights that are kept says, and without zeros a surface over shares of channels. Computed are the stored outputs,
// rounded up to what is computed together. Where few channels are left a layer may be faster as if it had no zeros, and is
// computed so.
class ChannelLayer : public Layer {
 public:
  // filters: how many it has. least: what a step takes that computes next to nothing. follows: its inputs are its outputs'
  // channels. staged: how often the input is staged; none where it is as often as in the dense layer.
  ChannelLayer(Priced whole, int filters, double least, bool follows, std::shared_ptr<const Surface> surface,
               std::shared_ptr<const Surface> staged);

  Priced narrowed(double kept, double stored) const override;

 protected:
  Priced on_curve(const Option& option, const Extent& left) const override;

 private:
  // Filters were removed of which neighbours keep some in their places: between a layer of few filters and one that keeps
  // all places.
  Priced between(const Option& option, const Extent& left) const;

  int filters_;
  double least_;
  bool follows_;
  std::shared_ptr<const Surface> surface_, staged_;
  double full_, empty_;  // ms: of the surface, all channels; that no inputs take
};

// The weights that are left decide alone (ALCS, equation 4).
class WeightLayer : public Layer {
 public:
  // dense: the curve of the layer without zeros.
  WeightLayer(Priced whole, std::shared_ptr<const Curve> dense);

  Priced narrowed(double kept, double stored) const override;

 protected:
  Priced on_curve(const Option& option, const Extent& left) const override;

 private:
  std::shared_ptr<const Curve> dense_;
};

}  // namespace prunemap
