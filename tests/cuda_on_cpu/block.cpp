#include "tests/cuda_on_cpu/block.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "tests/cuda_on_cpu/fiber.h"
#include "tests/cuda_on_cpu/host_blocks.h"
#include "tests/cuda_on_cpu/launches.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace cuda_on_cpu {

uint3 thread_index, block_index;
dim3 block_size, grid_size;

namespace {

constexpr std::size_t kMostShared = 227 << 10;  // of sm_90
constexpr std::size_t kFence = 64;

std::string to_text(const Where& where) {
  const std::string path = where.file_name();
  const std::size_t slash = path.rfind('/');
  return fmt::format("{}:{}", slash == std::string::npos ? path : path.substr(slash + 1), where.line());
}

bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

/// Lanes of one warp that meet: complete when all of the mask have come, gone when all have read the values.
struct Meeting {
  const char* what = nullptr;
  Where where;
  unsigned mask = 0, arrived = 0, left = 0;
  std::array<std::uint64_t, 32> values{};
};

enum class State { unstarted, ready, at_barrier, meeting, finished };

struct Worker;

struct Thread {
  uint3 index{};
  State state = State::unstarted;
  Worker* worker = nullptr;  // while it runs or waits
  Where where;               // what it waits at
};

/// A fiber and the thread that it runs. When a thread ends without having waited, the fiber goes on with the
/// next one: kernels without barriers are a plain loop.
struct Worker {
  explicit Worker(Fiber::Body body) : fiber(body, this) {}
  Fiber fiber;
  int thread = -1;
};

class Block {
 public:
  void run(const GridShape& shape, const std::function<void()>& body, const Where& launched) {
    body_ = &body;
    launched_ = &launched;
    failure_.clear();
    const unsigned count = shape.threads.x * shape.threads.y * shape.threads.z;
    threads_.assign(count, {});
    order_.resize(count);
    std::iota(order_.begin(), order_.end(), 0);
    shuffle()(order_);
    for (unsigned i = 0; i < count; ++i)
      threads_[i].index = {i % shape.threads.x, i / shape.threads.x % shape.threads.y,
                           i / shape.threads.x / shape.threads.y};
    meetings_.resize((count + 31) / 32);
    started_ = finished_ = at_barrier_ = 0;
    ready_.clear();
    while (finished_ < static_cast<int>(count)) {
      Worker* next = pick();
      if (next == nullptr) fail(deadlock());
      if (failure_.empty()) next->fiber.resume();
      if (!failure_.empty()) stop();
      if (next->thread < 0) idle_.push_back(next);
    }
  }

  void arrive_at_barrier(const Where& where) {
    Thread& self = current();
    if (at_barrier_ > 0 && !same(barrier_, where))
      fail_here(fmt::format("threads of one block wait at two barriers, {} and {}", to_text(barrier_),
                            to_text(where)));
    barrier_ = where;
    self.where = where;
    self.state = State::at_barrier;
    if (++at_barrier_ == static_cast<int>(threads_.size())) {
      at_barrier_ = 0;
      for (std::size_t i = 0; i < threads_.size(); ++i) make_ready(static_cast<int>(i));
    }
    wait();
  }

  const std::uint64_t* meet(const char* what, unsigned mask, std::uint64_t value, const Where& where) {
    const int index = running_->thread;
    const int lane = index % 32;
    const unsigned own = 1U << lane;
    auto& list = meetings_[static_cast<std::size_t>(index) / 32];
    if ((mask & own) == 0)
      fail_here(
          fmt::format("{} at {}: lane {} is not in its own mask {:#010x}", what, to_text(where), lane, mask));
    Meeting* meeting = nullptr;
    for (const auto& candidate : list) {
      if (candidate->arrived == candidate->mask || candidate->mask != mask) continue;
      if (!same(candidate->where, where))
        fail_here(
            fmt::format("lanes of one warp with mask {:#010x} meet in two places, {} at {} and {} at {}",
                        mask, candidate->what, to_text(candidate->where), what, to_text(where)));
      meeting = candidate.get();
    }
    if (meeting == nullptr) {
      list.push_back(take_meeting());
      meeting = list.back().get();
      *meeting = {.what = what, .where = where, .mask = mask};
    }
    meeting->values[static_cast<std::size_t>(lane)] = value;
    meeting->arrived |= own;
    Thread& self = current();
    self.where = where;
    if (meeting->arrived == mask) {
      const int first = index / 32 * 32;
      for (int i = 0; i < 32; ++i)
        if ((mask >> i & 1U) != 0 && i != lane) make_ready(first + i);
    } else {
      self.state = State::meeting;
      wait();
    }
    meeting->left |= own;
    if (meeting->left != mask) return meeting->values.data();
    // The last to leave: the values stay valid until the next meeting takes the place.
    for (auto& entry : list) {
      if (entry.get() != meeting) continue;
      std::swap(entry, list.back());
      last_values_ = meeting->values;
      free_meetings_.push_back(std::move(list.back()));
      list.pop_back();
      break;
    }
    return last_values_.data();
  }

  [[noreturn]] void fail_here(const std::string& what) {
    const Thread& self = current();
    fail(fmt::format("{} (thread {}, {}, {} of block {}, {}, {})", what, self.index.x, self.index.y,
                     self.index.z, block_index.x, block_index.y, block_index.z));
    running_->fiber.yield();
    __builtin_unreachable();
  }

 private:
  Thread& current() { return threads_[static_cast<std::size_t>(running_->thread)]; }

  void make_ready(int thread) {
    threads_[static_cast<std::size_t>(thread)].state = State::ready;
    ready_.push_back(thread);
  }

  /// Any thread that can go on, or a free fiber for those that have not begun.
  Worker* pick() {
    const auto waiting = static_cast<std::uint32_t>(ready_.size());
    const bool more = started_ < static_cast<int>(threads_.size());
    if (waiting > 0 && (!more || shuffle().below(2) == 0)) {
      const std::uint32_t i = shuffle().below(waiting);
      const int thread = ready_[i];
      ready_[i] = ready_.back();
      ready_.pop_back();
      Worker* worker = threads_[static_cast<std::size_t>(thread)].worker;
      enter(worker, thread);
      return worker;
    }
    if (!more) return nullptr;
    if (idle_.empty()) {
      workers_.push_back(
          std::make_unique<Worker>([](void* self) { instance().work(*static_cast<Worker*>(self)); }));
      idle_.push_back(workers_.back().get());
    }
    Worker* worker = idle_.back();
    idle_.pop_back();
    running_ = worker;
    return worker;
  }

  void enter(Worker* worker, int thread) {
    running_ = worker;
    thread_index = threads_[static_cast<std::size_t>(thread)].index;
  }

  /// Body of a fiber.
  [[noreturn]] void work(Worker& worker) {
    for (;;) {
      while (started_ < static_cast<int>(threads_.size())) {
        worker.thread = order_[static_cast<std::size_t>(started_++)];
        threads_[static_cast<std::size_t>(worker.thread)].worker = &worker;
        enter(&worker, worker.thread);
        (*body_)();
        threads_[static_cast<std::size_t>(worker.thread)].state = State::finished;
        ++finished_;
      }
      worker.thread = -1;
      worker.fiber.yield();
    }
  }

  void wait() {
    Worker* self = running_;
    self->fiber.yield();
  }

  std::unique_ptr<Meeting> take_meeting() {
    if (free_meetings_.empty()) return std::make_unique<Meeting>();
    std::unique_ptr<Meeting> meeting = std::move(free_meetings_.back());
    free_meetings_.pop_back();
    return meeting;
  }

  /// Nobody can go on.
  std::string deadlock() const {
    for (std::size_t warp = 0; warp < meetings_.size(); ++warp)
      for (const auto& meeting : meetings_[warp]) {
        if (meeting->arrived == meeting->mask) continue;
        std::string missing;
        for (std::size_t lane = 0; lane < 32; ++lane) {
          if (((meeting->mask & ~meeting->arrived) >> lane & 1U) == 0) continue;
          missing = fmt::format("lane {} {}", lane, whereabouts(warp * 32 + lane));
          break;
        }
        return fmt::format("{} at {} waits for the lanes {:#010x} of mask {:#010x}: {}", meeting->what,
                           to_text(meeting->where), meeting->mask & ~meeting->arrived, meeting->mask,
                           missing);
      }
    std::string barrier, absent;
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      if (threads_[i].state == State::at_barrier) {
        barrier = to_text(threads_[i].where);
      } else if (absent.empty()) {
        absent = fmt::format("thread {} {}", i, whereabouts(i));
      }
    }
    return fmt::format("the barrier at {} was reached by {} of {} threads: {}", barrier, at_barrier_,
                       threads_.size(), absent);
  }

  std::string whereabouts(std::size_t thread) const {
    if (thread >= threads_.size()) return "does not exist";
    switch (threads_[thread].state) {
      case State::finished: return "has returned";
      case State::at_barrier: return "waits at the barrier at " + to_text(threads_[thread].where);
      case State::meeting: return "waits in its warp at " + to_text(threads_[thread].where);
      default: return "runs";
    }
  }

  void fail(const std::string& what) {
    failure_ = fmt::format("the kernel launched at {}: {}", to_text(*launched_), what);
  }

  /// Leaves all fibers where they are.
  [[noreturn]] void stop() {
    idle_.clear();
    for (const auto& worker : workers_) {
      worker->fiber.reset();
      worker->thread = -1;
      idle_.push_back(worker.get());
    }
    for (auto& list : meetings_) list.clear();
    throw Violation(failure_);
  }

 public:
  static Block& instance() {
    static Block block;
    return block;
  }

 private:
  const std::function<void()>* body_ = nullptr;
  const Where* launched_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<int> order_, ready_;
  std::vector<std::vector<std::unique_ptr<Meeting>>> meetings_;  // of each warp
  std::vector<std::unique_ptr<Meeting>> free_meetings_;
  std::array<std::uint64_t, 32> last_values_{};
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Worker*> idle_;
  Worker* running_ = nullptr;
  int started_ = 0, finished_ = 0, at_barrier_ = 0;
  Where barrier_;  // that they wait at
  std::string failure_;
};

/// Room for the dynamic shared memory of a block, with a fence behind it.
class SharedMemory {
 public:
  void prepare(std::size_t bytes) {
    ASAN_UNPOISON_MEMORY_REGION(room_.data(), room_.size());
    std::memset(room_.data(), 0xff, bytes);  // NaN in every floating-point type
    ASAN_POISON_MEMORY_REGION(room_.data() + (bytes + 7) / 8 * 8, kFence);
  }
  void* data() { return room_.data(); }

 private:
  struct alignas(128) Room : std::array<std::byte, kMostShared + 2 * kFence> {};
  Room room_;
};

SharedMemory& shared() {
  static SharedMemory memory;
  return memory;
}

void require_legal(const GridShape& shape, const Where& launched) {
  const auto refuse = [&](const std::string& what) {
    throw Violation(fmt::format("the kernel launched at {}: {}", to_text(launched), what));
  };
  const std::uint64_t threads = std::uint64_t{shape.threads.x} * shape.threads.y * shape.threads.z;
  if (threads == 0 || threads > 1024) refuse(fmt::format("a block has {} threads", threads));
  if (shape.blocks.x == 0 || shape.blocks.y == 0 || shape.blocks.z == 0) refuse("there are no blocks");
  if (shape.blocks.x > 0x7fffffffU || shape.blocks.y > 65535 || shape.blocks.z > 65535)
    refuse("the grid is too large");
  if (shape.shared_bytes > kMostShared) refuse(fmt::format("{} bytes of shared memory", shape.shared_bytes));
}

}  // namespace

void run_grid(const GridShape& shape, const std::function<void()>& thread, const Where& launched) {
  require_legal(shape, launched);
  ++launches().kernels;
  const ClosedHost closed;
  block_size = shape.threads;
  grid_size = shape.blocks;
  std::vector<std::uint32_t> blocks(std::size_t{shape.blocks.x} * shape.blocks.y * shape.blocks.z);
  std::iota(blocks.begin(), blocks.end(), 0);
  shuffle()(blocks);
  for (const std::uint32_t i : blocks) {
    block_index = {i % shape.blocks.x, i / shape.blocks.x % shape.blocks.y,
                   i / shape.blocks.x / shape.blocks.y};
    if (shape.shared_bytes > 0) shared().prepare(shape.shared_bytes);
    Block::instance().run(shape, thread, launched);
  }
}

void* shared_memory() { return shared().data(); }

void barrier(const Where& where) { Block::instance().arrive_at_barrier(where); }

const std::uint64_t* meet(const char* what, unsigned mask, std::uint64_t value, const Where& where) {
  return Block::instance().meet(what, mask, value, where);
}

void require_source(unsigned mask, int lane, const Where& where) {
  if ((mask >> lane & 1U) == 0)
    Block::instance().fail_here(fmt::format(
        "a shuffle at {} reads lane {}, which is not in the mask {:#010x}", to_text(where), lane, mask));
}

namespace {
Shuffle& the_shuffle() {
  static Shuffle shuffle([] {
    const char* seed = std::getenv("CUDA_ON_CPU_SEED");
    return seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1;
  }());
  return shuffle;
}
}  // namespace

Shuffle& shuffle() { return the_shuffle(); }
void set_seed(std::uint64_t seed) { the_shuffle() = Shuffle(seed); }

}  // namespace cuda_on_cpu
