#include "distributed/failure.h"

#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

namespace bireme {

namespace {

constexpr char kSeparator = '\0';

std::string encode(const Error& error) {
  std::string text = std::to_string(error.exit_code());
  for (const std::string& part : {error.problem(), error.where(), error.remedy()}) text += kSeparator + part;
  return text;
}

Error decode(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char character : text) {
    if (character == kSeparator && parts.size() < 4) {
      parts.emplace_back();
    } else {
      parts.back() += character;
    }
  }
  parts.resize(4);
  return {static_cast<ErrorKind>(std::stoi(parts[0])), parts[1], parts[2], parts[3]};
}

}  // namespace

std::optional<AgreedError> agree_on_error(Communicator& communicator, const std::optional<Error>& own) {
  const std::vector<std::string> errors = communicator.gather_text(own ? encode(*own) : "");
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const std::string& text = errors[static_cast<std::size_t>(rank)];
    if (!text.empty()) return AgreedError{.error = decode(text), .rank = rank};
  }
  return std::nullopt;
}

void abort_all(Communicator* communicator, const Error& error) {
  if (communicator != nullptr) communicator->abort(error.exit_code());
  std::fflush(nullptr);
  _exit(error.exit_code());
}

bool claim_report(const Communicator* communicator) {
  const auto activity = communicator == nullptr ? nullptr : communicator->activity();
  return activity == nullptr || activity->roster().claim_report();
}

}  // namespace bireme
