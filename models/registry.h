#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace bireme {

/// A kind of network, under the names by which users and folders know it.
struct ModelType {
  std::string_view name;       ///< model.type
  std::string_view published;  ///< `model_type` in a published folder's config.json
  std::string_view summary;    ///< for help texts
  std::string_view also = {};  ///< another `model_type` of the same kind of network
};

/// All that this program has.
std::span<const ModelType> model_types();

/// @throws Error (usage) with the nearest name when there is no such type
const ModelType& model_type(const std::string& name);

/// What kind of network a published folder or checkpoint holds.
/// @throws Error (checkpoint) when config.json is missing or names a kind that is not here
const ModelType& model_type_of(const std::filesystem::path& folder);

}  // namespace bireme
