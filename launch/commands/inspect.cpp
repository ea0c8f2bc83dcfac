#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/data/answer_dataset.h"
#include "core/data/dataset.h"
#include "core/data/token_dataset.h"
#include "core/io/safetensors.h"
#include "distributed/checkpoint_reader.h"
#include "launch/commands.h"
#include "launch/model_folder.h"
#include "launch/options.h"
#include "launch/progress.h"
#include "launch/terminal.h"

namespace bireme {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// What a folder holds, for programs and for people. Damage does not hide the rest of the report.
struct Report {
  Json json;
  std::string text;
  std::vector<std::string> damage;
  ErrorKind damage_kind = ErrorKind::checkpoint;
};

template <class AnyDataset>
std::string text_of(const AnyDataset& dataset, bool /*is_damaged*/) {
  return describe(dataset);
}
/// A damaged shard or tokenizer cannot show its first record.
std::string text_of(const AnswerDataset& dataset, bool is_damaged) {
  return is_damaged ? fmt::format("dataset of {}\n", dataset.manifest().kind) : describe(dataset);
}

/// A dataset of any kind: what its manifest says, whether its shards are whole.
/// @param json  what is peculiar to the kind
template <class AnyDataset>
Report report_on(const AnyDataset& dataset, const Json& json) {
  Report report;
  {
    Progress bar(terminal_progress("shard", std::ssize(dataset.manifest().shards), 0, 0));
    report.damage = dataset.verify([&](std::int64_t done, std::int64_t) { bar.update(done); });
  }
  report.damage_kind = ErrorKind::data;
  report.text = text_of(dataset, !report.damage.empty());
  report.json = {{"kind", "dataset"}};
  report.json.update(json);
  report.json["records"] = dataset.manifest().records;
  report.json["split"] = dataset.manifest().split;
  report.json["shards"] = dataset.manifest().shards.size();
  report.json["fingerprint"] = dataset.fingerprint();
  return report;
}

Report inspect_tokens(const fs::path& folder) {
  const TokenDataset dataset = TokenDataset::open(folder);
  const TokenManifest& manifest = dataset.manifest();
  return report_on(dataset, {{"contents", manifest.kind},
                             {"tokens", manifest.tokens},
                             {"vocabulary", manifest.vocabulary},
                             {"document_end", manifest.document_end},
                             {"tokenizer", manifest.tokenizer_kind},
                             {"tokenizer_fingerprint", manifest.tokenizer_fingerprint}});
}

Report inspect_answers(const fs::path& folder) {
  const AnswerDataset dataset =
      AnswerDataset::open(folder, {AnswerKind::pairs, AnswerKind::feedback, AnswerKind::sft});
  const AnswerManifest& manifest = dataset.manifest();
  return report_on(dataset, {{"contents", manifest.kind},
                             {"tokens", manifest.tokens},
                             {"answer_tokens", manifest.answer_tokens},
                             {"part", manifest.part},
                             {"vocabulary", manifest.vocabulary},
                             {"end", manifest.end},
                             {"max_length", manifest.max_length},
                             {"truncation", to_string(manifest.truncation)},
                             {"chat_template", manifest.chat_template},
                             {"counts", manifest.counts},
                             {"likes", manifest.likes},
                             {"dislikes", manifest.dislikes},
                             {"scores", manifest.scores},
                             {"score_mean", manifest.score_mean},
                             {"score_deviation", manifest.score_deviation},
                             {"tokenizer", manifest.tokenizer_kind},
                             {"tokenizer_fingerprint", manifest.tokenizer_fingerprint}});
}

Report inspect_tokenizer(const fs::path& path) {
  const std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(path.string());
  const SpecialTokens& special = tokenizer->special();
  Report report;
  report.json = {{"kind", "tokenizer"},
                 {"tokenizer", tokenizer->kind()},
                 {"vocabulary", tokenizer->vocabulary()},
                 {"document_end", special.document_end},
                 {"begin", special.begin},
                 {"adds_begin", special.adds_begin},
                 {"fingerprint", tokenizer->fingerprint()}};
  const auto shown = [&](std::int32_t id) {
    return id < 0 ? std::string("none") : fmt::format("{} ({})", id, tokenizer->piece(id));
  };
  report.text = fmt::format("tokenizer of kind {}: {}\n", tokenizer->kind(), path.string());
  report.text += fmt::format("  vocabulary    {} ids\n", tokenizer->vocabulary());
  report.text += fmt::format("  document end  {}\n", shown(special.document_end));
  report.text += fmt::format("  begin         {}{}\n", shown(special.begin),
                             special.adds_begin ? ", put before each document" : "");
  report.text += fmt::format("  fingerprint   {}\n", tokenizer->fingerprint());
  return report;
}

Report inspect_dataset(const fs::path& folder) {
  const std::string manifest_text = read_file(folder / DatasetManifest::kFile, 64 << 20, ErrorKind::data);
  const std::string kind = parse_manifest_kind(manifest_text, (folder / DatasetManifest::kFile).string());
  if (kind == "tokens") return inspect_tokens(folder);
  if (kind == "pairs" || kind == "feedback" || kind == "sft") return inspect_answers(folder);
  const Dataset dataset = Dataset::open(folder);
  const ImageManifest& manifest = dataset.manifest();
  return report_on(dataset, {{"channels", manifest.channels},
                             {"width", manifest.width},
                             {"height", manifest.height},
                             {"classes", manifest.classes}});
}

struct Tally {
  std::int64_t tensors = 0, values = 0;
};

Tally tally_of(const TensorSource& source) {
  Tally tally;
  for (const std::string& name : source.names()) {
    ++tally.tensors;
    tally.values += source.entry(name).shape.elements();
  }
  return tally;
}

Report inspect_checkpoint(const fs::path& folder) {
  const CheckpointManifest manifest = CheckpointManifest::read(folder);
  Report report;
  report.text = fmt::format("checkpoint of step {}: {}\n", manifest.step, folder.string());
  report.json = {{"kind", "checkpoint"}, {"step", manifest.step}, {"files", Json::object()}};
  for (const auto& [name, file] : manifest.files) {
    std::string contents = readable_bytes(file.record.bytes);
    report.json["files"][name] = {{"bytes", file.record.bytes}};
    try {
      manifest.check_content(folder, name);
      if (name.ends_with(".safetensors")) {
        const Tally tally = tally_of(SafetensorsFile::open(folder / name));
        contents += fmt::format(", {} tensors of {} values", tally.tensors, tally.values);
        report.json["files"][name].update({{"tensors", tally.tensors}, {"values", tally.values}});
      }
    } catch (const Error& error) {
      contents += ", DAMAGED";
      report.damage.push_back(fmt::format("{}: {}", error.where(), error.problem()));
    }
    report.text += fmt::format("  {:<24} {}\n", name, contents);
  }
  return report;
}

Report inspect_published(const fs::path& folder) {
  const SafetensorsFolder source = SafetensorsFolder::open(folder);
  const Tally tally = tally_of(source);
  const nlohmann::json config = try_parse_json(read_file(folder / "config.json", 1 << 20));
  const bool is_named =
      config.is_object() && config.contains("model_type") && config["model_type"].is_string();
  const std::string type = is_named ? config["model_type"].get<std::string>() : "unknown";
  Report report;
  report.json = {{"kind", "published"},
                 {"model_type", type},
                 {"tensors", tally.tensors},
                 {"values", tally.values},
                 {"files", source.files().size()}};
  report.text = fmt::format(
      "model of type {} in the format of Hugging Face: {}\n  {} tensors of {} values in {} files; the format "
      "has no "
      "checksums, but all tensors lie within their files\n",
      type, folder.string(), tally.tensors, tally.values, source.files().size());
  return report;
}

Report inspect_run(const fs::path& folder) {
  Report report;
  report.text = fmt::format("run: {}\n", folder.string());
  report.json = {{"kind", "run"}, {"checkpoints", Json::array()}};
  std::vector<fs::path> checkpoints;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder / "checkpoints"))
    if (entry.path().filename().string().starts_with("step-")) checkpoints.push_back(entry.path());
  std::ranges::sort(checkpoints);
  if (checkpoints.empty()) report.text += "  no checkpoint yet\n";
  for (const fs::path& checkpoint : checkpoints) {
    try {
      Report one = inspect_checkpoint(checkpoint);
      report.text += one.text;
      report.json["checkpoints"].push_back(std::move(one.json));
      report.damage.insert(report.damage.end(), one.damage.begin(), one.damage.end());
    } catch (const Error& error) {
      report.damage.push_back(fmt::format("{}: {}", error.where(), error.problem()));
    }
  }
  return report;
}

Report inspect(const fs::path& path) {
  if (!fs::exists(path))
    throw Error(ErrorKind::data, "there is no such folder", path.string(),
                "give a dataset, checkpoint, run or Hugging Face folder, or a tokenizer");
  switch (folder_kind(path)) {
    case FolderKind::dataset: return inspect_dataset(path);
    case FolderKind::checkpoint: return inspect_checkpoint(path);
    case FolderKind::run: return inspect_run(path);
    case FolderKind::published: return inspect_published(path);
    case FolderKind::unknown: break;
  }
  if (holds_tokenizer(path)) return inspect_tokenizer(path);
  throw Error(ErrorKind::data, "nothing here that bireme knows", path.string(),
              "give a dataset, checkpoint, run or Hugging Face folder, or a tokenizer");
}

}  // namespace

int run_inspect(Arguments arguments) {
  Options options("bireme inspect",
                  "shows what a dataset, checkpoint, run, model folder or tokenizer holds, and whether its "
                  "checksums hold");
  options.positional("path", "PATH", "folder or tokenizer to read, every byte of it")
      .example("bireme inspect data/cifar-train")
      .example("bireme inspect runs/first/checkpoints/step-00002000 --json");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;

  Report report = inspect(options.path("path"));
  if (options.json()) {
    report.json["is_whole"] = report.damage.empty();
    report.json["damage"] = report.damage;
    fmt::print("{}\n", json_text(report.json));
  } else {
    fmt::print("{}{}", report.text, report.damage.empty() ? "whole: nothing is damaged or missing\n" : "");
  }
  if (report.damage.empty()) return 0;
  throw Error(report.damage_kind, fmt::format("damaged: {}", fmt::join(report.damage, "; ")),
              options.text("path"), "copy or make the damaged files again");
}

}  // namespace bireme
