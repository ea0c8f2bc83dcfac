#include "models/registry.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <vector>

#include "core/base/error.h"
#include "models/published/json_file.h"

namespace bireme {

namespace {

constexpr std::array kTypes = {
    ModelType{.name = "vit",
              .published = "vit",
              .summary = "vision transformer, trained by self-distillation (DINO)"},
    ModelType{.name = "rwkv", .published = "rwkv", .summary = "RWKV-4, a recurrent language model"},
    ModelType{.name = "xlstm",
              .published = "xlstm",
              .summary = "xLSTM, a recurrent language model",
              .also = "xlstm_paper"},
    ModelType{.name = "llama", .published = "llama", .summary = "LLaMA-style decoder, a language model"},
};

std::vector<std::string> known_names() {
  std::vector<std::string> names;
  names.reserve(kTypes.size());
  for (const ModelType& type : kTypes) names.emplace_back(type.name);
  return names;
}

}  // namespace

std::span<const ModelType> model_types() { return kTypes; }

const ModelType& model_type(const std::string& name) {
  for (const ModelType& type : kTypes)
    if (type.name == name) return type;
  const std::string nearest = nearest_name(name, known_names());
  throw Error(ErrorKind::usage, fmt::format("there is no model of the type `{}`", name), "model.type",
              nearest.empty() ? fmt::format("choose one of: {}", fmt::join(known_names(), ", "))
                              : fmt::format("did you mean `{}`?", nearest));
}

const ModelType& model_type_of(const std::filesystem::path& folder) {
  const JsonFile config(folder / "config.json");
  const std::string published = config.text("model_type");
  for (const ModelType& type : kTypes)
    if (type.published == published || (!published.empty() && type.also == published)) return type;
  config.fail(fmt::format("`model_type` is `{}`", published),
              fmt::format("this program knows: {}", fmt::join(known_names(), ", ")));
}

}  // namespace bireme
