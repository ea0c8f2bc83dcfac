#pragma once

#include <cstddef>

namespace cuda_on_cpu {

/// A stack on which a function runs until it hands control back. The function never returns: it yields.
class Fiber {
 public:
  using Body = void (*)(void*);
  Fiber(Body body, void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Runs the fiber from where it yielded, until it yields again.
  void resume();
  /// Within the fiber: back to the caller of resume().
  void yield();
  /// Forgets what stands on the stack; the next resume() starts the body anew. Nothing is destroyed.
  void reset();

 private:
  struct Entry;
  std::byte* mapping_;
  void* context_ = nullptr;  // of the fiber while it rests
  void* caller_ = nullptr;   // of resume() while it runs
  Body body_;
  void* argument_;
  // What AddressSanitizer has to be told at each switch.
  void* own_fake_stack_ = nullptr;
  void* caller_fake_stack_ = nullptr;
  const void* caller_bottom_ = nullptr;
  std::size_t caller_size_ = 0;
};

}  // namespace cuda_on_cpu
