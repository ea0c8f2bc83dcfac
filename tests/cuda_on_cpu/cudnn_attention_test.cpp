// Which attention is left to cuDNN, and which takes Bireme's own kernel.
#include <gtest/gtest.h>

#include <functional>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/runtime.h"
#include "core/ops/attention/attention.h"
#include "core/ops/attention/causal_attention.h"
#include "tests/cuda_on_cpu/launches.h"

namespace bireme::cuda {
namespace {

/// What one attention launches: own kernels, and calls of libraries.
struct Counted {
  std::int64_t kernels, calls;
};

class CudnnAttentionChoice : public ::testing::Test {
 protected:
  Counted forward(DType type, const Shape& shape, const std::function<Var(Tape&, const Var&)>& run) const {
    Tape tape(*backend_, Tape::Mode::inference);
    cuda_check(cudaDeviceSynchronize(), "wait");
    const cuda_on_cpu::Launches before = cuda_on_cpu::launches();
    run(tape, Var(Tensor(backend_->memory(), shape, type)));
    cuda_check(cudaDeviceSynchronize(), "wait");
    const cuda_on_cpu::Launches after = cuda_on_cpu::launches();
    return {after.kernels - before.kernels, after.products - before.products};
  }
  Counted dense(DType type, std::int64_t dimension) const {
    const Segments segments{{2, 9}, {3, 5}};
    return forward(type, {33, 3 * 2 * dimension},
                   [&](Tape& tape, const Var& qkv) { return attention(tape, qkv, 2, segments); });
  }
  Counted causal(const AttentionHeads& heads, const Tensor& first) const {
    return forward(DType::bf16, {20, heads.channels()},
                   [&](Tape& tape, const Var& qkv) { return causal_attention(tape, qkv, heads, 10, first); });
  }

  std::unique_ptr<Backend> backend_ = make_backend({});
};

TEST_F(CudnnAttentionChoice, SequencesInBf16AreItsOwnOneCallForEachLength) {
  const Counted counted = dense(DType::bf16, 16);
  EXPECT_EQ(counted.kernels, 0);
  EXPECT_EQ(counted.calls, 2);
}

TEST_F(CudnnAttentionChoice, Fp32AndHeadsOfOddWidthTakeTheOwnKernel) {
  for (const Counted& counted : {dense(DType::f32, 16), dense(DType::bf16, 20), dense(DType::bf16, 136)}) {
    EXPECT_GT(counted.kernels, 0);
    EXPECT_EQ(counted.calls, 0);
  }
}

TEST_F(CudnnAttentionChoice, WholeSequencesOfGroupedQueriesAreItsOwn) {
  const Counted counted = causal({.queries = 4, .keys = 2, .dimension = 8}, {});
  EXPECT_EQ(counted.kernels, 0);
  EXPECT_EQ(counted.calls, 1);
}

TEST_F(CudnnAttentionChoice, PackedDocumentsTakeTheOwnKernel) {
  const auto host = make_host_memory();
  const Tensor first(*host, {20}, DType::i32);
  for (std::int64_t i = 0; i < 20; ++i) first.data<std::int32_t>()[i] = i % 10 < 4 ? 0 : 4;
  const Counted counted = causal({.queries = 4, .keys = 2, .dimension = 8}, first);
  EXPECT_GT(counted.kernels, 0);
  EXPECT_EQ(counted.calls, 0);
}

}  // namespace
}  // namespace bireme::cuda
