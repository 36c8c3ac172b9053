#include "thread_pool.hpp"

namespace prunemap {
namespace {

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins for some microseconds, then lets other threads have the core: layers are short, but cores may be shared.
template <class Ready>
void spin(const Ready& ready) {
  for (int i = 0; !ready(); ++i) {
    if (i < 2000) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  try {
    for (int part = 1; part < threads; ++part) workers_.emplace_back([this, part] { work(part); });
  } catch (...) {  // the system has no more threads
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(const std::function<void(int)>& job) {
  if (threads_ == 1) return job(0);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    job_ = &job;
    round_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  job(0);
  barrier();
}

void ThreadPool::barrier() {
  if (threads_ == 1) return;
  const unsigned phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<unsigned>(threads_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    return;
  }
  spin([&] { return phase_.load(std::memory_order_acquire) != phase; });
}

void ThreadPool::work(int part) {
  unsigned seen = 0;
  for (;;) {
    const std::function<void(int)>* job = nullptr;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || round_.load(std::memory_order_acquire) != seen; });
      if (stop_) return;
      seen = round_.load(std::memory_order_acquire);
      job = job_;
    }
    (*job)(part);
    barrier();
  }
}

}  // namespace prunemap
