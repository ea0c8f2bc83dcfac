#include "models/rwkv.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/expect_error.h"
#include "tests/support/random_tensor.h"
#include "tests/support/ranks.h"
#include "tests/support/rwkv.h"

namespace bireme::test {
namespace {

// The fixtures' own tolerance in fp32. In fp64 what is left is the epsilon of the norms, an fp32 number: 1e-5
// is off by 2.5e-8 of itself there.
struct Precision {
  DType type;
  double tolerance;
};
const std::vector<Precision> kPrecisions = {{DType::f32, 1e-5}, {DType::f64, 1e-9}};

Tensor in_rows(const Tensor& tensor) { return tensor.reshape({tensor.rows(), tensor.channels()}); }

/// Columns [begin, end) of [B, T].
Tensor columns(Memory& memory, const Tensor& tokens, std::int64_t begin, std::int64_t end) {
  const std::int64_t batch = tokens.shape()[0], length = tokens.shape()[1];
  const Tensor part(memory, {batch, end - begin}, DType::i32);
  for (std::int64_t b = 0; b < batch; ++b)
    std::copy_n(tokens.data<std::int32_t>() + b * length + begin, end - begin,
                part.data<std::int32_t>() + b * (end - begin));
  return part;
}

TEST(Rwkv, MatchesGoldenForwardAndBackward) {
  const Golden golden("rwkv/model_tiny.h5");
  const Tensor tokens = golden.tensor("inputs/tokens");
  for (const auto& [type, tolerance] : kPrecisions) {
    SCOPED_TRACE(to_string(type));
    RwkvFixture rwkv(golden, type);
    expect_close(rwkv.logits(tokens), in_rows(golden.tensor("outputs/logits")), tolerance);
    EXPECT_NEAR(rwkv.train(tokens, next_tokens(*rwkv.memory, tokens)),
                golden.tensor("outputs/loss").data<double>()[0], tolerance);
    expect_golden_gradients(golden, "grads", rwkv.model.parameters(), tolerance, 3 * 18 + 6);
  }
}

TEST(Rwkv, MatchesGoldenOverTensorRanks) {
  const Golden golden("rwkv/model_tiny.h5");
  const Tensor tokens = golden.tensor("inputs/tokens");
  run_on_ranks(2, [&](Communicator& tensor) {
    RwkvFixture rwkv(golden, DType::f32, &tensor);
    expect_close(rwkv.logits(tokens), in_rows(golden.tensor("outputs/logits")), 1e-5);
    rwkv.train(tokens, next_tokens(*rwkv.memory, tokens));
    for (const char* name : {"blocks.1.att.key.weight", "blocks.1.att.time_mix_k", "blocks.1.att.time_decay",
                             "blocks.1.ffn.receptance.weight", "blocks.1.ffn.time_mix_r",
                             "blocks.1.ffn.value.weight", "blocks.1.ln1.weight", "blocks.0.ln0.bias"}) {
      const Parameter& p = *rwkv.model.parameters().find(name);
      const Tensor whole = golden.tensor(std::string("grads/") + name).reshape(p.whole_shape());
      const Tensor part(*rwkv.memory, p.shape(), whole.dtype());
      copy_part(whole, part, p.partition());
      expect_close(p.gradient(), part, 1e-5, 0, name);
    }
  });
}

TEST(Rwkv, StreamAfterEachBlockMatchesGolden) {
  const Golden golden("rwkv/model_tiny.h5");
  const RwkvFixture rwkv(golden, DType::f64);
  const Tensor tokens = golden.tensor("inputs/tokens");
  int seen = 0;
  rwkv.model.hidden_with(*rwkv.backend, {.tokens = tokens, .starts = {}}, DType::f64,
                         [&](int after, const Tensor& stream) {
                           ++seen;
                           if (after < 0) return;
                           const std::string path = "outputs/trace/" + std::to_string(after + 1);
                           expect_close(stream, in_rows(golden.tensor(path)), 1e-9, 0, path);
                         });
  EXPECT_EQ(seen, 4);
}

TEST(Rwkv, MatchesGoldenWithDocumentsThatStartInTheMiddle) {
  const Golden golden("rwkv/model_documents.h5");
  const Tensor tokens = golden.tensor("inputs/tokens");
  for (const auto& [type, tolerance] : kPrecisions)
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(to_string(type));
      RwkvFixture rwkv(golden, type);
      const Tensor starts = golden.tensor("inputs/document_start");
      expect_close(rwkv.logits(tokens, starts), in_rows(golden.tensor("outputs/logits")), tolerance);
      EXPECT_NEAR(rwkv.train(tokens, next_tokens(*rwkv.memory, tokens, starts), starts, recompute),
                  golden.tensor("outputs/loss").data<double>()[0], tolerance);
      expect_golden_gradients(golden, "grads", rwkv.model.parameters(), tolerance, 2 * 18 + 6);
    }
}

TEST(Rwkv, RecomputingABlockChangesNoBit) {
  const Golden golden("rwkv/model_tiny.h5");
  const Tensor tokens = golden.tensor("inputs/tokens");
  RwkvFixture plain(golden, DType::f32), again(golden, DType::f32);
  const Tensor targets = next_tokens(*plain.memory, tokens);
  EXPECT_EQ(plain.train(tokens, targets), again.train(tokens, targets, {}, true));
  expect_identical(plain.model.parameters().flat_gradients(), again.model.parameters().flat_gradients());
}

class RwkvDecoding : public testing::Test {
 protected:
  /// Logits of the golden tokens, read in pieces that end at `cuts`.
  void expect_golden_in_pieces(const RwkvFixture& rwkv, double tolerance,
                               const std::vector<std::int64_t>& cuts) {
    const std::int64_t batch = tokens_.shape()[0], length = tokens_.shape()[1];
    const Tensor expected = golden_.tensor("outputs/logits");
    const auto state = rwkv.model.make_state(*rwkv.backend, batch, 0, rwkv.type());
    std::int64_t begin = 0;
    for (const std::int64_t end : cuts) {
      const Tensor hidden =
          rwkv.model.advance(*rwkv.backend, columns(*rwkv.memory, tokens_, begin, end), *state);
      EXPECT_EQ(hidden.shape(), (Shape{batch * (end - begin), rwkv.model.channels()}));
      const Tensor logits = rwkv.logits_of(hidden);
      for (std::int64_t b = 0; b < batch; ++b)
        expect_close(logits.slice(b * (end - begin), (b + 1) * (end - begin)),
                     in_rows(expected).slice(b * length + begin, b * length + end), tolerance);
      begin = end;
    }
    EXPECT_EQ(state->position(), length);
    expect_golden_state(dynamic_cast<const RwkvState&>(*state), tolerance);
  }
  void expect_golden_state(const RwkvState& state, double tolerance) {
    for (std::size_t l = 0; l < state.layers().size(); ++l) {
      const RwkvLayerState& layer = state.layers()[l];
      const std::string at = "outputs/state/" + std::to_string(l) + "/";
      expect_close(layer.channel_x, golden_.tensor(at + "ffn_x"), tolerance, 0, at + "ffn_x");
      expect_close(layer.time_x, golden_.tensor(at + "att_x"), tolerance, 0, at + "att_x");
      expect_close(layer.wkv.a, golden_.tensor(at + "aa"), tolerance, 0, at + "aa");
      expect_close(layer.wkv.b, golden_.tensor(at + "bb"), tolerance, 0, at + "bb");
      expect_close(layer.wkv.p, golden_.tensor(at + "pp"), tolerance, 0, at + "pp");
    }
  }

  Golden golden_{"rwkv/model_tiny.h5"};
  Tensor tokens_ = golden_.tensor("inputs/tokens");
};

TEST_F(RwkvDecoding, APromptMayBeCutAnywhere) {
  for (const auto& [type, tolerance] : kPrecisions) {
    SCOPED_TRACE(to_string(type));
    const RwkvFixture rwkv(golden_, type);
    expect_golden_in_pieces(rwkv, tolerance, {19});
    expect_golden_in_pieces(rwkv, tolerance, {7, 7, 19});  // the second piece has no tokens
    std::vector<std::int64_t> each;
    for (std::int64_t t = 1; t <= 19; ++t) each.push_back(t);
    expect_golden_in_pieces(rwkv, tolerance, each);
  }
}

TEST_F(RwkvDecoding, OverTensorRanksToo) {
  run_on_ranks(2, [&](Communicator& tensor) {
    const RwkvFixture rwkv(golden_, DType::f32, &tensor);
    const auto state = rwkv.model.make_state(*rwkv.backend, 2, 0, DType::f32);
    const Tensor expected = in_rows(golden_.tensor("outputs/logits"));
    for (std::int64_t t = 0; t < 19; ++t) {
      const Tensor logits =
          rwkv.logits_of(rwkv.model.advance(*rwkv.backend, columns(*rwkv.memory, tokens_, t, t + 1), *state));
      for (const std::int64_t b : {0, 1})
        expect_close(logits.slice(b, b + 1), expected.slice(b * 19 + t, b * 19 + t + 1), 1e-5);
    }
  });
}

TEST_F(RwkvDecoding, GreedyContinuationMatchesGolden) {
  const RwkvFixture rwkv(golden_, DType::f32);
  const Tensor expected = golden_.tensor("outputs/greedy_tokens");
  const auto state = rwkv.model.make_state(*rwkv.backend, 2, 0, DType::f32);
  Tensor hidden = rwkv.model.advance(*rwkv.backend, tokens_, *state);
  std::int64_t rows = tokens_.shape()[1];  // of each sequence in `hidden`
  for (std::int64_t i = 0; i < expected.shape()[1]; ++i) {
    const Tensor logits = on_host(rwkv.logits_of(hidden));
    const Tensor next(*rwkv.memory, {2, 1}, DType::i32);
    for (const std::int64_t b : {0, 1}) {
      const auto row = logits.slice((b + 1) * rows - 1, (b + 1) * rows).values<float>();
      next.data<std::int32_t>()[b] =
          static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
      EXPECT_EQ(next.data<std::int32_t>()[b], expected.data<std::int32_t>()[b * expected.shape()[1] + i])
          << i;
    }
    hidden = rwkv.model.advance(*rwkv.backend, next, *state);
    rows = 1;
  }
}

TEST_F(RwkvDecoding, AStateIsSmallConstantAndCanBeBranched) {
  const RwkvFixture rwkv(golden_, DType::f32);
  const auto state = rwkv.model.make_state(*rwkv.backend, 2, 1 << 20, DType::f32);
  EXPECT_EQ(state->bytes(), 2 * 3 * 5 * 32 * 4);  // sequences, layers, vectors, channels, bytes
  rwkv.model.advance(*rwkv.backend, columns(*rwkv.memory, tokens_, 0, 7), *state);
  EXPECT_EQ(state->bytes(), 2 * 3 * 5 * 32 * 4);
  const auto branch = state->clone();
  const Tensor token = columns(*rwkv.memory, tokens_, 7, 8);
  const Tensor here = rwkv.model.advance(*rwkv.backend, token, *state);
  rwkv.model.advance(*rwkv.backend, token, *state);  // must not show in the branch
  expect_identical(rwkv.model.advance(*rwkv.backend, token, *branch), here);
  EXPECT_EQ(branch->position(), 8);
}

TEST_F(RwkvDecoding, Bf16StaysNearFp32) {
  RwkvFixture rwkv(golden_, DType::f32);
  if (!rwkv.backend->has_fast_bf16()) GTEST_SKIP() << "no bf16 products on this CPU";
  const auto state = rwkv.model.make_state(*rwkv.backend, 2, 0, DType::bf16);
  const Tensor hidden = rwkv.model.advance(*rwkv.backend, tokens_, *state);
  EXPECT_EQ(hidden.dtype(), DType::bf16);
  // Each of some twenty values on the way is rounded by up to 2⁻⁹ of itself.
  expect_close(rwkv.logits_of(hidden), in_rows(golden_.tensor("outputs/logits")), 0.05);
  Tape tape(*rwkv.backend, Tape::Mode::inference);
  const Var parallel = rwkv.model.hidden(tape, {.tokens = tokens_, .starts = {}}, {.type = DType::bf16});
  expect_close(convert(*rwkv.memory, parallel.value(), DType::f32), convert(*rwkv.memory, hidden, DType::f32),
               1e-6);
}

/// Half a block alone: its parameters under their names in the fixture.
class RwkvHalf {
 public:
  RwkvHalf(const std::string& file, const std::string& prefix, DType type)
      : golden_("rwkv/" + file + ".h5"),
        prefix_(prefix),
        type_(type),
        block_(parameters_, "", 0, options(), *single_) {
    parameters_.build(*memory_, {.master = type});
    parameters_.initialize(1);
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      if (parameters_[i].name().starts_with(prefix))
        copy(golden_.tensor("weights/" + fixture_name(parameters_[i])).reshape(parameters_[i].shape()),
             parameters_[i].value());
    parameters_.begin_gradients();
  }

  void expect_golden(double tolerance) {
    const Tensor x = input("x");
    const Sequences sequences{.count = x.shape()[0], .length = x.shape()[1]};
    Tape tape(*backend_);
    const Var leaf = tape.leaf(in_rows(x));
    const Var y = run(tape, leaf, sequences, nullptr);
    expect_close(y.value(), in_rows(golden_.tensor("outputs/y")), tolerance, 0, "y");
    tape.backward(y, &parameters_, {}, in_rows(input("gy")));
    expect_close(tape.gradient(leaf), in_rows(golden_.tensor("grads/x")), tolerance, 0, "dx");
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      if (parameters_[i].name().starts_with(prefix_)) {
        const std::string path = "grads/" + fixture_name(parameters_[i]);
        expect_close(parameters_[i].gradient(), golden_.tensor(path).reshape(parameters_[i].shape()),
                     tolerance, 0, path);
      }
    expect_golden_from_state(in_rows(x), sequences, tolerance);
  }

 private:
  void expect_golden_from_state(const Tensor& x, const Sequences& sequences, double tolerance) {
    RwkvLayerState state = block_.empty_state(*memory_, sequences.count, type_);
    copy(golden_.tensor("inputs/state_x"), is_time() ? state.time_x : state.channel_x);
    if (is_time()) {
      copy(golden_.tensor("inputs/state_aa"), state.wkv.a);
      copy(golden_.tensor("inputs/state_bb"), state.wkv.b);
      copy(golden_.tensor("inputs/state_pp"), state.wkv.p);
    }
    Tape tape(*backend_, Tape::Mode::inference);
    const Var y = run(tape, Var(x), sequences, &state);
    expect_close(y.value(), in_rows(golden_.tensor("outputs/y_state")), tolerance, 0, "y_state");
    expect_close(is_time() ? state.time_x : state.channel_x, golden_.tensor("outputs/final_x"), tolerance);
    if (!is_time()) return;
    expect_close(state.wkv.a, golden_.tensor("outputs/final_aa"), tolerance, 0, "final_aa");
    expect_close(state.wkv.b, golden_.tensor("outputs/final_bb"), tolerance, 0, "final_bb");
    expect_close(state.wkv.p, golden_.tensor("outputs/final_pp"), tolerance, 0, "final_pp");
  }

  bool is_time() const { return prefix_ == "att."; }
  std::string fixture_name(const Parameter& parameter) const {
    return parameter.name().substr(prefix_.size());
  }
  Tensor input(const char* name) const {
    return convert(*memory_, golden_.tensor(std::string("inputs/") + name), type_);
  }
  Var run(Tape& tape, const Var& x, const Sequences& sequences, RwkvLayerState* state) const {
    return is_time() ? block_.time_mix(tape, x, sequences, state)
                     : block_.channel_mix(tape, x, sequences, state);
  }
  RwkvOptions options() const {
    const auto integer = [&](const char* name) {
      return static_cast<std::int64_t>(golden_.number("config", name));
    };
    return {.vocabulary = 1,
            .channels = integer("n_embd"),
            .layers = 1,
            .attention_channels = integer("dim_att"),
            .hidden = integer("dim_ffn")};
  }

  Golden golden_;
  std::string prefix_;
  DType type_;
  std::shared_ptr<Memory> memory_ = make_host_memory();
  std::unique_ptr<Backend> backend_ = make_cpu_backend(memory_);
  std::unique_ptr<Communicator> single_ = make_single_process();
  ParameterSet parameters_;
  RwkvBlock block_;
};

TEST(RwkvBlock, HalvesMatchGoldenWithAndWithoutAState) {
  for (const auto& [type, tolerance] : {std::pair{DType::f32, 5e-6}, {DType::f64, 1e-11}}) {
    SCOPED_TRACE(to_string(type));
    RwkvHalf("timemix", "att.", type).expect_golden(tolerance);
    RwkvHalf("channelmix", "ffn.", type).expect_golden(tolerance);
  }
}

TEST(Rwkv, InitialVectorsMatchGolden) {
  const Golden golden("rwkv/init.h5");
  struct Size {
    int layers;
    std::int64_t channels, inner;
  };
  for (const auto& [layers, channels, inner] :
       {Size{4, 16, 16}, Size{1, 8, 8}, Size{2, 12, 20}, Size{24, 32, 32}}) {
    const RwkvFixture rwkv({.vocabulary = 10,
                            .channels = channels,
                            .layers = layers,
                            .attention_channels = inner,
                            .hidden = channels},
                           DType::f64);
    const std::string group = "outputs/L" + std::to_string(layers) + "_D" + std::to_string(channels) + "_A" +
                              std::to_string(inner) + "/";
    int compared = 0;
    for (std::size_t i = 0; i < rwkv.model.parameters().size(); ++i) {
      const Parameter& p = rwkv.model.parameters()[i];
      if (!golden.has(group + p.name())) continue;
      expect_close(p.value(), golden.tensor(group + p.name()).reshape(p.shape()), 1e-12, 0, group + p.name());
      ++compared;
    }
    EXPECT_EQ(compared, 7 * layers);
  }
}

TEST(Rwkv, StartsAsTheIdentityWithTheOfficialScales) {
  const RwkvOptions options{.vocabulary = 100, .channels = 16, .layers = 2};
  const RwkvFixture rwkv(options, DType::f64);
  EXPECT_EQ(rwkv.model.parameters().elements(), options.parameter_count());
  const auto length = [&](const char* name, std::int64_t column) {
    const Tensor w = on_host(rwkv.model.parameters().find(name)->value());
    double sum = 0;
    for (std::int64_t r = 0; r < w.rows(); ++r) {
      const double x = w.data<double>()[r * w.channels() + column];
      sum += x * x;
    }
    return std::sqrt(sum);
  };
  EXPECT_NEAR(length("blocks.1.ffn.key.weight", 3), 2, 1e-12);  // √(out / in)
  EXPECT_NEAR(length("blocks.1.att.value.weight", 3), 1, 1e-12);
  EXPECT_NEAR(length("head.weight", 3), 0.5 * std::sqrt(100.0 / 16), 1e-12);
  for (const char* name : {"att.key", "att.receptance", "att.output", "ffn.value", "ffn.receptance"})
    EXPECT_EQ(length(("blocks.0." + std::string(name) + ".weight").c_str(), 3), 0) << name;
  const Tensor embedding = on_host(rwkv.model.parameters().find("emb.weight")->value());
  for (const double x : embedding.values<double>()) EXPECT_LE(std::abs(x), 1e-4);
}

TEST(Rwkv, MatricesAloneDecayAndVectorsOfTimeLearnFaster) {
  const RwkvFixture rwkv({.vocabulary = 10, .channels = 8, .layers = 1}, DType::f32);
  for (std::size_t i = 0; i < rwkv.model.parameters().size(); ++i) {
    const Parameter& p = rwkv.model.parameters()[i];
    EXPECT_EQ(p.decays(), p.whole_shape().rank() == 2) << p.name();
    const bool decay = p.name().ends_with("time_decay"), first = p.name().ends_with("time_first");
    EXPECT_EQ(p.learning_rate_scale(), decay ? 2 : first ? 3 : 1) << p.name();
  }
}

TEST(Rwkv, RescalingWidensTheEpsilonOfLaterNormsInInferenceOnly) {
  const Golden golden("rwkv/model_tiny.h5");
  const Tensor tokens = golden.tensor("inputs/tokens");
  const RwkvFixture plain(golden, DType::f64);
  RwkvOptions options = golden_rwkv_options(golden);
  options.rescale_every = 1;
  RwkvFixture rescaled(options, DType::f64);
  load_golden_weights(golden, rescaled.model.parameters());
  const Tensor before = convert(*plain.memory, plain.logits(tokens), DType::f64),
               after = convert(*plain.memory, rescaled.logits(tokens), DType::f64);
  double difference = 0;
  for (std::int64_t i = 0; i < before.elements(); ++i)
    difference = std::max(difference, std::abs(before.data<double>()[i] - after.data<double>()[i]));
  EXPECT_GT(difference, 1e-6);
  EXPECT_NEAR(rescaled.train(tokens, next_tokens(*rescaled.memory, tokens)),
              golden.tensor("outputs/loss").data<double>()[0], 1e-7);
}

TEST(Rwkv, RefusesSizesThatCannotBe) {
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::usage, [] { RwkvFixture({.vocabulary = 10, .channels = 0}, DType::f32); }),
               {"model.channels is 0"}));
  run_on_ranks(2, [](Communicator& tensor) {
    EXPECT_TRUE(mentions(
        error_of(ErrorKind::usage,
                 [&] {
                   RwkvFixture({.vocabulary = 10, .channels = 8, .layers = 1, .attention_channels = 7},
                               DType::f32, &tensor);
                 }),
        {"parallel.tensor is 2", "7 channels of time mixing"}));
  });
}

TEST(Rwkv, CountsTheParametersOfThePublishedSizes) {
  for (const auto& [name, parameters] : {std::pair{"169m", 1.693e8},
                                         {"430m", 4.304e8},
                                         {"1.5b", 1.515e9},
                                         {"3b", 2.985e9},
                                         {"7b", 7.393e9},
                                         {"14b", 1.415e10}})
    EXPECT_NEAR(static_cast<double>(rwkv_size(name).parameter_count()) / parameters, 1, 5e-4) << name;
}

}  // namespace
}  // namespace bireme::test
