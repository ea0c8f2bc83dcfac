// The harness's captures and graphs: what CUDA lets pass passes, what it refuses is refused.
#include <gtest/gtest.h>

#include <functional>
#include <utility>
#include <vector>

#include "core/cuda/launch.h"
#include "core/cuda/runtime.h"
#include "tests/cuda_on_cpu/block.h"

namespace bireme::cuda {
namespace {

__global__ void write_kernel(int* to, int value) { *to = value; }
__global__ void add_kernel(const int* from, int* to) { *to += *from; }

/// Two numbers on the GPU, two streams and what orders them.
class Capture : public ::testing::Test {
 protected:
  Capture() {
    void* block = nullptr;
    EXPECT_EQ(cudaMalloc(&block, 2 * sizeof(int)), cudaSuccess);
    x_ = static_cast<int*>(block), y_ = x_ + 1;
    write(x_, 0), write(y_, 0);
    cudaStreamSynchronize(main());
  }
  ~Capture() override {
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
    cudaFree(x_);
  }

  cudaStream_t main() const { return main_.get(); }
  cudaStream_t side() const { return side_.get(); }
  void write(int* to, int value, cudaStream_t stream = nullptr) const {
    launch(stream != nullptr ? stream : main(), {{1}, {1}}, write_kernel, to, value);
  }
  void add(cudaStream_t stream, const int* from, int* to) const {
    launch(stream, {{1}, {1}}, add_kernel, from, to);
  }
  void order(cudaStream_t earlier, cudaStream_t later) const { cuda::order(earlier, later, event_); }
  int read(const int* from) const {
    int value = -1;
    EXPECT_EQ(cudaMemcpyAsync(&value, from, sizeof value, cudaMemcpyDefault, main()), cudaSuccess);
    return value;
  }
  cudaError_t begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed) const {
    return cudaStreamBeginCapture(main(), mode);
  }
  cudaError_t end(cudaStream_t stream) {
    if (graph_ != nullptr) cudaGraphDestroy(std::exchange(graph_, nullptr));
    return cudaStreamEndCapture(stream, &graph_);
  }
  cudaError_t end() { return end(main()); }
  cudaError_t instantiate() { return cudaGraphInstantiate(&executable_, graph_); }
  cudaError_t update() {
    const cudaError_t error = cudaGraphExecUpdate(executable_, graph_, &why_);
    cudaGetLastError();
    return error;
  }
  cudaError_t run() const { return cudaGraphLaunch(executable_, main()); }

  Stream main_ = make_stream(), side_ = make_stream();
  Event event_ = make_event();
  int *x_ = nullptr, *y_ = nullptr;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
  cudaGraphExecUpdateResultInfo why_{};
};

TEST_F(Capture, CapturedWorkRunsWhenItsGraphIsLaunchedAsOftenAsItIs) {
  ASSERT_EQ(begin(), cudaSuccess);
  add(main(), x_, y_);
  ASSERT_EQ(end(), cudaSuccess);
  write(x_, 3);
  EXPECT_EQ(read(y_), 0);
  ASSERT_EQ(instantiate(), cudaSuccess);
  EXPECT_EQ(run(), cudaSuccess);
  EXPECT_EQ(read(y_), 3);
  EXPECT_EQ(run(), cudaSuccess);
  EXPECT_EQ(run(), cudaSuccess);
  EXPECT_EQ(read(y_), 9);
}

TEST_F(Capture, WaitingForACapturedStreamIsRefusedAndSpoilsTheCapture) {
  const Event before = make_event(), within = make_event();
  cudaEventRecord(before.get(), main());
  using Call = std::function<cudaError_t()>;
  const std::vector<std::pair<Call, cudaError_t>> calls{
      {[&] { return cudaStreamSynchronize(main()); }, cudaErrorStreamCaptureUnsupported},
      {[&] { return cudaStreamQuery(main()); }, cudaErrorStreamCaptureUnsupported},
      {[&] { return cudaDeviceSynchronize(); }, cudaErrorStreamCaptureUnsupported},
      {[&] { return cudaEventSynchronize(within.get()); }, cudaErrorCapturedEvent},
      {[&] { return cudaEventQuery(within.get()); }, cudaErrorCapturedEvent},
      {[&] { return cudaStreamBeginCapture(main(), cudaStreamCaptureModeRelaxed); },
       cudaErrorStreamCaptureUnsupported}};
  for (std::size_t i = 0; i < calls.size(); ++i) {
    SCOPED_TRACE("call " + std::to_string(i));
    ASSERT_EQ(begin(), cudaSuccess);
    add(main(), x_, y_);
    cudaEventRecord(within.get(), main());
    EXPECT_EQ(calls[i].first(), calls[i].second);
    EXPECT_EQ(end(), i + 1 < calls.size() ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
  }
  EXPECT_EQ(cudaEventQuery(within.get()), cudaErrorCapturedEvent);  // for ever, or until it is recorded again
  EXPECT_EQ(cudaEventSynchronize(before.get()), cudaSuccess);
  cudaEventRecord(within.get(), main());
  EXPECT_EQ(cudaEventSynchronize(within.get()), cudaSuccess);
  EXPECT_EQ(read(y_), 0);  // the stream is of use again, and nothing ran
  cudaGetLastError();
}

TEST_F(Capture, OnlyARelaxedCaptureAllowsCallsThatMayWait) {
  const Event before = make_event();
  void* block = nullptr;
  cudaEventRecord(before.get(), side());
  ASSERT_EQ(begin(), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&block, 8), cudaSuccess);
  EXPECT_EQ(cudaFree(block), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(before.get()), cudaSuccess);
  EXPECT_EQ(end(), cudaSuccess);
  ASSERT_EQ(begin(cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&block, 8), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  ASSERT_EQ(begin(cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(before.get()), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  cudaGetLastError();
}

TEST_F(Capture, AForkThatIsNotJoinedIsRefused) {
  ASSERT_EQ(begin(), cudaSuccess);
  write(x_, 1);
  order(main(), side());
  add(side(), x_, y_);
  cudaStreamCaptureStatus status{};
  EXPECT_EQ(cudaStreamIsCapturing(side(), &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  EXPECT_EQ(end(), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(cudaStreamIsCapturing(side(), &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusNone);

  ASSERT_EQ(begin(), cudaSuccess);
  write(x_, 1);
  order(main(), side());
  add(side(), x_, y_);
  order(side(), main());
  EXPECT_EQ(end(), cudaSuccess);

  ASSERT_EQ(begin(), cudaSuccess);
  order(main(), side());
  EXPECT_EQ(end(side()), cudaErrorStreamCaptureUnmatched);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  cudaGetLastError();
}

TEST_F(Capture, WhatIsCapturedCannotBeOrderedWithWhatIsNot) {
  const Event outside = make_event(), inside = make_event();
  write(x_, 1, side());
  cudaEventRecord(outside.get(), side());
  ASSERT_EQ(begin(), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(main(), outside.get()), cudaErrorStreamCaptureIsolation);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);

  ASSERT_EQ(begin(), cudaSuccess);
  add(main(), x_, y_);
  cudaEventRecord(inside.get(), main());
  EXPECT_EQ(end(), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(side(), inside.get()), cudaErrorCapturedEvent);

  ASSERT_EQ(begin(), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(side(), cudaStreamCaptureModeRelaxed), cudaSuccess);
  cudaEventRecord(inside.get(), main());
  EXPECT_EQ(cudaStreamWaitEvent(side(), inside.get()), cudaErrorStreamCaptureMerge);
  cudaGraph_t none = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(side(), &none), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
}

/// A number is written in one stream, and added to another in a second; whether the sum was right.
TEST_F(Capture, BranchesRunInAnyOrderThatTheEdgesAllow) {
  const auto sums = [&](bool with_event) {
    int right = 0;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      cuda_on_cpu::set_seed(seed);
      write(x_, 0), write(y_, 0);
      EXPECT_EQ(begin(), cudaSuccess);
      order(main(), side());
      write(x_, 5);
      if (with_event) order(main(), side());
      add(side(), x_, y_);
      order(side(), main());
      EXPECT_EQ(end(), cudaSuccess);
      EXPECT_EQ(instantiate(), cudaSuccess);
      EXPECT_EQ(run(), cudaSuccess);
      right += read(y_) == 5 ? 1 : 0;
      cudaGraphExecDestroy(std::exchange(executable_, nullptr));
    }
    return right;
  };
  EXPECT_EQ(sums(true), 20);
  const int seen = sums(false);
  EXPECT_GT(seen, 0);
  EXPECT_LT(seen, 20);
}

TEST_F(Capture, AnUpdateTakesOtherArgumentsForLaterLaunches) {
  ASSERT_EQ(begin(), cudaSuccess);
  write(x_, 1);
  add(main(), x_, y_);
  ASSERT_EQ(end(), cudaSuccess);
  ASSERT_EQ(instantiate(), cudaSuccess);
  EXPECT_EQ(run(), cudaSuccess);  // not under way yet when the update comes
  ASSERT_EQ(begin(), cudaSuccess);
  write(x_, 10);
  launch(main(), {{2}, {1}}, add_kernel, x_, y_);  // nor does the size of a grid matter
  ASSERT_EQ(end(), cudaSuccess);
  EXPECT_EQ(update(), cudaSuccess);
  EXPECT_EQ(run(), cudaSuccess);
  EXPECT_EQ(read(y_), 21);
}

TEST_F(Capture, AnUpdateRefusesOtherKernelsAndOtherEdges) {
  ASSERT_EQ(begin(), cudaSuccess);
  write(x_, 1);
  add(main(), x_, y_);
  ASSERT_EQ(end(), cudaSuccess);
  ASSERT_EQ(instantiate(), cudaSuccess);

  const auto expect_refusal = [&](cudaGraphExecUpdateResult why, const std::function<void()>& work) {
    ASSERT_EQ(begin(), cudaSuccess);
    work();
    ASSERT_EQ(end(), cudaSuccess);
    EXPECT_EQ(update(), cudaErrorGraphExecUpdateFailure);
    EXPECT_EQ(why_.result, why);
  };
  expect_refusal(cudaGraphExecUpdateErrorTopologyChanged, [&] { write(x_, 1); });
  expect_refusal(cudaGraphExecUpdateErrorFunctionChanged, [&] {
    write(x_, 1);
    write(y_, 1);
  });
  expect_refusal(cudaGraphExecUpdateErrorNodeTypeChanged, [&] {
    write(x_, 1);
    cudaMemsetAsync(y_, 0, sizeof(int), main());
  });
  expect_refusal(cudaGraphExecUpdateErrorTopologyChanged, [&] {
    order(main(), side());
    write(x_, 1);
    add(side(), x_, y_);
    order(side(), main());
  });

  EXPECT_EQ(run(), cudaSuccess);  // as it was
  EXPECT_EQ(read(y_), 1);
}

}  // namespace
}  // namespace bireme::cuda
