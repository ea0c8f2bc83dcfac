#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/tensor/random.h"
#include "launch/commands/bench.h"
#include "launch/configuration_keys.h"
#include "launch/job.h"
#include "launch/language_session.h"
#include "launch/language_task.h"
#include "launch/memory_rate.h"
#include "launch/model_folder.h"
#include "launch/options.h"
#include "models/decoding/generator.h"

namespace bireme {

namespace {

/// Bytes of the weights that a step reads: all but the embedding, of which it reads a row, unless the head
/// shares it.
std::int64_t weight_bytes(const LanguageModel& model, DType type) {
  const Shape table{model.vocabulary(), model.channels()};
  std::int64_t elements = 0, tables = 0;
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    const Parameter& parameter = model.parameters()[i];
    elements += parameter.value().elements();
    tables += parameter.whole_shape() == table ? 1 : 0;
  }
  if (tables > 1) elements -= model.vocabulary() * model.channels();
  return elements * (type == DType::bf16 ? 2 : 4);
}

struct DecodeRate {
  double seconds = 0;             ///< a step: one token of each sequence
  std::int64_t state_bytes = 0;   ///< of one sequence
  std::int64_t state_tokens = 0;  ///< that the state has room for, where that makes a difference
};

/// Greedy decoding: `tokens` more of each sequence after a prompt of random ones and a few steps that fill
/// caches and buffers.
DecodeRate time_decoding(const Backend& backend, const LanguageModel& model, DType type,
                         std::int64_t sequences, std::int64_t prompt, std::int64_t tokens) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t warmup = 8;
  const std::int64_t capacity = prompt + warmup + tokens;
  Generator generator(backend, model, sequences, capacity, type);
  RandomStream random(0, static_cast<std::uint64_t>(sequences), RandomUse::test);
  std::vector<TokenList> prompts(static_cast<std::size_t>(sequences));
  for (TokenList& list : prompts)
    for (std::int64_t i = 0; i < prompt; ++i)
      list.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(model.vocabulary()))));
  std::vector<Clock::time_point> times;
  times.reserve(static_cast<std::size_t>(warmup + tokens));
  const GenerateOptions greedy{
      .max_tokens = warmup + tokens, .sampling = {.temperature = 0}, .stop_tokens = {}};
  generator.generate(prompts, greedy, [&](std::int64_t sequence, std::int32_t) {
    if (sequence + 1 == sequences) times.push_back(Clock::now());
    return true;
  });
  const double seconds = std::chrono::duration<double>(times.back() - times[warmup - 1]).count();
  return {.seconds = seconds / static_cast<double>(tokens),
          .state_bytes = generator.state().bytes() / sequences,
          .state_tokens = capacity};
}

/// The model of --model, or one with random weights as the configuration says.
std::unique_ptr<PublishedLanguageModel> make_model(const Options& options, const Configuration& configuration,
                                                   const Context& context, Communicator& alone) {
  const ParameterSet::BuildOptions build{.gradients = false, .bf16_copy = context.type == DType::bf16};
  if (options.has("model"))
    return open_language_model(resolve_model_folder(options.path("model")), context.backend->memory(), alone,
                               build);
  if (!is_language(configuration))
    throw Error(ErrorKind::usage,
                fmt::format("model.type is \"{}\", which writes no text", configuration.model.type),
                "bireme bench decode", "pass --model M, or a configuration of a language model");
  constexpr std::int64_t made_up = 4096;
  auto model = make_language_model(language_model_settings(configuration, made_up), alone);
  model->build(context.backend->memory(), build);
  model->model().parameters().initialize(static_cast<std::uint64_t>(configuration.run.seed));
  model->model().parameters().refresh_bf16();
  return model;
}

void refuse_two_models(const Options& options) {
  if (!options.has("model")) return;
  for (const Override& override : options.overrides())
    if (override.key.starts_with("model."))
      throw Error(ErrorKind::usage, fmt::format("both --model and --{} are given", override.key),
                  "bireme bench decode", "the folder says what the model is: leave one of them out");
}

}  // namespace

int run_bench_decode(Arguments arguments) {
  Options options(
      "bireme bench decode",
      "times the writing of text, token by token, against the reading of all weights, which is its "
      "bound; shows the state that each sequence needs");
  options.value("model", "M", "checkpoint, run or Hugging Face folder of a language model")
      .value("config", "FILE", "without --model: configuration of the model, which gets random weights")
      .value("sequences", "B,...", "sequences written side by side", "1,8")
      .value("prompt", "N", "tokens read before", "16")
      .value("tokens", "N", "tokens to write", "128")
      .configuration(configuration_keys())
      .example("bireme bench decode --model.type rwkv")
      .example("bireme bench decode --model runs/bible --sequences 1,4,16 --precision.type bf16 --json");
  if (!options.parse(arguments)) return 0;
  refuse_two_models(options);
  const std::filesystem::path file = options.has("config") ? options.path("config") : std::filesystem::path();
  Configuration configuration = load_configuration(file, options.overrides());
  configuration.parallel.tensor = 1;  // each rank of a training decodes with the whole model
  const std::vector<std::int64_t> counts = options.integers("sequences", 1, 4096);
  const std::int64_t prompt = options.integer("prompt", 1, 1 << 24),
                     tokens = options.integer("tokens", 1, 1 << 24);
  return run_job([&](Communicator& world) {
    LanguageSession::require_one_rank(world, "bireme bench decode");
    const Context context = make_context(configuration, world);
    const std::unique_ptr<Communicator> alone = make_single_process();
    const auto published = make_model(options, configuration, context, *alone);
    const LanguageModel& model = published->model();
    const std::int64_t weights = weight_bytes(model, context.type);
    const double bandwidth = measure_read_rate(weights, context.backend->memory());
    nlohmann::ordered_json result = {{"threads", context.threads},
                                     {"precision", configuration.precision.type},
                                     {"parameters", model.parameters().elements()},
                                     {"weight_bytes", weights},
                                     {"gigabytes_per_second", bandwidth / 1e9},
                                     {"runs", nlohmann::ordered_json::array()}};
    if (!options.json())
      fmt::print(
          "{} threads, {}, {:.1f} million parameters; a token reads {:.1f} MiB of weights, at {:.1f} GB/s "
          "here\n",
          context.threads, configuration.precision.type,
          static_cast<double>(model.parameters().elements()) / 1e6, static_cast<double>(weights) / (1 << 20),
          bandwidth / 1e9);
    for (const std::int64_t count : counts) {
      const DecodeRate rate = time_decoding(*context.backend, model, context.type, count, prompt, tokens);
      const double share = static_cast<double>(weights) / bandwidth / rate.seconds;
      result["runs"].push_back({{"sequences", count},
                                {"tokens_per_second", static_cast<double>(count) / rate.seconds},
                                {"milliseconds_per_step", rate.seconds * 1e3},
                                {"fraction_of_bandwidth", share},
                                {"state_bytes_per_sequence", rate.state_bytes},
                                {"state_tokens", rate.state_tokens}});
      if (!options.json())
        fmt::print(
            "{:5} sequences: {:9.1f} tokens/s, {:7.3f} ms a step, {:3.0f} % of the bandwidth; state {:.1f} "
            "KiB a sequence, of {} tokens\n",
            count, static_cast<double>(count) / rate.seconds, rate.seconds * 1e3, 100 * share,
            static_cast<double>(rate.state_bytes) / 1024, rate.state_tokens);
    }
    if (options.json()) fmt::print("{}\n", json_text(result));
    return 0;
  });
}

}  // namespace bireme
