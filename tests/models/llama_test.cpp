#include "models/llama.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "models/llama_state.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/llama.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

const char* const kForwardFiles[] = {"forward_gqa",         "forward_mha_tied",    "forward_head_dim",
                                     "forward_rope_linear", "forward_rope_llama3", "forward_length_1"};

// Stated beside the fixtures: fp32 differs from fp64 by at most 3e-6 of the largest entry.
double relative(DType type) { return type == DType::f64 ? 1e-10 : 1e-5; }
// Some gradients are exactly 0 in the reference.
double absolute(DType type) { return type == DType::f64 ? 1e-13 : 1e-6; }

std::int64_t targets_in(const Tensor& targets) {
  std::int64_t count = 0;
  for (const std::int32_t target : targets.values<std::int32_t>()) count += target >= 0 ? 1 : 0;
  return count;
}

/// Loss and gradients of a golden batch, against the golden ones.
void expect_golden_forward(const Golden& golden, DType type, bool recompute, Communicator* tensor = nullptr) {
  LlamaFixture f(golden, type, tensor);
  const Tensor tokens = f.tokens(golden.tensor("inputs/tokens")),
               targets = f.next(golden.tensor("inputs/labels"));
  Tape tape(*f.backend);
  const Var hidden =
      f.model->hidden(tape, {.tokens = tokens, .starts = {}}, {.type = type, .recompute = recompute});
  expect_close(hidden.value(), golden.tensor("outputs/hidden").reshape(hidden.shape()), relative(type),
               absolute(type), "hidden");
  const Tensor logits = f.model->head().logits(*f.backend, hidden.value());
  expect_close(logits, golden.tensor("outputs/logits").reshape(logits.shape()), relative(type),
               absolute(type), "logits");
  const TokenLoss loss =
      f.model->head().loss(tape, hidden, targets, {.count = static_cast<double>(targets_in(targets))});
  EXPECT_NEAR(convert(*f.memory, loss.loss.value(), DType::f64).data<double>()[0],
              golden.tensor("outputs/loss").data<double>()[0], type == DType::f64 ? 1e-10 : 1e-5);
  tape.backward(loss.loss, &f.model->parameters());
  for_golden_tensors(golden, "grads", f, true,
                     [&](const Tensor& mine, const Tensor& expected, const std::string& name) {
                       expect_close(mine, expected, relative(type), absolute(type), "gradient of " + name);
                     });
}

TEST(Llama, MatchesTheReference) {
  for (const char* file : kForwardFiles)
    for (const DType type : {DType::f64, DType::f32})
      for (const bool recompute : {false, true}) {
        SCOPED_TRACE(testing::Message()
                     << file << ", " << to_string(type) << (recompute ? ", recomputing" : ""));
        expect_golden_forward(Golden(std::string("llama/") + file + ".h5"), type, recompute);
      }
}

TEST(Llama, MatchesTheReferenceOnTwoTensorRanks) {
  run_on_ranks(2, [](Communicator& tensor) {
    for (const char* file : {"forward_gqa", "forward_rope_linear"})
      for (const DType type : {DType::f64, DType::f32})
        expect_golden_forward(Golden(std::string("llama/") + file + ".h5"), type, false, &tensor);
  });
}

TEST(Llama, InBf16StaysNearTheReference) {
  if (!make_cpu_backend(make_host_memory())->has_fast_bf16()) GTEST_SKIP() << "no bf16 instructions";
  const Golden golden("llama/forward_gqa.h5");
  LlamaFixture f(golden, DType::bf16);
  const Tensor tokens = f.tokens(golden.tensor("inputs/tokens"));
  Tape tape(*f.backend);
  const Var hidden = f.model->hidden(tape, {.tokens = tokens, .starts = {}}, {.type = DType::bf16});
  // The reference's own bf16 run is 0.035 of the largest entry away (0.044 under autocast).
  expect_close(hidden.value(), golden.tensor("outputs/hidden").reshape(hidden.shape()), 0.035, 0, "hidden");
}

TEST(Llama, PackedDocumentsAreReadAsIfAlone) {
  const Golden golden("llama/forward_gqa.h5");
  for (const DType type : {DType::f64, DType::f32}) {
    LlamaFixture f(golden, type);
    const Tensor tokens = f.tokens(golden.tensor("inputs/tokens"));  // [2, 13]
    const Tensor starts(*f.memory, tokens.shape(), DType::u8);
    fill(starts, 0);
    for (const std::int64_t at : {0, 4, 5, 13 + 0, 13 + 12}) starts.data<std::uint8_t>()[at] = 1;
    Tape tape(*f.backend, Tape::Mode::inference);
    const Tensor packed = f.model->hidden(tape, {.tokens = tokens, .starts = starts}, {.type = type}).value();
    for (const auto& [begin, end] : {std::pair{0, 4}, {4, 5}, {5, 13}, {13, 25}, {25, 26}}) {
      const Tensor alone = tokens.view(begin, {1, end - begin});
      const Tensor expected = f.model->hidden(tape, {.tokens = alone, .starts = {}}, {.type = type}).value();
      expect_close(packed.slice(begin, end), expected, type == DType::f64 ? 1e-13 : 2e-6, 0,
                   "document at " + std::to_string(begin));
    }
  }
}

TEST(Llama, PaddingOnTheLeftIsADocumentOfItsOwn) {
  // The reference masks it and counts positions from the first real token; here the real tokens start a
  // document.
  const Golden golden("llama/padding.h5");
  for (const DType type : {DType::f64, DType::f32}) {
    LlamaFixture f(golden, type);
    const Tensor tokens = f.tokens(golden.tensor("inputs/tokens")),
                 mask = golden.tensor("inputs/padding_mask");
    const Tensor starts(*f.memory, tokens.shape(), DType::u8);
    const std::int64_t length = tokens.shape().back();
    for (std::int64_t i = 0; i < tokens.elements(); ++i) {
      const bool is_real = mask.data<std::uint8_t>()[i] != 0;
      starts.data<std::uint8_t>()[i] =
          i % length == 0 || (is_real && mask.data<std::uint8_t>()[i - 1] == 0) ? 1 : 0;
    }
    Tape tape(*f.backend, Tape::Mode::inference);
    const Tensor hidden = f.model->hidden(tape, {.tokens = tokens, .starts = starts}, {.type = type}).value();
    const Tensor logits = f.model->head().logits(*f.backend, hidden);
    const Tensor expected = golden.tensor("outputs/logits").reshape(logits.shape());
    for (std::int64_t i = 0; i < tokens.elements(); ++i)
      if (mask.data<std::uint8_t>()[i] != 0)
        expect_close(logits.slice(i, i + 1), expected.slice(i, i + 1), relative(type), absolute(type),
                     "logits at " + std::to_string(i));
  }
}

/// The column with the largest entry of each row.
std::vector<std::int32_t> greedy(const Tensor& logits) {
  std::vector<std::int32_t> tokens;
  const auto memory = make_host_memory();
  const Tensor values = convert(*memory, logits, DType::f64);
  for (std::int64_t r = 0; r < values.rows(); ++r) {
    const double* row = values.data<double>() + r * values.channels();
    tokens.push_back(static_cast<std::int32_t>(std::max_element(row, row + values.channels()) - row));
  }
  return tokens;
}

void expect_cached_decoding(const Golden& golden, DType type, Communicator* tensor, std::int64_t chunk) {
  LlamaFixture f(golden, type, tensor);
  const Tensor prompt = f.tokens(golden.tensor("inputs/tokens")), expected = golden.tensor("outputs/logits");
  const Tensor text = f.tokens(golden.tensor("outputs/greedy_tokens"));
  const std::int64_t length = text.shape().back(), start = prompt.shape().back(),
                     vocabulary = f.model->vocabulary();
  const auto state = f.model->make_state(*f.backend, 2, length, type);
  std::vector<std::int32_t> next(2);
  for (std::int64_t at = 0; at + 1 < length;) {
    const std::int64_t count = at < start ? std::min(chunk, start - at) : 1;
    const Tensor tokens(*f.memory, {2, count}, DType::i32);
    for (std::int64_t b = 0; b < 2; ++b)
      for (std::int64_t i = 0; i < count; ++i)
        tokens.data<std::int32_t>()[b * count + i] =
            at < start ? prompt.data<std::int32_t>()[b * start + at + i] : next[static_cast<std::size_t>(b)];
    const Tensor logits = f.model->head().logits(*f.backend, f.model->advance(*f.backend, tokens, *state));
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t i = 0; i < count; ++i)
        expect_close(logits.slice(b * count + i, b * count + i + 1),
                     expected.view((b * (length - 1) + at + i) * vocabulary, {1, vocabulary}), relative(type),
                     absolute(type), "logits");
      next[static_cast<std::size_t>(b)] = greedy(logits)[static_cast<std::size_t>((b + 1) * count - 1)];
    }
    at += count;
    for (std::int64_t b = 0; b < 2 && at >= start; ++b)
      ASSERT_EQ(next[static_cast<std::size_t>(b)], text.data<std::int32_t>()[b * length + at]) << "at " << at;
  }
  EXPECT_EQ(state->position(), length - 1);
  if (tensor != nullptr) return;
  const auto& cache = dynamic_cast<LlamaState&>(*state);
  for (int layer = 0; layer < f.model->options().layers; ++layer)
    for (const bool is_keys : {true, false}) {
      const Tensor plane = is_keys ? cache.keys(layer) : cache.values(layer);  // [B, G, capacity, d]
      const Tensor golden_plane =
          golden.tensor("outputs/cache/" + std::to_string(layer) + (is_keys ? "/keys" : "/values"));
      const std::int64_t d = plane.shape()[3], read = length - 1;
      for (std::int64_t head = 0; head < 4; ++head)
        expect_close(plane.view(head * length * d, {read, d}), golden_plane.view(head * read * d, {read, d}),
                     relative(type), absolute(type), is_keys ? "keys" : "values");
    }
}

TEST(Llama, DecodesOverItsCacheAsTheReferenceDoes) {
  const Golden golden("llama/cached_decoding.h5");
  for (const DType type : {DType::f64, DType::f32})
    for (const std::int64_t chunk : {1, 4, 6}) {
      SCOPED_TRACE(testing::Message() << to_string(type) << ", prompt in chunks of " << chunk);
      expect_cached_decoding(golden, type, nullptr, chunk);
    }
}

TEST(Llama, DecodesOverItsCacheOnTwoTensorRanks) {
  const Golden golden("llama/cached_decoding.h5");
  run_on_ranks(2, [&](Communicator& tensor) { expect_cached_decoding(golden, DType::f32, &tensor, 6); });
}

TEST(Llama, DecodingBranchesFromACloneAndAfterForgetting) {
  const Golden golden("llama/cached_decoding.h5");
  LlamaFixture f(golden, DType::f32);
  const Tensor prompt = f.tokens(golden.tensor("inputs/tokens"));
  const auto state = f.model->make_state(*f.backend, 2, 9, DType::f32);
  f.model->advance(*f.backend, prompt, *state);
  const auto branch = state->clone();
  const Tensor token(*f.memory, {2, 1}, DType::i32);
  fill(token, 3);
  const Tensor first = f.model->advance(*f.backend, token, *state);
  expect_identical(f.model->advance(*f.backend, token, *branch), first, "clone");
  for (const std::int64_t b : {0, 1}) dynamic_cast<LlamaState&>(*state).truncate(b, 6);
  expect_identical(f.model->advance(*f.backend, token, *state), first, "after forgetting");
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [&] { f.model->advance(*f.backend, prompt, *state); }),
                       {"6 tokens do not fit into a cache for 9, of which 7 are read"}));
}

TEST(Llama, CountsItsParametersAndWork) {
  const auto single = make_single_process();
  const auto memory = make_host_memory();
  const LlamaOptions options{.vocabulary = 64,
                             .channels = 32,
                             .hidden = 48,
                             .layers = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .attention_bias = true,
                             .mlp_bias = true};
  Llama model(options, *single);
  model.build(*memory, {});
  EXPECT_EQ(model.parameters().elements(), options.parameter_count());
  // Twice the matrices of the blocks and the head for each token, and 2·T·H·d a layer.
  const double matrices = 2 * (32 * (32 + 2 * 16) + 32 * 32 + 3 * 32 * 48) + 64 * 32;
  EXPECT_EQ(model.flops(3, 10), 30 * (2 * matrices + 2 * 2 * 10 * 32));
  // Table 1 of the paper.
  EXPECT_EQ((LlamaOptions{.hidden = 11008}.parameter_count()), 6738415616);
}

TEST(Llama, StartsWithTheLawsOfItsParameters) {
  const auto single = make_single_process();
  const auto memory = make_host_memory();
  Llama model({.vocabulary = 500, .channels = 64, .layers = 2, .heads = 2, .scaled_residual = true}, *single);
  model.build(*memory, {});
  model.parameters().initialize(5);
  const auto deviation = [&](const char* name) {
    double squares = 0;
    const auto values = model.parameters().find(name)->value().values<float>();
    for (const float v : values) squares += double{v} * v;
    return std::sqrt(squares / static_cast<double>(values.size()));
  };
  EXPECT_NEAR(deviation("model.embed_tokens.weight"), 0.02, 4e-4);
  EXPECT_NEAR(deviation("model.layers.0.mlp.gate_up_proj.weight"), 0.02, 4e-4);
  EXPECT_NEAR(deviation("model.layers.1.mlp.down_proj.weight"), 0.01, 4e-4);
  EXPECT_EQ(deviation("model.norm.weight"), 1);
}

TEST(Llama, RefusesWhatCannotBe) {
  const auto single = make_single_process();
  const auto message = [&](const LlamaOptions& options) {
    return error_of(ErrorKind::usage, [&] { Llama(options, *single); });
  };
  EXPECT_TRUE(mentions(message({.heads = 6, .kv_heads = 4, .head_dim = 8}),
                       {"6 query heads", "4 key and value heads"}));
  EXPECT_TRUE(mentions(message({.channels = 30, .heads = 4}), {"30 channels do not divide by 4 heads"}));
  EXPECT_TRUE(mentions(message({.channels = 36, .heads = 4}), {"heads of 9 channels"}));
  EXPECT_TRUE(mentions(message({.rotary = {.type = "longrope"}}), {"`longrope`"}));
  run_on_ranks(2, [](Communicator& tensor) {
    EXPECT_TRUE(mentions(
        error_of(ErrorKind::usage, [&] { Llama({.channels = 32, .heads = 4, .kv_heads = 1}, tensor); }),
        {"1 key and value heads do not divide by 2"}));
  });
}

}  // namespace
}  // namespace bireme::test
