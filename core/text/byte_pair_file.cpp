#include "core/text/byte_pair_file.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/text/split_pattern.h"
#include "core/text/tokenizer_files.h"

namespace bireme {

namespace {

using Json = nlohmann::json;

constexpr int kMostLevels = 64;

/// One section of the file at a time; each takes what it knows and refuses the rest.
class Parser {
 public:
  Parser(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  BytePairFile parse() {
    if (!json_.is_object() || !json_.contains("model")) fail("is not a tokenizer.json");
    parse_model(json_["model"]);
    if (json_.contains("added_tokens")) parse_added(json_["added_tokens"]);
    if (json_.contains("normalizer")) parse_normalizer(json_["normalizer"]);
    parse_pre_tokenizer(json_.value("pre_tokenizer", Json()));
    if (!has_byte_level_)
      fail("its pre-tokenizer is not ByteLevel, the only one whose vocabulary is implemented here");
    parse_decoder(json_.value("decoder", Json()));
    parse_post_processor(json_.value("post_processor", Json()));
    return std::move(file_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::data, what, where_,
                "use a byte-level BPE tokenizer.json, or the SentencePiece model of the same tokenizer");
  }
  [[noreturn]] void refuse(const char* part, const Json& what) const {
    fail(fmt::format("its {} is {}, which is not implemented", part, json_beginning(what, 80)));
  }
  static std::string type_of(const Json& part) {
    return part.is_object() && part.contains("type") && part["type"].is_string()
               ? part["type"].get<std::string>()
               : std::string();
  }
  static bool is_set(const Json& object, const char* key) {
    if (!object.contains(key)) return false;
    const Json& value = object[key];
    return !value.is_null() && value != false && value != 0 &&
           !(value.is_string() && value.get<std::string>().empty());
  }
  static std::string text(const Json& object, const char* key) {
    return object.is_object() && object.contains(key) && object[key].is_string()
               ? object[key].get<std::string>()
               : std::string();
  }
  std::int32_t token_id(const Json& value, const std::string& token) const {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() >= kMostTokenIds)
      fail(fmt::format("the id of `{}` is not a number below {}", token, kMostTokenIds));
    return value.get<std::int32_t>();
  }

  /// The parts of a Sequence, or the one part that stands there; none for null.
  std::vector<Json> parts_of(const char* what, const Json& part, const char* list) const {
    if (part.is_null()) return {};
    if (type_of(part) != "Sequence") return {part};
    if (!part.contains(list) || !part[list].is_array()) refuse(what, part);
    return {part[list].begin(), part[list].end()};
  }

  void parse_model(const Json& model) {
    if (const std::string type = type_of(model); type != "BPE" && !(type.empty() && model.contains("merges")))
      fail(fmt::format("its model is `{}`, not BPE", type));
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"})
      if (is_set(model, key)) fail(fmt::format("its model sets `{}`, which is not implemented", key));
    if (!model.contains("vocab") || !model["vocab"].is_object() || !model.contains("merges") ||
        !model["merges"].is_array())
      fail("its model has no `vocab` or no `merges`");
    file_.prefers_whole_words = is_set(model, "ignore_merges");
    for (const auto& [token, id] : model["vocab"].items()) {
      put(token, token_id(id, token), false);
      ids_.emplace(token, id.get<std::int32_t>());
    }
    for (const Json& merge : model["merges"]) parse_merge(merge);
  }

  void put(const std::string& token, std::int32_t id, bool is_added) {
    const auto index = static_cast<std::size_t>(id);
    if (token.empty()) fail(fmt::format("token {} is empty", id));
    if (index >= file_.tokens.size()) {
      file_.tokens.resize(index + 1);
      file_.is_added.resize(index + 1);
    }
    if (!file_.tokens[index].empty() && file_.tokens[index] != token)
      fail(fmt::format("id {} is that of `{}` and of `{}`", id, file_.tokens[index], token));
    file_.tokens[index] = token;
    file_.is_added[index] = is_added;
  }

  /// "left right", or ["left", "right"].
  void parse_merge(const Json& merge) {
    std::string left, right;
    if (merge.is_string()) {
      const auto& both = merge.get_ref<const std::string&>();
      const std::size_t space = std::min(both.find(' '), both.size());
      left = both.substr(0, space);
      right = both.substr(std::min(space + 1, both.size()));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else {
      fail(fmt::format("merge {} is not a pair of tokens", file_.merges.size()));
    }
    const auto a = ids_.find(left), b = ids_.find(right), both = ids_.find(left + right);
    if (a == ids_.end() || b == ids_.end() || both == ids_.end())
      fail(fmt::format("merge {}, of `{}` and `{}`, speaks of a token that is not in the vocabulary",
                       file_.merges.size(), left, right));
    file_.merges.push_back({a->second, b->second, both->second});
  }

  void parse_added(const Json& list) {
    if (list.is_null()) return;
    if (!list.is_array()) fail("`added_tokens` is not a list");
    for (const Json& token : list) {
      const std::string content = text(token, "content");
      if (content.empty() || !token.contains("id")) fail("an added token has no content or no id");
      for (const char* key : {"single_word", "lstrip", "rstrip"})
        if (is_set(token, key))
          fail(fmt::format("the added token `{}` sets `{}`, which is not implemented", content, key));
      AddedToken added{.id = token_id(token["id"], content),
                       .content = content,
                       .is_normalized = is_set(token, "normalized")};
      put(content, added.id, true);
      file_.added.push_back(std::move(added));
    }
  }

  void parse_normalizer(const Json& normalizer) {
    for (const Json& part : parts_of("normalizer", normalizer, "normalizers")) {
      const std::string type = type_of(part);
      if (type != "NFC" && type != "NFD" && type != "NFKC" && type != "NFKD") refuse("normalizer", part);
      file_.normal_forms.push_back(type);
    }
  }

  void parse_pre_tokenizer(const Json& pre_tokenizer) {
    for (const Json& part : parts_of("pre-tokenizer", pre_tokenizer, "pretokenizers")) {
      // Behind ByteLevel a text is no longer what it was, so other expressions would have to be.
      if (has_byte_level_) refuse("pre-tokenizer", pre_tokenizer);
      const std::string type = type_of(part);
      if (type == "ByteLevel") {
        has_byte_level_ = true;
        file_.adds_prefix_space = part.value("add_prefix_space", Json(true)) == true;
        if (file_.adds_prefix_space && !file_.patterns.empty()) refuse("pre-tokenizer", pre_tokenizer);
        if (part.value("use_regex", Json(true)) == true) file_.patterns.emplace_back(SplitPattern::kGpt2);
      } else if (type == "Digits") {
        file_.patterns.emplace_back(is_set(part, "individual_digits") ? "\\p{N}" : "\\p{N}+");
      } else if (type == "Split") {
        parse_split(part);
      } else {
        refuse("pre-tokenizer", part);
      }
    }
  }

  void parse_split(const Json& part) {
    const Json pattern = part.value("pattern", Json());
    const std::string expression = text(pattern, "Regex"), plain = text(pattern, "String");
    if (text(part, "behavior") != "Isolated" || is_set(part, "invert") || expression.empty() == plain.empty())
      refuse("pre-tokenizer", part);
    if (plain.find("\\E") != std::string::npos) refuse("pre-tokenizer", part);
    file_.patterns.push_back(plain.empty() ? expression : "\\Q" + plain + "\\E");
  }

  void parse_decoder(const Json& decoder) const {
    for (const Json& part : parts_of("decoder", decoder, "decoders"))
      if (type_of(part) != "ByteLevel") refuse("decoder", part);
  }

  /// ByteLevel changes offsets only. A template may put a token before the text.
  void parse_post_processor(const Json& post_processor) {
    for (const Json& part : parts_of("post-processor", post_processor, "processors")) {
      const std::string type = type_of(part);
      if (type == "ByteLevel") continue;
      if (type != "TemplateProcessing" || !part.contains("single") || !part["single"].is_array() ||
          part["single"].empty())
        refuse("post-processor", part);
      const Json& first = part["single"].front();
      if (first.is_object() && first.contains("SpecialToken"))
        file_.begin = text(first["SpecialToken"], "id");
    }
  }

  const Json& json_;
  std::string where_;
  BytePairFile file_;
  std::unordered_map<std::string, std::int32_t> ids_;
  bool has_byte_level_ = false;
};

}  // namespace

BytePairFile parse_byte_pair_file(const std::string& text, const std::string& where) {
  // Values are copied and printed by recursion, so a file made to be deep would overflow the stack.
  const auto check_depth = [&](int depth, Json::parse_event_t, const Json&) {
    if (depth > kMostLevels)
      throw Error(ErrorKind::data, fmt::format("is nested more than {} levels deep", kMostLevels), where,
                  "copy the tokenizer again");
    return true;
  };
  const Json json = Json::parse(text, check_depth, false);
  if (json.is_discarded())
    throw Error(ErrorKind::data, "is not valid JSON", where, "copy the tokenizer again");
  return Parser(json, where).parse();
}

}  // namespace bireme
