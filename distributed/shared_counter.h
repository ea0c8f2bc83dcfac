#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace bireme {

/// A count in shared memory that one rank raises and others wait for. Counts wrap; the difference between
/// what is there and what is wanted must stay below 2^31. Zero-filled memory is a fresh counter.
class alignas(64) SharedCounter {
 public:
  void raise();
  bool has_reached(std::uint32_t target) const {
    return static_cast<std::int32_t>(value_.load(std::memory_order_acquire) - target) >= 0;
  }

  /// Spins for `spins` rounds, then gives way, then sleeps: two threads on one core must not keep each other
  /// waiting. Calls `while_waiting` every tenth of a second; what it throws ends the wait.
  void wait(std::uint32_t target, int spins, const std::function<void()>& while_waiting);

 private:
  std::atomic<std::uint32_t> value_;
  std::atomic<std::uint32_t> sleepers_;
};

}  // namespace bireme
