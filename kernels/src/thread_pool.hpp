// Threads that stay: work is split statically by the caller, so that results do not depend on timing.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace prunemap {

class ThreadPool {
 public:
  // `threads` counts the calling thread; with 1 no thread is started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls job(part) for every part in [0, threads) at once and returns when all are done.
  void run(const std::function<void(int)>& job);

  // Called inside a job by every part: returns when all parts have come here.
  void barrier();

 private:
  void work(int part);
  void stop();

  int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  const std::function<void(int)>* job_ = nullptr;
  std::atomic<unsigned> round_{0}, arrived_{0}, phase_{0};
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace prunemap
