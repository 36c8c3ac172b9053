// Storage aligned to cache lines, and to huge pages where it fills one.
#pragma once
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

namespace prunemap {

template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t count) : Buffer(count, Raw{}) {
    std::memset(static_cast<void*>(data_.get()), 0, count * sizeof(T));
  }
  Buffer(const T* data, std::size_t count) : Buffer(count, Raw{}) { std::copy_n(data, count, data_.get()); }
  T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  const T* begin() const { return data_.get(); }
  const T* end() const { return data_.get() + size_; }
  const T& at(std::size_t index) const {
    if (index >= size_) throw std::out_of_range("buffer index");
    return data_[index];
  }

 private:
  static constexpr std::size_t kLine = 64, kHugePage = 2 << 20;
  struct Raw {};
  struct Free {
    std::align_val_t alignment;
    void operator()(T* p) const { ::operator delete(p, alignment); }
  };

  // Not rounded up, so that an address sanitiser sees the first byte beyond.
  Buffer(std::size_t count, Raw) : size_(count), data_(allocate(count * sizeof(T))) {}

  // Small pages lie anywhere in memory: by chance they compete for the same places in the caches, and a plane has more of
  // them than there are quick translations.
  static std::unique_ptr<T[], Free> allocate(std::size_t bytes) {
    const std::align_val_t alignment{bytes >= kHugePage ? kHugePage : kLine};
    void* memory = ::operator new(bytes, alignment);
#if defined(MADV_HUGEPAGE)
    if (bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: small pages are right as well
#endif
    return {static_cast<T*>(memory), Free{alignment}};
  }

  std::size_t size_;
  std::unique_ptr<T[], Free> data_;
};

// A buffer that programs and Python may hold together; nobody writes to it any more.
template <class T>
using Shared = std::shared_ptr<const Buffer<T>>;

}  // namespace prunemap
