// Stretches of work that run as CUDA graphs (core/cuda/graphs.h), with the memory that they use.
#include "core/cuda/graphs.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <stdexcept>

#include "core/base/error.h"
#include "core/cuda/convert.h"
#include "core/cuda/device_memory.h"
#include "tests/cuda_on_cpu/launches.h"

namespace bireme::cuda {
namespace {

constexpr std::int64_t kCount = 100;

class GraphsTest : public ::testing::Test {
 protected:
  Graphs& graphs() const { return memory_->graphs(); }
  Tensor filled(double value) const {
    Tensor tensor(*memory_, {kCount}, DType::f32);
    fill_values(tensor, value, memory_->stream());
    return tensor;
  }
  /// Numbers of the host, on the GPU.
  Tensor uploaded(double value, std::int64_t count = kCount) const {
    const Tensor host(memory_->host(), {count}, DType::f32);
    fill(host, value);
    return memory_->here(host);
  }
  static float first(const Tensor& tensor) { return on_host(tensor).data<float>()[0]; }
  static std::int64_t waits() { return cuda_on_cpu::launches().waits; }
  static std::int64_t calls() { return cuda_on_cpu::launches().calls; }

  std::shared_ptr<DeviceMemory> memory_ = std::make_shared<DeviceMemory>();
};

TEST_F(GraphsTest, AStretchIsCapturedFromItsSecondTimeOnAndInstantiatedOnce) {
  for (int step = 0; step < 5; ++step) {
    Tensor x, y;
    const std::int64_t before = calls();
    graphs().run("step", [&] {
      EXPECT_EQ(graphs().capturing() != nullptr, step > 0);
      x = filled(step);
      y = convert(*memory_, x, DType::bf16);
    });
    EXPECT_EQ(calls() - before, step == 0 ? 2 : 1);
    EXPECT_EQ(graphs().capturing(), nullptr);
    EXPECT_EQ(first(convert(*memory_, y, DType::f32)), static_cast<float>(step));
    EXPECT_EQ(graphs().statistics().launches, step);
    EXPECT_EQ(graphs().statistics().instantiations, step > 0 ? 1 : 0);
  }
}

TEST_F(GraphsTest, OtherKernelsAreInstantiatedAnewAndNamesDoNotMix) {
  Tensor x;
  const auto one = [&] { x = filled(1); };
  const auto two = [&] { x = convert(*memory_, filled(2), DType::bf16); };
  for (int step = 0; step < 3; ++step) {
    graphs().run("one", one);
    graphs().run("two", two);
  }
  EXPECT_EQ(graphs().statistics().instantiations, 2);
  graphs().run("one", two);
  graphs().run("two", one);
  EXPECT_EQ(graphs().statistics().instantiations, 4);
  EXPECT_EQ(graphs().statistics().launches, 6);
  EXPECT_EQ(first(x), 1);
}

TEST_F(GraphsTest, WhatIsUploadedStaysUntilTheGraphHasReadIt) {
  for (int step = 0; step < 4; ++step) {
    std::array<Tensor, 5> x;
    // Each takes a pinned buffer of the same size, and none has been read when the last is filled.
    graphs().run("step", [&] {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = uploaded(10 * step + static_cast<double>(i));
    });
    const Tensor after = uploaded(-1);  // nor when the graph is launched
    for (std::size_t i = 0; i < x.size(); ++i)
      EXPECT_EQ(first(x[i]), static_cast<float>(10 * step) + static_cast<float>(i));
  }
}

TEST_F(GraphsTest, AStretchIsCutWherePinnedMemoryComesToItsEnd) {
  constexpr std::int64_t count = std::int64_t{1} << 20;  // 4 MiB, a buffer each; there are 64 of them
  Tensor x;
  graphs().run("step", [] {});
  graphs().run("step", [&] {
    for (int i = 0; i < 66; ++i) x = uploaded(i, count);
  });
  EXPECT_EQ(graphs().statistics().launches, 2);
  EXPECT_EQ(first(x), 65);
}

// The harness reads the size of its memory once, so that this needs a process of its own.
TEST(GraphsDeathTest, AStretchIsCutWhereTheMemoryOfTheGpuComesToItsEnd) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  setenv("CUDA_ON_CPU_MEMORY", "65536", 1);
  EXPECT_EXIT(
      {
        const auto memory = std::make_shared<DeviceMemory>();
        Graphs& graphs = memory->graphs();
        const auto number = [&](std::int64_t bytes, double value) {
          const Tensor tensor(*memory, {bytes / 4}, DType::f32);
          fill_values(tensor, value, memory->stream());
          return tensor;
        };
        const Tensor kept = number(1024, 0);
        graphs.run("step", [] {});
        graphs.run("step", [&] {
          copy(number(1024, 5), kept.view(0, {256}));
          (void)number(45 << 10, 6);  // is cached from now on, and still to be written
          copy(number(40 << 10, 7).view(0, {128}), kept.view(128, {128}));  // needs what is cached
        });
        const Tensor found = on_host(kept);
        const bool is_right = found.data<float>()[0] == 5 && found.data<float>()[255] == 7;
        std::_Exit(is_right && graphs.statistics().launches == 2 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
  unsetenv("CUDA_ON_CPU_MEMORY");
}

TEST_F(GraphsTest, AStretchIsCutWhereTheHostWaits) {
  for (int step = 0; step < 4; ++step) {
    const std::int64_t before = waits();
    float found = 0;
    Tensor y;
    graphs().run("step", [&] {
      const Tensor x = filled(step);
      found = first(x);
      y = filled(found + 1);
    });
    EXPECT_EQ(waits() - before, 1);
    EXPECT_EQ(found, static_cast<float>(step));
    EXPECT_EQ(first(y), static_cast<float>(step + 1));
  }
  EXPECT_EQ(graphs().statistics().launches, 3 * 2);
  EXPECT_EQ(graphs().statistics().instantiations, 2);
}

TEST_F(GraphsTest, WaitingPastTheMemoryIsAnErrorThatSaysWhy) {
  const auto wait = [&] {
    const Tensor x = filled(1);
    synchronize(memory_->stream(), "wait for nothing good");
  };
  graphs().run("step", wait);
  try {
    graphs().run("step", wait);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    const std::string what = error.what();
    for (const char* part : {"could not wait for nothing good", "not permitted when stream is capturing",
                             "captured as a graph", "run.cuda_graphs"})
      EXPECT_NE(what.find(part), std::string::npos) << what;
  }
  EXPECT_EQ(first(filled(3)), 3);
}

TEST_F(GraphsTest, AnErrorDropsWhatWasCapturedAndLeavesTheStreamOfUse) {
  const Tensor x = filled(1);
  bool fails = false;
  std::shared_ptr<const GraphRun> run;
  const auto work = [&] {
    run = graphs().capturing();
    fill_values(x, 2, memory_->stream());
    (void)uploaded(1);
    if (fails) throw std::runtime_error("no more");
    fill_values(x, 3, memory_->stream());
  };
  graphs().run("step", work);
  graphs().run("step", work);
  EXPECT_EQ(first(x), 3);
  fails = true;
  fill_values(x, 4, memory_->stream());
  EXPECT_THROW(graphs().run("step", work), std::runtime_error);
  EXPECT_EQ(graphs().capturing(), nullptr);
  EXPECT_TRUE(run->is_dropped());
  EXPECT_EQ(first(x), 4);
  fails = false;
  graphs().run("step", work);
  EXPECT_TRUE(run->is_started());
  EXPECT_EQ(first(x), 3);
  EXPECT_EQ(graphs().statistics().instantiations, 1);
}

TEST_F(GraphsTest, AnErrorBehindACutLeavesTheStreamOfUseToo) {
  const Tensor x = filled(1);
  const auto work = [&] {
    fill_values(x, 2, memory_->stream());
    graphs().outside([] { throw std::runtime_error("no more"); });
  };
  for (int step = 0; step < 2; ++step) EXPECT_THROW(graphs().run("step", work), std::runtime_error);
  graphs().run("other", [] {});
  EXPECT_EQ(first(x), 2);
}

TEST_F(GraphsTest, ARunSaysWhenItIsDone) {
  std::shared_ptr<const GraphRun> run;
  const auto work = [&] {
    run = graphs().capturing();
    (void)filled(1);
    EXPECT_TRUE(run == nullptr || run->query() == cudaErrorNotReady);
  };
  graphs().run("step", work);
  graphs().run("step", work);
  EXPECT_TRUE(run->is_started());
  run->wait();
  EXPECT_EQ(run->query(), cudaSuccess);
  graphs().run("empty", [] {});
  graphs().run("empty", [&] { run = graphs().capturing(); });
  EXPECT_EQ(run->query(), cudaSuccess);  // nothing to run
  EXPECT_EQ(graphs().statistics().launches, 1);
}

TEST_F(GraphsTest, AnotherStreamThatIsNotJoinedIsJoinedAtTheEnd) {
  const Stream other = make_stream();
  const Event event = make_event();
  graphs().add_stream(other.get());
  graphs().run("step", [] {});
  for (int step = 0; step < 20; ++step) {
    const Tensor x = filled(-1);
    graphs().run("step", [&] {
      order(memory_->stream(), other.get(), event);
      fill_values(x, step, other.get());
    });
    EXPECT_EQ(first(x), static_cast<float>(step));
  }
  EXPECT_EQ(graphs().statistics().instantiations, 1);
  graphs().remove_stream(other.get());
}

TEST_F(GraphsTest, WhatAnotherStreamHadToDoBeforeIsDoneBeforeTheGraph) {
  const Stream other = make_stream();
  graphs().add_stream(other.get());
  graphs().run("step", [] {});
  for (int step = 0; step < 20; ++step) {
    const Tensor x = filled(-1), y = filled(0);
    synchronize(memory_->stream(), "wait");
    fill_values(x, step, other.get());
    graphs().run("step", [&] { memory_->copy(x, y); });
    EXPECT_EQ(first(y), static_cast<float>(step));
  }
  graphs().remove_stream(other.get());
}

}  // namespace
}  // namespace bireme::cuda
