#include <spdlog/fmt/fmt.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "distributed/communicator.h"

namespace bireme {

namespace {

class QueuedCommunicator final : public Communicator {
 public:
  explicit QueuedCommunicator(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {}
  ~QueuedCommunicator() override;

  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  Work all_reduce(const Tensor& inout, Reduce reduce) override;
  Work reduce_scatter(const Tensor& in, const Tensor& out, Reduce reduce) override;
  Work all_gather(const Tensor& in, const Tensor& out) override;
  Work broadcast(const Tensor& inout, int root) override;
  void barrier() override;
  std::unique_ptr<Communicator> split(int color, int key) override;
  Placement placement() const override { return transport_->placement(); }
  std::shared_ptr<const Activity> activity() const override { return transport_->activity(); }
  bool library_all_reduce(const Tensor& tensor) override;
  [[noreturn]] void abort(int exit_code) override {
    transport_->abort(exit_code);
    std::terminate();  // not reached; GCC 12 forgets the attribute of a virtual call
  }

 private:
  struct Task final : Pending {
    Task(QueuedCommunicator& owner, const Operation& operation, std::function<void()> run)
        : owner(owner), operation(operation), run(std::move(run)) {}
    void wait() override { owner.finish(*this); }
    std::string name() const override { return to_string(operation); }
    QueuedCommunicator& owner;
    Operation operation;
    std::function<void()> run;
    bool is_done = false;
    std::exception_ptr error;
  };
  using Lock = std::unique_lock<std::mutex>;

  std::shared_ptr<Task> enqueue(const Operation& operation, std::function<void()> run);
  void finish(Task& task);
  void run_next(Lock& lock);
  void run_queue(const std::stop_token& stop);

  std::unique_ptr<Transport> transport_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::shared_ptr<Task>> queue_;
  bool is_busy_ = false;       // a thread is running what was the front
  std::exception_ptr broken_;  // the first failure; nothing can be exchanged after it
  std::jthread thread_;        // started by the first task
};

Elements elements_of(const Tensor& tensor) {
  return {.data = tensor.raw(), .count = tensor.elements(), .type = tensor.dtype()};
}

void require_shares(const Tensor& whole, const Tensor& share, int size) {
  if (whole.dtype() == share.dtype() && whole.elements() == share.elements() * size) return;
  throw Error(ErrorKind::other,
              fmt::format("{} elements of {} are not {} shares of {} elements of {}", whole.elements(),
                          to_string(whole.dtype()), size, share.elements(), to_string(share.dtype())),
              "distributed", "pad the tensor to a multiple of the number of ranks");
}

Operation describe(Collective collective, const Tensor& tensor, Reduce reduce = Reduce::sum) {
  return {.collective = collective,
          .type = tensor.dtype(),
          .reduce = reduce,
          .bytes = static_cast<std::int64_t>(tensor.bytes())};
}

QueuedCommunicator::~QueuedCommunicator() {
  if (std::uncaught_exceptions() > 0) {  // the others will not come to what is queued
    const Lock lock(mutex_);
    queue_.clear();
  }
  thread_.request_stop();  // finishes the queue first; joined before any other member goes
  if (thread_.joinable()) thread_.join();
}

Work QueuedCommunicator::all_reduce(const Tensor& inout, Reduce reduce) {
  elements_of(inout);
  return Work(enqueue(describe(Collective::all_reduce, inout, reduce),
                      [this, inout, reduce] { transport_->all_reduce(elements_of(inout), reduce); }));
}

Work QueuedCommunicator::reduce_scatter(const Tensor& in, const Tensor& out, Reduce reduce) {
  require_shares(in, out, size());
  return Work(enqueue(describe(Collective::reduce_scatter, in, reduce), [this, in, out, reduce] {
    transport_->reduce_scatter(elements_of(in), elements_of(out), reduce);
  }));
}

Work QueuedCommunicator::all_gather(const Tensor& in, const Tensor& out) {
  require_shares(out, in, size());
  return Work(enqueue(describe(Collective::all_gather, out),
                      [this, in, out] { transport_->all_gather(elements_of(in), elements_of(out)); }));
}

Work QueuedCommunicator::broadcast(const Tensor& inout, int root) {
  return Work(enqueue(describe(Collective::broadcast, inout),
                      [this, inout, root] { transport_->broadcast(elements_of(inout), root); }));
}

void QueuedCommunicator::barrier() {
  enqueue({.collective = Collective::barrier}, [this] { transport_->barrier(); })->wait();
}

std::unique_ptr<Communicator> QueuedCommunicator::split(int color, int key) {
  std::unique_ptr<Transport> part;
  enqueue({.collective = Collective::split}, [&] { part = transport_->split(color, key); })->wait();
  return part->size() == 1 ? make_single_process() : make_queued(std::move(part));
}

bool QueuedCommunicator::library_all_reduce(const Tensor& tensor) {
  bool is_there = false;
  enqueue(describe(Collective::all_reduce, tensor), [&] {
    is_there = transport_->library_all_reduce(elements_of(tensor));
  })->wait();
  return is_there;
}

std::shared_ptr<QueuedCommunicator::Task> QueuedCommunicator::enqueue(const Operation& operation,
                                                                      std::function<void()> run) {
  auto task = std::make_shared<Task>(*this, operation, std::move(run));
  {
    const Lock lock(mutex_);
    queue_.push_back(task);
    if (!thread_.joinable()) thread_ = std::jthread([this](const std::stop_token& stop) { run_queue(stop); });
  }
  changed_.notify_all();
  return task;
}

/// Runs the front of the queue with the lock released.
void QueuedCommunicator::run_next(Lock& lock) {
  const std::shared_ptr<Task> task = std::move(queue_.front());
  queue_.pop_front();
  is_busy_ = true;
  std::exception_ptr error = broken_;
  lock.unlock();
  if (!error) {
    const auto activity = transport_->activity();
    activity->begin(task->operation);
    try {
      task->run();
    } catch (...) {
      error = std::current_exception();
    }
    activity->end();
  }
  task->run = nullptr;  // lets go of the tensors
  lock.lock();
  if (error && !broken_) broken_ = error;
  task->error = error;
  task->is_done = true;
  is_busy_ = false;
  changed_.notify_all();
}

void QueuedCommunicator::finish(Task& task) {
  Lock lock(mutex_);
  while (!task.is_done) {
    // Waiting is lending a hand: a short collective costs no change of threads.
    if (!is_busy_ && !queue_.empty()) {
      run_next(lock);
    } else {
      changed_.wait(lock);
    }
  }
  if (task.error) std::rethrow_exception(task.error);
}

void QueuedCommunicator::run_queue(const std::stop_token& stop) {
  Lock lock(mutex_);
  while (true) {
    changed_.wait(lock, stop, [&] { return !is_busy_ && !queue_.empty(); });
    if (queue_.empty()) {
      if (stop.stop_requested()) return;
      continue;
    }
    if (is_busy_) {
      changed_.wait(lock);
      continue;
    }
    run_next(lock);
  }
}

}  // namespace

std::unique_ptr<Communicator> make_queued(std::unique_ptr<Transport> transport) {
  return std::make_unique<QueuedCommunicator>(std::move(transport));
}

}  // namespace bireme
