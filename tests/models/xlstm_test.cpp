#include "models/xlstm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "models/mlstm_block.h"
#include "models/slstm_block.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_tensor.h"
#include "tests/support/ranks.h"
#include "tests/support/xlstm.h"

namespace bireme::test {
namespace {

// Of the largest entry. fp32 as the golden files' README states; fp64 differs by what epsilon weighs in the
// reference's quadratic form and in gradients through its stabiliser, see MlstmKernels.
constexpr double kFloat = 1e-5, kDouble = 2e-6, kVanishing = 1e-3;

/// Gradients of input-gate biases all but vanish by invariance.
double gradient_tolerance(const std::string& name, double usual) {
  return name.find("igate.bias") != std::string::npos || name.find("igate_preact.bias") != std::string::npos
             ? kVanishing
             : std::max(usual, 1e-5);
}

void expect_golden_model(const std::string& file, DType type) {
  SCOPED_TRACE(file + " " + to_string(type));
  const Golden golden("xlstm/" + file + ".h5");
  const double tolerance = type == DType::f64 ? kDouble : kFloat;
  for (const bool recompute : {false, true}) {
    XlstmFixture f(golden, type);
    const Tensor tokens = golden.tensor("inputs/tokens");
    const Tensor starts =
        golden.has("inputs/document_start") ? golden.tensor("inputs/document_start") : Tensor();
    expect_close(f.logits(tokens, starts),
                 golden.tensor("outputs/logits").reshape({tokens.elements(), f.model.vocabulary()}),
                 tolerance, 0, "logits");
    EXPECT_NEAR(f.train(tokens, starts, recompute), golden.tensor("outputs/loss").data<double>()[0], 1e-5);
    const ParameterSet& p = f.model.parameters();
    for (std::size_t i = 0; i < p.size(); ++i) {
      const bool vanishes = p[i].name().ends_with("slstm_cell._bias_");  // gate 0 is exactly zero
      expect_close(p[i].gradient(), golden_part(golden, "grads", p[i], DType::f64),
                   gradient_tolerance(p[i].name(), tolerance), vanishes ? 1e-9 : 0, p[i].name());
    }
  }
}

TEST(Xlstm, MatchesGoldenModelsForwardAndBackward) {
  for (const char* file : {"lm_msm", "lm_documents", "large_tiny", "large_documents"})
    for (const DType type : {DType::f64, DType::f32}) expect_golden_model(file, type);
}

TEST(Xlstm, ResidualStreamIsThatOfTheReference) {
  const Golden golden("xlstm/lm_msm.h5");
  XlstmFixture f(golden, DType::f64);
  Tape tape(*f.backend, Tape::Mode::inference);
  const Tensor tokens = golden.tensor("inputs/tokens");
  const std::vector<Var> streams = f.model.residuals(tape, {.tokens = tokens, .starts = {}}, f.how());
  ASSERT_EQ(streams.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    const std::string name = "outputs/trace/" + (i == 0 ? std::string("embedding") : std::to_string(i - 1));
    expect_close(streams[i].value(), golden.tensor(name).reshape({48, 32}), kDouble, 0, name);
  }
}

/// One residual block of the paper with its golden weights.
void expect_golden_block(const std::string& file, bool is_slstm, XlstmMemory memory, DType type) {
  SCOPED_TRACE(file + " " + to_string(type));
  const Golden golden("xlstm/" + file + ".h5");
  XlstmOptions options = golden_xlstm_options(golden);
  options.memory = memory;
  const auto host = make_host_memory();
  const auto backend = make_cpu_backend(host);
  const auto single = make_single_process();
  ParameterSet p;
  std::unique_ptr<XlstmBlock> block;
  if (is_slstm) {
    block = std::make_unique<SlstmBlock>(p, "", options, 0, *single);
  } else {
    block = std::make_unique<MlstmBlock>(p, "", options, *single);
  }
  p.build(*host, {.master = type});
  load_golden_xlstm(golden, p);
  p.begin_gradients();
  const Tensor in = golden.tensor("inputs/x");
  const Shape rows{in.shape()[0] * in.shape()[1], in.shape()[2]};
  Tape tape(*backend);
  const Var x = tape.leaf(convert(*host, in.reshape(rows), type));
  const Var y =
      block->forward(tape, x, {.sequences = in.shape()[0], .type = type, .starts = {}, .state = nullptr});
  const double tolerance = type == DType::f64 ? kDouble : 5e-6;
  expect_close(y.value(), golden.tensor("outputs/y").reshape(rows), tolerance, 0, "y");
  tape.backward(y, &p, {}, convert(*host, golden.tensor("inputs/gy").reshape(rows), type));
  for (std::size_t i = 0; i < p.size(); ++i)
    expect_close(p[i].gradient(), golden_part(golden, "grads", p[i], DType::f64),
                 gradient_tolerance(p[i].name(), tolerance),
                 p[i].name().ends_with("_bias_") || p[i].name().ends_with("kernel_") ? 1e-9 : 0, p[i].name());
}

TEST(Xlstm, BlocksMatchGolden) {
  for (const DType type : {DType::f64, DType::f32}) {
    expect_golden_block("mlstm_block", false, XlstmMemory::associative, type);
    expect_golden_block("slstm_block", true, XlstmMemory::associative, type);
    expect_golden_block("ablation_learned_memory", false, XlstmMemory::learned, type);
  }
}

/// Columns [begin, end) of [B, T].
Tensor columns_of(Memory& memory, const Tensor& tokens, std::int64_t begin, std::int64_t end) {
  const std::int64_t B = tokens.shape()[0], T = tokens.shape()[1];
  const Tensor part(memory, {B, end - begin}, DType::i32);
  for (std::int64_t b = 0; b < B; ++b)
    std::copy_n(tokens.data<std::int32_t>() + b * T + begin, end - begin,
                part.data<std::int32_t>() + b * (end - begin));
  return part;
}

/// Reads a prompt in pieces of the given lengths and compares every hidden vector with the parallel form.
void expect_state_carries(XlstmFixture& f, const Tensor& tokens, const std::vector<std::int64_t>& pieces,
                          double tolerance) {
  Tape tape(*f.backend, Tape::Mode::inference);
  const std::int64_t B = tokens.shape()[0], T = tokens.shape()[1];
  const Tensor whole = f.model.hidden(tape, {.tokens = tokens, .starts = {}}, f.how()).value();
  std::unique_ptr<DecodingState> state = f.model.make_state(*f.backend, B, T, f.type);
  const std::int64_t bytes = state->bytes();
  std::int64_t at = 0;
  for (std::size_t i = 0; at < T; ++i) {
    const std::int64_t n = std::min(pieces[i % pieces.size()], T - at);
    state = state->clone();
    const Tensor some = f.model.advance(*f.backend, columns_of(*f.memory, tokens, at, at + n), *state);
    for (std::int64_t b = 0; b < B; ++b)
      expect_close(some.slice(b * n, (b + 1) * n), whole.slice(b * T + at, b * T + at + n), tolerance, 0,
                   "tokens from " + std::to_string(at));
    at += n;
    EXPECT_EQ(state->position(), at);
  }
  EXPECT_EQ(state->bytes(), bytes);
}

TEST(Xlstm, StepsEqualTheParallelFormHoweverThePromptIsCut) {
  for (const char* file : {"lm_msm", "large_tiny"})
    for (const DType type : {DType::f64, DType::f32}) {
      const Golden golden(std::string("xlstm/") + file + ".h5");
      XlstmFixture f(golden, type);
      for (const std::vector<std::int64_t>& pieces : {std::vector<std::int64_t>{1}, {5, 1, 2}, {17}, {1000}})
        expect_state_carries(f, golden.tensor("inputs/tokens"), pieces, type == DType::f64 ? 1e-10 : 2e-5);
    }
}

XlstmOptions small_options(XlstmArchitecture architecture, XlstmMemory memory) {
  XlstmOptions options;
  options.architecture = architecture;
  options.vocabulary = 37;
  options.channels = 32;
  options.layers = 2;
  options.heads = 2;
  options.chunk = 8;
  options.pattern = "ms";
  options.memory = memory;
  options.input_gate_bias = 0;
  return options;
}

Tensor some_tokens(Memory& memory, std::int64_t sequences, std::int64_t length) {
  const Tensor tokens(memory, {sequences, length}, DType::i32);
  RandomStream random(3, 0, RandomUse::test);
  for (std::int32_t& token : tokens.values<std::int32_t>())
    token = static_cast<std::int32_t>(random.below(37));
  return tokens;
}

TEST(Xlstm, AblationsCarryTheirStateTooAndTrain) {
  for (const XlstmArchitecture architecture : {XlstmArchitecture::paper, XlstmArchitecture::large})
    for (const XlstmMemory memory : {XlstmMemory::learned, XlstmMemory::learned_initial}) {
      XlstmFixture f(small_options(architecture, memory), DType::f64);
      const Tensor tokens = some_tokens(*f.memory, 2, 21);
      expect_state_carries(f, tokens, {4, 1}, 1e-10);
      // The gradient of the memory along a direction against a difference.
      const double before = f.train(tokens);
      ParameterSet& p = f.model.parameters();
      const std::string name = architecture == XlstmArchitecture::paper
                                   ? "xlstm_block_stack.blocks.0.xlstm.mlstm_cell.memory"
                                   : "backbone.blocks.0.mlstm_layer.memory";
      Parameter* m = p.find(name);
      ASSERT_NE(m, nullptr);
      const Tensor gradient = clone(*f.memory, m->gradient()), value = on_host(m->value());
      double squares = 0;
      for (std::int64_t i = 0; i < gradient.elements(); ++i) {
        squares += gradient.data<double>()[i] * gradient.data<double>()[i];
        value.data<double>()[i] += 1e-6 * gradient.data<double>()[i] / 1e-3;
      }
      copy(value, m->value());
      EXPECT_GT(squares, 0);
      EXPECT_NEAR((f.train(tokens) - before) / 1e-3, squares, 2e-3 * squares);
    }
}

TEST(Xlstm, EveryPackedDocumentBeginsWithTheLearnedState) {
  for (const XlstmArchitecture architecture : {XlstmArchitecture::paper, XlstmArchitecture::large}) {
    XlstmFixture f(small_options(architecture, XlstmMemory::learned_initial), DType::f64);
    // Documents of 5, 9, 5 and 2 tokens in the first sequence, of 21 in the second; chunks have 8.
    const Tensor tokens = some_tokens(*f.memory, 2, 21), starts(*f.memory, {2, 21}, DType::u8);
    fill(starts, 0);
    for (const std::int64_t begin : {5, 14, 19}) starts.data<std::uint8_t>()[begin] = 1;
    const Tensor packed = f.logits(tokens, starts);
    for (const auto& [begin, end] : {std::pair{0, 5}, {5, 14}, {14, 19}, {19, 21}, {21, 42}}) {
      const Tensor alone = f.logits(tokens.reshape({42}).slice(begin, end).reshape({1, end - begin}));
      expect_close(packed.slice(begin, end), alone, 1e-10, 0, "document from " + std::to_string(begin));
    }
    // The gradient of every parameter along itself against a difference.
    f.train(tokens, starts, true);
    ParameterSet& p = f.model.parameters();
    const Tensor gradient = clone(*f.memory, p.flat_gradients());
    const auto loss_at = [&](double step) {
      const Tensor values = on_host(p.flat_values());
      for (std::int64_t i = 0; i < gradient.elements(); ++i)
        values.data<double>()[i] += step * gradient.data<double>()[i];
      copy(values, p.flat_values());
      return f.train(tokens, starts);
    };
    double squares = 0;
    for (const double g : gradient.values<double>()) squares += g * g;
    const double above = loss_at(1e-5), below = loss_at(-2e-5);
    EXPECT_NEAR((above - below) / 2e-5, squares, 1e-5 * squares);
  }
}

TEST(Xlstm, Bf16IsCloseToFp32) {
  for (const char* file : {"lm_msm", "large_tiny"}) {
    const Golden golden(std::string("xlstm/") + file + ".h5");
    XlstmFixture f(golden, DType::bf16);
    if (!f.backend->has_fast_bf16()) GTEST_SKIP() << "no bf16 instructions here";
    const Tensor tokens = golden.tensor("inputs/tokens");
    expect_close(f.logits(tokens),
                 golden.tensor("outputs/logits").reshape({tokens.elements(), f.model.vocabulary()}), 0.04, 0,
                 file);
    EXPECT_NEAR(f.train(tokens), golden.tensor("outputs/loss").data<double>()[0], 0.03);
  }
}

TEST(Xlstm, DeterministicInitialValuesAreThePackages) {
  const Golden golden("xlstm/init.h5");
  struct Size {
    int layers;
    std::int64_t channels;
    int heads;
  };
  for (const Size& s : {Size{4, 32, 4}, Size{1, 16, 2}, Size{7, 64, 4}})
    for (const char kind : {'m', 's'})
      for (const SlstmBiasLaw law : {SlstmBiasLaw::powerlaw_blockdependent, SlstmBiasLaw::small_init}) {
        XlstmOptions options = small_options(XlstmArchitecture::paper, XlstmMemory::associative);
        options.layers = s.layers;
        options.channels = s.channels;
        options.heads = s.heads;
        options.pattern = kind;
        options.slstm_bias = law;
        XlstmFixture f(options, DType::f64);
        const std::string group = "outputs/blocks" + std::to_string(s.layers) + "_dim" +
                                  std::to_string(s.channels) + "_heads" + std::to_string(s.heads);
        for (int block = 0; block < s.layers; ++block) {
          const std::string prefix = "xlstm_block_stack.blocks." + std::to_string(block) + ".xlstm.";
          if (kind == 'm') {
            expect_close(f.model.parameters().find(prefix + "mlstm_cell.fgate.bias")->value(),
                         golden.tensor(group + "/mlstm_fgate_bias"), 1e-6);
            continue;
          }
          const Tensor bias = f.model.parameters().find(prefix + "slstm_cell._bias_")->value();
          const bool power = law == SlstmBiasLaw::powerlaw_blockdependent;
          const Tensor expected =  // [head, gate, unit]
              golden.tensor(group + (power ? "/slstm_bias/" : "/slstm_bias_small_init/") +
                            std::to_string(block));
          const std::int64_t H = s.heads, D = s.channels / s.heads;
          const Tensor reordered(*f.memory, {4 * H * D}, DType::f64);
          for (std::int64_t i = 0; i < 4 * H * D; ++i)
            reordered.data<double>()[i] = expected.data<double>()[(i / D % H * 4 + i / (H * D)) * D + i % D];
          expect_close(bias, reordered, 1e-6);
        }
      }
}

TEST(Xlstm, TensorRanksGiveWhatOneRankGives) {
  for (const char* file : {"lm_msm", "large_tiny"})
    run_on_ranks(2, [&](Communicator& tensor) {
      const Golden golden(std::string("xlstm/") + file + ".h5");
      XlstmFixture f(golden, DType::f64, &tensor);
      const Tensor tokens = golden.tensor("inputs/tokens");
      EXPECT_NEAR(f.train(tokens), golden.tensor("outputs/loss").data<double>()[0], 1e-7);
      const ParameterSet& p = f.model.parameters();
      for (std::size_t i = 0; i < p.size(); ++i)
        expect_close(p[i].gradient(), golden_part(golden, "grads", p[i], DType::f64),
                     gradient_tolerance(p[i].name(), kDouble), 1e-9, p[i].name());
    });
}

TEST(Xlstm, RefusesWhatCannotBe) {
  const auto single = make_single_process();
  XlstmOptions options = small_options(XlstmArchitecture::paper, XlstmMemory::associative);
  options.pattern = "mx";
  std::string message = error_of(ErrorKind::usage, [&] { Xlstm model(options, *single); });
  EXPECT_NE(message.find("`mx` is no pattern of blocks"), std::string::npos) << message;
  options = small_options(XlstmArchitecture::large, XlstmMemory::associative);
  options.heads = 3;
  message = error_of(ErrorKind::usage, [&] { Xlstm model(options, *single); });
  EXPECT_NE(message.find("16 query channels do not divide by 3"), std::string::npos) << message;
}

}  // namespace
}  // namespace bireme::test
