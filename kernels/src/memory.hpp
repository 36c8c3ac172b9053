// Memory of one program, of which everything is taken and nothing given back.
#pragma once
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

// gcc's way of telling, and clang's, which may only be asked in a directive.
#if defined(__SANITIZE_ADDRESS__)
#define PRUNEMAP_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PRUNEMAP_ADDRESS_SANITIZER 1
#endif
#endif
#if !defined(PRUNEMAP_ADDRESS_SANITIZER)
#define PRUNEMAP_ADDRESS_SANITIZER 0
#endif

namespace prunemap {

// Blocks of huge pages, where the system has them. Small pages lie anywhere in memory: by chance they compete for the same
// places in the caches, and a plane has more of them than there are quick translations. What lies in one block also
// lies the same way in every process, so that the same program takes the same time there.
class Memory {
 public:
  // Aligned to a cache line, all zero.
  template <class T>
  T* zeroed(std::size_t count) {
    void* memory = take(count * sizeof(T));
    return static_cast<T*>(std::memset(memory, 0, count * sizeof(T)));
  }

  template <class T>
  const T* copy(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kLine);
    T* memory = static_cast<T*>(take(values.size() * sizeof(T)));
    std::uninitialized_copy(values.begin(), values.end(), memory);
    return memory;
  }

 private:
  static constexpr bool kApart = PRUNEMAP_ADDRESS_SANITIZER;  // so that a sanitiser sees the first byte beyond
  static constexpr std::size_t kLine = 64, kHugePage = 2 << 20, kMostAhead = 64 << 20;
  struct Free {
    std::align_val_t alignment;
    void operator()(std::byte* p) const { ::operator delete(p, alignment); }
  };

  void* take(std::size_t bytes) {
    if (kApart) return add(bytes, kLine);
    const std::size_t room = round_up(bytes, kLine);
    if (room > left_) {  // as large as all before: few blocks, and only pages that are used take memory
      const std::size_t size = round_up(std::max(room, std::min(all_, kMostAhead)), kHugePage);
      next_ = add(size, kHugePage);
      left_ = size;
      all_ += size;
    }
    std::byte* taken = next_;
    next_ += room;
    left_ -= room;
    return taken;
  }

  std::byte* add(std::size_t bytes, std::size_t alignment) {
    const auto aligned = std::align_val_t{alignment};
    std::unique_ptr<std::byte, Free> block(static_cast<std::byte*>(::operator new(bytes, aligned)), Free{aligned});
    blocks_.push_back(std::move(block));
#if defined(MADV_HUGEPAGE)
    if (alignment == kHugePage) madvise(blocks_.back().get(), bytes, MADV_HUGEPAGE);  // a wish: small pages are right too
#endif
    return blocks_.back().get();
  }

  static std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

  std::vector<std::unique_ptr<std::byte, Free>> blocks_;
  std::byte* next_ = nullptr;
  std::size_t left_ = 0, all_ = 0;
};

}  // namespace prunemap
