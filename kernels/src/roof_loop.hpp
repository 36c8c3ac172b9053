// One of the loops of ops/roof.hpp with its data, run and timed on every thread at once.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "memory.hpp"
#include "table.hpp"
#include "thread_pool.hpp"

namespace prunemap {

class RoofLoop {
 public:
  // `loop`: registers, aligned, misaligned (by one float), broadcast or read. Every thread has `floats` of its own (rounded
  // up to whole steps of the loop) and goes over them `passes` times in a run.
  // Throws std::invalid_argument for what the ISA does not have.
  RoofLoop(const std::string& isa, const std::string& loop, int lanes, std::int64_t floats, std::int64_t passes,
           int threads);

  // Floating-point operations and bytes read by one run of all threads.
  double flops() const { return flops_; }
  double bytes() const { return bytes_; }

  // Bytes of one thread's data.
  std::int64_t size() const { return 4 * floats_; }

  // Seconds of `repeats` runs, each from when all threads are ready to when all are done.
  // Throws std::runtime_error when a loop computed something impossible.
  std::vector<double> time(std::int64_t repeats);

 private:
  RoofFunction function_ = nullptr;
  std::int64_t floats_, passes_, shift_ = 0;
  double flops_ = 0.0, bytes_ = 0.0;
  Memory memory_;
  std::vector<float*> data_;
  ThreadPool pool_;
};

}  // namespace prunemap
