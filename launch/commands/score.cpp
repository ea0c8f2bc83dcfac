#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/io/hdf5.h"
#include "launch/language_session.h"
#include "launch/progress.h"

namespace bireme {

namespace {

/// The dataset `tokens` [B, T], or [T] as one sequence.
Tensor read_tokens(const std::filesystem::path& path, const LanguageSession& session) {
  const Hdf5Reader file(path);
  const Tensor stored = file.read("tokens", session.backend().memory());
  const int rank = stored.shape().rank();
  const bool is_integer =
      stored.dtype() == DType::i32 || stored.dtype() == DType::i64 || stored.dtype() == DType::u8;
  if (!is_integer || rank < 1 || rank > 2 || stored.elements() == 0)
    throw Error(ErrorKind::data,
                fmt::format("`tokens` is {} of {}", to_string(stored.shape()), to_string(stored.dtype())),
                path.string(), "give integers of shape [sequences, length]");
  const Shape shape = rank == 1 ? Shape{1, stored.shape()[0]} : stored.shape();
  const Tensor tokens(session.backend().memory(), shape, DType::i32);
  for (std::int64_t i = 0; i < stored.elements(); ++i) {
    const std::int64_t token = stored.dtype() == DType::i64   ? stored.data<std::int64_t>()[i]
                               : stored.dtype() == DType::i32 ? stored.data<std::int32_t>()[i]
                                                              : stored.data<std::uint8_t>()[i];
    if (token < 0 || token >= session.model().vocabulary())
      throw Error(
          ErrorKind::data,
          fmt::format("token {} at {} is not among the model's {}", token, i, session.model().vocabulary()),
          path.string(), "use the tokenizer that the model was trained with");
    tokens.data<std::int32_t>()[i] = static_cast<std::int32_t>(token);
  }
  return tokens;
}

/// What the position before each token has to predict: [1, T], -1 after the last.
Tensor next_tokens(const Tensor& row, Memory& memory) {
  const Tensor targets(memory, row.shape(), DType::i32);
  const auto from = row.values<std::int32_t>();
  std::copy(from.begin() + 1, from.end(), targets.data<std::int32_t>());
  targets.data<std::int32_t>()[row.elements() - 1] = -1;
  return targets;
}

}  // namespace

int run_score(Arguments arguments) {
  Options options("bireme score", "computes what a language model says of given tokens");
  LanguageSession::declare(options)
      .required("tokens", "FILE.h5", "dataset `tokens` [B, T] of integers")
      .required("output", "OUT.h5",
                "receives logits [B, T, V] and log_probabilities [B, T - 1] of each next token")
      .flag("no-logits", "leave the logits out, which are large")
      .example("bireme score --model runs/bible --tokens tokens.h5 --output scores.h5")
      .example(
          "bireme score --model models/llama --tokens tokens.h5 --output scores.h5 --precision bf16 "
          "--no-logits");
  if (!options.parse(arguments)) return 0;
  return run_job([&](Communicator& world) {
    LanguageSession::require_one_rank(world, "bireme score");
    const LanguageSession session(options, world);
    const Tensor tokens = read_tokens(options.path("tokens"), session);
    const std::int64_t sequences = tokens.shape()[0], length = tokens.shape()[1],
                       vocabulary = session.model().vocabulary();
    Memory& memory = session.backend().memory();
    Hdf5Writer file(options.path("output"));
    const bool wants_logits = !options.flag("no-logits");
    if (wants_logits) file.create("logits", DType::f32, {sequences, length, vocabulary}, 1);
    const Tensor scores(memory, {sequences, std::max<std::int64_t>(length - 1, 0)}, DType::f32);
    Progress progress(terminal_progress("sequence", sequences, 0, 0));
    for (std::int64_t s = 0; s < sequences; ++s) {
      const Tensor row = tokens.slice(s, s + 1);
      Tape tape(session.backend(), Tape::Mode::inference);
      const Var hidden = session.model().hidden(tape, {row, {}}, {.type = session.type()});
      const VocabularyHead& head = session.model().head();
      const TokenLoss loss = head.loss(tape, hidden, next_tokens(row, memory), {});
      std::copy_n(loss.log_probability.data<float>(), length - 1, scores.data<float>() + s * (length - 1));
      if (wants_logits)
        file.write("logits", s,
                   head.logits(session.backend(), hidden.value()).reshape({1, length, vocabulary}));
      progress.update(s + 1);
    }
    file.write("log_probabilities", scores);
    file.close();
    double sum = 0;
    for (const float p : scores.values<float>()) sum += p;
    fmt::print("{} sequences of {} tokens in {}: mean log-probability {:.4f}\n", sequences, length,
               options.text("output"),
               sum / static_cast<double>(std::max<std::int64_t>(1, scores.elements())));
    return 0;
  });
}

}  // namespace bireme
