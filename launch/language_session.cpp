#include "launch/language_session.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "launch/model_folder.h"

namespace bireme {

namespace {

Configuration configuration_of(const Options& options, const Communicator& world) {
  Configuration configuration;
  configuration.precision.type = options.choice("precision", {"fp32", "bf16"});
  if (options.has("tensor")) configuration.parallel.tensor = options.integer("tensor", 1, 1024);
  if (world.size() % configuration.parallel.tensor != 0)
    throw Error(ErrorKind::usage,
                fmt::format("--tensor is {}, which does not divide {} ranks", configuration.parallel.tensor,
                            world.size()),
                "the command line", "start as many ranks as --tensor says, or a multiple");
  return configuration;
}

}  // namespace

Options& LanguageSession::declare(Options& options) {
  return options.required("model", "M", "checkpoint, run or Hugging Face folder of a language model")
      .value("precision", "TYPE", "of the matrix products: fp32 or bf16", "fp32")
      .value("tokenizer", "T",
             "`byte`, a .model, a tokenizer.json or an RWKV vocabulary; without it, that of M");
}

Options& LanguageSession::declare_with_tensor(Options& options) {
  return declare(options).value("tensor", "N",
                                "ranks that share the model, for one that is too large for each (default 1)");
}

LanguageSession::LanguageSession(const Options& options, Communicator& world)
    : folder_(resolve_model_folder(options.path("model"), world).string()),
      context_(make_context(configuration_of(options, world), world)),
      published_(open_language_model(folder_, context_.backend->memory(), context_.mesh->tensor(),
                                     {.gradients = false, .bf16_copy = context_.type == DType::bf16})) {
  if (options.has("tokenizer")) {
    tokenizer_ = open_tokenizer(options.text("tokenizer"));
  } else if (holds_tokenizer(folder_)) {
    tokenizer_ = open_tokenizer(folder_);
  }
}

void LanguageSession::require_one_rank(const Communicator& world, const std::string& command) {
  if (world.size() == 1) return;
  throw Error(ErrorKind::usage, fmt::format("{} ranks were started", world.size()), command,
              "one does this work: leave out mpirun");
}

const Tokenizer& LanguageSession::tokenizer() const {
  if (!tokenizer_)
    throw Error(ErrorKind::usage, "the model's folder holds no tokenizer", folder_,
                "name one with --tokenizer (`byte`, a .model, a tokenizer.json or an RWKV vocabulary)");
  require_vocabulary(tokenizer_->vocabulary(), folder_);
  return *tokenizer_;
}

void LanguageSession::require_vocabulary(std::int64_t vocabulary, const std::string& where) const {
  if (vocabulary <= model().vocabulary()) return;
  throw Error(
      ErrorKind::data,
      fmt::format("the tokens have {} kinds, but the model knows {}", vocabulary, model().vocabulary()),
      where, "use the tokenizer and the text that the model was trained with");
}

}  // namespace bireme
