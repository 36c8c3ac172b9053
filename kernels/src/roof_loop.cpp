#include "roof_loop.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "clock.hpp"
#include "dispatch.hpp"

namespace prunemap {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 30;  // floats, passes
constexpr std::int64_t kMostThreads = 256;

const RoofFamily& find_family(const std::string& isa, int lanes) {
  const KernelTable& table = find_table(isa);
  for (int i = 0; i < table.families; ++i)
    if (table.roof[i].lanes == lanes) return table.roof[i];
  throw std::invalid_argument("roof: the ISA has no vectors of so many lanes");
}

std::int64_t checked(std::int64_t value, std::int64_t most, const char* what) {
  if (value < 1 || value > most) throw std::invalid_argument(what);
  return value;
}

}  // namespace

RoofLoop::RoofLoop(const std::string& isa, const std::string& loop, int lanes, std::int64_t floats,
                   std::int64_t passes, int threads)
    : floats_(checked(floats, kMost, "roof: floats out of range")),
      passes_(checked(passes, kMost, "roof: passes out of range")),
      pool_(static_cast<int>(checked(threads, kMostThreads, "roof: threads out of range"))) {
  const RoofFamily& family = find_family(isa, lanes);
  floats_ = (floats_ + family.step - 1) / family.step * family.step;
  const double all = static_cast<double>(floats_) * static_cast<double>(passes_) * threads;
  bytes_ = 4.0 * all;
  flops_ = 2.0 * all;
  if (loop == "registers") {
    function_ = family.registers;
    bytes_ = 0.0;
  } else if (loop == "aligned" || loop == "misaligned") {
    function_ = family.memory;
    shift_ = loop == "misaligned" ? 1 : 0;
  } else if (loop == "broadcast") {
    function_ = family.broadcast;
    flops_ *= lanes;
  } else if (loop == "read") {
    function_ = family.read;
    flops_ = 0.0;
  } else {
    throw std::invalid_argument("unknown roof loop " + loop);
  }
  for (int part = 0; part < threads; ++part) {
    data_.push_back(memory_.zeroed<float>(static_cast<std::size_t>(floats_ + shift_)));
    std::fill_n(data_.back(), floats_ + shift_, 1.0F);
  }
}

std::vector<double> RoofLoop::time(std::int64_t repeats) {
  std::vector<double> taken(static_cast<std::size_t>(repeats));
  std::vector<float> sums(data_.size());
  pool_.run([&](int part) {
    const auto index = static_cast<std::size_t>(part);
    const float* data = data_[index] + shift_;
    for (double& each : taken) {
      pool_.barrier();
      const double start = seconds();
      const float sum = function_(data, floats_, passes_);
      pool_.barrier();
      if (part == 0) each = elapsed(start, seconds());
      sums[index] = sum;
    }
  });
  for (const float sum : sums)
    if (!std::isfinite(sum) || sum <= 0.0F) throw std::runtime_error("roof: a loop computed something impossible");
  return taken;
}

}  // namespace prunemap
