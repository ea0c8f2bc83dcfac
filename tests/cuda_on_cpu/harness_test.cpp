// The harness itself: kernels that are right give the right numbers in any order, and each kind of mistake is
// reported.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/cuda/launch.h"
#include "core/cuda/runtime.h"
#include "core/cuda/warp.cuh"
#include "core/tensor/tensor.h"
#include "tests/cuda_on_cpu/host_blocks.h"

namespace bireme::cuda {
namespace {

constexpr int kThreads = 96;

/// Device memory for a test, and its way to the host and back.
template <class T>
class Array {
 public:
  explicit Array(std::size_t count) : count_(count) {
    void* block = nullptr;
    EXPECT_EQ(cudaMalloc(&block, count * sizeof(T)), cudaSuccess);
    data_ = static_cast<T*>(block);
  }
  ~Array() { cudaFree(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* data() const { return data_; }
  void write(const std::vector<T>& from) const {
    EXPECT_EQ(cudaMemcpyAsync(data_, from.data(), count_ * sizeof(T), cudaMemcpyDefault, nullptr),
              cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  }
  std::vector<T> read(cudaStream_t stream = nullptr) const {
    std::vector<T> to(count_);
    cudaMemcpyAsync(to.data(), data_, count_ * sizeof(T), cudaMemcpyDefault, stream);
    return to;
  }

 private:
  std::size_t count_;
  T* data_ = nullptr;
};

/// Reverses the numbers of each block through shared memory.
template <bool kBarrier>
__global__ void reverse_kernel(const float* x, float* y) {
  __shared__ float room[kThreads];
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  room[threadIdx.x] = x[i];
  if constexpr (kBarrier) __syncthreads();
  y[i] = room[blockDim.x - 1 - threadIdx.x];
  __syncthreads();
}

template <bool kBarrier>
bool reverses(std::uint64_t seed) {
  cuda_on_cpu::set_seed(seed);
  const Array<float> x(2 * kThreads), y(2 * kThreads);
  std::vector<float> numbers(2 * kThreads);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i + seed);
  x.write(numbers);
  launch(nullptr, {{2}, {kThreads}}, reverse_kernel<kBarrier>, x.data(), y.data());
  const std::vector<float> result = y.read();
  for (std::size_t i = 0; i < numbers.size(); ++i)
    if (result[i] != numbers[i / kThreads * kThreads + kThreads - 1 - i % kThreads]) return false;
  return true;
}

TEST(CudaOnCpu, ABarrierOrdersSharedMemoryUnderEverySeed) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) EXPECT_TRUE(reverses<true>(seed)) << "seed " << seed;
}

TEST(CudaOnCpu, AMissingBarrierShowsAsWrongNumbers) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) EXPECT_FALSE(reverses<false>(seed)) << "seed " << seed;
}

__global__ void sums_kernel(const float* x, float* y) {
  __shared__ float room[kThreads / kWarp];
  const float own = x[threadIdx.x];
  const float warp = warp_sum(own), most = warp_max(own);
  const float block = block_sum<kThreads / kWarp>(own, room);
  const unsigned odd = __ballot_sync(kFullWarp, threadIdx.x % 2);
  const float next = __shfl_down_sync(kFullWarp, own, 1, 8);
  float* mine = y + 5 * threadIdx.x;
  mine[0] = warp, mine[1] = most, mine[2] = block, mine[3] = odd == 0xaaaaaaaaU ? 1.0f : 0.0f, mine[4] = next;
}

TEST(CudaOnCpu, WarpsAndBlocksSumVoteAndShift) {
  const Array<float> x(kThreads), y(5 * kThreads);
  std::vector<float> numbers(kThreads);
  for (std::size_t i = 0; i < kThreads; ++i) numbers[i] = static_cast<float>(i);
  x.write(numbers);
  launch(nullptr, {{1}, {kThreads}}, sums_kernel, x.data(), y.data());
  const std::vector<float> result = y.read();
  for (std::size_t i = 0; i < kThreads; ++i) {
    const auto first = static_cast<float>(i - i % 32);
    EXPECT_EQ(result[5 * i], 32 * first + 496);
    EXPECT_EQ(result[5 * i + 1], first + 31);
    EXPECT_EQ(result[5 * i + 2], 4560);
    EXPECT_EQ(result[5 * i + 3], 1);
    EXPECT_EQ(result[5 * i + 4], static_cast<float>(i % 8 == 7 ? i : i + 1));
  }
}

__global__ void count_kernel(int* count) { atomicAdd(count, 1); }

TEST(CudaOnCpu, AtomicsCountEveryThread) {
  const Array<int> count(1);
  count.write({0});
  launch(nullptr, {{7}, {kThreads}}, count_kernel, count.data());
  EXPECT_EQ(count.read()[0], 7 * kThreads);
}

__global__ void dynamic_kernel(float* y, int count) {
  auto* room = dynamic_shared<float>();
  y[threadIdx.x] = std::isnan(room[threadIdx.x]) ? 1.0f : 0.0f;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) room[i] = 1;
}

TEST(CudaOnCpu, DynamicSharedMemoryStartsAsNaNInEveryBlock) {
  const Array<float> y(kThreads);
  launch(nullptr, {{3}, {kThreads}, kThreads * sizeof(float)}, dynamic_kernel, y.data(), kThreads);
  for (const float fresh : y.read()) EXPECT_EQ(fresh, 1);
}

std::string at(int line) { return "harness_test.cpp:" + std::to_string(line); }

/// What waiting for the default stream reports.
std::string failure() {
  const cudaError_t error = cudaStreamSynchronize(nullptr);
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

constexpr int kPartialBarrier = __LINE__ + 3;
__global__ void partial_barrier_kernel() {
  if (threadIdx.x < 10) return;
  __syncthreads();
}
constexpr int kFirstBarrier = __LINE__ + 3, kSecondBarrier = __LINE__ + 5;
__global__ void two_barriers_kernel() {
  if (threadIdx.x < 32) {  // NOLINT(bugprone-branch-clone): the harness tells them apart by their lines
    __syncthreads();
  } else {
    __syncthreads();
  }
}
constexpr int kBadMask = __LINE__ + 2;
__global__ void bad_mask_kernel(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(kFullWarp, 1.0f, 8);
}
__global__ void foreign_mask_kernel() { __syncwarp(1); }
__global__ void outside_source_kernel(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffU, 1.0f, 20);
}

// A failure stays, as on a GPU; so each of these needs a process of its own.
template <class Launch>
void expect_report(const Launch& launch_it, const std::vector<std::string>& parts) {
  EXPECT_EXIT(
      {
        launch_it();
        const std::string report = failure();
        for (const std::string& part : parts)
          if (report.find(part) == std::string::npos) {
            std::fprintf(stderr, "no \"%s\" in: %s\n", part.c_str(), report.c_str());
            std::_Exit(1);
          }
        std::_Exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST(CudaOnCpuDeathTest, ABarrierThatSomeThreadsMissIsReportedWithItsLine) {
  expect_report(
      [] {
        launch(nullptr, {{1}, {kThreads}}, partial_barrier_kernel);
      },
      {at(kPartialBarrier), "reached by 86 of 96 threads", "has returned"});
}

TEST(CudaOnCpuDeathTest, BarriersInTwoBranchesAreReportedWithBothLines) {
  expect_report(
      [] {
        launch(nullptr, {{1}, {kThreads}}, two_barriers_kernel);
      },
      {"two barriers", at(kFirstBarrier), at(kSecondBarrier)});
}

TEST(CudaOnCpuDeathTest, AMaskThatNamesAbsentLanesIsReported) {
  expect_report(
      [] {
        launch(nullptr, {{1}, {32}}, bad_mask_kernel, nullptr);
      },
      {"__shfl_xor_sync at " + at(kBadMask), "waits for the lanes 0xffff0000"});
  expect_report(
      [] {
        launch(nullptr, {{1}, {32}}, foreign_mask_kernel);
      },
      {"is not in its own mask 0x00000001"});
  const auto outside = [] {
    const Array<float> y(32);
    launch(nullptr, {{1}, {32}}, outside_source_kernel, y.data());
  };
  expect_report(outside, {"reads lane 20"});
}

TEST(CudaOnCpuDeathTest, IllegalLaunchesAreReported) {
  expect_report([] { launch(nullptr, {{1}, {2048}}, two_barriers_kernel); }, {"2048 threads"});
  expect_report([] { launch(nullptr, {{0}, {32}}, two_barriers_kernel); }, {"no blocks"});
}

TEST(CudaOnCpuDeathTest, TheHostCannotTouchDeviceMemory) {
  const Array<float> x(8);
  EXPECT_DEATH({ *const_cast<volatile float*>(x.data()) = 1; }, "");
}

__global__ void read_kernel(const float* from, float* to) { *to = *from; }

TEST(CudaOnCpuDeathTest, AKernelCannotTouchTensorsOfTheHost) {
  if (!cuda_on_cpu::closes_host()) GTEST_SKIP() << "no memory protection keys, or AddressSanitizer";
  const auto memory = make_host_memory();
  const Tensor host(*memory, {1}, DType::f32);
  host.data<float>()[0] = 5;
  const Array<float> x(1);
  EXPECT_DEATH(
      {
        launch(nullptr, {{1}, {1}}, read_kernel, host.data<float>(), x.data());
        cudaDeviceSynchronize();
      },
      "");
  EXPECT_EQ(host.data<float>()[0], 5);
}

__global__ void store_kernel(int* to, int value) { *to = value; }
__global__ void copy_kernel(const int* from, int* to) { *to = *from; }

/// Writes on one stream and reads on another. Returns whether the reader saw it.
bool reader_sees(std::uint64_t seed, bool with_event) {
  cuda_on_cpu::set_seed(seed);
  const Array<int> x(1), y(1);
  x.write({0});
  const Stream writer = make_stream(), reader = make_stream();
  const Event written = make_event();
  launch(writer.get(), {{1}, {1}}, store_kernel, x.data(), 5);
  cudaEventRecord(written.get(), writer.get());
  if (with_event) cudaStreamWaitEvent(reader.get(), written.get());
  launch(reader.get(), {{1}, {1}}, copy_kernel, x.data(), y.data());
  return y.read(reader.get())[0] == 5;
}

TEST(CudaOnCpu, AnEventOrdersTwoStreamsUnderEverySeed) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) EXPECT_TRUE(reader_sees(seed, true)) << "seed " << seed;
}

TEST(CudaOnCpu, AMissingEventShowsUnderSomeSeed) {
  int seen = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) seen += reader_sees(seed, false) ? 1 : 0;
  EXPECT_GT(seen, 0);   // either order is possible
  EXPECT_LT(seen, 20);  // and the wrong one comes up
}

TEST(CudaOnCpu, PinnedMemoryIsReadWhenItsCopyRunsAndPageableMemoryAtOnce) {
  const Array<int> x(1);
  void* block = nullptr;
  ASSERT_EQ(cudaMallocHost(&block, sizeof(int)), cudaSuccess);
  int* pinned = static_cast<int*>(block);
  *pinned = 1;
  cudaMemcpyAsync(x.data(), pinned, sizeof(int), cudaMemcpyDefault, nullptr);
  *pinned = 2;  // too early
  EXPECT_EQ(x.read()[0], 2);
  int pageable = 3;
  cudaMemcpyAsync(x.data(), &pageable, sizeof(int), cudaMemcpyDefault, nullptr);
  pageable = 4;
  EXPECT_EQ(x.read()[0], 3);
  cudaFreeHost(block);
}

TEST(CudaOnCpu, FreshDeviceMemoryIsNaN) {
  const Array<float> x(3);
  for (const float fresh : x.read()) EXPECT_TRUE(std::isnan(fresh));
}

}  // namespace
}  // namespace bireme::cuda
