#include "core/data/prepare_text.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <zlib.h>

#include <set>

#include "core/data/token_dataset.h"
#include "core/io/hdf5.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;
using Strings = std::vector<std::string>;

class TextInput : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, const std::string& text) const {
    return folder_.write(name, text);
  }
  std::filesystem::path write_gzip(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = folder_.path() / name;
    const gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
    return path;
  }
  static Strings all(TextDocuments& documents) {
    Strings texts;
    while (std::optional<std::string> text = documents.next()) texts.push_back(std::move(*text));
    return texts;
  }
  static Strings read(const std::vector<std::filesystem::path>& inputs,
                      DocumentSeparator separator = DocumentSeparator::none) {
    TextDocuments documents({.inputs = inputs, .separator = separator});
    return all(documents);
  }
  test::TemporaryFolder folder_;
};

TEST_F(TextInput, IsCutIntoDocumentsAsAsked) {
  const auto path = write("a.txt", "\xEF\xBB\xBFone\r\ntwo\n\n \t\n\nthree\n\n");
  EXPECT_EQ(read({path}), (Strings{"one\r\ntwo\n\n \t\n\nthree\n\n"}))
      << "but for the byte-order mark, every byte";
  EXPECT_EQ(read({path}, DocumentSeparator::blank_line), (Strings{"one\r\ntwo", "three"}));
  EXPECT_EQ(read({path}, DocumentSeparator::line), (Strings{"one\r", "two", " \t", "three"}));
  EXPECT_EQ(read({write("b.txt", "no end")}), (Strings{"no end"}));
  EXPECT_TRUE(read({write("c.txt", "")}).empty());
  const std::string lines =
      "{\"text\": \"a\\nb\"}\n\n{\"title\": 1, \"text\": \"\\u00e9\"}\r\n{\"text\": \"\"}";
  for (const auto& json : {write("a.jsonl", lines), write_gzip("a.jsonl.gz", lines)}) {
    TextDocuments documents({.inputs = {json, write_gzip("z.txt.gz", "zipped")}});
    EXPECT_EQ(all(documents), (Strings{"a\nb", "\u00e9", "zipped"}));
    EXPECT_EQ(documents.report().documents, 3);
    EXPECT_EQ(documents.report().empty_documents, 1);
    EXPECT_EQ(documents.report().bytes, 11);
    EXPECT_EQ(documents.bytes_done(), documents.bytes_total());
  }
}

TEST_F(TextInput, StopsAtABadLineOrCountsIt) {
  const auto text = write("bad.txt",
                          "good\nba\xFF"
                          "d\nmore\n\xC3\n");
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { read({text}); }),
                       {"bad.txt:2", "byte 3 of the line, 8 of the text", "0xff", "--bad-lines skip"}));
  TextDocuments skipping({.inputs = {text}, .skip_bad_lines = true});
  EXPECT_EQ(all(skipping), (Strings{"good\nmore\n"}));
  EXPECT_EQ(skipping.report().bad_lines, 2);
  EXPECT_TRUE(mentions(skipping.report().first_bad_lines.at(1), {"bad.txt:4"}));

  const std::pair<std::string, std::string> wrong[] = {
      {"{\"text\": \"a\"", "not JSON"},      {"[1]", "not a JSON object"},
      {"{\"txt\": \"a\"}", "no \"text\""},   {"{\"text\": 3}", "not a string"},
      {"{\"text\": \"\xFF\"}", "not UTF-8"}, {"{\"text\": \"\\ud800\"}", "not JSON"},
      {"{\"text\": \"a\"} x", "not JSON"}};
  for (const auto& [line, what] : wrong) {
    const auto json = write("bad.jsonl", "{\"text\": \"a\"}\n" + line + "\n{\"text\": \"b\"}\n");
    EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { read({json}); }), {"bad.jsonl:2", what}));
    TextDocuments lenient({.inputs = {json}, .skip_bad_lines = true});
    EXPECT_EQ(all(lenient), (Strings{"a", "b"}));
    EXPECT_EQ(lenient.report().bad_lines, 1);
  }
}

TEST_F(TextInput, NamesAFileThatCannotBeRead) {
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [] { read({"/no/such.txt"}); }), {"/no/such.txt"}));
  const auto other = write("a.csv", "x");
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { read({other}); }), {"a.csv", ".jsonl"}));
  const auto torn = write_gzip("torn.txt.gz", std::string(100000, 'x'));
  std::filesystem::resize_file(torn, std::filesystem::file_size(torn) - 12);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { read({torn}); }), {"torn.txt.gz", "unpack"}));
}

class PrepareText : public TextInput {
 protected:
  PrepareTextReport prepare(PrepareTextOptions options) const {
    options.output = output_;
    options.tokenizer = open_tokenizer("byte");
    options.replace = true;
    return prepare_text(options);
  }
  /// Each document of a dataset as text, its end as "|".
  static Strings texts(const std::filesystem::path& path) {
    const TokenDataset dataset = TokenDataset::open(path);
    const auto tokenizer = dataset.tokenizer();
    Strings all;
    for (std::int64_t i = 0; i < dataset.documents(); ++i) {
      const TokenDataset::Range range = dataset.document(i);
      std::vector<std::int32_t> tokens = dataset.read(range.begin, range.end - range.begin).tokens;
      EXPECT_EQ(tokens.back(), 256);
      all.push_back(tokenizer->decode(tokens));
    }
    return all;
  }
  std::filesystem::path output_ = folder_.path() / "set", held_out_ = folder_.path() / "set-validation";
};

TEST_F(PrepareText, KeepsEveryDocumentInOrderWhateverTheThreads) {
  std::string lines;
  Strings expected;
  for (int i = 0; i < 300; ++i) {
    expected.push_back("document " + std::to_string(i) + std::string(static_cast<std::size_t>(i % 50), 'x'));
    lines += expected.back() + "\n";
  }
  std::set<std::string> fingerprints;
  const int threads = omp_get_max_threads();
  for (const int count : {1, 3}) {
    omp_set_num_threads(count);
    const PrepareTextReport report =
        prepare({.text = {.inputs = {write("a.txt", lines)}, .separator = DocumentSeparator::line},
                 .shard_size = 1000});
    EXPECT_EQ(report.train.documents, 300);
    EXPECT_EQ(report.train.tokens, static_cast<std::int64_t>(lines.size())) << "an end for each line feed";
    EXPECT_EQ(texts(output_), expected);
    fingerprints.insert(TokenDataset::open(output_).fingerprint());
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(fingerprints.size(), 1u);
}

TEST_F(PrepareText, HoldsTheLastDocumentsOut) {
  const PrepareTextReport report =
      prepare({.text = {.inputs = {write("a.txt", "a\nb\n\nc\nd\n"), write("b.txt", "e\n")},
                        .separator = DocumentSeparator::line},
               .validation_share = 0.4});
  EXPECT_EQ(texts(output_), (Strings{"a", "b", "c"}));
  EXPECT_EQ(texts(held_out_), (Strings{"d", "e"}));
  EXPECT_EQ(report.validation.documents, 2);
  EXPECT_EQ(report.text.empty_documents, 1);
  EXPECT_EQ(TokenDataset::open(held_out_).manifest().split, "validation");
}

TEST_F(PrepareText, HoldsTheLastPartOfASingleDocumentOut) {
  const std::string text = std::string(89, 'a') + "\u00e9" + std::string(9, 'b');  // the cut falls within é
  prepare({.text = {.inputs = {write("a.txt", text)}}, .validation_share = 0.1});
  EXPECT_EQ(texts(output_), (Strings{std::string(89, 'a')}));
  EXPECT_EQ(texts(held_out_), (Strings{"\u00e9" + std::string(9, 'b')}));
}

TEST_F(PrepareText, LeavesNothingBehindWhenItStops) {
  const auto bad = write("a.txt", "a\n\xFF\n"), empty = write("b.txt", "");
  EXPECT_THROW(prepare({.text = {.inputs = {bad}}}), Error);
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { prepare({.text = {.inputs = {empty}}}); }), {"no token"}));
  EXPECT_THROW(prepare({.text = {.inputs = {write("c.txt", "a")}}, .validation_share = 1.5}), Error);
  EXPECT_THROW(prepare({.text = {.inputs = {write("c.txt", "a\nb"), bad}}, .validation_share = 0.9}), Error);
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
    EXPECT_EQ(entry.path().extension(), ".txt") << entry.path();
}

class PrepareTokens : public TextInput {
 protected:
  template <class T>
  std::filesystem::path tokens(const std::vector<T>& values, const Shape& shape) const {
    const auto memory = make_host_memory();
    Tensor tensor(*memory, shape, TypeOf<T>::value);
    std::copy(values.begin(), values.end(), tensor.data<T>());
    Hdf5Writer writer(folder_.path() / "in.h5");
    writer.write("tokens", tensor);
    writer.close();
    return folder_.path() / "in.h5";
  }
  std::vector<std::int64_t> lengths(const std::filesystem::path& input, std::int32_t document_end) const {
    prepare_tokens({.input = input, .output = output_, .document_end = document_end, .replace = true});
    const TokenDataset dataset = TokenDataset::open(output_);
    std::vector<std::int64_t> result;
    for (std::int64_t i = 0; i < dataset.documents(); ++i) {
      const TokenDataset::Range range = dataset.document(i);
      result.push_back(range.end - range.begin);
    }
    return result;
  }
  using Lengths = std::vector<std::int64_t>;
  std::filesystem::path output_ = folder_.path() / "set";
};

TEST_F(PrepareTokens, EndDocumentsAtTheirEndTokenAndAtRows) {
  const std::vector<std::int32_t> ids{5, 0, 3, 4, 0, 0, 7, 8};
  EXPECT_EQ(lengths(tokens(ids, {8}), -1), (Lengths{8}));
  EXPECT_EQ(TokenDataset::open(output_).manifest().vocabulary, 9);
  EXPECT_EQ(TokenDataset::open(output_).tokenizer(), nullptr);
  EXPECT_EQ(TokenDataset::open(output_).read(0, 8).tokens, ids);
  EXPECT_EQ(lengths(tokens(ids, {8}), 0), (Lengths{2, 3, 1, 2}));
  EXPECT_EQ(lengths(tokens(ids, {2, 4}), -1), (Lengths{4, 4}));
  EXPECT_EQ(lengths(tokens(ids, {2, 4}), 0), (Lengths{2, 2, 1, 1, 2}));
  EXPECT_EQ(lengths(tokens(std::vector<std::uint8_t>{1, 2}, {2}), -1), (Lengths{2}));
  EXPECT_EQ(lengths(tokens(std::vector<std::int64_t>{1, 70000}, {2}), -1), (Lengths{2}));
}

TEST_F(PrepareTokens, RefuseWhatIsNoToken) {
  const auto error = [&](const std::filesystem::path& input, std::int64_t vocabulary) {
    return error_of(ErrorKind::data, [&] {
      prepare_tokens({.input = input, .output = output_, .vocabulary = vocabulary, .replace = true});
    });
  };
  EXPECT_TRUE(mentions(error(tokens(std::vector<std::int32_t>{1, 9}, {2}), 9), {"token 1 is 9"}));
  EXPECT_TRUE(mentions(error(tokens(std::vector<std::int32_t>{1, -2}, {2}), 0), {"token 1 is -2"}));
  EXPECT_TRUE(mentions(error(tokens(std::vector<std::int64_t>{std::int64_t{1} << 40}, {1}), 0), {"token 0"}));
  EXPECT_TRUE(mentions(error(tokens(std::vector<float>{1}, {1}), 0), {"holds fp32"}));
  EXPECT_TRUE(mentions(error(tokens(std::vector<std::int32_t>{1, 2}, {1, 1, 2}), 0), {"shape"}));
  EXPECT_THROW(prepare_tokens({.input = write("x.h5", "no HDF5"), .output = output_}), Error);
  EXPECT_FALSE(std::filesystem::exists(output_));
}

}  // namespace
}  // namespace bireme
