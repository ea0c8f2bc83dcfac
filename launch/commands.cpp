#include "launch/commands.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <vector>

#include "core/base/error.h"

namespace bireme {

// A command is a file in launch/commands with one of these functions, and a line in the list below.
int run_bench(Arguments arguments);
int run_doctor(Arguments arguments);
int run_evaluate(Arguments arguments);
int run_export(Arguments arguments);
int run_features(Arguments arguments);
int run_generate(Arguments arguments);
int run_inspect(Arguments arguments);
int run_plot(Arguments arguments);
int run_prepare(Arguments arguments);
int run_score(Arguments arguments);
int run_tokenizer(Arguments arguments);
int run_train(Arguments arguments);

std::span<const Command> commands() {
  static constexpr Command list[] = {
      {"prepare", "turn raw data into a dataset of checksummed shards", run_prepare},
      {"tokenizer", "learn the vocabulary of a language model from text, or show what one does",
       run_tokenizer},
      {"inspect", "show what a dataset, checkpoint or model folder holds, and whether it is whole",
       run_inspect},
      {"train", "train a model, on one rank or many", run_train},
      {"features", "compute the features of a dataset", run_features},
      {"evaluate", "measure what was learnt: k-NN, linear probe, perplexity", run_evaluate},
      {"generate", "continue text with a language model", run_generate},
      {"score", "compute a language model's logits and log-probabilities of given tokens", run_score},
      {"export", "write the weights of a model as a Hugging Face folder", run_export},
      {"plot", "draw attention, memory, the way of a fact, or the curves of runs, as a picture", run_plot},
      {"bench", "measure matrix products, training steps, decoding, sums over ranks and the loader here",
       run_bench},
      {"doctor", "show what was found on this machine and is used, what is not, and why", run_doctor},
  };
  return list;
}

namespace {

void print_list(std::string_view program, std::string_view purpose, std::span<const Command> list) {
  fmt::print("{}: {}\n\nUsage: {} COMMAND [--option VALUE ...]\n\nCommands:\n", program, purpose, program);
  std::size_t widest = 0;
  for (const Command& command : list) widest = std::max(widest, command.name.size());
  for (const Command& command : list) fmt::print("  {:<{}}  {}\n", command.name, widest, command.summary);
  fmt::print("\n`{} COMMAND --help` shows a command's options and examples.\n", program);
}

std::string joined_names(std::span<const Command> list) {
  std::string names;
  for (const Command& command : list) names += (names.empty() ? "" : ", ") + std::string(command.name);
  return names;
}

}  // namespace

int dispatch(std::string_view program, std::string_view purpose, std::span<const Command> list,
             Arguments arguments) {
  const std::string choices =
      fmt::format("choose one of {}; `{} --help` says what they do", joined_names(list), program);
  if (arguments.empty()) throw Error(ErrorKind::usage, "no command is given", std::string(program), choices);
  const std::string& name = arguments.front();
  if (name == "--help" || name == "-h" || name == "help") {
    print_list(program, purpose, list);
    return 0;
  }
  const auto found = std::find_if(list.begin(), list.end(), [&](const Command& c) { return c.name == name; });
  if (found != list.end()) return found->run(arguments.subspan(1));

  std::vector<std::string> names;
  for (const Command& command : list) names.emplace_back(command.name);
  const std::string nearest = nearest_name(name, names);
  throw Error(ErrorKind::usage, fmt::format("unknown command `{}`", name), std::string(program),
              nearest.empty() ? choices : fmt::format("did you mean `{} {}`?", program, nearest));
}

int run_bireme(Arguments arguments) {
  if (!arguments.empty() && arguments.front() == "--version") {
    fmt::print("bireme {}\n", BIREME_VERSION);
    return 0;
  }
  return dispatch("bireme",
                  "trains vision transformers and recurrent language models, on one machine or many",
                  commands(), arguments);
}

}  // namespace bireme
