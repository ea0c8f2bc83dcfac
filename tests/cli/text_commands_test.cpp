#include <gtest/gtest.h>

#include "core/io/hdf5.h"
#include "core/tensor/memory.h"
#include "tests/cli/program.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

/// Lines of words, enough to learn a small vocabulary from.
std::string lines_of_words() {
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "the oars of ship " + std::to_string(i * 37 % 211) + " row along the river banks of the town\n";
  return text;
}

TEST(TextCommands, TurnTextIntoTwoDatasetsThatInspectFindsWhole) {
  const TemporaryFolder folder;
  const std::string text = folder.write("ships.txt", lines_of_words()).string(),
                    dataset = (folder.path() / "ships").string();
  const std::string words = "prepare text --input " + text + " --tokenizer byte --output " + dataset +
                            " --validation-share 0.1 --shard-size 5000 --split mine";
  const Outcome outcome = run_program(words + " --json");
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  const nlohmann::json result = json_of(outcome);
  const auto bytes = static_cast<std::int64_t>(lines_of_words().size());
  EXPECT_EQ(result["documents"], 1);
  EXPECT_EQ(result["tokens"].get<std::int64_t>() + result["validation"]["tokens"].get<std::int64_t>(),
            bytes + 2);
  EXPECT_EQ(result["bytes"], bytes);

  const nlohmann::json report = json_of(run_program("inspect " + dataset + " --json"));
  EXPECT_EQ(report["contents"], "tokens");
  EXPECT_EQ(report["split"], "mine");
  EXPECT_EQ(report["vocabulary"], 257);
  EXPECT_EQ(report["tokenizer"], "byte");
  EXPECT_EQ(report["is_whole"], true);
  EXPECT_TRUE(
      mentions(run_program("inspect " + dataset + "-validation").output, {"split `validation`", "whole"}));

  EXPECT_EQ(run_program(words).code, 2) << "there is a dataset already";
  EXPECT_EQ(run_program(words + " --force").code, 0);
  std::string shard = folder.read("ships/shard-00001.h5");
  shard[3000] = static_cast<char>(shard[3000] ^ 1);
  folder.write("ships/shard-00001.h5", shard);
  const Outcome damaged = run_program("inspect " + dataset);
  EXPECT_EQ(damaged.code, 3);
  EXPECT_TRUE(mentions(damaged.errors, {"shard-00001.h5", "checksum"}));
}

TEST(TextCommands, CountWhatTheyLeaveOut) {
  const TemporaryFolder folder;
  const std::string text =
      folder
          .write("a.jsonl",
                 "{\"text\": \"one\"}\n{\"text\": \"\"}\n{\"text\": \nx\xFF\n{\"text\": \"two\"}\n")
          .string();
  const std::string words =
      "prepare text --input " + text + " --tokenizer byte --output " + (folder.path() / "set").string();
  const Outcome stopped = run_program(words);
  EXPECT_EQ(stopped.code, 3);
  EXPECT_TRUE(mentions(stopped.errors, {"bireme: error: ", "a.jsonl:3", "--bad-lines skip"}));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "set"));
  const Outcome skipped = run_program(words + " --bad-lines skip --json");
  ASSERT_EQ(skipped.code, 0) << skipped.errors;
  const nlohmann::json result = json_of(skipped);
  EXPECT_EQ(result["documents"], 2);
  EXPECT_EQ(result["empty_documents"], 1);
  EXPECT_EQ(result["bad_lines"], 2);
  EXPECT_TRUE(mentions(result["first_bad_lines"][1], {"a.jsonl:4", "UTF-8"}));
  EXPECT_TRUE(mentions(run_program(words + " --bad-lines skip --force").output,
                       {"left out: ", "a.jsonl:3", "1 empty documents", "2 bad lines"}));
}

TEST(TextCommands, SayWhatIsWrongWithTheirWords) {
  const TemporaryFolder folder;
  const std::string text = folder.write("a.txt", "text").string(), output = (folder.path() / "set").string();
  const auto prepare = [&](const std::string& more) {
    return run_program("prepare text --output " + output + " " + more);
  };
  const Outcome tokenizer = prepare("--input " + text + " --tokenizer /no/such.model");
  EXPECT_EQ(tokenizer.code, 3);
  EXPECT_TRUE(mentions(tokenizer.errors, {"/no/such.model", "there is no such tokenizer"}));
  EXPECT_EQ(prepare("--input /no/such.txt --tokenizer byte").code, 3);
  EXPECT_EQ(prepare("--input " + text + " --tokenizer byte --document-separator word").code, 2);
  EXPECT_EQ(prepare("--input " + text).code, 2) << "--tokenizer is required";
  EXPECT_EQ(prepare("--input " + folder.write("e.txt", "").string() + " --tokenizer byte").code, 3);
}

TEST(TextCommands, TakeReadyMadeTokens) {
  const TemporaryFolder folder;
  {
    const auto memory = make_host_memory();
    Tensor tokens(*memory, {2, 3}, DType::i32);
    for (int i = 0; i < 6; ++i) tokens.data<std::int32_t>()[i] = i;
    Hdf5Writer writer(folder.path() / "in.h5");
    writer.write("tokens", tokens);
    writer.close();
  }
  const std::string words = "prepare tokens --input " + (folder.path() / "in.h5").string() + " --output " +
                            (folder.path() / "set").string();
  const Outcome small = run_program(words + " --vocab-size 5");
  EXPECT_EQ(small.code, 3);
  EXPECT_TRUE(mentions(small.errors, {"token 5 is 5", "vocabulary of 5"}));
  const Outcome outcome = run_program(words + " --vocab-size 10 --document-end 4 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  EXPECT_EQ(json_of(outcome)["documents"], 3) << "0 1 2, 3 4, 5";
  EXPECT_TRUE(mentions(run_program("inspect " + (folder.path() / "set").string()).output,
                       {"10 ids, document end 4", "ready-made"}));
}

TEST(TextCommands, LearnAVocabularyAndShowIt) {
  const TemporaryFolder folder;
  const std::string text = folder.write("ships.txt", lines_of_words()).string(),
                    model = (folder.path() / "ships.model").string();
  for (const std::string type : {"bpe", "unigram"}) {
    const Outcome trained = run_program("tokenizer train --input " + text + " --vocab-size 290 --type " +
                                        type + " --output " + model + " --force --json");
    ASSERT_EQ(trained.code, 0) << trained.errors;
    EXPECT_EQ(trained.errors, "") << "the library keeps quiet";
    EXPECT_EQ(json_of(trained)["vocabulary"], 290);
    const nlohmann::json encoded =
        json_of(run_program("tokenizer encode --tokenizer " + model + " --text 'the river' --json"));
    ASSERT_GE(encoded["ids"].size(), 2U);
    std::string ids;
    for (const auto& id : encoded["ids"]) ids += std::to_string(id.get<int>()) + ",";
    ids.pop_back();
    EXPECT_EQ(run_program("tokenizer decode --tokenizer " + model + " --ids " + ids).output, "the river\n");
  }
  const nlohmann::json report = json_of(run_program("inspect " + model + " --json"));
  EXPECT_EQ(report["kind"], "tokenizer");
  EXPECT_EQ(report["tokenizer"], "sentencepiece");
  EXPECT_EQ(report["document_end"], 2);
  const Outcome again =
      run_program("tokenizer train --input " + text + " --vocab-size 290 --output " + model);
  EXPECT_EQ(again.code, 2);
  EXPECT_TRUE(mentions(again.errors, {"ships.model", "--force"}));
  const Outcome large =
      run_program("tokenizer train --input " + text + " --vocab-size 90000 --force --output " + model);
  EXPECT_EQ(large.code, 2);
  EXPECT_TRUE(mentions(large.errors, {"90000", "--vocab-size"}));
}

}  // namespace
}  // namespace bireme::test
