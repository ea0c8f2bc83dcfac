#include <spdlog/fmt/fmt.h>

#include <map>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/data/staged_dataset.h"
#include "core/io/hdf5.h"
#include "launch/commands/evaluate.h"
#include "launch/language_session.h"
#include "launch/model_folder.h"
#include "launch/numbers.h"
#include "launch/progress.h"
#include "objectives/evaluate/ranked_pairs.h"
#include "objectives/evaluate/squared_distance.h"

namespace bireme {

namespace {

using Json = nlohmann::ordered_json;

/// Scores under a model, with a progress bar.
RecordScores score(const LanguageSession& session, Communicator& world, const LanguageModel& model,
                   const AnswerDataset& data, const ComparableRecords& selection, const std::string& label) {
  std::optional<Progress> bar;
  return score_records(
      session.backend(), world, model, std::ssize(selection.numbers), data.manifest().answers(),
      [&](std::int64_t i) { return data.read(selection.numbers[static_cast<std::size_t>(i)]); },
      {.type = session.type()},
      [&](std::int64_t done, std::int64_t total) {
        if (!bar) bar.emplace(terminal_progress(label, total, 0, world.rank()));
        bar->update(done);
      });
}

struct Reference {
  RecordScores scores;
  std::optional<double> squared_distance;
};

Reference score_reference(const LanguageSession& session, Communicator& world, const Options& options,
                          const AnswerDataset& data, const ComparableRecords& selection) {
  const std::unique_ptr<Communicator> alone = make_single_process();
  const std::unique_ptr<PublishedLanguageModel> published =
      open_language_model(resolve_model_folder(options.path("reference")), session.backend().memory(), *alone,
                          {.gradients = false, .bf16_copy = session.type() == DType::bf16});
  if (data.manifest().vocabulary > published->model().vocabulary())
    throw Error(ErrorKind::data,
                fmt::format("the answers have {} kinds of tokens, but the reference knows {}",
                            data.manifest().vocabulary, published->model().vocabulary()),
                options.text("reference"), "use a reference with the tokenizer of the model");
  Reference reference{.scores = score(session, world, published->model(), data, selection, "reference pair"),
                      .squared_distance = {}};
  const ParameterSet& parameters = session.model().parameters();
  if (const auto others = counterparts(parameters, published->model().parameters()))
    reference.squared_distance = squared_distance(parameters, *others, *alone);
  return reference;
}

Json json_of(const RankingResult& r, const ComparableRecords& selection, const RankingOptions& options,
             const std::optional<double>& distance) {
  Json json{{"count", r.count},
            {"ties_left_out", r.ties},
            {"cut_left_out", selection.cut},
            {"too_long_left_out", selection.too_long},
            {"ranking_accuracy", r.accuracy.plain},
            {"ranking_accuracy_error", r.error.plain},
            {"ranking_accuracy_normalized", r.accuracy.normalized},
            {"ranking_accuracy_normalized_error", r.error.normalized}};
  if (r.with_ties)
    json.update({{"ranking_accuracy_with_ties", r.with_ties->plain},
                 {"ranking_accuracy_with_ties_normalized", r.with_ties->normalized}});
  if (!r.reference) return json;
  json.update({{"reference_ranking_accuracy", r.reference->plain},
               {"reference_ranking_accuracy_normalized", r.reference->normalized},
               {"reward_accuracy", r.reward_accuracy},
               {"chosen_log_ratio", r.chosen_reward},
               {"rejected_log_ratio", r.rejected_reward},
               {"mean_shortfall", r.mean_shortfall},
               {"wrong_wrong", r.categories[0]},
               {"flipped_to_right", r.categories[1]},
               {"flipped_to_wrong", r.categories[2]},
               {"right_right", r.categories[3]},
               {"category_loss", r.category_loss},
               {"category_log_ratio", r.category_log_ratio},
               {"threshold_quantiles", r.threshold_quantiles},
               {"threshold_beta", options.beta}});
  if (distance) json["squared_distance"] = *distance;
  if (!r.idealized || !r.idealized_normalized) return json;
  json.update({{"betas", options.betas},
               {"idealized", r.idealized->values},
               {"idealized_normalized", r.idealized_normalized->values},
               {"gap", r.idealized->gaps},
               {"gap_normalized", r.idealized_normalized->gaps},
               {"idealized_median", r.idealized->median},
               {"idealized_normalized_median", r.idealized_normalized->median},
               {"gap_to_median", r.idealized->gap_to_median},
               {"gap_to_median_normalized", r.idealized_normalized->gap_to_median}});
  if (options.assumed_preference) json["assumed_preference"] = *options.assumed_preference;
  return json;
}

void print_line(const char* name, double plain, double normalized) {
  fmt::print("{:<26} {:7.4f}     {:7.4f}\n", name, plain, normalized);
}

void print_text(const RankingResult& r, const ComparableRecords& selection, const RankingOptions& options,
                const std::optional<double>& distance, bool is_voted) {
  fmt::print("{} pairs; left out: {} ties, {} with an answer cut by truncation, {} longer than the context\n",
             r.count, r.ties, selection.cut, selection.too_long);
  fmt::print("{:<26} {:<11} {}\n", "", "plain", "length-normalised");
  fmt::print("{:<26} {:7.4f} ±{:.4f} {:.4f} ±{:.4f}\n", "ranking accuracy", r.accuracy.plain, r.error.plain,
             r.accuracy.normalized, r.error.normalized);
  if (r.with_ties) print_line("  with ties", r.with_ties->plain, r.with_ties->normalized);
  if (!r.reference) return;
  print_line("  of the reference", r.reference->plain, r.reference->normalized);
  fmt::print("{:<26} {:7.4f}\n", "reward accuracy", r.reward_accuracy);
  const auto share = [&](int c) {
    return 100.0 * static_cast<double>(r.categories[static_cast<std::size_t>(c)]) /
           static_cast<double>(r.count);
  };
  fmt::print(
      "reference -> policy        wrong->wrong {:.1f} %, flipped to right {:.1f} %, flipped to wrong {:.1f} "
      "%, "
      "right->right {:.1f} %\n",
      share(0), share(1), share(2), share(3));
  fmt::print(
      "c, by which the reference is wrong: {:.3f} nats on average; a DPO loss below {:.3g} / {:.3g} / {:.3g} "
      "(10, 50, 90 %) ranks right at beta {}\n",
      r.mean_shortfall, r.threshold_quantiles[0], r.threshold_quantiles[1], r.threshold_quantiles[2],
      options.beta);
  fmt::print("log ratio to the reference: chosen {:.4f}, rejected {:.4f}\n", r.chosen_reward,
             r.rejected_reward);
  if (distance) fmt::print("squared distance of the weights to the reference: {:.6g}\n", *distance);
  if (!r.idealized || !r.idealized_normalized) {
    fmt::print(
        "no ideal: each pair has a single rater; --assume-preference takes their proportion as known\n");
    return;
  }
  for (std::size_t b = 0; b < options.betas.size(); ++b)
    print_line(fmt::format("  ideal at beta {}", options.betas[b]).c_str(), r.idealized->values[b],
               r.idealized_normalized->values[b]);
  print_line("  gap to the median", r.idealized->gap_to_median, r.idealized_normalized->gap_to_median);
  if (!is_voted && options.assumed_preference)
    fmt::print("(the ideal assumes that {} of raters prefer each chosen answer)\n",
               *options.assumed_preference);
}

void write_outcomes(const std::filesystem::path& path, const std::vector<RankedPair>& pairs,
                    const RankingResult& result) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  const std::int64_t count = std::ssize(pairs);
  Hdf5Writer file(path);
  const auto doubles = [&](const char* name, const auto& value) {
    std::vector<double> list;
    list.reserve(pairs.size());
    for (std::size_t i = 0; i < pairs.size(); ++i) list.push_back(value(i));
    file.write(name, tensor_of(*memory, list, {count}));
  };
  const auto integers = [&](const char* name, const auto& value) {
    std::vector<std::int64_t> list;
    list.reserve(pairs.size());
    for (std::size_t i = 0; i < pairs.size(); ++i) list.push_back(value(i));
    file.write(name, tensor_of(*memory, list, {count}));
  };
  integers("record", [&](std::size_t i) { return pairs[i].record; });
  integers("chosen_tokens", [&](std::size_t i) { return pairs[i].chosen.tokens; });
  integers("rejected_tokens", [&](std::size_t i) { return pairs[i].rejected.tokens; });
  integers("category", [&](std::size_t i) { return static_cast<std::int64_t>(result.outcomes[i].category); });
  doubles("chosen_log_probability", [&](std::size_t i) { return pairs[i].chosen.log_probability; });
  doubles("rejected_log_probability", [&](std::size_t i) { return pairs[i].rejected.log_probability; });
  doubles("log_ratio", [&](std::size_t i) { return result.outcomes[i].log_ratio; });
  doubles("preference", [&](std::size_t i) { return pairs[i].preference; });
  if (result.reference) {
    const auto reference = [&](std::size_t i) { return pairs[i].reference.value_or(std::array{0.0, 0.0}); };
    doubles("reference_chosen_log_probability", [&](std::size_t i) { return reference(i)[0]; });
    doubles("reference_rejected_log_probability", [&](std::size_t i) { return reference(i)[1]; });
    doubles("shortfall", [&](std::size_t i) { return -result.outcomes[i].reference_log_ratio; });
    doubles("flip_threshold", [&](std::size_t i) { return result.outcomes[i].flip_threshold; });
    doubles("dpo_loss", [&](std::size_t i) { return result.outcomes[i].dpo_loss; });
  }
  file.close();
}

/// Several scored answers to a prompt.
int rank_many(const Options& options, Communicator& world, const LanguageSession& session,
              const AnswerDataset& data, const ComparableRecords& selection) {
  const RecordScores scores = score(session, world, session.model(), data, selection, "answer");
  std::map<std::uint64_t, RankedAnswers> prompts;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    RankedAnswers& prompt = prompts[data.prompt_key(selection.numbers[i])];
    prompt.answers.push_back(scores[i][0]);
    prompt.scores.push_back(data.score(selection.numbers[i]));
  }
  std::vector<RankedAnswers> list;
  list.reserve(prompts.size());
  for (auto& [key, prompt] : prompts) list.push_back(std::move(prompt));
  const ManyRankingResult r = evaluate_ranking(list);
  if (world.rank() != 0) return 0;
  if (options.json())
    fmt::print("{}\n", json_text(Json{{"prompts", r.prompts},
                                      {"pairs", r.pairs},
                                      {"cut_left_out", selection.cut},
                                      {"too_long_left_out", selection.too_long},
                                      {"exact_match", r.exact_match.plain},
                                      {"exact_match_normalized", r.exact_match.normalized},
                                      {"pairwise", r.pairwise.plain},
                                      {"pairwise_normalized", r.pairwise.normalized}}));
  else
    fmt::print(
        "{} prompts with several answers: exact ranking {:.4f} ({:.4f} length-normalised), pairwise "
        "agreement "
        "{:.4f} ({:.4f}) over {} pairs\n",
        r.prompts, r.exact_match.plain, r.exact_match.normalized, r.pairwise.plain, r.pairwise.normalized,
        r.pairs);
  return 0;
}

RankingOptions ranking_options(const Options& options) {
  RankingOptions ranking{.betas = {}, .epsilon = options.number("epsilon")};
  for (const std::string& word : options.texts("beta"))
    for (const std::string& one : split_list(word)) {
      const std::optional<double> beta = parse_number(one);
      if (!beta || *beta <= 0)
        throw Error(ErrorKind::usage, fmt::format("`{}` is no beta", one), "--beta",
                    "give numbers above 0, such as 0.01,0.1,1");
      ranking.betas.push_back(*beta);
    }
  if (ranking.betas.empty()) ranking.betas = RankingOptions{}.betas;
  if (options.has("threshold-beta")) ranking.beta = options.number("threshold-beta");
  if (options.has("assume-preference")) ranking.assumed_preference = options.number("assume-preference");
  ranking.validate();
  return ranking;
}

}  // namespace

int run_ranking(Arguments arguments) {
  Options options("bireme evaluate ranking",
                  "measures how often a language model finds the preferred answer at least as likely");
  LanguageSession::declare(options)
      .required("data", "DATASET",
                "from `bireme prepare pairs`; or `feedback` with several scored answers to a prompt")
      .value("reference", "M", "the model that it was aligned from: adds flips, rewards and the ideal")
      .list("beta", "LIST", "at which the ideal is computed; 0.01,0.1,1,5,10 unless given")
      .value("epsilon", "E", "share of raters for an answer that none preferred", "0.001")
      .value("threshold-beta", "BETA", "of flip thresholds: the beta of the run", "0.1")
      .value("assume-preference", "SHARE", "share of raters where each pair has one, such as 0.75")
      .value("sample", "N", "pairs to take at most, drawn without replacement; 0: all", "0")
      .value("output", "F.h5", "receives every pair's scores, category and threshold")
      .example("bireme evaluate ranking --model runs/dpo --reference runs/sft --data harmless-evaluation")
      .example(
          "mpirun -n 2 bireme evaluate ranking --model runs/dpo --reference runs/sft --data votes --beta "
          "0.1,1 "
          "--json");
  if (!options.parse(arguments)) return 0;
  const RankingOptions ranking = ranking_options(options);
  return run_job([&](Communicator& world) {
    const LanguageSession session(options, world);
    const AnswerDataset data =
        AnswerDataset::open(options.path("data"), {AnswerKind::pairs, AnswerKind::feedback});
    session.require_vocabulary(data.manifest().vocabulary, options.text("data"));
    const ComparableRecords selection =
        comparable_records(data, session.model().context(), options.integer("sample", 0));
    if (data.kind() == AnswerKind::feedback) return rank_many(options, world, session, data, selection);
    const RecordScores policy = score(session, world, session.model(), data, selection, "pair");
    std::optional<Reference> reference;
    if (options.has("reference")) reference = score_reference(session, world, options, data, selection);
    const std::vector<RankedPair> pairs =
        ranked_pairs(data, selection, policy, reference ? &reference->scores : nullptr);
    const RankingResult result = evaluate_ranking(pairs, ranking);
    if (world.rank() != 0) return 0;
    if (options.has("output")) write_outcomes(options.path("output"), pairs, result);
    const std::optional<double> distance = reference ? reference->squared_distance : std::nullopt;
    if (options.json())
      fmt::print("{}\n", json_text(json_of(result, selection, ranking, distance)));
    else
      print_text(result, selection, ranking, distance, has_votes(pairs));
    return 0;
  });
}

}  // namespace bireme
