// 64-byte aligned storage, zero at first.
#pragma once
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
  static constexpr std::size_t kAlignment = 64;
  struct Raw {};
  // Not rounded up, so that an address sanitiser sees the first byte beyond.
  Buffer(std::size_t count, Raw)
      : size_(count), data_(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{kAlignment}))) {}
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{kAlignment}); }
  };
  std::size_t size_;
  std::unique_ptr<T[], Free> data_;
};

// A buffer that programs and Python may hold together; nobody writes to it any more.
template <class T>
using Shared = std::shared_ptr<const Buffer<T>>;

}  // namespace prunemap
