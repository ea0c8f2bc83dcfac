#include "core/text/sentencepiece_model.h"

#include <cstdint>

namespace bireme {

namespace {

/// Walks the fields of one protocol-buffer message (Protocol Buffers documentation, "Encoding"). Stops at
/// anything malformed.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  bool next() {
    std::uint64_t tag;
    if (!varint(tag)) return false;
    number = static_cast<int>(tag >> 3);
    value = 0;
    bytes = {};
    switch (tag & 7) {
      case 0: return varint(value);
      case 1: return skip(8);
      case 2: {
        std::uint64_t length;
        if (!varint(length) || length > rest_.size()) return false;
        bytes = rest_.substr(0, length);
        return skip(length);
      }
      case 5: return skip(4);
      default: return false;
    }
  }

  int number = 0;
  std::uint64_t value = 0;
  std::string_view bytes;

 private:
  bool varint(std::uint64_t& into) {
    into = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      into |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool skip(std::uint64_t count) {
    if (count > rest_.size()) return false;
    rest_.remove_prefix(count);
    return true;
  }

  std::string_view rest_;
};

}  // namespace

// Field numbers as in sentencepiece_model.proto.
SentencePieceNormalizer read_sentencepiece_normalizer(std::string_view model) {
  SentencePieceNormalizer result;
  for (Fields field(model); field.next();) {
    if (field.number == 2) {  // trainer_spec
      for (Fields trainer(field.bytes); trainer.next();) {
        if (trainer.number == 3) result.is_byte_pair = trainer.value == 2;
        if (trainer.number == 24) result.has_space_at_end = trainer.value != 0;
      }
    } else if (field.number == 3) {  // normalizer_spec
      for (Fields normalizer(field.bytes); normalizer.next();) {
        if (normalizer.number == 1) result.name = std::string(normalizer.bytes);
        if (normalizer.number == 3) result.adds_dummy_prefix = normalizer.value != 0;
        if (normalizer.number == 4) result.removes_extra_whitespace = normalizer.value != 0;
        if (normalizer.number == 5) result.escapes_whitespace = normalizer.value != 0;
        if (normalizer.number == 6) result.has_own_rules = !normalizer.bytes.empty();
      }
    }
  }
  return result;
}

}  // namespace bireme
