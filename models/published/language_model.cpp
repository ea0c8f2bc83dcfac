#include "models/published/language_model.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"
#include "models/published/llama.h"
#include "models/published/rwkv.h"
#include "models/published/xlstm.h"
#include "models/registry.h"

namespace bireme {

namespace {

// What the folders of one kind of model are made of, all in functions of the same names.

struct LlamaFolder {
  using Model = Llama;
  using Published = PublishedLlama;
  static PublishedLlama read(const std::filesystem::path& folder) { return describe_llama(folder); }
  static void import(const std::filesystem::path& folder, Llama& model) { import_llama(folder, model); }
  static std::vector<PublishedTensor> tensors(const Llama& model) { return llama_tensors(model.options()); }
  static std::vector<Document> documents(const PublishedLlama& published, DType type) {
    return llama_documents(published, type);
  }
  static std::vector<std::int64_t> end_tokens(const PublishedLlama& published) {
    return published.end_tokens;
  }
};

struct RwkvFolder {
  using Model = Rwkv;
  using Published = PublishedRwkv;
  static PublishedRwkv read(const std::filesystem::path& folder) { return read_rwkv(folder); }
  static void import(const std::filesystem::path& folder, Rwkv& model) { import_rwkv(folder, model); }
  static std::vector<PublishedTensor> tensors(const Rwkv& model) { return rwkv_tensors(model.options()); }
  static std::vector<Document> documents(const PublishedRwkv& published, DType type) {
    return rwkv_documents(published, type);
  }
  static std::vector<std::int64_t> end_tokens(const PublishedRwkv& published) {
    return {published.end_token};
  }
};

struct XlstmFolder {
  using Model = Xlstm;
  using Published = PublishedXlstm;
  static PublishedXlstm read(const std::filesystem::path& folder) { return read_xlstm(folder); }
  static void import(const std::filesystem::path& folder, Xlstm& model) { import_xlstm(folder, model); }
  static std::vector<PublishedTensor> tensors(const Xlstm& model) { return xlstm_tensors(model); }
  static std::vector<Document> documents(const PublishedXlstm& published, DType type) {
    return xlstm_documents(published, type);
  }
  static std::vector<std::int64_t> end_tokens(const PublishedXlstm& published) {
    return published.end_token < 0 ? std::vector<std::int64_t>{} : std::vector{published.end_token};
  }
};

template <class Folder>
class PublishedAs final : public PublishedLanguageModel {
 public:
  using Model = typename Folder::Model;
  using Published = typename Folder::Published;

  PublishedAs(Published published, std::unique_ptr<Model> model)
      : published_(std::move(published)), model_(std::move(model)) {}

  Model& model() override { return *model_; }
  const Model& model() const override { return *model_; }
  void build(Memory& memory, const ParameterSet::BuildOptions& options) override {
    model_->build(memory, options);
  }
  std::vector<PublishedTensor> tensors() const override { return Folder::tensors(*model_); }
  std::vector<Document> documents(DType type) const override { return Folder::documents(published_, type); }
  void import(const std::filesystem::path& folder) override { Folder::import(folder, *model_); }
  std::vector<std::int32_t> end_tokens() const override {
    const std::vector<std::int64_t> tokens = Folder::end_tokens(published_);
    return {tokens.begin(), tokens.end()};
  }

 private:
  Published published_;
  std::unique_ptr<Model> model_;
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

/// A model of these settings, not built.
template <class Folder>
std::unique_ptr<PublishedLanguageModel> make(typename Folder::Published published, Communicator& tensor) {
  auto model = std::make_unique<typename Folder::Model>(published.options, tensor);
  return std::make_unique<PublishedAs<Folder>>(std::move(published), std::move(model));
}

}  // namespace

std::unique_ptr<PublishedLanguageModel> make_language_model(const LanguageModelSettings& settings,
                                                            Communicator& tensor) {
  if (settings.type == "rwkv") return make<RwkvFolder>(published_rwkv(settings), tensor);
  if (settings.type == "xlstm") return make<XlstmFolder>(published_xlstm(settings), tensor);
  if (settings.type == "llama") return make<LlamaFolder>(published_llama(settings), tensor);
  throw Error(ErrorKind::usage, fmt::format("`{}` is no language model", settings.type), "model.type",
              "choose rwkv, xlstm or llama");
}

std::unique_ptr<PublishedLanguageModel> describe_language_model(const std::filesystem::path& folder,
                                                                Communicator& tensor) {
  const std::string_view type = model_type_of(folder).name;
  if (type == "rwkv") return make<RwkvFolder>(RwkvFolder::read(folder), tensor);
  if (type == "xlstm") return make<XlstmFolder>(XlstmFolder::read(folder), tensor);
  if (type == "llama") return make<LlamaFolder>(LlamaFolder::read(folder), tensor);
  throw Error(ErrorKind::checkpoint, fmt::format("the folder holds a {}, which is no language model", type),
              folder.string(), "give a folder of a language model");
}

std::unique_ptr<PublishedLanguageModel> open_language_model(const std::filesystem::path& folder,
                                                            Memory& memory, Communicator& tensor,
                                                            const ParameterSet::BuildOptions& build) {
  std::unique_ptr<PublishedLanguageModel> published = describe_language_model(folder, tensor);
  published->build(memory, build);
  published->import(folder);
  return published;
}

void export_language_model(const std::filesystem::path& folder, const PublishedLanguageModel& published,
                           const std::vector<Document>& beside, const ExportOptions& options) {
  std::vector<Document> documents = published.documents(options.type);
  documents.insert(documents.end(), beside.begin(), beside.end());
  export_folder(folder,
                {.documents = std::move(documents),
                 .tensors = published.tensors(),
                 .parameters = published.model().parameters()},
                options);
}

}  // namespace bireme
