#include "core/text/tokenizer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/json.h"
#include "core/text/utf8.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/vocabularies.h"

namespace bireme {
namespace {

using test::BytePairVocabulary;
using test::error_of;
using test::mentions;
using Ids = std::vector<std::int32_t>;

/// Ids of single bytes in a vocabulary that begins with them, `first` being that of byte 0.
Ids bytes_of(std::string_view text, int first = 0) {
  Ids ids;
  for (const char byte : text) ids.push_back(first + static_cast<unsigned char>(byte));
  return ids;
}

TEST(Utf8, FindsTheFirstByteThatIsWrong) {
  EXPECT_EQ(valid_utf8("plain text of more than eight bytes"), 35u);
  EXPECT_EQ(valid_utf8("gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80 \xF4\x8F\xBF\xBF"), 20u);
  for (const std::string bad :
       {"\xC0\xAF", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF5", "\x80", "\xC3", "\xC3(", "\xE2\x82", "\xF0\x9F\x98"})
    EXPECT_EQ(valid_utf8("123456789" + bad), 9u) << testing::PrintToString(bad);
  EXPECT_TRUE(is_cut_utf8("\xF0\x9F\x98"));
  EXPECT_FALSE(is_cut_utf8("\xED\xA0")) << "no character begins so";
  EXPECT_FALSE(is_cut_utf8("\xC3\xBC"));
}

class Tokenizers : public testing::Test {
 protected:
  std::shared_ptr<const Tokenizer> byte_pair(const nlohmann::json& json) const {
    return open_tokenizer(folder_.write("a/tokenizer.json", json_text(json)).string());
  }
  std::string refusal(const nlohmann::json& json) const {
    return error_of(ErrorKind::data, [&] { byte_pair(json); });
  }
  test::TemporaryFolder folder_;
};

TEST_F(Tokenizers, BytesAreTheirOwnIds) {
  const auto tokenizer = open_tokenizer("byte");
  EXPECT_EQ(tokenizer->kind(), "byte");
  EXPECT_EQ(tokenizer->vocabulary(), 257);
  EXPECT_EQ(tokenizer->special().document_end, 256);
  EXPECT_EQ(tokenizer->encode("a\xC3\xBC"), (Ids{'a', 0xC3, 0xBC}));
  EXPECT_EQ(tokenizer->decode(Ids{0xC3, 0xBC, 256, 'a'}),
            "\xC3\xBC"
            "a");
  EXPECT_TRUE(tokenizer->encode("").empty());
  EXPECT_EQ(tokenizer->piece(10), "<0x0A>");
}

TEST_F(Tokenizers, RefuseWhatIsNoTextAndIdsBeyondTheVocabulary) {
  const auto tokenizer = open_tokenizer("byte");
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { tokenizer->encode("abc\xFF"); }), {"byte 3", "0xff"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data,
                                [&] {
                                  tokenizer->decode(Ids{1, 257});
                                }),
                       {"257", "257 ids"}));
  EXPECT_THROW(tokenizer->piece(-1), Error);
}

TEST_F(Tokenizers, AStreamHoldsCutCharactersBack) {
  const auto tokenizer = open_tokenizer("byte");
  TokenStream stream(*tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push(0x82), "");
  EXPECT_EQ(stream.push(0xAC), "\xE2\x82\xAC");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push('b'),
            "\xEF\xBF\xBD"
            "b")
      << "the cut character cannot become whole";
  EXPECT_EQ(stream.push(0xC3), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.finish(), "");
}

TEST_F(Tokenizers, SaveWhatOpensAgainAsTheSame) {
  const auto json = BytePairVocabulary{.merges = {{"a", "b"}}}.json();
  folder_.write("a/tokenizer_config.json", "{\"add_bos_token\": false}");
  for (const auto& tokenizer :
       {open_tokenizer("byte"), byte_pair(json),
        open_tokenizer(folder_.write("v.txt", test::rwkv_vocabulary({{"'ab'", 2}})).string())}) {
    const std::string copy = (folder_.path() / "copy").string() + tokenizer->kind();
    std::filesystem::create_directories(copy + "/tokenizer");
    tokenizer->save(copy + "/tokenizer");
    for (const std::string& where : {copy, copy + "/tokenizer"}) {
      const auto again = open_tokenizer(where);
      EXPECT_EQ(again->kind(), tokenizer->kind());
      EXPECT_EQ(again->fingerprint(), tokenizer->fingerprint());
      EXPECT_EQ(again->encode("cab"), tokenizer->encode("cab"));
    }
  }
  EXPECT_TRUE(std::filesystem::exists(folder_.path() / "copybyte_pair/tokenizer/tokenizer_config.json"));
}

TEST_F(Tokenizers, NameWhatCannotBeOpened) {
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [] { open_tokenizer("/no/such.model"); }), {"/no/such.model"}));
  const std::string other = folder_.write("b/file.bin", "x").string();
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { open_tokenizer(other); }), {other}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { open_tokenizer((folder_.path() / "b").string()); }),
                       {"holds no tokenizer"}));
  const std::string model = folder_.write("bad.model", "not a model").string();
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { open_tokenizer(model); }), {"bad.model", "SentencePiece"}));
  const std::string empty = folder_.write("empty.model", "").string();
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { open_tokenizer(empty); }), {"empty.model"}));
}

// Merges by rank: 256 "ab", 257 "abab", 258 "bc", 259 " a" (Ġ stands for the space).
TEST_F(Tokenizers, MergeByRankAndFromTheLeft) {
  const auto tokenizer =
      byte_pair(BytePairVocabulary{.merges = {{"a", "b"}, {"ab", "ab"}, {"b", "c"}, {"Ġ", "a"}}}.json());
  EXPECT_EQ(tokenizer->vocabulary(), 260);
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{256, 'c'})) << "a b before b c";
  EXPECT_EQ(tokenizer->encode("bc"), (Ids{258}));
  EXPECT_EQ(tokenizer->encode("ababab"), (Ids{257, 256}));
  EXPECT_EQ(tokenizer->encode("b ab a"), (Ids{'b', ' ', 256, 259}))
      << "merges stop at words, and rank decides";
  EXPECT_EQ(tokenizer->decode(Ids{257, 259, 'c'}), "abab ac");
  EXPECT_EQ(tokenizer->piece(259), "Ġa");
  // Long words go another way, and nothing may depend on it: 50 times "ab" is 25 times "abab".
  std::string word;
  for (int i = 0; i < 50; ++i) word += "ab";
  EXPECT_EQ(tokenizer->encode(word), Ids(25, 257));
  EXPECT_EQ(tokenizer->encode(word + "c"), [] {
    Ids ids(25, 257);
    ids.push_back('c');
    return ids;
  }());
}

TEST_F(Tokenizers, TakeAddedTokensOutOfTheTextFirst) {
  // 256 "ab"; 257 "<|endoftext|>", 258 two spaces, 259 three spaces, 260 é in its normal form.
  const auto tokenizer = byte_pair(
      BytePairVocabulary{.merges = {{"a", "b"}},
                         .added = {{{"content", "<|endoftext|>"}, {"special", true}, {"normalized", false}},
                                   {{"content", "  "}, {"normalized", true}},
                                   {{"content", "   "}, {"normalized", true}},
                                   {{"content", "e\u0301"}, {"normalized", true}}}}
          .json());
  EXPECT_EQ(tokenizer->special().document_end, 257);
  EXPECT_EQ(tokenizer->encode("ab<|endoftext|>ab"), (Ids{256, 257, 256}));
  EXPECT_EQ(tokenizer->encode("a     b"), (Ids{'a', 259, 258, 'b'})) << "the longest at each place";
  EXPECT_EQ(tokenizer->encode("\u00e9"), (Ids{260}));
  EXPECT_EQ(tokenizer->encode("e\u0301"), (Ids{260})) << "text is normalised before it is compared";
  EXPECT_EQ(tokenizer->encode("o\u0301"), bytes_of("\u00f3"));
  EXPECT_EQ(tokenizer->decode(Ids{257, 258}), "<|endoftext|>  ");
}

// By the expression of GPT-2, worked out by hand. Merges make every word but its first byte visible: none.
TEST_F(Tokenizers, FollowPreTokenizersInTheirOrder) {
  BytePairVocabulary vocabulary{.merges = {{"1", "2"}, {"Ġ", "1"}, {"a", "1"}}};
  EXPECT_EQ(byte_pair(vocabulary.json())->encode("a12 12"), (Ids{'a', 256, ' ', 256}));
  vocabulary.pre_tokenizer = {{"type", "Sequence"},
                              {"pretokenizers",
                               {{{"type", "Digits"}, {"individual_digits", true}},
                                {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}}}};
  EXPECT_EQ(byte_pair(vocabulary.json())->encode("a12"), bytes_of("a12")) << "digits stand alone";
  vocabulary.pre_tokenizer = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "a1|\\s"}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  EXPECT_EQ(byte_pair(vocabulary.json())->encode("a12 12"), (Ids{258, '2', ' ', 256}));
  vocabulary.pre_tokenizer = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  EXPECT_EQ(byte_pair(vocabulary.json())->encode("1"), (Ids{257}));
}

TEST_F(Tokenizers, BeginATextAsTheirTemplateSays) {
  BytePairVocabulary vocabulary{.merges = {}, .added = {{{"content", "<s>"}}, {{"content", "</s>"}}}};
  const auto plain = byte_pair(vocabulary.json());
  EXPECT_EQ(plain->encode_start("a"), (Ids{'a'}));
  EXPECT_EQ(plain->special().document_end, 257);
  vocabulary.post_processor = {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}}};
  EXPECT_EQ(byte_pair(vocabulary.json())->encode_start("a"), (Ids{256, 'a'}));
  EXPECT_EQ(byte_pair(vocabulary.json())->encode("a"), (Ids{'a'}));
  folder_.write("a/tokenizer_config.json", R"({"add_bos_token": false, "eos_token": {"content": "<s>"}})");
  EXPECT_EQ(byte_pair(vocabulary.json())->encode_start("a"), (Ids{'a'}));
  EXPECT_EQ(byte_pair(vocabulary.json())->special().document_end, 256);
}

TEST_F(Tokenizers, RefuseByNameWhatTheyDoNotImplement) {
  nlohmann::json json = BytePairVocabulary{}.json();
  const auto with = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json changed = json;
    changed[nlohmann::json::json_pointer(key)] = value;
    return refusal(changed);
  };
  EXPECT_TRUE(mentions(with("/normalizer", {{"type", "Lowercase"}}), {"normalizer", "Lowercase"}));
  EXPECT_TRUE(mentions(with("/pre_tokenizer", {{"type", "Metaspace"}}), {"pre-tokenizer", "Metaspace"}));
  EXPECT_TRUE(mentions(with("/pre_tokenizer", nullptr), {"ByteLevel"}));
  EXPECT_TRUE(mentions(with("/decoder", {{"type", "WordPiece"}}), {"decoder", "WordPiece"}));
  EXPECT_TRUE(mentions(with("/post_processor", {{"type", "BertProcessing"}}), {"BertProcessing"}));
  EXPECT_TRUE(mentions(with("/model/type", "Unigram"), {"Unigram"}));
  EXPECT_TRUE(mentions(with("/model/byte_fallback", true), {"byte_fallback"}));
  EXPECT_TRUE(mentions(with("/model/dropout", 0.1), {"dropout"}));
  EXPECT_TRUE(mentions(with("/model/merges", {"q qq"}), {"`qq`"}));
  EXPECT_TRUE(mentions(with("/model/vocab/a", 98), {"id 98"}));
  EXPECT_TRUE(mentions(with("/model/vocab/a", -1), {"`a`"}));
  EXPECT_TRUE(mentions(with("/model/vocab/a", 1LL << 40), {"`a`"}));
  EXPECT_TRUE(
      mentions(with("/added_tokens", {{{"content", "x"}, {"id", 256}, {"lstrip", true}}}), {"lstrip"}));
  EXPECT_TRUE(mentions(
      with("/pre_tokenizer", {{"type", "Sequence"},
                              {"pretokenizers",
                               {{{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}},
                                {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}}),
      {"(a", "not a regular expression"}));
  json["model"]["vocab"].erase("a");
  EXPECT_TRUE(mentions(refusal(json), {"0x61"}));
  folder_.write("a/tokenizer.json", "{\"model\": {}, \"pre_tokenizer\": " + std::string(1000000, '[') +
                                        std::string(1000000, ']') + "}");
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::data, [&] { open_tokenizer((folder_.path() / "a/tokenizer.json").string()); }),
      {"tokenizer.json", "64 levels"}));
  folder_.write("a/tokenizer.json", "{\"model\": ");
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::data, [&] { open_tokenizer((folder_.path() / "a/tokenizer.json").string()); }),
      {"tokenizer.json", "JSON"}));
}

// 257 "the", 258 "there", 259 "é" as two bytes, 260 a quote and a line end.
TEST_F(Tokenizers, TakeTheLongestEntryOfAnRwkvVocabulary) {
  const std::vector<std::pair<std::string, int>> literals{
      {"'the'", 3}, {"'there'", 5}, {"'\\xe9'", 2}, {"\"'\\n\"", 2}, {"b'\\xf0\\x9f'", 2}, {"'日'", 3}};
  for (const char* line_end : {"\n", "\r\n"}) {
    const auto tokenizer =
        open_tokenizer(folder_.write("v.txt", test::rwkv_vocabulary(literals, line_end)).string());
    EXPECT_EQ(tokenizer->vocabulary(), 263);
    EXPECT_EQ(tokenizer->special().document_end, 0);
    EXPECT_EQ(tokenizer->encode("therethe ther"), (Ids{258, 257, ' ' + 1, 257, 'r' + 1}));
    EXPECT_EQ(tokenizer->encode("\u00e9'\n"), (Ids{259, 260}));
    EXPECT_EQ(tokenizer->encode("\U0001F600"), (Ids{261, 0x98 + 1, 0x80 + 1}));
    EXPECT_EQ(tokenizer->encode("日"), (Ids{262}));
    EXPECT_EQ(tokenizer->decode(Ids{261, 0x98 + 1, 0x80 + 1, 0, 257}), "\U0001F600the");
    EXPECT_EQ(tokenizer->piece(259), "'\\xe9'");
  }
}

TEST_F(Tokenizers, NameTheLineOfAnRwkvVocabularyThatIsWrong) {
  const auto error = [&](const std::string& line) {
    const std::string path = folder_.write("v.txt", test::rwkv_vocabulary({}) + line + "\n").string();
    return error_of(ErrorKind::data, [&] { open_tokenizer(path); });
  };
  EXPECT_TRUE(mentions(error("257 'the' 4"), {"v.txt:257", "3 bytes", "says 4"}));
  EXPECT_TRUE(mentions(error("257 'the"), {"v.txt:257"}));
  EXPECT_TRUE(mentions(error("257 the 3"), {"literal"}));
  EXPECT_TRUE(mentions(error("257 'a\\q' 3"), {"literal"}));
  EXPECT_TRUE(mentions(error("257 '\\ud800' 3"), {"literal"}));
  EXPECT_TRUE(mentions(error("5 'the' 3"), {"id 5", "twice"}));
  EXPECT_TRUE(mentions(error("0 'the' 3"), {"document end"}));
  EXPECT_TRUE(mentions(error("257 'a' 1"), {"of another"}));
  EXPECT_TRUE(mentions(error("99999999 'the' 3"), {"99999999"}));
  const std::string cut = folder_.write("v.txt", test::rwkv_vocabulary({}).substr(0, 500)).string();
  EXPECT_THROW(open_tokenizer(cut), Error);
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::data, [&] { open_tokenizer(folder_.write("v.txt", "1 'a' 1\n").string()); }),
      {"byte 0x00"}));
}

TEST_F(Tokenizers, GiveEveryThreadTheSameIds) {
  const auto tokenizer =
      byte_pair(BytePairVocabulary{.merges = {{"a", "b"}, {"ab", "ab"}, {"b", "c"}, {"Ġ", "a"}}}.json());
  std::string text;
  for (int i = 0; i < 2000; ++i)
    text += (i % 7 == 0 ? " abc" : i % 3 == 0 ? "bcab" : " ab") + std::to_string(i);
  const Ids expected = tokenizer->encode(text);
  EXPECT_EQ(tokenizer->decode(expected), text);
  std::vector<Ids> found(4);
  {
    std::vector<std::jthread> threads;
    for (Ids& ids : found)
      threads.emplace_back([&] {
        for (int i = 0; i < 5; ++i) ids = tokenizer->encode(text);
      });
  }
  for (const Ids& ids : found) EXPECT_EQ(ids, expected);
}

/// Encodings that others' programs made with published vocabularies, in a folder that is not part of this
/// one.
TEST(PublishedTokenizers, AgreeWithTheirReferences) {
  const char* folder = std::getenv("BIREME_DATA");
  if (folder == nullptr) GTEST_SKIP() << "set BIREME_DATA to a folder with tokenizers/encodings.jsonl";
  const std::string root = std::string(folder) + "/tokenizers/";
  const std::map<std::string, std::shared_ptr<const Tokenizer>> tokenizers{
      {"llama", open_tokenizer(root + "llama")},
      {"gpt_neox", open_tokenizer(root + "gpt_neox")},
      {"rwkv", open_tokenizer(root + "rwkv")}};
  std::ifstream file(root + "encodings.jsonl");
  int records = 0;
  for (std::string line; std::getline(file, line); ++records) {
    const auto record = parse_json(line);
    const Tokenizer& tokenizer = *tokenizers.at(record["tokenizer"]);
    const Ids ids = tokenizer.encode(record["text"].get<std::string>());
    SCOPED_TRACE(line.substr(0, 200));
    EXPECT_EQ(ids, record["ids"].get<Ids>());
    EXPECT_EQ(tokenizer.decode(ids), record["decoded"].get<std::string>());
    std::vector<std::string> pieces;
    for (const std::int32_t id : ids) pieces.push_back(tokenizer.piece(id));
    if (tokenizer.kind() != "rwkv") {  // whose reference escapes what its vocabulary writes as it is
      EXPECT_EQ(pieces, record["pieces"].get<std::vector<std::string>>());
    }
    TokenStream stream(tokenizer);
    std::string streamed;
    for (const std::int32_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), record["decoded"].get<std::string>());
  }
  EXPECT_EQ(records, 237);
}

}  // namespace
}  // namespace bireme
