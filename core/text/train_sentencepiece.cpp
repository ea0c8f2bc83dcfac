#include "core/text/train_sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#include <spdlog/fmt/fmt.h>

#include <exception>
#include <unordered_map>

#include "core/base/error.h"

namespace bireme {

namespace {

// The trainer leaves longer sentences out.
constexpr std::size_t kMaxSentenceBytes = 4096;

/// Gives the trainer the lines of the texts, long ones in parts.
class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::function<std::optional<std::string>()>& next) : next_(next) { advance(); }

  bool done() const override { return is_done_; }
  void Next() override { advance(); }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }

  /// What reading threw, since the trainer is not to be thrown through.
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void advance() {
    try {
      do {
        while (position_ >= text_.size()) {
          std::optional<std::string> text = next_();
          if (!text) {
            is_done_ = true;
            return;
          }
          text_ = std::move(*text);
          position_ = 0;
        }
        take_sentence();
      } while (sentence_.empty());
    } catch (...) {
      failure_ = std::current_exception();
      is_done_ = true;
    }
  }

  /// Up to the end of the line, or as much of it as fits, cut before a space or at least between characters.
  void take_sentence() {
    const std::size_t feed = std::min(text_.find('\n', position_), text_.size());
    std::size_t end = feed;
    if (end - position_ > kMaxSentenceBytes) {
      end = position_ + kMaxSentenceBytes;
      const std::size_t space = text_.rfind(' ', end);
      if (space != std::string::npos && space > position_) {
        end = space;
      } else {
        while ((static_cast<unsigned char>(text_[end]) & 0xC0) == 0x80) --end;
      }
    }
    sentence_ = text_.substr(position_, end - position_);
    position_ = end == feed ? feed + 1 : end;
  }

  const std::function<std::optional<std::string>()>& next_;
  std::string text_, sentence_;
  std::size_t position_ = 0;
  bool is_done_ = false;
  std::exception_ptr failure_;
};

/// The library's message without the place in its source and the condition before it.
std::string plain_message(const std::string& message) {
  const std::size_t end = message.rfind("] ");
  return end == std::string::npos ? message : message.substr(end + 2);
}

}  // namespace

std::string train_sentencepiece(const TrainSentencePieceOptions& options,
                                const std::function<std::optional<std::string>()>& next) {
  Sentences sentences(next);
  sentences.rethrow();
  if (sentences.done())
    throw Error(ErrorKind::data, "there is no text to learn from", "tokenizer train",
                "give text files that are not empty");
  const std::unordered_map<std::string, std::string> settings{
      {"model_type", options.type},
      {"vocab_size", std::to_string(options.vocabulary)},
      {"num_threads", std::to_string(options.threads)},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"max_sentence_length", std::to_string(2 * kMaxSentenceBytes)},
      {"minloglevel", "3"},
  };
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &sentences, &model);
  sentences.rethrow();
  if (!status.ok())
    throw Error(
        ErrorKind::usage,
        fmt::format("SentencePiece cannot learn {} pieces: {}", options.vocabulary,
                    plain_message(status.message())),
        "--vocab-size",
        "choose a number between the characters of the text and its different words, or give more text");
  return model;
}

}  // namespace bireme
