// Collectives between GPUs: ranks are processes, device memory cannot be read by the host, and streams run in
// any order that events allow.
#include <gtest/gtest.h>
#include <nccl.h>

#include <csignal>
#include <stdexcept>

#include "core/cuda/convert.h"
#include "core/cuda/cuda_backend.h"
#include "core/cuda/device_memory.h"
#include "distributed/mesh.h"
#include "distributed/nccl/nccl_communicator.h"
#include "distributed/watchdog.h"
#include "tests/cuda_on_cpu/block.h"
#include "tests/support/expect_error.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

/// Runs `body` on n ranks with a GPU each. It returns whether it saw what it expected.
template <class Body>
void expect_on_gpus(int n, const Body& body) {
  RankProcesses ranks(n, [&](Communicator& control) {
    cuda_on_cpu::set_seed(static_cast<std::uint64_t>(control.rank()) + 1);
    const auto backend = cuda::make_backend({});
    const auto gpus = make_nccl(control, backend->memory());
    return body(*gpus, dynamic_cast<cuda::DeviceMemory&>(backend->memory())) ? 0 : 50;
  });
  for (int rank = 0; rank < n; ++rank) EXPECT_EQ(ranks.wait(rank), 0) << "rank " << rank << ranks.errors();
}

/// `count` numbers, each `value`, written by a kernel on the caller's stream.
Tensor filled(cuda::DeviceMemory& memory, std::int64_t count, double value, DType type = DType::f32) {
  const Tensor tensor(memory, {count}, type);
  cuda::fill_values(tensor, value, memory.stream());
  return tensor;
}

/// Whether the tensor holds nothing but `value`, as a kernel on the caller's stream sees it.
bool holds(cuda::DeviceMemory& memory, const Tensor& tensor, float value) {
  const Tensor host = on_host(convert(memory, tensor, DType::f32));
  for (const float x : host.values<float>())
    if (x != value) {
      std::fprintf(stderr, "%g, not %g\n", double{x}, double{value});
      return false;
    }
  return true;
}

TEST(Nccl, EachCollectiveReadsWhatTheCallerQueuedAndIsReadAfterItsWait) {
  expect_on_gpus(3, [](Communicator& gpus, cuda::DeviceMemory& memory) {
    bool right = true;
    const int rank = gpus.rank();
    for (int turn = 0; turn < 10; ++turn) {
      const Tensor sum = filled(memory, 500, rank + turn), most = filled(memory, 7, rank, DType::bf16),
                   from_one = filled(memory, 11, 10 * rank, DType::f64), all = filled(memory, 12, -1),
                   shares = filled(memory, 9, rank), share = filled(memory, 3, -1);
      std::vector<Work> flights;  // several at once
      flights.push_back(gpus.all_reduce(sum, Reduce::sum));
      flights.push_back(gpus.all_reduce(most, Reduce::max));
      flights.push_back(gpus.broadcast(from_one, 1));
      flights.push_back(gpus.all_gather(filled(memory, 4, 5), all));
      flights.push_back(gpus.reduce_scatter(shares, share, Reduce::sum));
      const double on_hosts =
          gpus.all_reduce_value(rank, Reduce::sum);  // the control plane goes on meanwhile
      for (Work& flight : flights) flight.wait();
      right = right && on_hosts == 3 && holds(memory, sum, static_cast<float>(3 + 3 * turn)) &&
              holds(memory, most, 2) && holds(memory, from_one, 10) && holds(memory, all, 5) &&
              holds(memory, share, 3);
    }
    return right;
  });
}

TEST(Nccl, GroupsOfAMeshOverlap) {
  expect_on_gpus(4, [](Communicator& gpus, cuda::DeviceMemory& memory) {
    const Mesh mesh(gpus, 2);
    bool right = true;
    for (int turn = 0; turn < 10; ++turn) {
      const auto value = static_cast<double>(1 << gpus.rank());
      const Tensor gradient = filled(memory, 300, value), partial = filled(memory, 20, value);
      Work over_data = mesh.data().all_reduce(gradient, Reduce::sum);
      mesh.tensor().all_reduce(partial, Reduce::sum).wait();
      right = right && holds(memory, partial, gpus.rank() < 2 ? 3 : 12);
      over_data.wait();
      right = right && holds(memory, gradient, gpus.rank() % 2 == 0 ? 5 : 10);
    }
    return right;
  });
}

/// What a rank of two reports when the collective that it waits for fails.
int report_of_failure(Communicator& control) {
  const auto backend = cuda::make_backend({});
  auto& memory = dynamic_cast<cuda::DeviceMemory&>(backend->memory());
  const auto gpus = make_nccl(control, memory);
  for (;;) {
    gpus->all_reduce(filled(memory, 1 << 18, 1), Reduce::sum).wait();
    cuda::synchronize(memory.stream(), "wait");
  }
}

TEST(Nccl, ALostRankEndsTheOthersWithItsCall) {
  RankProcesses ranks(2, [](Communicator& control) {
    if (control.rank() == 1) {
      const auto backend = cuda::make_backend({});
      const auto gpus = make_nccl(control, backend->memory());
      auto& memory = dynamic_cast<cuda::DeviceMemory&>(backend->memory());
      gpus->all_reduce(filled(memory, 1 << 18, 1), Reduce::sum).wait();
      cuda::synchronize(memory.stream(), "wait");
      raise(SIGKILL);
    }
    return report_of_failure(control);
  });
  EXPECT_EQ(ranks.wait(1), -SIGKILL);
  EXPECT_EQ(ranks.wait(0), 7);
  EXPECT_TRUE(mentions(ranks.errors(),
                       {"all_reduce of 1.0 MiB", "failed on rank 0", "remote process exited", "node "}))
      << ranks.errors();
}

TEST(Nccl, ARefusedCallAndALaterErrorNameRankAndCall) {
  for (const std::string kind : {"call", "later"}) {
    setenv("CUDA_ON_CPU_NCCL_FAULT", ("1:3:" + kind).c_str(), 1);
    RankProcesses ranks(2, [](Communicator& control) { return report_of_failure(control); });
    unsetenv("CUDA_ON_CPU_NCCL_FAULT");
    EXPECT_EQ(ranks.wait(1), 7);
    EXPECT_EQ(ranks.wait(0), 7);
    EXPECT_TRUE(mentions(ranks.errors(), {"all_reduce of 1.0 MiB", "failed on rank 1", "NCCL_DEBUG"}))
        << ranks.errors();
  }
}

/// Runs `body` on two ranks, of which rank 1 stops before an all-reduce of 1 MiB.
template <class Body>
void expect_watchdog_to_name_rank_1(const Body& body) {
  RankProcesses ranks(2, [&](Communicator& control) {
    const auto backend = cuda::make_backend({});
    auto& memory = dynamic_cast<cuda::DeviceMemory&>(backend->memory());
    const auto gpus = make_nccl(control, memory);
    Watchdog watchdog(control, {.timeout_seconds = 1, .report = [](const Error& error) {
                                  std::fprintf(stderr, "%s\n", error.what());
                                }});
    watchdog.watch(*gpus);
    body(*gpus, memory);
    return 0;
  });
  EXPECT_EQ(ranks.wait(0), 6);
  EXPECT_TRUE(mentions(ranks.errors(), {"all_reduce of 1.0 MiB", "has not finished", "not arrived: rank 1"}))
      << ranks.errors();
}

TEST(Nccl, TheWatchdogNamesTheCollectiveAndTheRankThatDoesNotCome) {
  expect_watchdog_to_name_rank_1([](Communicator& gpus, cuda::DeviceMemory& memory) {
    gpus.all_reduce(filled(memory, 8, 1), Reduce::sum).wait();
    cuda::synchronize(memory.stream(), "wait");
    if (gpus.rank() == 1) pause();
    gpus.all_reduce(filled(memory, 1 << 18, 1), Reduce::sum).wait();
    cuda::synchronize(memory.stream(), "wait");
  });
}

TEST(Nccl, CollectivesOfACapturedStretchRunInItsGraph) {
  expect_on_gpus(3, [](Communicator& gpus, cuda::DeviceMemory& memory) {
    bool right = true;
    for (int turn = 0; turn < 10; ++turn) {
      const Tensor early = filled(memory, 30, 1), sum = filled(memory, 500, -1),
                   again = filled(memory, 500, 0), late = filled(memory, 40, 2);
      Work begun_before = gpus.all_reduce(early, Reduce::sum), ended_behind;
      memory.graphs().run("step", [&] {
        cuda::fill_values(sum, gpus.rank() + turn, memory.stream());
        Work inside = gpus.all_reduce(sum, Reduce::sum);
        begun_before.wait();
        ended_behind = gpus.all_reduce(late, Reduce::sum);
        inside.wait();
        memory.copy(sum, again);
        gpus.all_reduce(again, Reduce::max).wait();
      });
      ended_behind.wait();
      right = right && holds(memory, early, 3) && holds(memory, sum, static_cast<float>(3 + 3 * turn)) &&
              holds(memory, again, static_cast<float>(3 + 3 * turn)) && holds(memory, late, 6);
    }
    return right && memory.graphs().statistics().launches == 9 &&
           memory.graphs().statistics().instantiations == 1;
  });
}

TEST(Nccl, AStretchThatIsCutHasItsCollectivesBehindIt) {
  expect_on_gpus(2, [](Communicator& gpus, cuda::DeviceMemory& memory) {
    bool right = true;
    for (int turn = 0; turn < 10; ++turn) {
      const Tensor sum = filled(memory, 500, turn), other = filled(memory, 9, 1);
      memory.graphs().run("step", [&] {
        Work under_way = gpus.all_reduce(sum, Reduce::sum);
        right = right && holds(memory, other, 1);  // waits
        under_way.wait();
        gpus.all_reduce(sum, Reduce::sum).wait();
      });
      right = right && holds(memory, sum, static_cast<float>(4 * turn));
    }
    return right && memory.graphs().statistics().launches == 18 &&
           memory.graphs().statistics().instantiations == 2;
  });
}

TEST(Nccl, AStretchThatEndsWithAnErrorLeavesNoCollectiveBehind) {
  expect_on_gpus(2, [](Communicator& gpus, cuda::DeviceMemory& memory) {
    const Tensor x = filled(memory, 500, 1);
    gpus.all_reduce(x, Reduce::sum).wait();
    memory.graphs().run("step", [] {});
    Work dropped;
    bool was_thrown = false;
    try {
      memory.graphs().run("step", [&] {
        dropped = gpus.all_reduce(x, Reduce::sum);
        throw std::runtime_error("no more");
      });
    } catch (const std::runtime_error&) {
      was_thrown = true;
    }
    dropped.wait();
    gpus.all_reduce(x, Reduce::sum).wait();
    return was_thrown && holds(memory, x, 4);
  });
}

TEST(Nccl, TheWatchdogNamesTheRankWhoseGraphDoesNotCome) {
  expect_watchdog_to_name_rank_1([](Communicator& gpus, cuda::DeviceMemory& memory) {
    for (int step = 0; step < 3; ++step) {
      memory.graphs().run("step", [&] {
        gpus.all_reduce(filled(memory, 1 << 18, 1), Reduce::sum).wait();
        if (step == 2 && gpus.rank() == 1) pause();
      });
      cuda::synchronize(memory.stream(), "wait");
    }
  });
}

/// A copy of what queue() and land() do around a collective, with and without one of their events: one rank,
/// whose all-reduce copies. Queued as it comes, or captured and launched.
enum class Missing { nothing, ready, done };
bool copy_sees(std::uint64_t seed, Missing missing, bool is_captured) {
  cuda_on_cpu::set_seed(seed);
  const auto backend = cuda::make_backend({});
  auto& memory = dynamic_cast<cuda::DeviceMemory&>(backend->memory());
  ncclUniqueId id{};
  ncclComm_t comm = nullptr;
  EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  EXPECT_EQ(ncclCommInitRank(&comm, 1, id, 0), ncclSuccess);
  const cuda::Stream stream = cuda::make_stream();
  const cuda::Event first = cuda::make_event(), ready = cuda::make_event(), done = cuda::make_event();
  const auto work = [&] {
    // Captured, the stream takes part in any case, and only what comes next is in question.
    if (is_captured) cuda::order(memory.stream(), stream.get(), first);
    const Tensor from = filled(memory, 8, 1), to = filled(memory, 8, 2);
    if (missing != Missing::ready) cuda::order(memory.stream(), stream.get(), ready);
    ncclAllReduce(from.raw(), to.raw(), 8, ncclFloat32, ncclSum, comm, stream.get());
    if (missing != Missing::done) cuda::order(stream.get(), memory.stream(), done);
    const Tensor seen(memory, {8}, DType::f32);
    memory.copy(to, seen);
    return seen;
  };
  memory.graphs().add_stream(stream.get());
  Tensor seen;
  if (is_captured) memory.graphs().run("step", [] {});
  if (is_captured) memory.graphs().run("step", [&] { seen = work(); });
  if (!is_captured) seen = work();
  const Tensor host = on_host(seen);
  cuda::synchronize(stream.get(), "wait for what nobody has waited for");
  memory.graphs().remove_stream(stream.get());
  ncclCommDestroy(comm);
  return host.values<float>()[0] == 1;
}

TEST(Nccl, AnEventRemovedFromItsSyncShows) {
  for (const bool is_captured : {false, true}) {
    int without_ready = 0, without_done = 0;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      EXPECT_TRUE(copy_sees(seed, Missing::nothing, is_captured)) << "seed " << seed;
      without_ready += copy_sees(seed, Missing::ready, is_captured) ? 1 : 0;
      without_done += copy_sees(seed, Missing::done, is_captured) ? 1 : 0;
    }
    EXPECT_LT(without_ready, 20) << is_captured;
    EXPECT_LT(without_done, 20) << is_captured;
  }
}

}  // namespace
}  // namespace bireme::test
