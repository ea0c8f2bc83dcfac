#include <spdlog/fmt/fmt.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "distributed/checkpoint_manifest.h"
#include "launch/commands/evaluate.h"
#include "launch/language_session.h"
#include "launch/model_folder.h"
#include "launch/progress.h"
#include "launch/win_rate_evaluation.h"
#include "objectives/reference_cache.h"

namespace bireme {

namespace {

using Json = nlohmann::ordered_json;

class WinRateCommand {
 public:
  WinRateCommand(const Options& options, Communicator& world)
      : options_(options), world_(world), session_(options, world) {}

  int run() {
    read_questions();
    open_judges();
    check_judges();
    answer();
    const Json result = compare_answers();
    if (world_.rank() != 0) return 0;
    if (options_.has("output")) write_answers();
    if (options_.has("append")) append(result);
    if (options_.json())
      fmt::print("{}\n", json_text(result));
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
    questions_ = bireme::read_questions({.file = options_.path("prompts"),
                                         .part = parse_part(options_.text("part")),
                                         .limit = options_.integer("limit", 0),
                                         .tokens = std::move(how),
                                         .context = session_.model().context(),
                                         .max_tokens = options_.integer("max-tokens", 1, 1 << 20),
                                         .needs_chosen = is_against_data()});
  }

  void open_judges() {
    judges_ = std::make_unique<JudgePanel>(resolve_judges(options_.texts("judge")), session_.backend(),
                                           session_.type());
    if (judges_->size() < 3 && world_.rank() == 0)
      fmt::print(stderr, "{} judge{}: take three of different seeds before a claim\n", judges_->size(),
                 judges_->size() == 1 ? "" : "s");
    std::set<std::string> judged;
    if (world_.rank() == 0) {
      judged.insert(hash_of_model(session_.folder()));
      if (!is_against_data()) judged.insert(hash_of_model(resolve_model_folder(options_.path("against"))));
    }
    judges_->require_independence(judged, options_.flag("allow-overlap"));
    is_disjoint_ = judges_->knows_its_part_only() && options_.text("part") == "evaluation";
  }

  void check_judges() {
    const std::string file =
        options_.has("validation") ? options_.text("validation") : options_.text("prompts");
    const PromptPart part = options_.flag("allow-overlap") && options_.has("validation")
                                ? PromptPart::all
                                : PromptPart::judge_validation;
    const std::vector<AnswerText> pairs = read_pairs_of_part(file, part);
    if (pairs.empty())
      throw Error(ErrorKind::data, "no pair belongs to the part judge-validation", file,
                  "name pairs to validate the judge on with --validation FILE");
    check_ = judges_->check(world_, pairs, session_.tokenizer(), progress("validation pair"));
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
    return sample_answers(session_.backend(), world_, model, session_.tokenizer(), questions_.list, how,
                          progress(label));
  }

  void answer() {
    a_ = sample(session_.model(), session_.published(), "answer");
    if (is_against_data()) {
      for (const Question& question : questions_.list)
        b_.push_back(sampled_answer(session_.tokenizer(),
                                    session_.tokenizer().encode(words_of(question.text.answers[0])), false));
      return;
    }
    const std::unique_ptr<Communicator> alone = make_single_process();
    const std::unique_ptr<PublishedLanguageModel> other =
        open_language_model(resolve_model_folder(options_.path("against")), session_.backend().memory(),
                            *alone, {.gradients = false, .bf16_copy = session_.type() == DType::bf16});
    if (session_.tokenizer().vocabulary() > other->model().vocabulary())
      throw Error(ErrorKind::data, "the two models do not share a vocabulary", options_.text("against"),
                  "compare models with the same tokenizer");
    b_ = sample(other->model(), *other, "answer of the other");
  }

  /// The answers that the file gives to questions, as judges score them.
  JudgedAnswers judge_data(const std::vector<Question>& questions, std::size_t which) {
    std::vector<Passage> answers;
    std::vector<std::int64_t> lengths;
    for (const Question& question : questions) {
      answers.push_back(question.text.answers[which]);
      lengths.push_back(std::ssize(session_.tokenizer().encode(words_of(answers.back()))));
    }
    return judges_->judge(world_, questions, std::move(answers), std::move(lengths), progress("calibration"));
  }

  Json compare_answers() {
    const JudgedAnswers a = judges_->judge(world_, questions_.list, a_, progress("judgement"));
    const JudgedAnswers b = is_against_data()
                                ? judge_data(questions_.list, 0)
                                : judges_->judge(world_, questions_.list, b_, progress("judgement"));
    const WinRateOptions how{.tie_band = options_.number("tie-band", 0)};
    const Comparison found = compare(a, b, how);
    result_ = found.rate;
    Json json = json_of(found.agreement);
    add_calibration(json, b, how);
    return json;
  }

  /// The same judges on the data: the chosen answer over the rejected, and over B.
  void add_calibration(Json& json, const JudgedAnswers& b, const WinRateOptions& how) {
    std::vector<Question> with_pairs;
    JudgedAnswers other{
        .answers = {}, .lengths = {}, .scores = std::vector<std::vector<double>>(b.scores.size())};
    for (std::size_t i = 0; i < questions_.list.size(); ++i) {
      const AnswerText& text = questions_.list[i].text;
      if (text.answers.size() != 2 || text.state != AnswerText::State::ok) continue;
      with_pairs.push_back(questions_.list[i]);
      other.answers.push_back(b.answers[i]);
      other.lengths.push_back(b.lengths[i]);
      for (std::size_t j = 0; j < b.scores.size(); ++j) other.scores[j].push_back(b.scores[j][i]);
    }
    if (with_pairs.empty()) return;
    const JudgedAnswers chosen = judge_data(with_pairs, 0), rejected = judge_data(with_pairs, 1);
    json["ceiling"] = compare(chosen, rejected, how).rate.value;
    if (!is_against_data()) json["head_room"] = compare(chosen, other, how).rate.value;
    json["calibration_count"] = with_pairs.size();
  }

  Json json_of(double agreed) const {
    const AnswerLook a = look_of(a_), b = look_of(b_);
    const bool is_reliable = check_.is_reliable() && !judges_->is_for_debugging();
    Json json{{"count", result_.count}, {"reliable", is_reliable}};
    // No claim is made on the word of a judge that has not shown what it is worth.
    json["win_rate"] = is_reliable ? Json(result_.value) : Json();
    json["verdict"] = is_reliable                   ? ""
                      : judges_->is_for_debugging() ? "likelihood judge, for debugging"
                                                    : "judge not reliable";
    json.update(
        {{"judged_win_rate", result_.value},
         {"win_rate_error", result_.error},
         {"soft_win_rate", result_.soft},
         {"length_controlled_win_rate", result_.length_controlled},
         {"ties", result_.ties},
         {"judges", judges_->size()},
         {"judge_agreement", agreed},
         {"judge_accuracy", check_.accuracy},
         {"judge_accuracy_interval", {check_.interval.low, check_.interval.high}},
         {"judge_accuracy_shorter", check_.shorter_accuracy},
         {"judge_accuracy_shorter_interval", {check_.shorter_interval.low, check_.shorter_interval.high}},
         {"validation_pairs", check_.count},
         {"validation_pairs_shorter", check_.shorter_count},
         {"prompts_disjoint", is_disjoint_},
         {"mean_length", a.mean_length},
         {"mean_length_against", b.mean_length},
         {"ended_by_limit", a.ended_by_limit},
         {"ended_by_limit_against", b.ended_by_limit},
         {"other_parts_left_out", questions_.other_parts},
         {"repeated_left_out", questions_.repeated},
         {"too_long_left_out", questions_.too_long}});
    return json;
  }

  void print(const Json& json) const {
    if (judges_->is_for_debugging())
      fmt::print("likelihood judge, for debugging: no claim is made\n");
    else if (!check_.is_reliable())
      fmt::print("judge not reliable: no claim is made; the figures are shown for inspection only\n");
    fmt::print("win rate {:.4f} ±{:.4f} over {} prompts ({} ties); soft {:.4f}, length-controlled {:.4f}\n",
               result_.value, result_.error, result_.count, result_.ties, result_.soft,
               result_.length_controlled);
    fmt::print(
        "judges: {}, accuracy {:.4f} [{:.4f}, {:.4f}] on {} pairs; {:.4f} [{:.4f}, {:.4f}] on the {} whose "
        "chosen answer is shorter; they agree on {:.1f} %\n",
        judges_->size(), check_.accuracy, check_.interval.low, check_.interval.high, check_.count,
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
    Json line{{"step", CheckpointManifest::read(session_.folder()).step}};
    line.update(result);
    std::ofstream file(options_.path("append"), std::ios::app);
    file << json_text(line) << '\n';
    if (!file.flush())
      throw Error(ErrorKind::checkpoint, "cannot write to it", options_.text("append"),
                  "check path and space");
  }

  void write_answers() const {
    std::string lines;
    for (std::size_t i = 0; i < questions_.list.size(); ++i) {
      const Question& question = questions_.list[i];
      Json line{{"number", question.number}};
      if (question.text.prompt.is_chat) {
        line["prompt"] = Json::array();
        for (const Turn& turn : question.text.prompt.turns)
          line["prompt"].push_back({{"role", turn.role}, {"content", turn.content}});
      } else {
        line["prompt"] = question.text.prompt.text;
      }
      line.update({{"answer", a_[i].text}, {"against", b_[i].text}});
      lines += json_text(line) + "\n";
    }
    write_file_atomically(options_.path("output"), lines);
  }

  const Options& options_;
  Communicator& world_;
  LanguageSession session_;
  Questions questions_;
  std::unique_ptr<JudgePanel> judges_;
  JudgeCheck check_;
  bool is_disjoint_ = true;
  std::vector<SampledAnswer> a_, b_;
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
      .required_list(
          "judge", "M",
          "judges from `bireme train` with objective.type = judge; best three or more. For debugging, "
          "likelihood:M judges by the log-probabilities of a language model")
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
