#include "core/data/answer_records.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/data/transcript.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"

namespace bireme {
namespace {

using nlohmann::json;
using State = AnswerText::State;

std::vector<json> golden_lines(const std::string& name) {
  std::ifstream file(test::golden_folder() / "alignment" / name);
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);)
    if (!line.empty()) lines.push_back(parse_json(line));
  EXPECT_GT(lines.size(), 5u);
  return lines;
}

std::string problem_of(AnswerKind kind, const std::string& line) {
  try {
    parse_answer_record(kind, line);
  } catch (const RecordProblem& problem) {
    return problem.what();
  }
  return {};
}

/// Compares a passage with `NAME` or `NAME_messages` of the expectation.
void expect_passage(const json& expected, const std::string& name, const Passage& passage) {
  if (expected.contains(name)) {
    EXPECT_FALSE(passage.is_chat);
    EXPECT_EQ(passage.text, expected[name].get<std::string>());
  } else {
    ASSERT_TRUE(expected.contains(name + "_messages"));
    EXPECT_TRUE(passage.is_chat);
    Conversation turns;
    for (const json& turn : expected[name + "_messages"]) turns.push_back({turn["role"], turn["content"]});
    EXPECT_EQ(passage.turns, turns);
  }
}

void expect_score(const json& expected, const std::string& name, const std::optional<double>& score) {
  ASSERT_EQ(score.has_value(), expected.contains(name)) << name;
  if (score) {
    EXPECT_EQ(*score, expected[name].get<double>());
  }
}

TEST(AnswerRecords, AreReadAsTheGoldenLinesSay) {
  for (const json& expected : golden_lines("records.jsonl")) {
    SCOPED_TRACE(expected["line"].get<std::string>());
    const bool is_pair = expected["kind"] == "pairs";
    const AnswerKind kind = is_pair ? AnswerKind::pairs : AnswerKind::feedback;
    const std::string line = expected["line"], outcome = expected["outcome"];
    if (outcome == "error") {
      EXPECT_TRUE(test::mentions(problem_of(kind, line), {expected["about"].get<std::string>()}));
      continue;
    }
    const AnswerText record = parse_answer_record(kind, line);
    EXPECT_EQ(record.state, outcome == "ok"          ? State::ok
                            : outcome == "identical" ? State::identical
                                                     : State::empty);
    if (outcome != "ok") continue;
    expect_passage(expected, "prompt", record.prompt);
    ASSERT_EQ(record.answers.size(), is_pair ? 2u : 1u);
    expect_passage(expected, is_pair ? "chosen" : "completion", record.answers[0]);
    if (is_pair) {
      expect_passage(expected, "rejected", record.answers[1]);
      expect_score(expected, "preference", record.preference);
      expect_score(expected, "score_chosen", record.scores[0]);
      expect_score(expected, "score_rejected", record.scores[1]);
    } else {
      expect_score(expected, "score", record.scores[0]);
      ASSERT_EQ(record.label.has_value(), expected.contains("like"));
      if (record.label) {
        EXPECT_EQ(*record.label, expected["like"].get<bool>());
      }
    }
  }
}

TEST(AnswerRecords, SplitTranscriptsAsTheGoldenLinesSay) {
  for (const json& expected : golden_lines("transcripts.jsonl")) {
    SCOPED_TRACE(json_text(expected));
    const std::string status = expected["status"];
    const json line{{"chosen", expected["chosen"]}, {"rejected", expected["rejected"]}};
    if (status == "no_shared_prompt") {
      EXPECT_TRUE(test::mentions(problem_of(AnswerKind::pairs, json_text(line)), {"prompt", "Assistant:"}));
      continue;
    }
    const AnswerText record = parse_answer_record(AnswerKind::pairs, json_text(line));
    EXPECT_EQ(record.state, status == "ok"          ? State::ok
                            : status == "identical" ? State::identical
                                                    : State::empty);
    EXPECT_EQ(record.prompt.text, expected["prompt"].get<std::string>());
    EXPECT_EQ(record.answers[0].text, expected["chosen_answer"].get<std::string>());
    EXPECT_EQ(record.answers[1].text, expected["rejected_answer"].get<std::string>());
    EXPECT_EQ(record.has_later_turns, expected["later_turns"].get<bool>());
  }
}

TEST(AnswerRecords, SayWhatIsWrongWithALine) {
  const auto pairs = [](const std::string& line) { return problem_of(AnswerKind::pairs, line); };
  const auto feedback = [](const std::string& line) { return problem_of(AnswerKind::feedback, line); };
  using test::mentions;
  EXPECT_TRUE(mentions(pairs("{\"prompt\": \"\xFF\"}"), {"byte 13", "UTF-8"}));
  EXPECT_TRUE(mentions(pairs(R"({"prompt": "p", "chosen": "a", "rejected": "b", "preference": 1.5})"),
                       {"preference", "1.5"}));
  EXPECT_TRUE(mentions(pairs(R"({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": "3"})"),
                       {"score_chosen", "finite number"}));
  EXPECT_TRUE(mentions(
      pairs(R"({"prompt": "p", "chosen": "a", "rejected": [{"role": "assistant", "content": "b"}]})"),
      {"chosen", "rejected", "string"}));
  EXPECT_TRUE(mentions(pairs(R"({"prompt": "p", "chosen": [], "rejected": []})"), {"chosen", "empty"}));
  EXPECT_TRUE(mentions(pairs(R"({"prompt": [{"role": "user", "content": "p"}],
                         "chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]})"),
                       {"chosen", "`user`", "assistant"}));
  EXPECT_TRUE(mentions(pairs(R"({"prompt": [{"role": 1, "content": "p"}], "chosen": "a", "rejected": "b"})"),
                       {"turn 0", "prompt", "role"}));
  EXPECT_TRUE(mentions(feedback(R"({"prompt": "p", "completion": "c", "score": 1e999})"), {"not finite"}));
  EXPECT_TRUE(mentions(feedback(R"({"prompt": "p", "completion": "c", "score": true})"), {"score"}));
  EXPECT_TRUE(mentions(feedback(R"({"messages": [{"role": "user", "content": "p"}], "label": 1})"),
                       {"last turn", "assistant"}));
  EXPECT_TRUE(mentions(feedback(R"({"prompt": "p", "chosen": "a", "rejected": "b"})"), {"--from-pairs"}));
  EXPECT_EQ(feedback(R"({"prompt": "p", "completion": "c", "label": -1, "score": null})"), "");
}

TEST(AnswerRecords, TellEqualPromptsByTheirKeys) {
  const Passage text{.text = "Who rows?"}, other{.text = "Who rows"};
  const Passage turn{.text = {}, .turns = {{"user", "Who rows?"}}, .is_chat = true};
  const Passage turns{.text = {}, .turns = {{"system", "s"}, {"user", "Who rows?"}}, .is_chat = true};
  EXPECT_EQ(prompt_key(text), prompt_key(turn));
  EXPECT_NE(prompt_key(text), prompt_key(other));
  EXPECT_NE(prompt_key(text), prompt_key(turns));
}

TEST(AnswerRecords, PutPromptsIntoPartsOfTheStatedSizes) {
  std::map<PromptPart, int> counts;
  constexpr int prompts = 20000;
  for (int i = 0; i < prompts; ++i) ++counts[part_of(prompt_key({.text = "prompt " + std::to_string(i)}))];
  const auto share = [&](PromptPart part) { return static_cast<double>(counts[part]) / prompts; };
  // Three standard deviations of a share of 20,000.
  EXPECT_NEAR(share(PromptPart::train), 0.60, 0.011);
  EXPECT_NEAR(share(PromptPart::judge), 0.25, 0.010);
  EXPECT_NEAR(share(PromptPart::judge_validation), 0.05, 0.005);
  EXPECT_NEAR(share(PromptPart::evaluation), 0.10, 0.007);
  EXPECT_EQ(parse_part("judge-validation"), PromptPart::judge_validation);
  EXPECT_TRUE(test::mentions(test::error_of(ErrorKind::usage, [] { parse_part("test"); }), {"evaluation"}));
}

TEST(Transcripts, BecomeTurns) {
  const Conversation turns =
      turns_of_transcript("\n\nHuman: Hi \n\nAssistant: Hello\n\nHuman: Rain?\n\nAssistant:", "system");
  EXPECT_EQ(turns, (Conversation{{"user", "Hi"}, {"assistant", "Hello"}, {"user", "Rain?"}}));
  EXPECT_EQ(turns_of_transcript(" No.\n\nHuman: Why?", "assistant"),
            (Conversation{{"assistant", "No."}, {"user", "Why?"}}));
}

}  // namespace
}  // namespace bireme
