#include "launch/win_rate_evaluation.h"

#include <spdlog/fmt/fmt.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/data/synthetic_preferences.h"
#include "launch/model_folder.h"
#include "objectives/reference_cache.h"

namespace bireme {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

Questions questions_of(const Configuration& configuration, const AnswerDataset& data,
                       const LanguageModel& policy) {
  const auto& e = configuration.evaluation;
  const AnswerManifest& manifest = data.manifest();
  AnswerTokensOptions how{.tokenizer = data.tokenizer(),
                          .end = manifest.end,
                          .chat_template = {},
                          .as_chat = !manifest.chat_template.empty()};
  if (how.as_chat) how.chat_template = ChatTemplate(manifest.chat_template);
  return read_questions({.file = e.prompts,
                         .part = parse_part(e.part),
                         .limit = e.prompt_limit,
                         .tokens = std::move(how),
                         .context = policy.context(),
                         .max_tokens = e.max_tokens});
}

/// Of each question's answer, by the rule that the questions were made with.
std::vector<double> gold_scores(const std::vector<Question>& questions,
                                const std::vector<SampledAnswer>& answers, const std::string& file) {
  std::vector<double> scores;
  scores.reserve(questions.size());
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const std::optional<double> score = gold_score(words_of(questions[i].text.prompt), answers[i].text);
    if (!score)
      throw Error(ErrorKind::data, "a prompt is not one whose gold rule is known", file,
                  "make prompts with `bireme prepare synthetic --task preference`, or leave out "
                  "evaluation.gold_rule");
    scores.push_back(*score);
  }
  return scores;
}

/// What the run starts from and is compared with: hashes of the folders, or which random weights.
struct Origin {
  std::set<std::string> judged;
  std::string reference;
};
Origin origin_of(const Configuration& configuration) {
  Origin origin;
  const std::string &init = configuration.model.init, &reference = configuration.objective.reference;
  origin.reference = fmt::format("random weights of seed {}", configuration.run.seed);
  for (const std::string& folder : {init, reference}) {
    if (folder.empty()) continue;
    origin.reference = hash_of_model(resolve_model_folder(folder));
    origin.judged.insert(origin.reference);
  }
  return origin;
}

}  // namespace

std::vector<JudgePanel::Name> resolve_judges(const std::vector<std::string>& names) {
  std::vector<JudgePanel::Name> judges;
  for (const std::string& name : names) {
    judges.push_back(JudgePanel::parse(name));
    judges.back().folder = resolve_model_folder(judges.back().folder);
  }
  return judges;
}

bool WinRateEvaluation::is_wanted(const Configuration& configuration) {
  return configuration.run.evaluate_every > 0 && !configuration.evaluation.prompts.empty();
}

WinRateEvaluation::WinRateEvaluation(const Configuration& configuration, const Context& context,
                                     const AnswerDataset& data, const PublishedLanguageModel& policy)
    : configuration_(configuration),
      context_(context),
      tokenizer_(data.tokenizer()),
      end_(data.manifest().end),
      stop_tokens_(policy.end_tokens()),
      questions_(questions_of(configuration, data, policy.model())),
      judges_(resolve_judges(configuration.evaluation.judge), *context.backend, context.type) {
  for (const std::int32_t end : {tokenizer_->special().document_end, end_})
    if (end >= 0) stop_tokens_.push_back(end);
  const auto& e = configuration.evaluation;
  const Origin origin = context.mesh->world().rank() == 0 ? origin_of(configuration) : Origin{};
  reference_identity_ = origin.reference;
  judges_.require_independence(origin.judged, e.allow_overlap);
  if (e.gold_rule)
    gold_scores(questions_.list, std::vector<SampledAnswer>(questions_.list.size()), e.prompts);
  if (judges_.size() > 0) check_judges(data);
}

void WinRateEvaluation::check_judges(const AnswerDataset& data) {
  const auto& e = configuration_.evaluation;
  const std::string& file = e.judge_validation.empty() ? e.prompts : e.judge_validation;
  const std::vector<AnswerText> pairs = read_pairs_of_part(
      file, e.allow_overlap && !e.judge_validation.empty() ? PromptPart::all : PromptPart::judge_validation);
  if (pairs.empty())
    throw Error(ErrorKind::data, "no pair belongs to the part judge-validation", file,
                "name pairs to check the judges on with evaluation.judge_validation");
  Communicator& world = context_.mesh->world();
  check_ = judges_.check(world, pairs, *tokenizer_);
  if (world.rank() != 0) return;
  log_info(
      "win rate over {} prompts; judges: {}, right on {:.1f} % [{:.1f}, {:.1f}] of {} pairs, {:.1f} % "
      "[{:.1f}, {:.1f}] of the {} whose chosen answer is shorter{}",
      questions_.list.size(), judges_.size(), 100 * check_.accuracy, 100 * check_.interval.low,
      100 * check_.interval.high, check_.count, 100 * check_.shorter_accuracy,
      100 * check_.shorter_interval.low, 100 * check_.shorter_interval.high, check_.shorter_count,
      judges_.is_for_debugging() ? "; likelihood judge, for debugging: no claim is made"
      : check_.is_reliable()     ? ""
                                 : ": not reliable, no claim is made");
  if (judges_.size() < 3) log_warning("fewer than three judges: train more, of other seeds, before a claim");
  if (!judges_.knows_its_part_only() || e.part != "evaluation" || data.manifest().part != "train")
    log_warning("the prompts of training, judges and evaluation are not known to be apart");
}

SampleAnswersOptions WinRateEvaluation::sampling() const {
  const auto& e = configuration_.evaluation;
  return {.max_tokens = e.max_tokens,
          .batch_size = e.batch_size,
          .sampling = {.temperature = e.temperature, .seed = static_cast<std::uint64_t>(e.seed)},
          .stop_tokens = stop_tokens_,
          .type = context_.type};
}

std::vector<SampledAnswer> WinRateEvaluation::sample(const LanguageModel& model) const {
  return sample_answers(*context_.backend, context_.mesh->data(), model, *tokenizer_, questions_.list,
                        sampling());
}

std::string WinRateEvaluation::settings() const {
  const SampleAnswersOptions how = sampling();
  return json_text(Json{{"format", "bireme reference answers"},
                        {"reference", reference_identity_},
                        {"seed", how.sampling.seed},
                        {"temperature", how.sampling.temperature},
                        {"max_tokens", how.max_tokens},
                        {"stop_tokens", how.stop_tokens},
                        {"questions", questions_.list.size()}});
}

std::string WinRateEvaluation::kept_text(const std::vector<SampledAnswer>& answers) const {
  std::string text = settings() + "\n";
  for (std::size_t i = 0; i < answers.size(); ++i)
    text += json_text(Json{{"prompt", questions_.list[i].tokens},
                           {"tokens", answers[i].tokens},
                           {"ended_by_limit", answers[i].ended_by_limit},
                           {"text", answers[i].text}}) +
            "\n";
  return text;
}

std::vector<SampledAnswer> WinRateEvaluation::parse_kept(const std::string& text) const {
  std::istringstream lines(text);
  std::string line;
  std::vector<SampledAnswer> answers;
  if (!std::getline(lines, line) || line != settings()) return {};
  for (const Question& question : questions_.list) {
    if (!std::getline(lines, line)) return {};
    const nlohmann::json json = try_parse_json(line);
    if (!json.is_object() || json.value("prompt", TokenList{}) != question.tokens) return {};
    answers.push_back(
        sampled_answer(*tokenizer_, json.value("tokens", TokenList{}), json.value("ended_by_limit", false)));
  }
  return answers;
}

fs::path WinRateEvaluation::reference_file(const fs::path& run) {
  return run / "evaluation" / "reference.jsonl";
}

void WinRateEvaluation::begin(const fs::path& run, const std::function<const LanguageModel&()>& reference) {
  Communicator& world = context_.mesh->world();
  const fs::path file = reference_file(run);
  std::string kept;
  if (world.rank() == 0 && fs::exists(file)) {
    kept = read_file(file, std::int64_t{1} << 30);
    if (parse_kept(kept).empty()) kept.clear();
  }
  kept = world.broadcast_text(kept, 0);
  if (kept.empty()) {
    const std::vector<SampledAnswer> answers = sample(reference());
    if (world.rank() == 0) {
      kept = kept_text(answers);
      fs::create_directories(file.parent_path());
      write_file_atomically(file, kept);
    }
    kept = world.broadcast_text(kept, 0);
  }
  // The first line is rank 0's, which alone knows the hash.
  reference_identity_ = parse_json(kept.substr(0, kept.find('\n')))["reference"].get<std::string>();
  reference_answers_ = parse_kept(kept);
  if (judges_.size() > 0) reference_judged_ = judges_.judge(world, questions_.list, reference_answers_);
}

WinRateEvaluation::Found WinRateEvaluation::evaluate(const LanguageModel& policy) const {
  const std::vector<SampledAnswer> answers = sample(policy);
  const AnswerLook own = look_of(answers), other = look_of(reference_answers_);
  Found found;
  found.numbers = {{"answer_tokens", own.mean_length},
                   {"reference_answer_tokens", other.mean_length},
                   {"answers_ended_by_limit", own.ended_by_limit},
                   {"reference_answers_ended_by_limit", other.ended_by_limit}};
  found.message = fmt::format("{:.1f} tokens an answer", own.mean_length);
  if (judges_.size() > 0) add_judged(answers, found);
  if (configuration_.evaluation.gold_rule) add_gold(answers, found);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    AnswerRecord& record = found.answers.emplace_back();
    record.number = questions_.list[i].number;
    record.prompt = questions_.list[i].tokens;
    record.answers = {answers[i].tokens};
    found.texts.push_back(answers[i].text);
    if (!answers[i].ended_by_limit && end_ >= 0) record.answers[0].push_back(end_);
  }
  return found;
}

void WinRateEvaluation::add_judged(const std::vector<SampledAnswer>& answers, Found& found) const {
  const Comparison compared = compare(judges_.judge(context_.mesh->world(), questions_.list, answers),
                                      reference_judged_, {.tie_band = configuration_.evaluation.tie_band});
  const bool is_reliable = check_.is_reliable() && !judges_.is_for_debugging();
  const WinRate& rate = compared.rate;
  found.outcomes = rate.outcomes;
  found.numbers.insert(found.numbers.end(),
                       {// No claim is made on the word of judges that have not shown what they are worth.
                        {"win_rate", is_reliable ? rate.value : std::numeric_limits<double>::quiet_NaN()},
                        {"judged_win_rate", rate.value},
                        {"win_rate_error", rate.error},
                        {"soft_win_rate", rate.soft},
                        {"length_controlled_win_rate", rate.length_controlled},
                        {"win_rate_ties", static_cast<double>(rate.ties) / static_cast<double>(rate.count)},
                        {"judge_agreement", compared.agreement},
                        {"judge_accuracy", check_.accuracy},
                        {"judge_accuracy_shorter", check_.shorter_accuracy},
                        {"judge_reliable", is_reliable ? 1 : 0}});
  found.message += fmt::format(
      ", win rate {:.1f} % ±{:.1f} against the reference over {} prompts (judges right on {:.1f} %{})",
      100 * rate.value, 100 * rate.error, rate.count, 100 * check_.accuracy,
      judges_.is_for_debugging() ? ", by likelihood, for debugging"
      : is_reliable              ? ""
                                 : ", not reliable");
}

void WinRateEvaluation::add_gold(const std::vector<SampledAnswer>& answers, Found& found) const {
  const std::string& file = configuration_.evaluation.prompts;
  const std::vector<double> own = gold_scores(questions_.list, answers, file),
                            other = gold_scores(questions_.list, reference_answers_, file);
  std::vector<Contest> contests;
  contests.reserve(own.size());
  double right = 0;
  for (std::size_t i = 0; i < own.size(); ++i) {
    contests.push_back({.score_a = own[i], .score_b = other[i]});
    right += own[i] / static_cast<double>(own.size());
  }
  const WinRate rate = win_rate(contests, {.tie_band = 0});
  found.gold = rate.outcomes;
  found.numbers.insert(
      found.numbers.end(),
      {{"gold_win_rate", rate.value}, {"gold_win_rate_error", rate.error}, {"gold_score", right}});
  found.message += fmt::format(", gold win rate {:.1f} % ±{:.1f}", 100 * rate.value, 100 * rate.error);
  if (found.outcomes.empty()) return;
  // Where the rule prefers a side, how often do the judges prefer the same?
  double decided = 0, agreed = 0;
  for (std::size_t i = 0; i < own.size(); ++i)
    if (found.gold[i] != 0.5) {
      decided += 1;
      agreed += found.outcomes[i] == found.gold[i] ? 1 : 0;
    }
  found.numbers.emplace_back("judge_gold_agreement", agreed / decided);
}

}  // namespace bireme
