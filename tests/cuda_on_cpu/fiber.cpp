#include "tests/cuda_on_cpu/fiber.h"

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {

namespace {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

// Debian's Boost.Context does not announce its switches to AddressSanitizer, so that is done here.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStack = 256 << 10;  // frames grow by their guards
void start_switch(void** save, const void* bottom, std::size_t size) {
  __sanitizer_start_switch_fiber(save, bottom, size);
}
void finish_switch(void* fake, const void** bottom, std::size_t* size) {
  __sanitizer_finish_switch_fiber(fake, bottom, size);
}
void forget(const void* bottom, std::size_t size) { __asan_unpoison_memory_region(bottom, size); }
#else
constexpr std::size_t kStack = 64 << 10;
void start_switch(void**, const void*, std::size_t) {}
void finish_switch(void*, const void**, std::size_t*) {}
void forget(const void*, std::size_t) {}
#endif
constexpr std::size_t kGuard = 4096;

}  // namespace

struct Fiber::Entry {
  static void run(transfer_t from) {
    auto* fiber = static_cast<Fiber*>(from.data);
    finish_switch(nullptr, &fiber->caller_bottom_, &fiber->caller_size_);
    fiber->caller_ = from.fctx;
    fiber->body_(fiber->argument_);
    __builtin_unreachable();
  }
};

Fiber::Fiber(Body body, void* argument) : body_(body), argument_(argument) {
  void* mapping = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<std::byte*>(mapping);
  mprotect(mapping_, kGuard, PROT_NONE);  // an overflowing stack stops here
  reset();
}

Fiber::~Fiber() { munmap(mapping_, kGuard + kStack); }

void Fiber::reset() {
  forget(mapping_ + kGuard, kStack);
  own_fake_stack_ = nullptr;
  context_ = make_fcontext(mapping_ + kGuard + kStack, kStack, &Entry::run);
}

void Fiber::resume() {
  start_switch(&caller_fake_stack_, mapping_ + kGuard, kStack);
  const transfer_t back = jump_fcontext(context_, this);
  finish_switch(caller_fake_stack_, nullptr, nullptr);
  context_ = back.fctx;
}

void Fiber::yield() {
  start_switch(&own_fake_stack_, caller_bottom_, caller_size_);
  const transfer_t again = jump_fcontext(caller_, this);
  finish_switch(own_fake_stack_, &caller_bottom_, &caller_size_);
  caller_ = again.fctx;
}

}  // namespace cuda_on_cpu
