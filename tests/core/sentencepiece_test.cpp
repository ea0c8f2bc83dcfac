#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <random>

#include "core/text/tokenizer.h"
#include "core/text/train_sentencepiece.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;
using Ids = std::vector<std::int32_t>;

/// Sentences of made-up words, some far more frequent than others.
std::string corpus() {
  const std::vector<std::string> words{"the",   "river",     "rows", "oar",   "oars",  "rowing",
                                       "banks", "bank",      "ship", "ships", "sails", "sailing",
                                       "12",    "gr\u00fcn", "and",  "of"};
  std::mt19937 random(5);
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += words[std::min(random() % words.size(), random() % words.size())] + (i % 12 == 11 ? ".\n" : " ");
  return text;
}

std::string model_of(const TrainSentencePieceOptions& options) {
  int texts = 0;
  return train_sentencepiece(options, [&]() -> std::optional<std::string> {
    if (texts++ > 0) return {};
    return corpus();
  });
}

/// Enough for the frequent words; a unigram model finds pieces for 297 in this text.
std::int64_t vocabulary_of(const std::string& type) { return type == "bpe" ? 340 : 295; }

class SentencePieceModels : public testing::Test {
 protected:
  std::shared_ptr<const Tokenizer> open(const std::string& type) const {
    return open_tokenizer(
        folder_.write(type + ".model", model_of({.vocabulary = vocabulary_of(type), .type = type})).string());
  }
  test::TemporaryFolder folder_;
};

TEST_F(SentencePieceModels, LearnFrequentWordsAndLoseNothing) {
  for (const std::string type : {"bpe", "unigram"}) {
    SCOPED_TRACE(type);
    const auto tokenizer = open(type);
    EXPECT_EQ(tokenizer->kind(), "sentencepiece");
    EXPECT_EQ(tokenizer->vocabulary(), vocabulary_of(type));
    EXPECT_EQ(tokenizer->special().document_end, 2);
    EXPECT_EQ(tokenizer->special().begin, 1);
    EXPECT_FALSE(tokenizer->special().adds_begin);
    EXPECT_EQ(tokenizer->encode("the river").size(), 2u);
    EXPECT_EQ(tokenizer->piece(tokenizer->encode("the").front()), "\u2581the");
    for (const std::string& text :
         std::vector<std::string>{"the river", " leading", "  two  spaces ", "lines\n\nof\ttext\r\n",
                                  "gr\u00fcn \u65e5\u672c \U0001F600", "", " ", "\n", "a\u00a0b",
                                  "\u00e9 e\u0301 \ufb01", "1234 rows", std::string("nul\0byte", 8)}) {
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << testing::PrintToString(text);
      TokenStream stream(*tokenizer);
      std::string streamed;
      for (const std::int32_t id : tokenizer->encode(text)) streamed += stream.push(id);
      EXPECT_EQ(streamed + stream.finish(), text);
    }
    EXPECT_EQ(tokenizer->decode(Ids{1, 2}), "") << "control tokens are no text";
  }
}

TEST_F(SentencePieceModels, AStreamThatGoesOnKeepsItsFirstSpace) {
  const auto tokenizer = open("bpe");
  const Ids ids = tokenizer->encode("the");
  EXPECT_EQ(TokenStream(*tokenizer).push(ids.front()), "the");
  EXPECT_EQ(TokenStream(*tokenizer, false).push(ids.front()), " the");
}

// Word by word and through the cache, where the library takes a text as a whole.
TEST_F(SentencePieceModels, WordByWordGivesTheIdsOfTheWholeText) {
  const std::string model = model_of({.vocabulary = vocabulary_of("bpe")});
  const auto tokenizer = open_tokenizer(folder_.write("a.model", model).string());
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
  const std::vector<std::string> parts{" ",      " ",      "  ",        "\n", "\t",     "the",    "river",
                                       "oars",   "12",     "7",         ".",  ",",      "\u2581", "\u00fc",
                                       "\u65e5", "\u0301", "gr\u00fcn", "x",  "\u00a0", "<s>"};
  std::mt19937 random(9);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int n = static_cast<int>(random() % 14); n >= 0; --n) text += parts[random() % parts.size()];
    ASSERT_EQ(tokenizer->encode(text), library.EncodeAsIds(text)) << testing::PrintToString(text);
  }
}

TEST_F(SentencePieceModels, SayWhenTheTextIsTooLittle) {
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [] { model_of({.vocabulary = 100000}); }),
                       {"cannot learn 100000 pieces: Vocabulary size too high", "--vocab-size"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [] { model_of({.vocabulary = 262}); }), {"262"}));
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::usage, [] { model_of({.vocabulary = 100000, .type = "unigram"}); }), {"100000"}));
  EXPECT_THROW(train_sentencepiece({}, [] { return std::optional<std::string>(); }), Error);
  EXPECT_THROW(train_sentencepiece({},
                                   []() -> std::optional<std::string> {
                                     throw Error(ErrorKind::data, "bad line", "a.txt:1", "mend it");
                                   }),
               Error);
}

}  // namespace
}  // namespace bireme
