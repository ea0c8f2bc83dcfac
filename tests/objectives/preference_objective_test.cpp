#include "objectives/preference_objective.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "core/cpu/cpu_backend.h"
#include "models/published/language_model.h"
#include "objectives/preference/dpo.h"
#include "objectives/preference/dro.h"
#include "objectives/preference/ipo.h"
#include "objectives/preference/kto.h"
#include "objectives/preference/orpo.h"
#include "objectives/preference/sft.h"
#include "objectives/preference/simpo.h"
#include "tests/support/answers.h"
#include "tests/support/expect.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

/// A model whose logits are given: its hidden vectors are the logits, its head the identity.
class GivenLogits final : public LanguageModel {
 public:
  GivenLogits(Memory& memory, Communicator& single, std::int64_t vocabulary)
      : head_(parameters_, {.weight = {.name = "head", .vocabulary = vocabulary, .channels = vocabulary}},
              single) {
    parameters_.build(memory, {});
    fill(parameters_[0].value(), 0);
    for (std::int64_t v = 0; v < vocabulary; ++v)
      parameters_[0].value().data<float>()[v * vocabulary + v] = 1;
    parameters_.begin_gradients();
  }
  Var logits;

  ParameterSet& parameters() override { return parameters_; }
  const ParameterSet& parameters() const override { return parameters_; }
  std::int64_t vocabulary() const override { return parameters_[0].shape()[0]; }
  std::int64_t channels() const override { return vocabulary(); }
  std::int64_t context() const override { return 0; }
  Var hidden(Tape&, const TokenInput&, const LanguageForward&) const override { return logits; }
  const VocabularyHead& head() const override { return head_; }
  std::unique_ptr<DecodingState> make_state(const Backend&, std::int64_t, std::int64_t,
                                            DType) const override {
    return nullptr;
  }
  Tensor advance(const Backend&, const Tensor&, DecodingState&) const override { return {}; }
  double flops(std::int64_t, std::int64_t) const override { return 0; }

 private:
  ParameterSet parameters_;
  VocabularyHead head_;
};

/// Runs a golden file's logits through an objective, and compares losses and gradients.
void expect_golden_logits(const std::string& file, std::unique_ptr<PreferenceLoss> loss, Imitation imitation,
                          double tolerance) {
  SCOPED_TRACE(file);
  const Golden golden("alignment/" + file);
  const auto memory = make_host_memory();
  const auto backend = make_cpu_backend(memory);
  const auto single = make_single_process();
  const Mesh mesh(*single, 1);
  const bool pairs = golden.has("inputs/chosen/logits"), chosen_only = file == "logits_sft.h5";
  const std::vector<std::string> sides =
      pairs ? std::vector<std::string>{"chosen/", "rejected/"} : std::vector<std::string>{""};
  const std::vector<AnswerRecord> records = golden_records(golden, "inputs");
  AnswerBatch batch = batch_of(
      records, {.packing = {.share_prompts = false, .imitation = imitation, .chosen_only = chosen_only}},
      *memory);

  // Each document is one row of a side; its logits move from there into the pass and the gradient back.
  const std::int64_t vocabulary = 24, rows = batch.rows.tokens.elements();
  GivenLogits model(*memory, *single, vocabulary);
  const Tensor hidden(*memory, {rows, vocabulary}, DType::f32);
  const std::size_t per_record = pairs && !chosen_only ? 2 : 1;
  const auto for_documents = [&](const auto& body) {
    for (std::size_t i = 0; i < batch.rows.documents.size(); ++i) {
      const Branching& document = batch.rows.documents[i];
      body(sides[i % per_record], static_cast<std::int64_t>(i / per_record), document.begin, document.rows());
    }
  };
  for_documents([&](const std::string& side, std::int64_t record, std::int64_t begin, std::int64_t count) {
    const Tensor logits = golden.tensor("inputs/" + side + "logits");
    const std::int64_t width = logits.shape()[1];
    copy(logits.view(record * width * vocabulary, {count, vocabulary}), hidden.slice(begin, begin + count));
  });
  for (std::size_t i = 0; i < batch.rows.answers.size(); ++i) {
    PlacedAnswer& answer = batch.rows.answers[i];
    const std::string side = "inputs/" + sides[i % per_record];
    const auto number = [&](const std::string& name) {
      const auto values = golden_numbers(golden, side + name);
      return values.empty() ? 0.0 : values[i / per_record];
    };
    answer.reference = number("reference_logps");
    answer.liked = number("like") != 0;
    answer.reward = number("rewards") - number("values");  // only their difference counts
  }
  const auto mismatched = golden_numbers(golden, "inputs/kl_logps"),
             mismatched_reference = golden_numbers(golden, "inputs/reference_kl_logps");
  double ratios = 0;
  for (std::size_t i = 0; i < mismatched.size(); ++i) ratios += mismatched[i] - mismatched_reference[i];
  loss->set_mismatched(ratios, static_cast<double>(mismatched.size()));

  PreferenceObjective objective({}, mesh, model, std::move(loss), {});
  objective.begin(0);
  Tape tape(*backend);
  model.logits = tape.leaf(hidden);
  const Var result = objective.compute(tape, batch);
  const double expected = golden.tensor("outputs/loss").data<double>()[0];
  EXPECT_NEAR(result.value().data<double>()[0], expected, tolerance * std::abs(expected));
  EXPECT_NEAR(objective.reduce(), expected, tolerance * std::abs(expected));
  tape.backward(result);
  const Tensor gradient = tape.gradient(model.logits);
  for (const std::string& side : sides) {
    const std::string name = pairs ? side.substr(0, side.size() - 1) + "_logits" : "logits";
    const Tensor whole = golden.tensor("grads/" + name), actual(*memory, whole.shape(), DType::f64);
    fill(actual, 0);
    for_documents([&](const std::string& of, std::int64_t record, std::int64_t begin, std::int64_t count) {
      if (of != side) return;
      const std::int64_t width = whole.shape()[1];
      copy(gradient.slice(begin, begin + count),
           actual.view(record * width * vocabulary, {count, vocabulary}));
    });
    expect_close(actual, whole, tolerance, 1e-7, name);
  }
}

TEST(PreferenceObjective, GradientsOfLogitsMatchTheReference) {
  const auto none = Imitation::none;
  expect_golden_logits("logits_sft.h5", std::make_unique<SftLoss>(), Imitation::completion, 3e-6);
  expect_golden_logits("logits_orpo.h5", std::make_unique<OrpoLoss>(OrpoLoss::Options{.lambda = 0.1}),
                       Imitation::sequence, 3e-6);
  expect_golden_logits("logits_orpo_completion.h5",
                       std::make_unique<OrpoLoss>(OrpoLoss::Options{.lambda = 0.5}), Imitation::completion,
                       3e-6);
  expect_golden_logits("logits_dpo.h5", std::make_unique<DpoLoss>(DpoLoss::Options{.beta = 0.1}), none, 5e-6);
  expect_golden_logits("logits_ipo.h5", std::make_unique<IpoLoss>(IpoLoss::Options{.beta = 0.1}), none, 5e-6);
  expect_golden_logits("logits_simpo.h5", std::make_unique<SimpoLoss>(SimpoLoss::Options{}), none, 5e-6);
  expect_golden_logits("logits_kto.h5", std::make_unique<KtoLoss>(KtoLoss::Options{.beta = 0.1}), none, 5e-6);
  expect_golden_logits("logits_dro.h5", std::make_unique<DroLoss>(DroLoss::Options{}), none, 5e-6);
}

/// Gradients of all parameters of a model for one step of pairs.
std::vector<Tensor> gradients_of(const LanguageModelSettings& settings, const PackingOptions& packing,
                                 bool recompute, DType type = DType::f32) {
  const auto memory = make_host_memory();
  const auto backend = make_cpu_backend(memory);
  const auto single = make_single_process();
  const Mesh mesh(*single, 1);
  const auto published = make_language_model(settings, *single);
  published->build(*memory, {.master = type});
  LanguageModel& model = published->model();
  model.parameters().initialize(3);
  // Random values everywhere: what starts at zero would hide what flows through it.
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    const Tensor& value = model.parameters()[i].value();
    const Tensor noise = random_normal(value.shape(), {.deviation = 0.05, .seed = 100 + i});
    for (std::int64_t j = 0; j < value.elements(); ++j) {
      if (type == DType::f64)
        value.data<double>()[j] += noise.data<double>()[j];
      else
        value.data<float>()[j] += static_cast<float>(noise.data<double>()[j]);
    }
  }
  const std::vector<AnswerRecord> pairs = made_up_pairs(3, 30, 10, settings.vocabulary);
  const AnswerBatch batch = batch_of(pairs, {.packing = packing}, *memory);
  PreferenceObjective objective({.type = type, .recompute = recompute}, mesh, model,
                                std::make_unique<OrpoLoss>(OrpoLoss::Options{.lambda = 1}), {});
  objective.begin(0);
  model.parameters().begin_gradients();
  Tape tape(*backend);
  tape.backward(objective.compute(tape, batch), &model.parameters());
  std::vector<Tensor> gradients;
  for (std::size_t i = 0; i < model.parameters().size(); ++i)
    gradients.push_back(clone(*memory, model.parameters()[i].gradient()));
  return gradients;
}

double largest_magnitude(const std::vector<Tensor>& tensors) {
  double largest = 0;
  for (const Tensor& tensor : tensors)
    for (std::int64_t i = 0; i < tensor.elements(); ++i)
      largest = std::max(largest, std::fabs(tensor.dtype() == DType::f64 ? tensor.data<double>()[i]
                                                                         : tensor.data<float>()[i]));
  return largest;
}

LanguageModelSettings small(const std::string& type, const std::string& variant = "paper") {
  LanguageModelSettings settings;
  settings.type = type;
  settings.vocabulary = 40;
  settings.channels = 32;
  settings.layers = 2;
  settings.heads = 2;
  settings.context = 64;
  settings.variant = variant;
  settings.pattern = "ms";
  return settings;
}

TEST(PreferenceObjective, SharedPromptsGiveTheSameGradients) {
  for (const auto& settings : {small("llama"), small("rwkv"), small("xlstm"), small("xlstm", "large")}) {
    SCOPED_TRACE(settings.type + " " + settings.variant);
    // Where no likelihood of the prompt counts, the last layer leaves its rows out.
    for (const auto& [recompute, imitation] : {std::pair(false, Imitation::sequence),
                                               {true, Imitation::sequence},
                                               {false, Imitation::completion},
                                               {true, Imitation::none}}) {
      for (const auto& [type, tolerance, rounding] :
           {std::tuple(DType::f64, 1e-12, 1e-15), {DType::f32, 1e-5, 1e-7}}) {
        const auto shared =
            gradients_of(settings, {.share_prompts = true, .imitation = imitation}, recompute, type);
        const auto apart =
            gradients_of(settings, {.share_prompts = false, .imitation = imitation}, false, type);
        ASSERT_EQ(shared.size(), apart.size());
        // Where a sum cancels, such as a forget gate's bias, it is as good as its terms, not as itself.
        const double terms = largest_magnitude(apart);
        for (std::size_t i = 0; i < shared.size(); ++i)
          expect_close(shared[i], apart[i], tolerance, rounding * terms, "parameter " + std::to_string(i));
      }
    }
  }
}

TEST(PreferenceObjective, ReadsTheRowsThatAreNeededAlone) {
  const auto memory = make_host_memory();
  const std::vector<AnswerRecord> pairs = made_up_pairs(3, 30, 10, 40);
  const AnswerRows some = pack_answers(pairs, {}, *memory),
                   all = pack_answers(pairs, {.imitation = Imitation::sequence}, *memory),
                   apart = pack_answers(pairs, {.share_prompts = false}, *memory);
  ASSERT_TRUE(some.needed.defined());
  EXPECT_LT(some.needed.elements(), some.tokens.elements());
  for (std::int64_t i = 0; i < some.rows.elements(); ++i)
    EXPECT_EQ(some.needed.data<std::int32_t>()[some.places.data<std::int32_t>()[i]],
              some.rows.data<std::int32_t>()[i]);
  EXPECT_FALSE(all.needed.defined()) << "every row predicts something";
  EXPECT_FALSE(apart.needed.defined());
  const auto backend = make_cpu_backend(memory);
  const auto single = make_single_process();
  for (const auto& settings : {small("llama"), small("rwkv"), small("xlstm")}) {
    const auto published = make_language_model(settings, *single);
    published->build(*memory, {});
    const LanguageModel& model = published->model();
    published->model().parameters().initialize(3);
    Tape tape(*backend, Tape::Mode::inference);
    const Tensor everywhere;
    const Var whole = model.hidden(tape, {some.tokens, everywhere, some.documents}, {}),
              part = model.hidden(tape, {some.tokens, everywhere, some.documents, some.needed}, {});
    ASSERT_EQ(part.value().rows(), some.needed.elements()) << settings.type;
    for (std::int64_t i = 0; i < part.value().rows(); ++i) {
      const std::int64_t row = some.needed.data<std::int32_t>()[i];
      expect_close(part.value().slice(i, i + 1), whole.value().slice(row, row + 1), 1e-5, 1e-6,
                   settings.type);
    }
  }
}

TEST(PreferenceObjective, EveryParameterLearns) {
  for (const auto& settings : {small("llama"), small("rwkv"), small("xlstm")}) {
    const auto gradients = gradients_of(settings, {.imitation = Imitation::none}, false);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      double largest = 0;
      for (const float x : gradients[i].values<float>()) largest = std::max(largest, std::abs(double{x}));
      EXPECT_GT(largest, 0) << settings.type << ", parameter " << i;
    }
  }
}

}  // namespace
}  // namespace bireme::test
