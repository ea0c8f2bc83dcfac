#pragma once

#include <utility>

namespace bireme {

/// Owns a handle of a C library. Move-only. Traits give the handle type, its null value and the closing call.
template <class Traits>
class [[nodiscard]] Owned {
 public:
  using Handle = typename Traits::Handle;

  Owned() = default;
  explicit Owned(Handle handle) noexcept : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, Traits::null())) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle_ != Traits::null()) Traits::close(handle_);
  }

  Handle get() const noexcept { return handle_; }
  explicit operator bool() const noexcept { return handle_ != Traits::null(); }
  /// Gives the handle up without closing it, for the one place that closes it and checks the outcome.
  [[nodiscard]] Handle release() noexcept { return std::exchange(handle_, Traits::null()); }

 private:
  Handle handle_ = Traits::null();
};

}  // namespace bireme
