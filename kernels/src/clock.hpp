// The clock that everything is timed with.
#pragma once
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
// Seconds of a tick of the CPU's counter, measured for some milliseconds; 0 where it does not count evenly.
inline double measure_tick() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0x80000007, &a, &b, &c, &d) == 0 || (d >> 8 & 1) == 0) return 0.0;
  const double start = system_seconds();
  const unsigned long long first = __rdtscp(&a);
  double now = start;
  while (now < start + 5e-3) now = system_seconds();
  return (now - start) / static_cast<double>(__rdtscp(&a) - first);
}

// The system's clock may tick in tens of nanoseconds, of which steps take a few hundred, and takes as long to read. The
// counter is read when what is before it is done.
inline double seconds() {
  static const double tick = measure_tick();
  unsigned processor = 0;
  return tick > 0.0 ? static_cast<double>(__rdtscp(&processor)) * tick : system_seconds();
}
#else
inline double seconds() { return system_seconds(); }
#endif

inline double measure_reading() {
  double least = 1.0;
  for (int i = 0; i < 1000; ++i) {
    const double start = seconds(), taken = seconds() - start;
    least = taken < least ? taken : least;
  }
  return least;
}

// Seconds from one reading of the clock to another, without what reading it takes: sums of short steps would otherwise be
// longer than the run that they make up.
inline double elapsed(double start, double end) {
  static const double reading = measure_reading();
  const double taken = end - start - reading;
  return taken > 1e-9 ? taken : 1e-9;
}

}  // namespace prunemap
