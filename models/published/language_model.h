#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/language_model.h"
#include "models/published/published_tensor.h"

namespace bireme {

/// What any language model can be told; each takes what it knows.
struct LanguageModelSettings {
  std::string type;  ///< rwkv, xlstm, llama
  std::int64_t vocabulary = 0;
  std::int64_t channels = 256;
  int layers = 6;
  int heads = 4;
  int kv_heads = 0;                     ///< 0: as heads
  std::int64_t head_dim = 0;            ///< 0: channels / heads
  std::int64_t hidden = 0;              ///< 0: the model's own rule
  std::int64_t attention_channels = 0;  ///< 0: channels
  std::int64_t context = 0;
  double rope_theta = 10000;
  bool tie_embeddings = false;
  std::string variant = "paper", pattern = "m", memory = "associative";
  std::int32_t begin_token = -1, end_token = -1;  ///< -1: none
};

/// A language model together with the form in which it is published: one for each type, made by
/// make_language_model and open_language_model.
class PublishedLanguageModel {
 public:
  virtual ~PublishedLanguageModel() = default;

  virtual LanguageModel& model() = 0;
  virtual const LanguageModel& model() const = 0;
  /// Allocates the parameters. Values are not set: initialize, import or load next.
  virtual void build(Memory& memory, const ParameterSet::BuildOptions& options) = 0;
  /// The tensors of model.safetensors.
  virtual std::vector<PublishedTensor> tensors() const = 0;
  /// config.json and what else stands beside the weights.
  virtual std::vector<Document> documents(DType type) const = 0;
  /// Fills the parameters from a folder of the same type and sizes. @throws Error (checkpoint)
  virtual void import(const std::filesystem::path& folder) = 0;
  /// The tokens that end a text, as the published configuration says.
  virtual std::vector<std::int32_t> end_tokens() const = 0;
};

/// @throws Error (usage) when a setting cannot be, or the tensor degree does not divide what it splits
std::unique_ptr<PublishedLanguageModel> make_language_model(const LanguageModelSettings& settings,
                                                            Communicator& tensor);

/// A model of the kind and sizes of a Hugging Face folder or checkpoint, not built yet: parameters can still
/// be added. Its weights come with build() and import(folder).
/// @throws Error (checkpoint) naming what the folder lacks, or that it holds no language model
std::unique_ptr<PublishedLanguageModel> describe_language_model(const std::filesystem::path& folder,
                                                                Communicator& tensor);

/// The model of a Hugging Face folder or checkpoint, with its weights.
/// @param build  types and buffers of the parameters
/// @throws Error (checkpoint) naming what the folder lacks, or that it holds no language model
std::unique_ptr<PublishedLanguageModel> open_language_model(const std::filesystem::path& folder,
                                                            Memory& memory, Communicator& tensor,
                                                            const ParameterSet::BuildOptions& build = {
                                                                .gradients = false});

/// Writes a folder as a whole, of a model that is not split over ranks: it appears under its name when all of
/// it is on the disk.
/// @param beside  further files, such as a tokenizer's
/// @throws Error (checkpoint)
void export_language_model(const std::filesystem::path& folder, const PublishedLanguageModel& published,
                           const std::vector<Document>& beside, const ExportOptions& options);

}  // namespace bireme
