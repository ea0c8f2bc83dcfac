#include "distributed/shared_counter.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace bireme {

namespace {

constexpr int kYields = 32;
constexpr long kSleepNanoseconds = 100'000'000;

// Futexes of the shared kind: the word is mapped by several processes.
long futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value, const timespec* timeout) {
  static_assert(sizeof(word) == sizeof(std::uint32_t));
  return syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
}

}  // namespace

void SharedCounter::raise() {
  value_.fetch_add(1);
  // Sequentially consistent with the sleeper's increment and look: one of the two sees the other.
  if (sleepers_.load() != 0) futex(value_, FUTEX_WAKE, INT_MAX, nullptr);
}

void SharedCounter::wait(std::uint32_t target, int spins, const std::function<void()>& while_waiting) {
  for (int i = 0; i < spins; ++i) {
    if (has_reached(target)) return;
    _mm_pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (has_reached(target)) return;
    sched_yield();
  }
  while (!has_reached(target)) {
    sleepers_.fetch_add(1);
    const std::uint32_t seen = value_.load();
    if (static_cast<std::int32_t>(seen - target) < 0) {
      const timespec timeout{.tv_sec = 0, .tv_nsec = kSleepNanoseconds};
      futex(value_, FUTEX_WAIT, seen, &timeout);
    }
    sleepers_.fetch_sub(1);
    if (has_reached(target)) return;
    try {
      while_waiting();
    } catch (...) {
      if (!has_reached(target)) throw;  // it raised the count, and left afterwards
    }
  }
}

}  // namespace bireme
