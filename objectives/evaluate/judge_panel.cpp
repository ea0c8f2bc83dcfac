#include "objectives/evaluate/judge_panel.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"

namespace bireme {

Comparison compare(const JudgedAnswers& a, const JudgedAnswers& b, const WinRateOptions& options) {
  const std::size_t count = a.answers.size();
  std::vector<std::vector<double>> both, margins;
  for (std::size_t j = 0; j < a.scores.size(); ++j) {
    both.push_back(a.scores[j]);
    both.back().insert(both.back().end(), b.scores[j].begin(), b.scores[j].end());
    margins.emplace_back();
    margins.back().reserve(count);
    for (std::size_t i = 0; i < count; ++i) margins.back().push_back(a.scores[j][i] - b.scores[j][i]);
  }
  const std::vector<double> scores = mean_of_standardized(both);
  std::vector<Contest> contests;
  contests.reserve(count);
  for (std::size_t i = 0; i < count; ++i)
    contests.push_back({.score_a = scores[i],
                        .score_b = scores[count + i],
                        .length_a = a.lengths[i],
                        .length_b = b.lengths[i],
                        .is_identical = a.answers[i] == b.answers[i]});
  return {.rate = win_rate(contests, options), .agreement = agreement(margins)};
}

Passage passage_of(const Question& question, const std::string& answer) {
  if (question.text.prompt.is_chat) return {.text = {}, .turns = {{"assistant", answer}}, .is_chat = true};
  return {.text = answer};
}

JudgePanel::Name JudgePanel::parse(const std::string& name) {
  if (!name.starts_with(kLikelihood)) return {.folder = name};
  return {.folder = name.substr(kLikelihood.size()), .reads_likelihoods = true};
}

JudgePanel::JudgePanel(const std::vector<Name>& names, const Backend& backend, DType type)
    : names_(names), alone_(make_single_process()) {
  judges_.reserve(names_.size());
  for (const Name& name : names_)
    judges_.push_back(name.reads_likelihoods ? Judge::open_likelihood(name.folder, backend, *alone_, type)
                                             : Judge::open(name.folder, backend, *alone_, type));
}

bool JudgePanel::is_for_debugging() const { return std::ranges::any_of(judges_, &Judge::reads_likelihoods); }

void JudgePanel::require_independence(const std::set<std::string>& judged, bool allows_overlap) const {
  for (std::size_t j = 0; j < judges_.size(); ++j) {
    const JudgeDescription& judge = judges_[j].description();
    if (judged.contains(judge.base))
      throw Error(ErrorKind::usage, "the judge was trained from a model that it is to judge",
                  names_[j].folder.string(), "train it from another model, best of another family or size");
    if (judge.part != "judge" && !allows_overlap && !judges_[j].reads_likelihoods())
      throw Error(
          ErrorKind::usage,
          fmt::format("the judge was trained on prompts of part `{}`, which may be those of the policy",
                      judge.part),
          names_[j].folder.string(),
          "train it on a dataset of `bireme prepare pairs --part judge`, or allow it: --allow-overlap of "
          "`evaluate win-rate`, evaluation.allow_overlap of `train`");
  }
}

bool JudgePanel::knows_its_part_only() const {
  return std::ranges::all_of(judges_, [](const Judge& judge) { return judge.description().part == "judge"; });
}

std::vector<std::vector<double>> JudgePanel::scores(Communicator& ranks, const std::vector<AnswerText>& texts,
                                                    const JudgingProgress& progress) const {
  std::vector<std::vector<double>> scores;
  scores.reserve(judges_.size());
  for (const Judge& judge : judges_) scores.push_back(judge_texts(ranks, judge, texts, progress));
  return scores;
}

JudgeCheck JudgePanel::check(Communicator& ranks, const std::vector<AnswerText>& pairs,
                             const Tokenizer& tokenizer, const JudgingProgress& progress) const {
  const std::vector<double> mean = mean_of_standardized(scores(ranks, pairs, progress));
  std::vector<JudgedPair> judged;
  judged.reserve(pairs.size());
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto length = [&](std::size_t which) {
      return std::ssize(tokenizer.encode(words_of(pairs[i].answers[which])));
    };
    judged.push_back({.chosen = mean[2 * i],
                      .rejected = mean[2 * i + 1],
                      .chosen_length = length(0),
                      .rejected_length = length(1)});
  }
  return check_judge(judged);
}

JudgedAnswers JudgePanel::judge(Communicator& ranks, const std::vector<Question>& questions,
                                std::vector<Passage> answers, std::vector<std::int64_t> lengths,
                                const JudgingProgress& progress) const {
  std::vector<AnswerText> texts;
  texts.reserve(questions.size());
  for (std::size_t i = 0; i < questions.size(); ++i) {
    texts.push_back(questions[i].text);
    texts.back().answers = {answers[i]};
  }
  return {
      .answers = std::move(answers), .lengths = std::move(lengths), .scores = scores(ranks, texts, progress)};
}

JudgedAnswers JudgePanel::judge(Communicator& ranks, const std::vector<Question>& questions,
                                const std::vector<SampledAnswer>& answers,
                                const JudgingProgress& progress) const {
  std::vector<Passage> passages;
  std::vector<std::int64_t> lengths;
  passages.reserve(answers.size());
  lengths.reserve(answers.size());
  for (std::size_t i = 0; i < questions.size(); ++i) {
    passages.push_back(passage_of(questions[i], answers[i].text));
    lengths.push_back(std::ssize(answers[i].tokens));
  }
  return judge(ranks, questions, std::move(passages), std::move(lengths), progress);
}

}  // namespace bireme
