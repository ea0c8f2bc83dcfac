#pragma once

#include <span>
#include <string>
#include <string_view>

namespace bireme {

/// The words that follow a command's name.
using Arguments = std::span<const std::string>;

/// One entry of a list of commands: `bireme NAME`, or `bireme prepare NAME` for a list inside a command.
struct Command {
  std::string_view name;
  std::string_view summary;  ///< one line, shown by --help of the list
  int (*run)(Arguments);     ///< returns the exit code; throws Error
};

/// Every command of `bireme`, in the order in which --help shows them.
std::span<const Command> commands();

/// Runs the command that arguments[0] names. `--help` prints the list; a command answers its own `--help`.
/// @param program  how the list is called, such as "bireme" or "bireme plot"
/// @return         the exit code
/// @throws Error (usage) when no command is given, or an unknown one, with the nearest name
int dispatch(std::string_view program, std::string_view purpose, std::span<const Command> list,
             Arguments arguments);

/// The whole program but for the last resort: what `main` runs and catches errors of.
int run_bireme(Arguments arguments);

}  // namespace bireme
