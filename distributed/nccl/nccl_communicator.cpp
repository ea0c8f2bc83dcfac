#include "distributed/nccl/nccl_communicator.h"

#include <nccl.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "core/base/error.h"
#include "core/base/owned.h"
#include "core/cuda/device_memory.h"

namespace bireme {

namespace {

constexpr auto kPoll = std::chrono::microseconds(100);  // NCCL has nothing to wait on
// The rank at which a failure began says more about it than those that only lose it: it may speak first.
constexpr auto kAfterOthers = std::chrono::seconds(2);

struct NcclTraits {
  using Handle = ncclComm_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle comm) noexcept { ncclCommDestroy(comm); }
};

ncclDataType_t nccl_type(DType type) {
  switch (type) {
    case DType::f32: return ncclFloat32;
    case DType::bf16: return ncclBfloat16;
    case DType::f64: return ncclFloat64;
    case DType::i32: return ncclInt32;
    case DType::i64: return ncclInt64;
    case DType::u8: break;
  }
  return ncclUint8;
}

ncclRedOp_t nccl_reduction(Reduce reduce) {
  switch (reduce) {
    case Reduce::max: return ncclMax;
    case Reduce::min: return ncclMin;
    case Reduce::sum: break;
  }
  return ncclSum;
}

/// What all groups of a rank share.
struct GpuStreams {
  explicit GpuStreams(cuda::DeviceMemory& memory)
      : memory(memory), stream(cuda::make_stream()), ready(cuda::make_event()) {
    memory.graphs().add_stream(stream.get());
  }
  ~GpuStreams() { memory.graphs().remove_stream(stream.get()); }
  GpuStreams(const GpuStreams&) = delete;
  GpuStreams& operator=(const GpuStreams&) = delete;
  cuda::DeviceMemory& memory;
  cuda::Stream stream;
  cuda::Event ready;  // what the caller queued before a collective
};

bool is_on_gpu(const Tensor& tensor) { return tensor.device().type == DeviceType::cuda; }

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<GpuStreams> streams, Communicator& control,
                   std::unique_ptr<Communicator> owned)
      : streams_(std::move(streams)),
        owned_(std::move(owned)),
        control_(control),
        stamps_(control.split(0, control.rank())) {}
  ~NcclCommunicator() override;

  int rank() const override { return control_.rank(); }
  int size() const override { return control_.size(); }
  Work all_reduce(const Tensor& inout, Reduce reduce) override;
  Work reduce_scatter(const Tensor& in, const Tensor& out, Reduce reduce) override;
  Work all_gather(const Tensor& in, const Tensor& out) override;
  Work broadcast(const Tensor& inout, int root) override;
  void barrier() override { healthy().barrier(); }
  std::unique_ptr<Communicator> split(int color, int key) override;
  Placement placement() const override { return control_.placement(); }
  std::shared_ptr<const Activity> activity() const override { return control_.activity(); }
  std::shared_ptr<const Activity> device_activity() const override { return stamps_->activity(); }
  bool library_all_reduce(const Tensor& tensor) override { return control_.library_all_reduce(tensor); }
  [[noreturn]] void abort(int exit_code) override {
    control_.abort(exit_code);
    std::terminate();  // not reached; GCC 12 forgets the attribute of a virtual call
  }

 private:
  struct Flight final : Pending {
    void wait() override { owner->land(*this); }
    std::string name() const override { return to_string(operation); }
    NcclCommunicator* owner = nullptr;
    Operation operation;
    Tensor in, out;  // kept alive
    cuda::Event done;
    std::shared_ptr<const cuda::GraphRun> run;  // that the collective is part of; null: of none

    /// As cudaEventQuery(). What is captured tells nothing of itself, only when its graph is done.
    cudaError_t query() const { return run ? run->query() : cudaEventQuery(done.get()); }
    bool is_waiting_for_start() const { return run && !run->is_started() && !run->is_dropped(); }
  };

  void look_for_own_error();
  Communicator& healthy();
  ncclComm_t joined();
  /// Queues call(comm, stream) behind what the caller has queued.
  template <class Call>
  Work queue(const Operation& operation, const Tensor& in, const Tensor& out, const Call& call);
  void land(Flight& flight);
  void watch(const std::stop_token& stop);
  void fail(const Operation& operation, const std::string& why);
  Error error_of(const Operation& operation, const std::string& why) const;

  std::shared_ptr<GpuStreams> streams_;
  std::unique_ptr<Communicator> owned_;  // of a group that was split off: its control
  Communicator& control_;
  std::unique_ptr<Communicator> stamps_;  // carries nothing but the watchdog's stamps of what is in flight
  Owned<NcclTraits> comm_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::shared_ptr<Flight>> flights_;
  std::optional<Error> failure_;
  std::jthread thread_;  // watches the flights; started by the first
};

Operation describe(Collective collective, const Tensor& tensor, Reduce reduce = Reduce::sum) {
  return {.collective = collective,
          .type = tensor.dtype(),
          .reduce = reduce,
          .bytes = static_cast<std::int64_t>(tensor.bytes())};
}

std::string reason(ncclResult_t result) { return fmt::format("NCCL: {}", ncclGetErrorString(result)); }

NcclCommunicator::~NcclCommunicator() {
  {
    std::unique_lock lock(mutex_);
    // The others will not come to what is in flight when this rank leaves with an error.
    if (std::uncaught_exceptions() == 0)
      changed_.wait(lock, [&] { return flights_.empty() || failure_.has_value(); });
  }
  thread_ = {};  // stops and joins
  if (!flights_.empty() && comm_) ncclCommAbort(comm_.release());
}

/// What the watching thread would find a moment later: too late for a rank that has gone into the control
/// plane by then, where the others do not come, since they wait for NCCL. Errors of others are left to that
/// thread.
void NcclCommunicator::look_for_own_error() {
  ncclResult_t error = ncclSuccess;
  Operation operation;
  {
    const std::lock_guard lock(mutex_);
    if (failure_ || !comm_ || flights_.empty()) return;
    ncclCommGetAsyncError(comm_.get(), &error);
    operation = flights_.front()->operation;
  }
  if (error != ncclSuccess && error != ncclInProgress && error != ncclRemoteError)
    fail(operation, reason(error));
}

/// The control plane, unless NCCL has failed.
Communicator& NcclCommunicator::healthy() {
  look_for_own_error();
  const std::lock_guard lock(mutex_);
  if (failure_) throw Error(*failure_);
  return control_;
}

Error NcclCommunicator::error_of(const Operation& operation, const std::string& why) const {
  return {ErrorKind::rank_lost, fmt::format("{} failed on rank {} ({})", to_string(operation), rank(), why),
          "node " + placement().host,
          "look for the first error in the output of all ranks; NCCL_DEBUG=WARN tells more"};
}

ncclComm_t NcclCommunicator::joined() {
  if (comm_) return comm_.get();
  constexpr Operation kJoin{.collective = Collective::split};
  const auto check = [&](ncclResult_t result) {
    if (result != ncclSuccess) throw error_of(kJoin, reason(result));
  };
  ncclUniqueId id{};
  if (rank() == 0) check(ncclGetUniqueId(&id));
  const std::string spread = control_.broadcast_text(std::string(id.internal, sizeof id.internal), 0);
  std::copy(spread.begin(), spread.end(), id.internal);
  ncclComm_t comm = nullptr;
  check(ncclCommInitRank(&comm, size(), id, rank()));
  comm_ = Owned<NcclTraits>(comm);
  return comm;
}

template <class Call>
Work NcclCommunicator::queue(const Operation& operation, const Tensor& in, const Tensor& out,
                             const Call& call) {
  healthy();
  const ncclComm_t comm = joined();
  auto flight = std::make_shared<Flight>();
  flight->owner = this;
  flight->operation = operation;
  flight->in = in;
  flight->out = out;
  flight->done = cuda::make_event();
  flight->run = streams_->memory.graphs().capturing();
  const cudaStream_t stream = streams_->stream.get();
  cuda::order(streams_->memory.stream(), stream, streams_->ready);
  if (const ncclResult_t result = call(comm, stream); result != ncclSuccess) {
    fail(operation, reason(result));
    healthy();
  }
  cuda::cuda_check(cudaEventRecord(flight->done.get(), stream), "mark the end of a collective");
  {
    const std::lock_guard lock(mutex_);
    flights_.push_back(flight);
    if (!thread_.joinable()) thread_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
  }
  changed_.notify_all();
  return Work(std::move(flight));
}

/// Lets the caller's stream wait; the host goes on.
void NcclCommunicator::land(Flight& flight) {
  healthy();
  // Where a captured stretch begins, is cut or ends, the streams have been joined already.
  if (flight.run == streams_->memory.graphs().capturing())
    cuda::cuda_check(cudaStreamWaitEvent(streams_->memory.stream(), flight.done.get(), 0),
                     "let a stream wait for a collective");
  if (!flight.run) return;
  // What is captured is not watched before it is started. Until then every collective of a step would keep
  // its tensors, though the caller's stream is behind it already.
  const std::lock_guard lock(mutex_);
  flight.in = flight.out = Tensor();
}

void NcclCommunicator::fail(const Operation& operation, const std::string& why) {
  ncclComm_t comm = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = error_of(operation, why);
    comm = comm_.release();
  }
  changed_.notify_all();
  // Ends the kernels that wait for the lost rank, and with them the host's waiting. Without the lock: it may
  // take long, and whoever waits for the collective need not.
  ncclCommAbort(comm);
}

/// Follows the flights in their order: stamps what is under way for the watchdog, and looks for errors that
/// NCCL met behind the host's back.
void NcclCommunicator::watch(const std::stop_token& stop) {
  cudaSetDevice(streams_->memory.device().index);
  const auto activity = stamps_->activity();
  while (!stop.stop_requested()) {
    std::shared_ptr<Flight> flight;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return !flights_.empty(); }) || failure_) return;
      flight = flights_.front();
    }
    while (flight->is_waiting_for_start() && !stop.stop_requested()) {
      std::unique_lock lock(mutex_);
      if (failure_) return;
      changed_.wait_for(lock, stop, kPoll, [] { return false; });
    }
    const bool is_dropped = flight->run && flight->run->is_dropped();  // never under way
    if (activity && !is_dropped) activity->begin(flight->operation);
    while (!stop.stop_requested()) {
      const cudaError_t reached = flight->query();
      ncclResult_t error = ncclSuccess;
      {
        const std::lock_guard lock(mutex_);
        if (failure_) return;
        ncclCommGetAsyncError(comm_.get(), &error);
      }
      if (error == ncclRemoteError) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, stop, kAfterOthers, [] { return false; });
      }
      if (error != ncclSuccess && error != ncclInProgress) return fail(flight->operation, reason(error));
      if (reached != cudaSuccess && reached != cudaErrorNotReady)
        return fail(flight->operation, cudaGetErrorString(reached));
      if (reached == cudaSuccess) break;
      std::this_thread::sleep_for(kPoll);
    }
    if (stop.stop_requested()) return;
    if (activity && !is_dropped) activity->end();
    {
      const std::lock_guard lock(mutex_);
      flight->in = flight->out = Tensor();
      flights_.pop_front();
    }
    changed_.notify_all();
  }
}

Work NcclCommunicator::all_reduce(const Tensor& inout, Reduce reduce) {
  if (!is_on_gpu(inout)) return healthy().all_reduce(inout, reduce);
  const Operation operation = describe(Collective::all_reduce, inout, reduce);
  return queue(operation, inout, inout, [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclAllReduce(inout.raw(), inout.raw(), static_cast<std::size_t>(inout.elements()),
                         nccl_type(inout.dtype()), nccl_reduction(reduce), comm, stream);
  });
}

Work NcclCommunicator::reduce_scatter(const Tensor& in, const Tensor& out, Reduce reduce) {
  if (!is_on_gpu(in) || !is_on_gpu(out)) return healthy().reduce_scatter(in, out, reduce);
  const Operation operation = describe(Collective::reduce_scatter, in, reduce);
  return queue(operation, in, out, [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclReduceScatter(in.raw(), out.raw(), static_cast<std::size_t>(out.elements()),
                             nccl_type(in.dtype()), nccl_reduction(reduce), comm, stream);
  });
}

Work NcclCommunicator::all_gather(const Tensor& in, const Tensor& out) {
  if (!is_on_gpu(in) || !is_on_gpu(out)) return healthy().all_gather(in, out);
  return queue(describe(Collective::all_gather, out), in, out, [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclAllGather(in.raw(), out.raw(), static_cast<std::size_t>(in.elements()), nccl_type(in.dtype()),
                         comm, stream);
  });
}

Work NcclCommunicator::broadcast(const Tensor& inout, int root) {
  if (!is_on_gpu(inout)) return healthy().broadcast(inout, root);
  return queue(describe(Collective::broadcast, inout), inout, inout,
               [&](ncclComm_t comm, cudaStream_t stream) {
                 return ncclBroadcast(inout.raw(), inout.raw(), static_cast<std::size_t>(inout.elements()),
                                      nccl_type(inout.dtype()), root, comm, stream);
               });
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key) {
  std::unique_ptr<Communicator> part = healthy().split(color, key);
  if (part->size() == 1) return part;
  Communicator& control = *part;
  return std::make_unique<NcclCommunicator>(streams_, control, std::move(part));
}

}  // namespace

std::string nccl_version() {
  int version = 0;
  ncclGetVersion(&version);
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::unique_ptr<Communicator> make_nccl(Communicator& control, Memory& memory) {
  return std::make_unique<NcclCommunicator>(
      std::make_shared<GpuStreams>(dynamic_cast<cuda::DeviceMemory&>(memory)), control, nullptr);
}

}  // namespace bireme
