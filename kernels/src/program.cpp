#include "program.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "checks.hpp"
#include "dispatch.hpp"
#include "functions.hpp"

namespace prunemap {
namespace {

// Floats of a buffer: offsets have 32 bits, and sums of such numbers cannot overflow in what follows.
std::int64_t buffer_size(std::int64_t count) {
  require(count > 0 && count <= INT32_MAX, "buffer sizes must be positive and below 2^31 floats");
  return count;
}

constexpr std::int32_t kMaxWindow = 1 << 15;  // of a pool: its positions are walked, padding or not

int checked_threads(int threads) {
  require(threads >= 1 && threads <= 256, "threads must be from 1 to 256");
  return threads;
}

}  // namespace

Program::Program(const std::string& isa, int threads, std::int64_t arena, std::int64_t input, std::int64_t output,
                 std::int64_t scratch)
    : table_(find_table(isa)),
      threads_(checked_threads(threads)),
      arena_size_(buffer_size(arena)),
      input_(buffer_size(input)),
      output_(buffer_size(output)),
      scratch_(scratch == 0 ? 0 : buffer_size(scratch)),
      arena_(memory_.zeroed<float>(static_cast<std::size_t>(arena_size_))),
      pool_(threads) {
  for (int part = 0; part < threads_; ++part)
    scratches_.push_back(memory_.zeroed<float>(static_cast<std::size_t>(scratch_)));
}

// All ones where a flat position is a pixel whose neighbour `shift` columns on is one too.
const std::int32_t* Program::mask(const Planes& to, std::int64_t lanes, std::int64_t vectors, std::int32_t shift) {
  const auto key = std::make_tuple(to.height, to.width, to.pitch, lanes, shift);
  const auto found = masks_.find(key);
  if (found != masks_.end()) return found->second;
  std::vector<std::int32_t> mask(static_cast<std::size_t>(vectors * lanes), 0);
  for (std::int64_t y = 0; y < to.height; ++y)
    for (std::int64_t x = std::max(0, -shift); x < std::min(to.width, to.width - shift); ++x)
      mask[static_cast<std::size_t>(y * to.pitch + x)] = -1;
  return masks_[key] = memory_.copy(mask);
}

void Program::stage(const Planes& from, const Planes& to, const std::vector<Phase>& phases, std::int32_t step_y,
                    std::int32_t step_x, bool clear) {
  check_planes(from, "stage: bad input planes");
  check_planes(to, "stage: bad output planes");
  require(to.space != Space::input && to.space != Space::scratch && from.space != Space::scratch,
          "stage: planes in memory that cannot be copied to, or from");
  require(step_y >= 1 && step_x >= 1 && !phases.empty(), "stage: bad steps");
  require(to.channels == from.channels * static_cast<std::int64_t>(phases.size()), "stage: channels do not fit");
  require(std::int64_t{step_y} * (to.height - 1) < from.height, "stage: output planes are too high");
  for (const Phase& p : phases)
    require(p.row >= 0 && p.row < from.height && p.column > -kMaxWindow && p.column < from.width,
            "stage: a phase lies outside the input");
  if (step_x == 2) check_span(to, to.stride, "stage: output planes end outside their buffer");  // stores whole vectors
  Stage s{from, to, memory_.copy(phases), static_cast<std::int32_t>(phases.size()), step_y, step_x,
          capacity(from.space), nullptr, 0};
  const std::int64_t lanes = table_.pixel[0].lanes, vectors = vectors_of(to, lanes);
  if (step_y == 1 && step_x == 1 && are_alike(from, to, phases, vectors * lanes)) {
    std::vector<const std::int32_t*> masks;
    for (const Phase& p : phases) masks.push_back(mask(to, lanes, vectors, p.column));
    s.mask = memory_.copy(masks);
    s.vectors = static_cast<std::int32_t>(vectors);
  }
  push(table_.stage, s, equal_work(from.channels), to, std::int64_t{s.vectors} * lanes, clear);
}

void Program::pool(Pool p, bool clear) {
  check_planes(p.from, "pool: bad input planes");
  check_planes(p.to, "pool: bad output planes");
  require(p.from.space == Space::arena && p.to.space == Space::arena, "pool: planes must lie in the arena");
  require(p.from.channels == p.to.channels, "pool: channels do not fit");
  const auto windows = [](std::int32_t kernel, std::int32_t step, std::int32_t pad, std::int32_t in, std::int32_t out) {
    require(kernel >= 1 && kernel <= std::max(in, kMaxWindow) && step >= 1, "pool: bad window");
    require(pad >= 0 && pad < kernel, "pool: bad padding");
    require(std::int64_t{step} * (out - 1) - pad < in, "pool: a window lies outside the input");
  };
  windows(p.kernel_y, p.step_y, p.pad_y, p.from.height, p.to.height);
  windows(p.kernel_x, p.step_x, p.pad_x, p.from.width, p.to.width);
  const std::int64_t lanes = table_.pixel[0].lanes, span = vectors_of(p.from, lanes) * lanes;
  p.whole = p.kind == PoolKind::average && p.to.height == 1 && p.to.width == 1 && p.pad_y == 0 && p.pad_x == 0 &&
            p.kernel_y == p.from.height && p.kernel_x == p.from.width && p.from.stride >= span;
  if (p.whole) check_span(p.from, span, "pool: input planes end outside the arena");
  push(table_.pool, p, equal_work(p.to.channels), p.to, 0, clear);
}

void Program::add(const Planes& from, const Planes* other, const Planes& to, float low, float high, bool clear) {
  check_planes(to, "add: bad planes");
  const std::int64_t lanes = table_.pixel[0].lanes, vectors = vectors_of(to, lanes), span = vectors * lanes;
  const Planes second = other != nullptr ? *other : absent();
  for (const Planes* p : {&from, other, &to}) {
    if (p == nullptr) continue;
    check_planes(*p, "add: bad planes");
    require(p->space == Space::arena && p->pitch == to.pitch && p->channels == to.channels && p->height == to.height &&
                p->width == to.width,
            "add: planes differ");
    check_span(*p, span, "add: planes end outside the arena");
  }
  require(to.stride >= span, "add: output planes overlap");
  Add a{from, second, to, mask(to, lanes, vectors), static_cast<std::int32_t>(vectors), low, high};
  push(table_.add, a, equal_work(to.channels), to, span, clear);
}

void Program::function(const std::string& name, const Planes& from, const Planes& to, bool clear) {
  check_planes(from, "function: bad planes");
  check_planes(to, "function: bad planes");
  require(from.space == Space::arena && to.space == Space::arena, "function: planes must lie in the arena");
  require(from.channels == to.channels && from.height == to.height && from.width == to.width, "function: planes differ");
  push(apply_function, Function{from, to, find_function(name)}, equal_work(to.channels), to, 0, clear);
}

}  // namespace prunemap
