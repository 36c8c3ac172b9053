#include <stdexcept>

#include "clock.hpp"
#include "float_mode.hpp"
#include "margins.hpp"
#include "program.hpp"

namespace prunemap {

void Program::run_step(const Step& step, const Frame& frame, int part) const {
  if (part == 0)
    for (const Margin& margin : step.margins) clear_margins(frame.arena + margin.planes.base, margin.planes, margin.covered);
  const auto index = static_cast<std::size_t>(part);
  if (step.bounds[index] < step.bounds[index + 1])
    step.run(step.parameters, frame, step.bounds[index], step.bounds[index + 1]);
}

Frame Program::frame_of(const float* input, float* output, int part) {
  const auto address = [](const float* memory) { return reinterpret_cast<std::intptr_t>(memory); };
  const std::intptr_t bytes = address(scratches_[static_cast<std::size_t>(part)]) - address(arena_);
  return {arena_, input, output, bytes / static_cast<std::intptr_t>(sizeof(float))};
}

void Program::run_part(const float* input, float* output, int part) {
  const FlushDenormals mode;
  const Frame frame = frame_of(input, output, part);
  for (const Step& step : steps_) {
    run_step(step, frame, part);
    pool_.barrier();
  }
}

std::int64_t Program::images(std::int64_t size) const {
  if (size <= 0 || size % input_ != 0) throw std::invalid_argument("run: the input does not hold whole images");
  return size / input_;
}

void Program::run(const float* input, float* output, std::int64_t images) {
  const std::lock_guard<std::mutex> lock(running_);
  for (std::int64_t i = 0; i < images; ++i) {
    pool_.run([&](int part) { run_part(input + i * input_, output + i * output_, part); });
  }
}

void Program::check_timing(std::int64_t size, std::int64_t repeats, std::size_t steps) const {
  if (size != input_) throw std::invalid_argument("time: the input must be one image");
  constexpr std::int64_t most = 10'000'000;  // samples
  if (repeats < 1 || repeats > most || steps > static_cast<std::size_t>(most / repeats))
    throw std::invalid_argument("time: repeats must be at least 1, and at most ten million samples");
}

std::vector<double> Program::time(const float* input, float* output, std::int64_t repeats) {
  const std::lock_guard<std::mutex> lock(running_);
  std::vector<double> taken(static_cast<std::size_t>(repeats));
  for (double& each : taken) {
    const double start = seconds();
    pool_.run([&](int part) { run_part(input, output, part); });
    each = elapsed(start, seconds());
  }
  return taken;
}

std::vector<double> Program::time_steps(const float* input, float* output, std::int64_t repeats,
                                        const std::vector<std::size_t>& chosen) {
  const std::lock_guard<std::mutex> lock(running_);
  for (const std::size_t index : chosen)
    if (index >= steps_.size()) throw std::out_of_range("no such step");
  std::vector<double> taken(static_cast<std::size_t>(repeats) * chosen.size());
  pool_.run([&](int part) {
    const FlushDenormals mode;
    const Frame frame = frame_of(input, output, part);
    double* to = taken.data();
    for (std::int64_t r = 0; r < repeats; ++r) {
      double start = seconds();
      for (const std::size_t index : chosen) {
        run_step(steps_[index], frame, part);
        pool_.barrier();
        const double end = seconds();
        if (part == 0) *to++ = elapsed(start, end);
        start = end;
      }
    }
  });
  return taken;
}

}  // namespace prunemap
