#include "distributed/vocabulary.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_tensor.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

constexpr std::int64_t kVocabulary = 11, kChannels = 6, kBatch = 3,
                       kLength = 5;  // 11: does not divide by 2 or 3

/// An embedding whose vectors are read by a head right away.
struct Network {
  Network(Communicator& tensor, DType type, bool tied)
      : embedding(parameters, options("embedding.weight"), tensor),
        head(tied ? VocabularyHead(embedding, {.weight = {}, .soft_cap = 5}, tensor)
                  : VocabularyHead(parameters, {.weight = options("head.weight"), .soft_cap = 5}, tensor)) {
    parameters.build(*memory, {.master = type, .gradients = true, .bf16_copy = false});
    parameters.initialize(3);
    parameters.begin_gradients();
    tokens = Tensor(*memory, {kBatch, kLength}, DType::i32);
    targets = Tensor(*memory, {kBatch, kLength}, DType::i32);
    for (std::int64_t i = 0; i < tokens.elements(); ++i) {
      tokens.data<std::int32_t>()[i] = static_cast<std::int32_t>(i * 4 % kVocabulary);
      targets.data<std::int32_t>()[i] = static_cast<std::int32_t>(i % 4 == 3 ? -1 : i * 7 % kVocabulary);
    }
  }
  static VocabularyOptions options(const char* name) {
    return {.name = name,
            .vocabulary = kVocabulary,
            .channels = kChannels,
            .initial = {.law = Initializer::Law::normal, .value = 1}};
  }
  void run() {
    Tape tape(*backend);
    const Var x = embedding.forward(tape, tokens);
    hidden = clone(*memory, x.value());
    result = head.loss(tape, x, targets, {.count = 7, .z_loss = 0.01, .l2_wrap = 0.1});
    logits = head.logits(*backend, x.value());
    const Tensor seed = tape.empty({}, x.dtype());
    fill(seed, 0.75);
    tape.backward(result.loss, &parameters, {}, seed);
  }

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_cpu_backend(memory);
  ParameterSet parameters;
  VocabularyEmbedding embedding;
  VocabularyHead head;
  Tensor tokens, targets, hidden, logits;
  TokenLoss result;
};

TEST(Vocabulary, SplitOverRanksEqualsTheWhole) {
  for (const int ranks : {2, 3}) {
    for (const DType type : {DType::f64, DType::f32}) {
      for (const bool tied : {false, true}) {
        SCOPED_TRACE(testing::Message() << ranks << " ranks, " << to_string(type) << (tied ? ", tied" : ""));
        run_on_ranks(ranks, [=](Communicator& tensor) {
          const auto single = make_single_process();
          Network whole(*single, type, tied), split(tensor, type, tied);
          whole.run();
          split.run();
          // Lookups are copies; the rest are the same sums of up to 11 terms in another order.
          const double t = type == DType::f64 ? 1e-13 : 2e-6;
          expect_identical(split.hidden, whole.hidden, "embedding");
          expect_close(split.logits, whole.logits, t, 0, "logits");
          expect_close(split.result.loss.value(), whole.result.loss.value(), t, 0, "loss");
          expect_close(split.result.log_probability, whole.result.log_probability, 2e-6, 0,
                       "log probability");
          EXPECT_EQ(split.result.count, 12);
          expect_identical(split.result.is_top, whole.result.is_top, "which targets are on top");
          expect_identical(split.result.top, whole.result.top, "how many");
          for (std::size_t i = 0; i < whole.parameters.size(); ++i) {
            const Parameter &part = split.parameters[i], &all = whole.parameters[i];
            const Tensor expected(*whole.memory, part.shape(), type);
            copy_part(all.value(), expected, part.partition());
            expect_identical(part.value(), expected, part.name());
            copy_part(all.gradient(), expected, part.partition());
            expect_close(part.gradient(), expected, t, 0, "gradient of " + part.name());
          }
        });
      }
    }
  }
}

TEST(Vocabulary, TheFirstRanksHoldOneRowMore) {
  run_on_ranks(3, [](Communicator& tensor) {
    const Network network(tensor, DType::f32, false);
    EXPECT_EQ(network.embedding.weight().shape(), (Shape{tensor.rank() < 2 ? 4 : 3, kChannels}));
  });
}

TEST(Vocabulary, AddsTheGradientOfATokenThatOccursTwice) {
  const auto single = make_single_process();
  Network network(*single, DType::f64, false);
  for (std::int32_t& token : network.tokens.values<std::int32_t>()) token = 4;
  Tape tape(*network.backend);
  const Var x = network.embedding.forward(tape, network.tokens);
  const Tensor dy = random_normal(x.shape());
  tape.backward(x, &network.parameters, {}, dy);
  const Tensor expected(*network.memory, {kVocabulary, kChannels}, DType::f64);
  fill(expected, 0);
  for (std::int64_t i = 0; i < dy.elements(); ++i)
    expected.data<double>()[4 * kChannels + i % kChannels] += dy.data<double>()[i];
  expect_close(network.embedding.weight().gradient(), expected, 1e-14);
}

TEST(Vocabulary, NamesTheTokenThatIsNotInIt) {
  const auto single = make_single_process();
  Network network(*single, DType::f32, true);
  Tape tape(*network.backend);
  const Var x = network.embedding.forward(tape, network.tokens);
  network.tokens.data<std::int32_t>()[3] = 11;
  network.targets.data<std::int32_t>()[2] = -2;
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { network.embedding.forward(tape, network.tokens); }),
                       {"token 11 at position 3", "0 ... 10"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { network.head.loss(tape, x, network.targets, {}); }),
                       {"target -2 at position 2"}));
}

}  // namespace
}  // namespace bireme::test
