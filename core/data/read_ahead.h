#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace bireme {

/// Makes things in their order on a thread of its own, up to a number ahead of the one last taken.
template <class T>
class ReadAhead {
 public:
  /// @param make   thing `number`; called by the thread
  /// @param ahead  things prepared or in preparation at most, 1 or more; bounds the memory
  ReadAhead(std::function<T(std::int64_t number)> make, std::int64_t first, int ahead)
      : make_(std::move(make)), next_(first), ahead_(static_cast<std::size_t>(ahead)) {
    thread_ = std::jthread([this, first](const std::stop_token& stop) { run(stop, first); });
  }

  /// The next thing. One caller at a time. @throws what making it threw; the same again when called again
  T next() {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return !things_.empty() || failure_; });
    wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (things_.empty()) std::rethrow_exception(failure_);
    T thing = std::move(things_.front());
    things_.pop_front();
    ++next_;
    room_.notify_one();
    return thing;
  }

  /// Number of the thing that next() gives.
  std::int64_t number() const {
    const std::lock_guard lock(mutex_);
    return next_;
  }
  /// Time that next() waited.
  double wait_seconds() const {
    const std::lock_guard lock(mutex_);
    return wait_seconds_;
  }

 private:
  /// Ends after a failure: what follows it is never delivered.
  void run(const std::stop_token& stop, std::int64_t number) {
    for (;; ++number) {
      {
        std::unique_lock lock(mutex_);
        if (!room_.wait(lock, stop, [this] { return things_.size() < ahead_; }) || stop.stop_requested())
          return;
      }
      std::optional<T> thing;
      std::exception_ptr failure;
      try {
        thing = make_(number);
      } catch (...) {
        failure = std::current_exception();
      }
      const std::lock_guard lock(mutex_);
      failure_ = failure;
      if (thing) things_.push_back(std::move(*thing));
      ready_.notify_one();
      if (failure) return;
    }
  }

  const std::function<T(std::int64_t)> make_;
  mutable std::mutex mutex_;
  std::condition_variable_any room_, ready_;
  std::deque<T> things_;
  std::exception_ptr failure_;
  std::int64_t next_;
  const std::size_t ahead_;
  double wait_seconds_ = 0;
  std::jthread thread_;  // joined first
};

}  // namespace bireme
