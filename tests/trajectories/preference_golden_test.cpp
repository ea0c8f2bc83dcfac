#include <gtest/gtest.h>

#include <map>

#include "launch/trainer.h"
#include "models/published/llama.h"
#include "objectives/preference/dpo.h"
#include "objectives/preference/dro.h"
#include "objectives/preference/ipo.h"
#include "objectives/preference/kto.h"
#include "objectives/preference/orpo.h"
#include "objectives/preference/sft.h"
#include "objectives/preference/simpo.h"
#include "objectives/preference_objective.h"
#include "tests/support/answers.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/llama.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

/// One of the golden trainings: its file, what it learns, and the tolerances that go with it.
struct Recipe {
  std::string file;
  PackingOptions packing;
  std::function<std::unique_ptr<PreferenceLoss>()> loss;
  double steps = 2e-5, weights = 5e-6;
  bool separate_value = false, shared_value = false;
};

LlamaOptions options_of(const Golden& golden) {
  const auto integer = [&](const char* name) {
    return static_cast<std::int64_t>(golden.number("config", name));
  };
  LlamaOptions options;
  options.vocabulary = integer("arch_vocab");
  options.channels = integer("arch_hidden");
  options.hidden = integer("arch_intermediate");
  options.layers = static_cast<int>(integer("arch_layers"));
  options.heads = static_cast<int>(integer("arch_heads"));
  options.kv_heads = static_cast<int>(integer("arch_kv_heads"));
  options.epsilon = static_cast<float>(golden.number("config", "arch_eps"));
  options.context = 64;
  options.rotary.theta = golden.number("config", "arch_theta");
  return options;
}

Configuration configuration_of(const Golden& golden, int tensor_degree, int zero) {
  Configuration c = parse_configuration("model.type = \"llama\"", "test");
  const auto number = [&](const char* name) { return golden.number("config", name); };
  c.optimizer.learning_rate = c.optimizer.minimum_learning_rate = number("optimizer_learning_rate");
  c.optimizer.weight_decay = c.optimizer.weight_decay_end = number("optimizer_weight_decay");
  c.optimizer.beta1 = number("optimizer_beta1");
  c.optimizer.beta2 = number("optimizer_beta2");
  c.optimizer.epsilon = number("optimizer_epsilon");
  c.optimizer.clip_norm = number("optimizer_clip_norm");
  c.optimizer.clip_type = "global";
  c.schedule.type = "constant";
  c.schedule.warmup_steps = 0;
  c.parallel.tensor = tensor_degree;
  c.parallel.zero = zero;
  c.parallel.bucket_bytes = 4096;
  c.run.device = test_device();
  c.run.threads = 1;
  c.run.timeout_seconds = 0;
  return c;
}

/// Calls body(values of this rank's part, the golden part, name) for each tensor of GROUP/PREFIX….
template <class Body>
void for_weights(const Golden& golden, const std::string& group, const Llama& model, const Body& body) {
  for (const PublishedTensor& tensor : llama_tensors(model.options())) {
    if (!golden.has(group + tensor.name)) continue;  // a value function has no head for tokens
    const PublishedPart part = local_part(tensor, *model.parameters().find(tensor.parameter));
    const Tensor whole = golden.tensor(group + tensor.name);
    Tensor expected(*make_host_memory(), part.local.shape(), whole.dtype());
    copy_part(whole, expected, part.partition);
    body(part.local, expected, tensor.name);
  }
}
void load(const Golden& golden, const std::string& group, Llama& model) {
  for_weights(golden, group, model,
              [](const Tensor& mine, const Tensor& expected, const std::string&) { copy(expected, mine); });
}

/// A LLaMA with the golden weights, and the value function that the recipe asks for.
struct Networks {
  Networks(const Golden& golden, const Recipe& recipe, const Context& context)
      : model(options_of(golden), context.mesh->tensor()) {
    const double rate = recipe.separate_value || recipe.shared_value
                            ? golden.number("config", "optimizer_value_learning_rate") /
                                  golden.number("config", "optimizer_learning_rate")
                            : 1;
    companion_rate = recipe.separate_value ? rate : 1;
    Memory& memory = context.backend->memory();
    if (recipe.shared_value) head = ValueHead::add(model.parameters(), "value.head", model.channels(), rate);
    if (recipe.separate_value) {
      value = std::make_unique<Llama>(options_of(golden), context.mesh->tensor());
      head = ValueHead::add(value->parameters(), "value.head", model.channels());
      value->build(memory, {});
      value->parameters().initialize(1);
      load(golden, "weights/value.", *value);
      value->parameters().find("lm_head.weight")->set_trainable(false);
    }
    model.build(memory, {});
    load(golden, "weights/", model);
    if (head.bias == nullptr) return;
    copy(golden.tensor("weights/value.head.weight"), head.weight->value());
    copy(golden.tensor("weights/value.head.bias"), head.bias->value());
  }
  Llama model;
  std::unique_ptr<Llama> value;
  ValueHead head;
  double companion_rate = 1;
};

AnswerBatch golden_batch(const Golden& golden, std::int64_t step, const Recipe& recipe,
                         const Communicator& data, Memory& memory) {
  const std::string path = "steps/" + std::to_string(step) + "/inputs";
  const BatchShare share{.packing = recipe.packing, .rank = data.rank(), .size = data.size()};
  const std::vector<AnswerRecord> records = golden_records(golden, path);
  AnswerBatch batch = batch_of(records, share, memory);
  const auto fill_in = [&](AnswerRows& rows, const std::string& from) {
    for (std::size_t i = 0; i < rows.answers.size(); ++i) {
      PlacedAnswer& answer = rows.answers[i];
      const bool pairs = golden.has(from + "/chosen/tokens");
      const std::string side = !pairs ? "" : answer.position % 2 == 0 ? "/chosen" : "/rejected";
      const auto number = [&](const std::string& name) {
        const auto values = golden_numbers(golden, from + side + "/" + name);
        return values.empty() ? 0.0 : values[static_cast<std::size_t>(answer.position / (pairs ? 2 : 1))];
      };
      answer.reference = number("reference_logps");
      answer.liked = number("like") != 0;
      answer.reward = number("rewards");
    }
  };
  fill_in(batch.rows, path);
  if (golden.has(path + "/mismatched/tokens")) {
    const AnswerBatch other =
        batch_of(golden_records(golden, path + "/mismatched"),
                 {.packing = {.share_prompts = true}, .rank = share.rank, .size = share.size}, memory);
    batch.mismatched = {other.rows};
    batch.mismatched[0].answers = other.rows.answers;
    fill_in(batch.mismatched[0], path + "/mismatched");
  }
  return batch;
}

void follow(Communicator& world, const Recipe& recipe, int tensor_degree, int zero) {
  SCOPED_TRACE(recipe.file);
  const Golden golden("alignment/" + recipe.file);
  const Configuration configuration = configuration_of(golden, tensor_degree, zero);
  const Context context = make_context(configuration, world);
  Networks networks(golden, recipe, context);
  PreferenceObjective::Networks beside;
  if (networks.head.bias != nullptr) {
    beside.value = std::make_unique<ValueFunction>(
        recipe.shared_value ? ValueFunction::Kind::shared : ValueFunction::Kind::separate, networks.head,
        networks.value.get(), false);
    if (networks.value) beside.value_parameters = &networks.value->parameters();
  }
  PreferenceObjective objective({.companion_rate = networks.companion_rate}, *context.mesh, networks.model,
                                recipe.loss(), std::move(beside));
  Trainer trainer(configuration, context, objective, 5);
  for (std::int64_t step = 0; step < 5; ++step) {
    const StepReport report = trainer.step(step, [&]() -> Batch {
      return golden_batch(golden, step, recipe, context.mesh->data(), *make_host_memory());
    });
    const std::string path = "steps/" + std::to_string(step);
    const auto number = [&](const std::string& name) {
      return golden.tensor(path + "/" + name).data<double>()[0];
    };
    EXPECT_FALSE(report.skipped);
    EXPECT_NEAR(report.loss, number("loss"), recipe.steps * std::abs(number("loss")) + 1e-7) << path;
    EXPECT_NEAR(report.gradient_norm, number("grad_norm"), recipe.steps * number("grad_norm") + 1e-7) << path;
    std::map<std::string, double> terms;
    for (const auto& [name, value] : objective.terms()) terms[name] = value;
    for (const auto& [term, name] :
         {std::pair("nll", "nll"), std::pair("kl", "kl"), std::pair("value_grad_norm", "value_grad_norm")})
      if (golden.has(path + "/" + name) && terms.contains(term)) {
        EXPECT_NEAR(terms.at(term), number(name), recipe.steps * std::abs(number(name)) + 1e-7)
            << path << name;
      }
  }
  const auto check = [&](const Tensor& mine, const Tensor& expected, const std::string& name) {
    expect_close(mine, expected, 0, recipe.weights, name);  // the fixture's own, absolute
  };
  for_weights(golden, "final_weights/", networks.model, check);
  if (networks.value) for_weights(golden, "final_weights/value.", *networks.value, check);
  if (networks.head.bias == nullptr) return;
  check(networks.head.weight->value(), golden.tensor("final_weights/value.head.weight"), "value.head.weight");
  check(networks.head.bias->value(), golden.tensor("final_weights/value.head.bias"), "value.head.bias");
}

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all = {
      {.file = "train_sft.h5",
       .packing = {.imitation = Imitation::completion, .chosen_only = true},
       .loss = [] { return std::make_unique<SftLoss>(); },
       .steps = 1e-5,
       .weights = 3e-4},
      {.file = "train_orpo.h5",
       .packing = {.imitation = Imitation::sequence},
       .loss = [] { return std::make_unique<OrpoLoss>(OrpoLoss::Options{.lambda = 0.1}); },
       .steps = 1e-5},
      {.file = "train_dpo.h5",
       .packing = {},
       .loss = [] { return std::make_unique<DpoLoss>(DpoLoss::Options{.beta = 0.1}); }},
      {.file = "train_ipo.h5",
       .packing = {},
       .loss = [] { return std::make_unique<IpoLoss>(IpoLoss::Options{.beta = 0.1}); }},
      {.file = "train_simpo.h5",
       .packing = {},
       .loss = [] { return std::make_unique<SimpoLoss>(SimpoLoss::Options{}); },
       .steps = 1e-5},
      {.file = "train_kto.h5",
       .packing = {},
       .loss = [] { return std::make_unique<KtoLoss>(KtoLoss::Options{.beta = 0.1}); }},
      {.file = "train_kto_previous.h5",
       .packing = {},
       .loss = [] { return std::make_unique<KtoLoss>(KtoLoss::Options{.beta = 0.1}); },
       .weights = 5e-5},
      {.file = "train_dro.h5",
       .packing = {},
       .loss = [] { return std::make_unique<DroLoss>(DroLoss::Options{}); },
       .steps = 3e-5,
       .weights = 1e-4,
       .separate_value = true},
      {.file = "train_dro_shared.h5",
       .packing = {},
       .loss = [] { return std::make_unique<DroLoss>(DroLoss::Options{.tau = 0.5}); },
       .steps = 3e-5,
       .shared_value = true},
  };
  return all;
}

TEST(PreferenceTraining, FollowsTheReferenceOnOneRank) {
  const auto alone = make_single_process();
  for (const Recipe& recipe : recipes()) follow(*alone, recipe, 1, 0);
}
TEST(PreferenceTraining, FollowsTheReferenceOnTwoDataRanks) {
  for (const Recipe& recipe : recipes())
    run_on_ranks(2, [&](Communicator& world) { follow(world, recipe, 1, 1); });
}
TEST(PreferenceTraining, FollowsTheReferenceOnTwoTensorRanks) {
  for (const Recipe& recipe : recipes())
    run_on_ranks(2, [&](Communicator& world) { follow(world, recipe, 2, 0); });
}
TEST(PreferenceTraining, FollowsTheReferenceOnAMeshOfTwoByTwo) {
  for (const Recipe& recipe : recipes())
    run_on_ranks(4, [&](Communicator& world) { follow(world, recipe, 2, 0); });
}

}  // namespace
}  // namespace bireme::test
