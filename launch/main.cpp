#include <spdlog/fmt/fmt.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/files.h"
#include "launch/commands.h"
#include "launch/terminal.h"

namespace {

void print_error(const std::string& text) { fmt::print(stderr, "bireme: error: {}\n", text); }

}  // namespace

/// The one place that ends the program. Every failure becomes one line on standard error and an exit code.
int main(int count, char** words) {
  // A closed pipe (`bireme train ... | head -1`) is a failed write, not the end of a training run.
  std::signal(SIGPIPE, SIG_IGN);
  bireme::ignore_file_size_signal();
  try {
    return bireme::run_bireme(std::vector<std::string>(words + 1, words + count));
  } catch (const bireme::Error& error) {
    // All ranks read the same command line and configuration; one of them says what is wrong with it.
    if (error.kind() != bireme::ErrorKind::usage || bireme::launched_as().rank == 0)
      print_error(error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    print_error("out of memory: this machine: make data.batch_size smaller, or use more ranks");
  } catch (const std::exception& error) {
    print_error(fmt::format(
        "{}: inside bireme: this is a mistake in bireme; please report it with the command", error.what()));
  }
  return static_cast<int>(bireme::ErrorKind::other);
}
