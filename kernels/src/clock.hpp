// The clock that everything is timed with.
#pragma once
#include <algorithm>
#include <chrono>
#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace prunemap {

inline double system_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#if defined(__x86_64__)
// The CPU's counter, read when what is before it is done.
inline double ticks() {
  unsigned processor = 0;
  return static_cast<double>(__rdtscp(&processor));
}

// Seconds of a tick of the counter, measured for some milliseconds; 0 where it does not count evenly.
inline double measure_tick() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0x80000007, &a, &b, &c, &d) == 0 || (d >> 8 & 1) == 0) return 0.0;
  const double start = system_seconds(), first = ticks();
  double now = start;
  while (now < start + 5e-3) now = system_seconds();
  return (now - start) / (ticks() - first);
}
#else
inline double ticks() { return 0.0; }
inline double measure_tick() { return 0.0; }
#endif

// Reading the system's clock may take tens of nanoseconds, where steps take a few hundred.
inline double read_clock(double tick) { return tick > 0.0 ? ticks() * tick : system_seconds(); }

struct Clock {
  double tick, reading;  // seconds: of a tick, 0 for the system's clock; that reading it takes
};

// The reading is told from many in a row, the fastest of some: the counter of a virtual machine may go in steps of half
// of what a reading takes.
inline Clock make_clock() {
  constexpr int tries = 50, readings = 100;
  Clock made{measure_tick(), 1.0};
  for (int i = 0; i < tries; ++i) {
    const double start = read_clock(made.tick);
    double end = start;
    for (int j = 0; j < readings; ++j) end = read_clock(made.tick);
    made.reading = std::min(made.reading, (end - start) / readings);
  }
  return made;
}

inline const Clock& the_clock() {
  static const Clock made = make_clock();
  return made;
}

inline double seconds() { return read_clock(the_clock().tick); }

// Seconds from one reading of the clock to another, without what reading it takes: sums of short steps would otherwise be
// longer than the run that they make up.
inline double elapsed(double start, double end) {
  const double taken = end - start - the_clock().reading;
  return taken > 1e-9 ? taken : 1e-9;
}

}  // namespace prunemap
