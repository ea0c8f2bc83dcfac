#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace bireme {

/// What went wrong, in the terms of the exit codes that scripts depend on.
enum class ErrorKind : int {
  other = 1,
  usage = 2,       ///< command line or configuration
  data = 3,        ///< a dataset, picture or text that is missing, torn or misshapen
  checkpoint = 4,  ///< a checkpoint, or file input/output such as a full disk
  not_finite = 5,  ///< a loss or weight that is NaN or infinite
  hang = 6,        ///< a collective operation that did not finish in time
  rank_lost = 7,   ///< another rank ended early
  no_device = 8,   ///< no such device or driver
};

/// Everything that a user can cause or meet. Printed as `bireme: error: WHAT: WHERE: WHAT TO DO`.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string what, std::string where, std::string remedy);

  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }
  const std::string& problem() const { return problem_; }
  const std::string& where() const { return where_; }
  const std::string& remedy() const { return remedy_; }

 private:
  ErrorKind kind_;
  std::string problem_, where_, remedy_;
};

/// The candidate closest to `name` by edit distance, or an empty string when none is near enough to be a slip
/// of the hand.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace bireme
