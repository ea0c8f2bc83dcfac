#include <spdlog/fmt/fmt.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/answer_lines.h"
#include "distributed/checkpoint_manifest.h"
#include "launch/commands/evaluate.h"
#include "launch/language_session.h"
#include "launch/model_folder.h"
#include "launch/progress.h"
#include "objectives/evaluate/judging.h"
#include "objectives/reference_cache.h"

namespace bireme {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// A prompt of the file with its number among the distinct ones.
struct Question {
  std::int64_t number = 0;
  AnswerText text;
  TokenList tokens;
};

/// What was left out on the way.
struct LeftOut {
  std::int64_t other_parts = 0, repeated = 0, too_long = 0;
};

/// Lines of a file that belong to a part, without those whose answers do not compare.
std::vector<AnswerText> read_part(const fs::path& path, PromptPart part, bool is_pairs,
                                  std::int64_t& others) {
  AnswerLines lines({.inputs = {path}, .kind = AnswerKind::pairs, .prompts_only = !is_pairs});
  std::vector<AnswerText> texts;
  while (std::optional<AnswerText> text = lines.next()) {
    if (part != PromptPart::all && part_of(prompt_key(text->prompt)) != part)
      ++others;
    else if (!is_pairs || text->state == AnswerText::State::ok)
      texts.push_back(std::move(*text));
  }
  return texts;
}

/// One system: a model that answers.
struct System {
  const LanguageModel* model;
  const Tokenizer* tokenizer;
  TokenList stop_tokens;
};

class WinRateCommand {
 public:
  WinRateCommand(const Options& options, Communicator& world)
      : options_(options), world_(world), session_(options, world), alone_(make_single_process()) {}

  int run() {
    read_questions();
    open_judges();
    check_rules();
    check_judges();
    answer();
    const Json result = compare();
    if (world_.rank() != 0) return 0;
    if (options_.has("output")) write_answers();
    if (options_.has("append")) append(result);
    if (options_.json())
      fmt::print("{}\n", result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    else
      print(result);
    return 0;
  }

 private:
  JudgingProgress progress(const std::string& label) {
    bar_.reset();
    return [this, label](std::int64_t done, std::int64_t total) {
      if (!bar_) bar_.emplace(terminal_progress(label, total, 0, world_.rank()));
      bar_->update(done);
      if (done >= total) bar_.reset();
    };
  }

  bool is_against_data() const { return options_.text("against") == "chosen"; }

  void read_questions() {
    AnswerTokensOptions how{
        .tokenizer = std::shared_ptr<const Tokenizer>(&session_.tokenizer(), [](auto*) {}),
        .end = session_.tokenizer().special().document_end,
        .chat_template = {},
        .as_chat = options_.flag("chat")};
    std::string form = options_.text("chat-template");
    if (form == "auto") form = ChatTemplate::recognize(ChatTemplate::jinja_of(session_.tokenizer()));
    if (!form.empty()) how.chat_template = ChatTemplate(form);
    const std::int64_t limit = options_.integer("limit", 0), context = session_.model().context(),
                       new_tokens = options_.integer("max-tokens", 1, 1 << 20);
    std::set<std::uint64_t> seen;
    std::int64_t number = 0;
    for (AnswerText& text : read_part(options_.path("prompts"), parse_part(options_.text("part")), false,
                                      left_out_.other_parts)) {
      if (!seen.insert(prompt_key(text.prompt)).second) {
        ++left_out_.repeated;
        continue;
      }
      if (is_against_data() && (text.answers.empty() || text.state != AnswerText::State::ok))
        throw Error(ErrorKind::data, "a record has no chosen answer to compare with",
                    options_.text("prompts"), "give pairs, or name a model with --against");
      Question question{.number = number++, .text = std::move(text), .tokens = {}};
      question.tokens = tokenize_prompt(question.text, how);
      if (question.tokens.empty() || (context > 0 && std::ssize(question.tokens) + new_tokens > context)) {
        ++left_out_.too_long;
        continue;
      }
      questions_.push_back(std::move(question));
      if (limit > 0 && std::ssize(questions_) == limit) break;
    }
    if (questions_.empty())
      throw Error(ErrorKind::data,
                  fmt::format("no prompt is left: {} of other parts, {} too long for the model",
                              left_out_.other_parts, left_out_.too_long),
                  options_.text("prompts"), "give more prompts, --part all, or a lower --max-tokens");
  }

  void open_judges() {
    for (const std::string& name : options_.texts("judge")) {
      judge_folders_.push_back(resolve_model_folder(name));
      judges_.push_back(Judge::open(judge_folders_.back(), session_.backend(), *alone_, session_.type()));
    }
    if (judges_.size() < 3 && world_.rank() == 0)
      fmt::print(stderr, "{} judge{}: take three of different seeds before a claim\n", judges_.size(),
                 judges_.size() == 1 ? "" : "s");
  }

  /// Disjoint prompts, and a judge that is another model than those it judges.
  void check_rules() {
    std::set<std::string> judged;
    if (world_.rank() == 0) {
      judged.insert(hash_of_model(resolve_model_folder(options_.path("model"))));
      if (!is_against_data()) judged.insert(hash_of_model(resolve_model_folder(options_.path("against"))));
    }
    for (std::size_t j = 0; j < judges_.size(); ++j) {
      const JudgeDescription& judge = judges_[j].description();
      if (judged.contains(judge.base))
        throw Error(ErrorKind::usage, "the judge was trained from a model that it is to judge",
                    judge_folders_[j].string(),
                    "train it from another model, best of another family or size");
      if (judge.part != "judge" && !options_.flag("allow-overlap"))
        throw Error(
            ErrorKind::usage,
            fmt::format("the judge was trained on prompts of part `{}`, which may be those of the policy",
                        judge.part),
            judge_folders_[j].string(),
            "train it on a dataset of `bireme prepare pairs --part judge`, or add --allow-overlap");
      is_disjoint_ = is_disjoint_ && judge.part == "judge" && options_.text("part") == "evaluation";
    }
  }

  /// Each judge's scores of answers, standardised and averaged.
  std::vector<double> judged(const std::vector<AnswerText>& texts, const std::string& label,
                             std::vector<std::vector<double>>* each = nullptr) {
    std::vector<std::vector<double>> scores;
    for (const Judge& judge : judges_) scores.push_back(judge_texts(world_, judge, texts, progress(label)));
    if (each) *each = scores;
    return mean_of_standardized(scores);
  }

  void check_judges() {
    const std::string file =
        options_.has("validation") ? options_.text("validation") : options_.text("prompts");
    std::int64_t others = 0;
    const PromptPart part = options_.flag("allow-overlap") && options_.has("validation")
                                ? PromptPart::all
                                : PromptPart::judge_validation;
    const std::vector<AnswerText> pairs = read_part(file, part, true, others);
    if (pairs.empty())
      throw Error(ErrorKind::data, "no pair belongs to the part judge-validation", file,
                  "name pairs to validate the judge on with --validation FILE");
    const std::vector<double> scores = judged(pairs, "validation pair");
    std::vector<JudgedPair> list;
    for (std::size_t i = 0; i < pairs.size(); ++i)
      list.push_back({.chosen = scores[2 * i],
                      .rejected = scores[2 * i + 1],
                      .chosen_length = length_of(pairs[i].answers[0]),
                      .rejected_length = length_of(pairs[i].answers[1])});
    check_ = check_judge(list);
  }

  /// In tokens of the policy, for answers of either source.
  std::int64_t length_of(const Passage& answer) const {
    std::string text = answer.text;
    for (const Turn& turn : answer.turns) text += turn.content;
    return std::ssize(session_.tokenizer().encode(text));
  }

  std::vector<SampledAnswer> sample(const LanguageModel& model, const PublishedLanguageModel& published,
                                    const std::string& label) {
    SampleAnswersOptions how{.max_tokens = options_.integer("max-tokens", 1, 1 << 20),
                             .batch_size = options_.integer("batch-size", 1, 1 << 16),
                             .sampling = {.temperature = options_.number("temperature", 0),
                                          .seed = static_cast<std::uint64_t>(options_.integer("seed", 0))},
                             .stop_tokens = published.end_tokens(),
                             .type = session_.type()};
    if (const std::int32_t end = session_.tokenizer().special().document_end; end >= 0)
      how.stop_tokens.push_back(end);
    std::vector<TokenList> prompts;
    std::vector<std::int64_t> numbers;
    for (const Question& question : questions_) {
      prompts.push_back(question.tokens);
      numbers.push_back(question.number);
    }
    return sample_answers(session_.backend(), world_, model, session_.tokenizer(), prompts, numbers, how,
                          progress(label));
  }

  void answer() {
    a_ = sample(session_.model(), session_.published(), "answer");
    if (is_against_data()) {
      for (const Question& question : questions_) {
        SampledAnswer one{.text = question.text.answers[0].text};
        for (const Turn& turn : question.text.answers[0].turns) one.text += turn.content;
        one.tokens = length_of(question.text.answers[0]);
        b_.push_back(std::move(one));
      }
      return;
    }
    const std::unique_ptr<PublishedLanguageModel> other =
        open_language_model(resolve_model_folder(options_.path("against")), session_.backend().memory(),
                            *alone_, {.gradients = false, .bf16_copy = session_.type() == DType::bf16});
    if (session_.tokenizer().vocabulary() > other->model().vocabulary())
      throw Error(ErrorKind::data, "the two models do not share a vocabulary", options_.text("against"),
                  "compare models with the same tokenizer");
    b_ = sample(other->model(), *other, "answer of the other");
  }

  /// The text of an answer in the form of the prompt, as a judge reads it.
  static Passage passage_of(const Question& question, const SampledAnswer& answer) {
    if (question.text.prompt.is_chat)
      return {.text = {}, .turns = {{"assistant", answer.text}}, .is_chat = true};
    return {.text = answer.text};
  }

  WinRate contest(const std::vector<double>& scores, std::size_t stride, std::size_t a, std::size_t b,
                  const std::vector<std::size_t>& which) const {
    std::vector<Contest> contests;
    for (std::size_t i = 0; i < which.size(); ++i) {
      const std::vector<Passage>& answers = judged_texts_[which[i]].answers;
      contests.push_back({.score_a = scores[i * stride + a],
                          .score_b = scores[i * stride + b],
                          .length_a = length_of(answers[a]),
                          .length_b = length_of(answers[b]),
                          .is_identical = answers[a] == answers[b]});
    }
    return win_rate(contests, {.tie_band = options_.number("tie-band", 0)});
  }

  Json compare() {
    std::vector<std::size_t> all, with_pairs;
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      AnswerText text = questions_[i].text;
      const std::vector<Passage> data = std::move(text.answers);
      text.answers = {passage_of(questions_[i], a_[i]), passage_of(questions_[i], b_[i])};
      judged_texts_.push_back(std::move(text));
      all.push_back(i);
      if (data.size() == 2 && questions_[i].text.state == AnswerText::State::ok) with_pairs.push_back(i);
    }
    std::vector<std::vector<double>> each;
    const std::vector<double> scores = judged(judged_texts_, "judgement", &each);
    result_ = contest(scores, 2, 0, 1, all);
    std::vector<std::vector<double>> margins(each.size());
    for (std::size_t j = 0; j < each.size(); ++j)
      for (std::size_t i = 0; i < all.size(); ++i) margins[j].push_back(each[j][2 * i] - each[j][2 * i + 1]);
    Json json = json_of(agreement(margins));
    if (!with_pairs.empty()) add_calibration(json, with_pairs);
    return json;
  }

  /// The same judges on the data: the chosen answer over the rejected, and over B.
  void add_calibration(Json& json, const std::vector<std::size_t>& with_pairs) {
    std::vector<AnswerText> texts;
    for (const std::size_t i : with_pairs) {
      AnswerText text = judged_texts_[i];
      text.answers = {questions_[i].text.answers[0], questions_[i].text.answers[1],
                      judged_texts_[i].answers[1]};
      texts.push_back(text);
    }
    judged_texts_.swap(texts);
    std::vector<std::size_t> all(judged_texts_.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    const std::vector<double> scores = judged(judged_texts_, "calibration");
    json["ceiling"] = contest(scores, 3, 0, 1, all).value;
    if (!is_against_data()) json["head_room"] = contest(scores, 3, 0, 2, all).value;
    json["calibration_count"] = all.size();
    judged_texts_.swap(texts);
  }

  Json json_of(double agreed) const {
    const auto mean = [](const std::vector<SampledAnswer>& answers, const auto& value) {
      double sum = 0;
      for (const SampledAnswer& one : answers) sum += static_cast<double>(value(one));
      return sum / static_cast<double>(answers.size());
    };
    const auto tokens = [](const SampledAnswer& one) { return one.tokens; };
    const auto limited = [](const SampledAnswer& one) { return one.ended_by_limit ? 1 : 0; };
    const bool is_reliable = check_.is_reliable();
    Json json{{"count", result_.count}, {"reliable", is_reliable}};
    // No claim is made on the word of a judge that has not shown what it is worth.
    json["win_rate"] = is_reliable ? Json(result_.value) : Json();
    json["verdict"] = is_reliable ? "" : "judge not reliable";
    json.update(
        {{"judged_win_rate", result_.value},
         {"win_rate_error", result_.error},
         {"soft_win_rate", result_.soft},
         {"length_controlled_win_rate", result_.length_controlled},
         {"ties", result_.ties},
         {"judges", judges_.size()},
         {"judge_agreement", agreed},
         {"judge_accuracy", check_.accuracy},
         {"judge_accuracy_interval", {check_.interval.low, check_.interval.high}},
         {"judge_accuracy_shorter", check_.shorter_accuracy},
         {"judge_accuracy_shorter_interval", {check_.shorter_interval.low, check_.shorter_interval.high}},
         {"validation_pairs", check_.count},
         {"validation_pairs_shorter", check_.shorter_count},
         {"prompts_disjoint", is_disjoint_},
         {"mean_length", mean(a_, tokens)},
         {"mean_length_against", mean(b_, tokens)},
         {"ended_by_limit", mean(a_, limited)},
         {"ended_by_limit_against", mean(b_, limited)},
         {"other_parts_left_out", left_out_.other_parts},
         {"repeated_left_out", left_out_.repeated},
         {"too_long_left_out", left_out_.too_long}});
    return json;
  }

  void print(const Json& json) const {
    if (!check_.is_reliable())
      fmt::print("judge not reliable: no claim is made; the figures are shown for inspection only\n");
    fmt::print("win rate {:.4f} ±{:.4f} over {} prompts ({} ties); soft {:.4f}, length-controlled {:.4f}\n",
               result_.value, result_.error, result_.count, result_.ties, result_.soft,
               result_.length_controlled);
    fmt::print(
        "judges: {}, accuracy {:.4f} [{:.4f}, {:.4f}] on {} pairs; {:.4f} [{:.4f}, {:.4f}] on the {} whose "
        "chosen answer is shorter; they agree on {:.1f} %\n",
        judges_.size(), check_.accuracy, check_.interval.low, check_.interval.high, check_.count,
        check_.shorter_accuracy, check_.shorter_interval.low, check_.shorter_interval.high,
        check_.shorter_count, 100 * json["judge_agreement"].get<double>());
    if (json.contains("ceiling"))
      fmt::print(
          "the same judges on the data: chosen over rejected {:.4f}{}\n", json["ceiling"].get<double>(),
          json.contains("head_room")
              ? fmt::format(", chosen over the other's answers {:.4f}", json["head_room"].get<double>())
              : "");
    fmt::print("tokens an answer: {:.1f} against {:.1f}; ended by the limit: {:.1f} % against {:.1f} %\n",
               json["mean_length"].get<double>(), json["mean_length_against"].get<double>(),
               100 * json["ended_by_limit"].get<double>(),
               100 * json["ended_by_limit_against"].get<double>());
    if (!is_disjoint_) fmt::print("prompts are not known to be apart from those of training\n");
  }

  /// A line for `plot ranking`.
  void append(const Json& result) const {
    const fs::path folder = resolve_model_folder(options_.path("model"));
    Json line{{"step", CheckpointManifest::read(folder).step}};
    line.update(result);
    std::ofstream file(options_.path("append"), std::ios::app);
    file << line.dump() << '\n';
    if (!file.flush())
      throw Error(ErrorKind::checkpoint, "cannot write to it", options_.text("append"),
                  "check path and space");
  }

  void write_answers() const {
    std::string lines;
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      Json line{{"number", questions_[i].number}};
      if (questions_[i].text.prompt.is_chat) {
        line["prompt"] = Json::array();
        for (const Turn& turn : questions_[i].text.prompt.turns)
          line["prompt"].push_back({{"role", turn.role}, {"content", turn.content}});
      } else {
        line["prompt"] = questions_[i].text.prompt.text;
      }
      line.update({{"answer", a_[i].text}, {"against", b_[i].text}});
      lines += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    }
    write_file_atomically(options_.path("output"), lines);
  }

  const Options& options_;
  Communicator& world_;
  LanguageSession session_;
  std::unique_ptr<Communicator> alone_;
  std::vector<Question> questions_;
  LeftOut left_out_;
  std::vector<fs::path> judge_folders_;
  std::vector<Judge> judges_;
  JudgeCheck check_;
  bool is_disjoint_ = true;
  std::vector<SampledAnswer> a_, b_;
  std::vector<AnswerText> judged_texts_;
  WinRate result_;
  std::optional<Progress> bar_;
};

}  // namespace

int run_win_rate(Arguments arguments) {
  Options options(
      "bireme evaluate win-rate",
      "lets judges compare a model's answers with another's, and says how far they are to be trusted");
  LanguageSession::declare(options)
      .required("against", "M", "the model to compare with; `chosen`: the answers in the file of prompts")
      .required_list("judge", "M",
                     "judges from `bireme train` with objective.type = judge; best three or more")
      .required("prompts", "FILE",
                ".jsonl[.gz] with prompts; pairs also show what the judges make of the data")
      .value("validation", "FILE", "pairs to check the judges on; the file of prompts unless given")
      .value("part", "PART", "prompts to take, by their hash, as in `bireme prepare`", "evaluation")
      .flag("allow-overlap",
            "also judges that may have seen these prompts, or those of the policy's training")
      .value("limit", "N", "prompts at most, from the beginning; 0: all", "0")
      .value("max-tokens", "N", "of an answer", "256")
      .value("temperature", "T", "of sampling", "1")
      .value("seed", "N", "of sampling", "0")
      .value("batch-size", "N", "answers written side by side", "16")
      .value("tie-band", "R", "judges cannot tell scores apart that differ by no more", "0.05")
      .flag("chat",
            "write strings and transcripts down for the models as conversations; judges read them as they "
            "learnt to")
      .value("chat-template", "NAME", "of the models, as in `bireme prepare`", "auto")
      .value("output", "FILE.jsonl", "receives prompts and both answers")
      .value("append", "FILE.jsonl",
             "adds a line with the checkpoint's step and the result, for `plot ranking`")
      .example(
          "bireme evaluate win-rate --model runs/dpo --against runs/sft --judge runs/judge-1 runs/judge-2 "
          "runs/judge-3 --prompts harmless.jsonl.gz")
      .example(
          "mpirun -n 2 bireme evaluate win-rate --model runs/dpo --against chosen --judge runs/judge-1 "
          "--prompts harmless.jsonl.gz --limit 200 --json");
  if (!options.parse(arguments)) return 0;
  return run_job([&](Communicator& world) { return WinRateCommand(options, world).run(); });
}

}  // namespace bireme
