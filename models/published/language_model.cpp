#include "models/published/language_model.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/files.h"
#include "models/published/llama.h"
#include "models/published/rwkv.h"
#include "models/published/xlstm.h"
#include "models/registry.h"

namespace bireme {

namespace {

class LlamaFolder final : public PublishedLanguageModel {
 public:
  LlamaFolder(PublishedLlama published, std::unique_ptr<Llama> model)
      : published_(std::move(published)), model_(std::move(model)) {}

  Llama& model() override { return *model_; }
  const Llama& model() const override { return *model_; }
  void build(Memory& memory, const ParameterSet::BuildOptions& options) override {
    model_->build(memory, options);
  }
  std::vector<PublishedTensor> tensors() const override { return llama_tensors(model_->options()); }
  std::vector<Document> documents(DType type) const override { return llama_documents(published_, type); }
  void import(const std::filesystem::path& folder) override { import_llama(folder, *model_); }
  std::vector<std::int32_t> end_tokens() const override {
    return {published_.end_tokens.begin(), published_.end_tokens.end()};
  }

 private:
  PublishedLlama published_;
  std::unique_ptr<Llama> model_;
};

PublishedLlama published_llama(const LanguageModelSettings& s) {
  PublishedLlama published{.options = {.vocabulary = s.vocabulary,
                                       .channels = s.channels,
                                       .hidden = s.hidden,
                                       .layers = s.layers,
                                       .heads = s.heads,
                                       .kv_heads = s.kv_heads,
                                       .head_dim = s.head_dim,
                                       .tie_embeddings = s.tie_embeddings,
                                       .context = s.context},
                           .begin_token = s.begin_token,
                           .end_tokens = {}};
  published.options.rotary.theta = s.rope_theta;
  if (s.end_token >= 0) published.end_tokens = {s.end_token};
  return published;
}

class RwkvFolder final : public PublishedLanguageModel {
 public:
  RwkvFolder(PublishedRwkv published, std::unique_ptr<Rwkv> model)
      : published_(std::move(published)), model_(std::move(model)) {}

  Rwkv& model() override { return *model_; }
  const Rwkv& model() const override { return *model_; }
  void build(Memory& memory, const ParameterSet::BuildOptions& options) override {
    model_->build(memory, options);
  }
  std::vector<PublishedTensor> tensors() const override { return rwkv_tensors(model_->options()); }
  std::vector<Document> documents(DType type) const override {
    return {{"config.json", rwkv_config(published_, type)}};
  }
  void import(const std::filesystem::path& folder) override {
    import_rwkv(folder, read_rwkv(folder), model_->parameters());
  }
  std::vector<std::int32_t> end_tokens() const override {
    return {static_cast<std::int32_t>(published_.end_token)};
  }

 private:
  PublishedRwkv published_;
  std::unique_ptr<Rwkv> model_;
};

PublishedRwkv published_rwkv(const LanguageModelSettings& s) {
  const std::int32_t end = std::max(0, s.end_token), begin = s.begin_token >= 0 ? s.begin_token : end;
  return {.options = {.vocabulary = s.vocabulary,
                      .channels = s.channels,
                      .layers = s.layers,
                      .attention_channels = s.attention_channels,
                      .hidden = s.hidden,
                      .context = s.context,
                      .tie_embeddings = s.tie_embeddings},
          .begin_token = begin,
          .end_token = end};
}

class XlstmFolder final : public PublishedLanguageModel {
 public:
  XlstmFolder(PublishedXlstm published, std::unique_ptr<Xlstm> model)
      : published_(std::move(published)), model_(std::move(model)) {}

  Xlstm& model() override { return *model_; }
  const Xlstm& model() const override { return *model_; }
  void build(Memory& memory, const ParameterSet::BuildOptions& options) override {
    model_->build(memory, options);
  }
  std::vector<PublishedTensor> tensors() const override { return xlstm_tensors(*model_); }
  std::vector<Document> documents(DType type) const override { return xlstm_documents(published_, type); }
  void import(const std::filesystem::path& folder) override { import_xlstm(folder, *model_); }
  std::vector<std::int32_t> end_tokens() const override {
    if (published_.end_token < 0) return {};
    return {static_cast<std::int32_t>(published_.end_token)};
  }

 private:
  PublishedXlstm published_;
  std::unique_ptr<Xlstm> model_;
};

PublishedXlstm published_xlstm(const LanguageModelSettings& s) {
  using Memory = XlstmMemory;
  return {
      .options = {.architecture = s.variant == "large" ? XlstmArchitecture::large : XlstmArchitecture::paper,
                  .vocabulary = s.vocabulary,
                  .channels = s.channels,
                  .context = s.context,
                  .layers = s.layers,
                  .heads = s.heads,
                  .memory = s.memory == "learned"           ? Memory::learned
                            : s.memory == "learned_initial" ? Memory::learned_initial
                                                            : Memory::associative,
                  .tied = s.tie_embeddings,
                  .pattern = s.pattern,
                  .hidden_width = s.hidden},
      .begin_token = s.begin_token,
      .end_token = s.end_token};
}

/// A folder of this type with a model of these options.
template <class Folder, class Model, class Published>
std::unique_ptr<PublishedLanguageModel> make(Published published, Communicator& tensor) {
  auto model = std::make_unique<Model>(published.options, tensor);
  return std::make_unique<Folder>(std::move(published), std::move(model));
}

template <class Folder, class Loaded>
std::unique_ptr<PublishedLanguageModel> take(Loaded loaded) {
  return std::make_unique<Folder>(std::move(loaded.published), std::move(loaded.model));
}

}  // namespace

std::unique_ptr<PublishedLanguageModel> make_language_model(const LanguageModelSettings& settings,
                                                            Communicator& tensor) {
  if (settings.type == "rwkv") return make<RwkvFolder, Rwkv>(published_rwkv(settings), tensor);
  if (settings.type == "xlstm") return make<XlstmFolder, Xlstm>(published_xlstm(settings), tensor);
  if (settings.type == "llama") return make<LlamaFolder, Llama>(published_llama(settings), tensor);
  throw Error(ErrorKind::usage, fmt::format("`{}` is no language model", settings.type), "model.type",
              "choose rwkv, xlstm or llama");
}

std::unique_ptr<PublishedLanguageModel> open_language_model(const std::filesystem::path& folder,
                                                            Memory& memory, Communicator& tensor,
                                                            const ParameterSet::BuildOptions& build) {
  const std::string_view type = model_type_of(folder).name;
  if (type == "rwkv") return take<RwkvFolder>(load_rwkv(folder, memory, tensor, build));
  if (type == "xlstm") return take<XlstmFolder>(load_xlstm(folder, memory, tensor, build));
  if (type == "llama") return take<LlamaFolder>(load_llama(folder, memory, tensor, build));
  throw Error(ErrorKind::checkpoint, fmt::format("the folder holds a {}, which is no language model", type),
              folder.string(), "give a folder of a language model");
}

void export_language_model(const std::filesystem::path& folder, const PublishedLanguageModel& published,
                           const std::vector<Document>& beside, const ExportOptions& options) {
  StagedFolder staged(folder);
  std::vector<Document> documents = published.documents(options.type);
  documents.insert(documents.end(), beside.begin(), beside.end());
  for (const Document& document : documents) {
    OutputFile file(staged.path() / document.name);
    file.write(document.text);
    file.finish();
  }
  export_tensors(staged.path(), "model", published.tensors(), published.model().parameters(), options);
  staged.commit();
}

}  // namespace bireme
