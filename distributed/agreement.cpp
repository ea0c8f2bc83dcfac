#include "distributed/agreement.h"

#include <optional>

#include "core/base/error.h"
#include "distributed/failure.h"

namespace bireme {

std::vector<std::string> gather_or_fail(Communicator& world, const std::function<std::string()>& body) {
  std::string text;
  std::optional<Error> own;
  try {
    text = body();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::rank_lost || error.kind() == ErrorKind::hang) throw;
    own = error;
  } catch (const std::exception& error) {
    own = Error(ErrorKind::other, error.what(), "", "");
  }
  if (const std::optional<AgreedError> agreed = agree_on_error(world, own)) {
    const Error& error = agreed->error;
    const std::string prefix = world.size() > 1 ? "rank " + std::to_string(agreed->rank) + ": " : "";
    throw Error(error.kind(), prefix + error.problem(), error.where(), error.remedy());
  }
  return world.gather_text(text);
}

std::string run_on_first(Communicator& world, const std::function<std::string()>& body) {
  return gather_or_fail(world, [&] { return world.rank() == 0 ? body() : std::string(); }).front();
}

}  // namespace bireme
