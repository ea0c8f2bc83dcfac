#include "core/data/prepare_answers.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/data/answer_dataset.h"
#include "core/data/token_dataset.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;
using Tokens = std::vector<std::int32_t>;

class PrepareAnswers : public testing::Test {
 protected:
  PrepareAnswersOptions options(AnswerKind kind, const std::string& lines) {
    PrepareAnswersOptions options;
    options.kind = kind;
    options.lines = {.inputs = {folder_.write("lines.jsonl", lines)}, .kind = kind};
    options.tokens.tokenizer = open_tokenizer("byte");
    options.tokens.end = 256;
    options.output = path_;
    options.replace = true;
    return options;
  }
  AnswerDataset prepare(const PrepareAnswersOptions& options) {
    report_ = prepare_answers(options);
    return AnswerDataset::open(path_, {options.kind});
  }
  std::int64_t count(const std::string& name) { return report_.manifest.counts[name]; }
  static std::string text(const Tokens& tokens) {
    std::string text;
    for (const std::int32_t token : tokens) text += token == 256 ? '$' : static_cast<char>(token);
    return text;
  }

  test::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "set";
  PrepareAnswersReport report_;
};

const std::string kPairs = R"({"prompt": "Name:", "chosen": " Ann", "rejected": " x", "score_chosen": 4}
{"prompt": "Same", "chosen": "a", "rejected": "a"}
{"prompt": "Blank", "chosen": " ", "rejected": "a"}
{"prompt": "Vote", "chosen": "no", "rejected": "yes", "preference": 0.25}
{"prompt": "Tie", "chosen": "l", "rejected": "r", "preference": 0.5}
)";

TEST_F(PrepareAnswers, PairsComeBackAsTokensAndWhatWasLeftOutIsCounted) {
  PrepareAnswersOptions what = options(AnswerKind::pairs, kPairs + "\n\n");
  what.shard_size = 2;
  const AnswerDataset pairs = prepare(what);
  ASSERT_EQ(pairs.size(), 3);
  EXPECT_EQ(pairs.manifest().shards.size(), 2u);
  const AnswerRecord first = pairs.read(0), vote = pairs.read(1);
  EXPECT_EQ(text(first.prompt), "Name:");
  ASSERT_EQ(first.answers.size(), 2u);
  EXPECT_EQ(text(first.answers[0]), " Ann$");
  EXPECT_EQ(text(first.answers[1]), " x$");
  EXPECT_EQ(first.preference, 1);
  EXPECT_EQ(first.scores[0], 4);
  EXPECT_TRUE(std::isnan(first.scores[1]));
  EXPECT_FALSE(first.label.has_value());
  EXPECT_EQ(text(vote.answers[0]), "yes$") << "the raters chose the other one";
  EXPECT_EQ(vote.preference, 0.75);
  const AnswerLengths lengths = pairs.lengths(0);
  EXPECT_EQ(lengths.prompt, 5);
  EXPECT_EQ(lengths.answers, (std::vector<std::int64_t>{5, 3}));
  EXPECT_EQ(lengths.scored(0), 5);
  EXPECT_EQ(pairs.prompt_key(0), prompt_key({.text = "Name:"}));
  EXPECT_EQ(count("identical"), 1);
  EXPECT_EQ(count("empty"), 1);
  EXPECT_EQ(count("swapped"), 1);
  EXPECT_EQ(count("ties"), 1);
  EXPECT_EQ(pairs.manifest().counts, report_.manifest.counts) << "dataset.json has the counts too";
  EXPECT_EQ(pairs.manifest().end, 256);
  EXPECT_TRUE(pairs.verify().empty());
  EXPECT_TRUE(mentions(describe(pairs), {"pairs", "3 in 2 shards", "Name:", " Ann", "identical 1"}));
  EXPECT_EQ(pairs.manifest_sha256().size(), 64u);
}

TEST_F(PrepareAnswers, KeepIdenticalPairsAndDropTiesOnlyWhenAsked) {
  PrepareAnswersOptions what = options(AnswerKind::pairs, kPairs);
  what.keep_identical = what.drop_ties = true;
  const AnswerDataset pairs = prepare(what);
  ASSERT_EQ(pairs.size(), 3);
  EXPECT_EQ(text(pairs.read(1).answers[1]), "a$");
  EXPECT_EQ(count("ties"), 1);
}

TEST_F(PrepareAnswers, ADatasetOfAnotherKindSaysWhichToPrepare) {
  prepare(options(AnswerKind::pairs, kPairs));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { AnswerDataset::open(path_, {AnswerKind::feedback}); }),
                       {"holds pairs, not feedback", "bireme prepare feedback", "--from-pairs"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { TokenDataset::open(path_); }),
                       {"holds pairs", "bireme prepare text"}));
  EXPECT_NO_THROW(AnswerDataset::open(path_, {AnswerKind::sft, AnswerKind::pairs}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { AnswerDataset::open(folder_.path(), {AnswerKind::pairs}); }),
               {"no dataset.json", "bireme prepare pairs"}));
}

TEST_F(PrepareAnswers, BadLinesStopWithTheirPlaceOrAreCounted) {
  PrepareAnswersOptions what = options(AnswerKind::pairs, kPairs + "\n{\"prompt\": 1}\n{\"a\"\n");
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { prepare(what); }), {"lines.jsonl:6", "blank", "--skip-bad"}));
  EXPECT_FALSE(std::filesystem::exists(path_));
  what.lines.skip_bad = true;
  prepare(what);
  EXPECT_EQ(count("bad"), 3);
  ASSERT_EQ(report_.first_bad_lines.size(), 3u);
  EXPECT_TRUE(mentions(report_.first_bad_lines[1], {"lines.jsonl:7", "prompt"}));
  EXPECT_TRUE(mentions(report_.first_bad_lines[2], {"lines.jsonl:8", "JSON"}));
  PrepareAnswersOptions none =
      options(AnswerKind::pairs, "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"a\"}\n");
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { prepare(none); }), {"no record is left", "1 identical"}));
}

TEST_F(PrepareAnswers, TruncationIsByTheRuleAskedForAndCountedPerAnswer) {
  const std::string lines = R"({"prompt": "12345", "chosen": "abcdefgh", "rejected": "xy"})"
                            "\n"
                            R"({"prompt": "1234567890", "chosen": "a", "rejected": "b"})"
                            "\n"
                            R"({"prompt": "1", "chosen": "a", "rejected": "bcdefghijkl"})"
                            "\n";
  PrepareAnswersOptions what = options(AnswerKind::pairs, lines);
  what.tokens.max_length = 10;
  {
    const AnswerDataset pairs = prepare(what);  // end
    ASSERT_EQ(pairs.size(), 2);
    EXPECT_EQ(text(pairs.read(0).answers[0]), "abcde") << "the end token is gone and not put back";
    EXPECT_EQ(text(pairs.read(0).answers[1]), "xy$");
    EXPECT_EQ(pairs.read(0).is_cut, (std::vector<bool>{true, false}));
    EXPECT_EQ(pairs.read(1).is_cut, (std::vector<bool>{false, true}));
    EXPECT_EQ(count("cut_chosen"), 1);
    EXPECT_EQ(count("cut_rejected"), 1);
    EXPECT_EQ(count("dropped_long_prompt"), 1);
  }
  what.tokens.truncation = Truncation::prompt;
  {
    const AnswerDataset pairs = prepare(what);
    ASSERT_EQ(pairs.size(), 2);
    EXPECT_EQ(text(pairs.read(0).prompt), "5") << "the oldest tokens go";
    EXPECT_EQ(text(pairs.read(0).answers[0]), "abcdefgh$");
    EXPECT_TRUE(pairs.read(0).is_prompt_cut);
    EXPECT_EQ(text(pairs.read(1).prompt), "34567890");
    EXPECT_EQ(count("cut_prompt"), 2);
    EXPECT_EQ(count("dropped_long_rejected"), 1) << "no prompt token would be left";
  }
  what.tokens.truncation = Truncation::drop;
  what.lines.inputs = {folder_.write("lines.jsonl", lines + kPairs)};
  const AnswerDataset pairs = prepare(what);
  EXPECT_EQ(pairs.size(), 3);
  EXPECT_EQ(count("dropped_long_chosen"), 1);
  EXPECT_EQ(count("dropped_long_rejected"), 1);
}

TEST_F(PrepareAnswers, FeedbackKnowsItsScoresAndLabels) {
  const AnswerDataset scored = prepare(options(AnswerKind::feedback,
                                               R"({"prompt": "p", "completion": "a", "score": 1}
{"prompt": "p", "completion": "b", "score": 4, "label": false}
{"prompt": "q", "completion": "c", "score": -2}
)"));
  const ScoreStatistics statistics = scored.score_statistics();
  EXPECT_EQ(statistics.count, 3);
  EXPECT_DOUBLE_EQ(statistics.mean, 1);
  EXPECT_DOUBLE_EQ(statistics.deviation, std::sqrt(6.0));
  EXPECT_EQ(scored.score(1), 4);
  EXPECT_FALSE(scored.label(0)) << "not above the mean";
  EXPECT_FALSE(scored.label(1)) << "its own label counts";
  EXPECT_EQ(scored.label_counts().likes, 0);
  EXPECT_EQ(scored.label_counts().dislikes, 3);
  EXPECT_EQ(scored.prompt_key(0), scored.prompt_key(1));
  EXPECT_NE(scored.prompt_key(0), scored.prompt_key(2));

  const AnswerDataset labelled = prepare(options(AnswerKind::feedback,
                                                 R"({"prompt": "p", "completion": "a", "label": true}
{"prompt": "p", "completion": "b", "label": 0}
)"));
  EXPECT_EQ(labelled.score(0), 1);
  EXPECT_EQ(labelled.score(1), 0);
  EXPECT_DOUBLE_EQ(labelled.score_statistics().deviation, 0.5);
  EXPECT_EQ(labelled.label_counts().likes, 1);
}

TEST_F(PrepareAnswers, PairsBecomeSinglesSideBySideAndInstructions) {
  PrepareAnswersOptions what = options(AnswerKind::feedback, kPairs);
  what.lines.kind = AnswerKind::pairs;
  {
    const AnswerDataset singles = prepare(what);
    ASSERT_EQ(singles.size(), 6);
    EXPECT_EQ(text(singles.read(0).answers[0]), " Ann$");
    EXPECT_EQ(singles.read(0).label, true);
    EXPECT_EQ(singles.score(0), 4);
    EXPECT_EQ(text(singles.read(1).answers[0]), " x$");
    EXPECT_EQ(singles.read(1).label, false);
    EXPECT_EQ(singles.score(1), 0);
    EXPECT_EQ(singles.manifest().likes, 3);
  }
  what = options(AnswerKind::sft, kPairs);
  what.lines.kind = AnswerKind::pairs;
  const AnswerDataset instructions = prepare(what);
  ASSERT_EQ(instructions.size(), 3);
  EXPECT_EQ(text(instructions.read(1).answers[0]), "yes$");
  EXPECT_EQ(instructions.read(1).answers.size(), 1u);
  EXPECT_THROW((void)instructions.label(0), Error);
}

TEST_F(PrepareAnswers, SinglesBecomePairsOfRankIWithRankIPlusHalf) {
  std::string lines;
  const auto add = [&](const std::string& prompt, const std::string& answer, double score) {
    lines += "{\"prompt\": \"" + prompt + "\", \"completion\": \"" + answer +
             "\", \"score\": " + std::to_string(score) + "}\n";
  };
  add("p", "second", 3);
  add("q", "alone", 3);
  add("p", "first", 5);
  add("p", "fifth", 0);
  add("p", "third", 2);
  add("p", "fourth", 1.9);
  PrepareAnswersOptions what = options(AnswerKind::pairs, lines);
  what.lines.kind = AnswerKind::feedback;
  {
    const AnswerDataset pairs = prepare(what);
    ASSERT_EQ(pairs.size(), 2);
    EXPECT_EQ(text(pairs.read(0).answers[0]), "first$");
    EXPECT_EQ(text(pairs.read(0).answers[1]), "fourth$");
    EXPECT_EQ(text(pairs.read(1).answers[0]), "second$");
    EXPECT_EQ(text(pairs.read(1).answers[1]), "fifth$");
    EXPECT_EQ(pairs.read(1).scores, (std::vector<double>{3, 0}));
    EXPECT_EQ(count("single_answers"), 1);
  }
  what.min_margin = 3.05;
  EXPECT_EQ(prepare(what).size(), 1);
  EXPECT_EQ(count("too_close"), 1);
}

TEST_F(PrepareAnswers, PartsShareNoPromptAndMakeUpTheWhole) {
  std::string lines;
  for (int i = 0; i < 400; ++i)
    lines +=
        "{\"prompt\": \"p" + std::to_string(i / 2) + "\", \"completion\": \"c" + std::to_string(i) + "\"}\n";
  std::int64_t sum = 0;
  std::map<std::uint64_t, std::string> part_of_prompt;
  for (const char* name : {"train", "judge", "judge-validation", "evaluation"}) {
    PrepareAnswersOptions what = options(AnswerKind::sft, lines);
    what.part = parse_part(name);
    const AnswerDataset part = prepare(what);
    EXPECT_EQ(part.manifest().part, name);
    EXPECT_EQ(part.size() + count("other_parts"), 400);
    sum += part.size();
    for (std::int64_t i = 0; i < part.size(); ++i)
      EXPECT_EQ(part_of_prompt.try_emplace(part.prompt_key(i), name).first->second, name);
  }
  EXPECT_EQ(sum, 400);
}

TEST_F(PrepareAnswers, ADamagedShardIsNamed) {
  prepare(options(AnswerKind::pairs, kPairs));
  std::string shard = folder_.read("set/shard-00000.h5");
  shard[shard.size() / 2] = static_cast<char>(shard[shard.size() / 2] ^ 1);
  folder_.write("set/shard-00000.h5", shard);
  const AnswerDataset pairs = AnswerDataset::open(path_, {AnswerKind::pairs});
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { (void)pairs.lengths(0); }),
                       {"shard-00000.h5", "checksum", "bireme prepare pairs"}));
  EXPECT_EQ(pairs.verify().size(), 1u);
}

TEST_F(PrepareAnswers, ConversationsNeedATemplate) {
  const std::string line =
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]})";
  PrepareAnswersOptions what = options(AnswerKind::sft, line + "\n");
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { prepare(what); }), {"chat template", "--chat-template"}));
  what.tokens.chat_template = ChatTemplate("chatml");
  const AnswerDataset chat = prepare(what);
  EXPECT_EQ(text(chat.read(0).prompt), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(text(chat.read(0).answers[0]), "Ho<|im_end|>\n") << "the template closes the answer";
  EXPECT_EQ(chat.manifest().chat_template, "chatml");
}

TEST_F(PrepareAnswers, TranscriptsBecomeConversationsWhenAsked) {
  PrepareAnswersOptions what = options(
      AnswerKind::pairs,
      R"({"chosen": "\n\nHuman: Hi\n\nAssistant: Ho", "rejected": "\n\nHuman: Hi\n\nAssistant: No\n\nHuman: Oh"})"
      "\n");
  what.tokens.chat_template = ChatTemplate("zephyr");
  EXPECT_EQ(text(prepare(what).read(0).prompt), "\n\nHuman: Hi\n\nAssistant:");
  EXPECT_EQ(report_.manifest.chat_template, "") << "no record was written down by it";
  what.tokens.as_chat = true;
  const AnswerRecord record = prepare(what).read(0);
  EXPECT_EQ(text(record.prompt), "<|user|>\nHi$\n<|assistant|>\n");
  EXPECT_EQ(text(record.answers[0]), "Ho$\n");
  EXPECT_EQ(text(record.answers[1]), "No$\n<|user|>\nOh$\n");
  EXPECT_EQ(count("later_turns"), 1);
  EXPECT_EQ(report_.manifest.chat_template, "zephyr");
}

TEST(ChatTemplates, AreRecognizedByWhatTheyWrite) {
  EXPECT_EQ(ChatTemplate::recognize("{% for m in messages %}{{'<|im_start|>' + m['role']}}{% endfor %}"),
            "chatml");
  EXPECT_EQ(ChatTemplate::recognize("{{ bos_token + '[INST] <<SYS>>' }}"), "llama2");
  EXPECT_EQ(ChatTemplate::recognize("{{ '<|user|>\n' + m['content'] + eos_token }}"), "zephyr");
  EXPECT_EQ(ChatTemplate::recognize("<|start_header_id|>"), "llama3");
  EXPECT_EQ(ChatTemplate::recognize("<|im_start|>system\nYou are a helpful assistant"), "")
      << "adds words of its own";
  EXPECT_EQ(ChatTemplate::recognize("{{ messages }}"), "");
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [] { ChatTemplate("chatlm"); }), {"chatlm", "`chatml`"}));
}

TEST(ChatTemplates, WriteConversations) {
  const auto tokenizer = open_tokenizer("byte");
  const Conversation turns{{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Ho"}, {"user", "So?"}};
  const auto written = [&](const std::string& name, bool opens) {
    std::string text;
    for (const std::int32_t id : ChatTemplate(name).encode(*tokenizer, 256, turns, opens))
      text += id == 256 ? '$' : static_cast<char>(id);
    return text;
  };
  EXPECT_EQ(written("llama2", true),
            "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Ho $[INST] So? [/INST]");
  EXPECT_EQ(written("llama3", true),
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHo<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nSo?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(written("transcript", true),
            "\n\nSystem: Be brief.\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: So?\n\nAssistant:");
  EXPECT_EQ(written("transcript", false),
            "\n\nSystem: Be brief.\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: So?$");
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::data,
               [&] {
                 ChatTemplate("llama2").encode(*tokenizer, 256, {{"user", "a"}, {"user", "b"}}, true);
               }),
      {"alternate", "llama2"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data,
                                [&] {
                                  ChatTemplate("chatml").encode(*tokenizer, 256, {{"robot", "a"}}, true);
                                }),
                       {"robot"}));
}

}  // namespace
}  // namespace bireme
