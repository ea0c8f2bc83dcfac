#include <nccl.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>

#include "core/base/error.h"
#include "distributed/shared_memory.h"
#include "tests/cuda_on_cpu/host_blocks.h"
#include "tests/cuda_on_cpu/stream.h"

namespace {

using bireme::DType;
using bireme::Elements;
using bireme::Reduce;

DType type_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt32: return DType::i32;
    case ncclInt64: return DType::i64;
    case ncclFloat32: return DType::f32;
    case ncclFloat64: return DType::f64;
    case ncclBfloat16: return DType::bf16;
    case ncclUint8: break;
  }
  return DType::u8;
}

Reduce reduction_of(ncclRedOp_t reduction) {
  return reduction == ncclMax ? Reduce::max : reduction == ncclMin ? Reduce::min : Reduce::sum;
}

Elements elements(const void* data, std::size_t count, ncclDataType_t type) {
  return {.data = static_cast<std::byte*>(const_cast<void*>(data)),
          .count = static_cast<std::int64_t>(count),
          .type = type_of(type)};
}

/// CUDA_ON_CPU_NCCL_FAULT is RANK:CALL:KIND: that collective of that rank, counted over all its groups from
/// 1, is refused when it is called (`call`), or fails when it runs (`later`).
enum class Fault { none, call, later };
Fault next_fault(int rank) {
  static std::atomic<int> calls{0};
  const int call = ++calls;
  const char* text = std::getenv("CUDA_ON_CPU_NCCL_FAULT");
  if (text == nullptr) return Fault::none;
  const std::string place = fmt::format("{}:{}:", rank, call);
  if (std::strncmp(text, place.c_str(), place.size()) != 0) return Fault::none;
  return std::string(text).ends_with("call") ? Fault::call : Fault::later;
}

}  // namespace

/// Lives on while work in a stream knows it.
struct ncclComm {
  struct Group {
    std::unique_ptr<bireme::Transport> transport;
    std::atomic<ncclResult_t> error{ncclSuccess};
  };
  std::shared_ptr<Group> group = std::make_shared<Group>();

  template <class Exchange>
  ncclResult_t queue(cudaStream_t stream, const char* name, const Exchange& exchange) const {
    const Fault fault = next_fault(group->transport->rank());
    if (fault == Fault::call) return ncclSystemError;
    cuda_on_cpu::enqueue(stream, {name}, [group = group, fault, exchange] {
      if (fault == Fault::later) group->error = ncclSystemError;
      if (group->error != ncclSuccess) return;  // on a GPU it would hang until it is aborted
      try {
        const cuda_on_cpu::ClosedHost closed;
        exchange(*group->transport);
      } catch (const bireme::Error&) {
        group->error = ncclRemoteError;
      }
    });
    return ncclSuccess;
  }
};

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
  }
  return "unknown result code";
}

ncclResult_t ncclGetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::random_device random;
  const std::string name = fmt::format("/nccl-on-cpu-{}-{:08x}{:08x}", getpid(), random(), random());
  *id = {};
  std::memcpy(id->internal, name.data(), name.size());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  auto made = std::make_unique<ncclComm>();
  try {
    made->group->transport = bireme::join_shared_memory(id.internal, rank, ranks);
  } catch (const bireme::Error&) {
    return ncclSystemError;
  }
  *comm = made.release();
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (comm->group->error == ncclSuccess) comm->group->error = ncclRemoteError;
  return ncclCommDestroy(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->group->error;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream) {
  return comm->queue(stream, "all_reduce", [=](bireme::Transport& ranks) {
    const Elements out = elements(receive, count, type);
    if (send != receive) std::memcpy(receive, send, static_cast<std::size_t>(out.bytes()));
    ranks.all_reduce(out, reduction_of(reduction));
  });
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream) {
  return comm->queue(stream, "reduce_scatter", [=](bireme::Transport& ranks) {
    ranks.reduce_scatter(elements(send, count * static_cast<std::size_t>(ranks.size()), type),
                         elements(receive, count, type), reduction_of(reduction));
  });
}

ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return comm->queue(stream, "all_gather", [=](bireme::Transport& ranks) {
    ranks.all_gather(elements(send, count, type),
                     elements(receive, count * static_cast<std::size_t>(ranks.size()), type));
  });
}

ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return comm->queue(stream, "broadcast", [=](bireme::Transport& ranks) {
    const Elements out = elements(receive, count, type);
    if (send != receive && ranks.rank() == root)
      std::memcpy(receive, send, static_cast<std::size_t>(out.bytes()));
    ranks.broadcast(out, root);
  });
}
