#pragma once

#include <memory>
#include <string>

#include "models/xlstm.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"

namespace bireme::test {

/// The settings of a golden model or block.
XlstmOptions golden_xlstm_options(const Golden& golden);

/// A parameter's part of the golden tensor GROUP/NAME, in the type of the parameter. Golden files have the
/// package's name of the embedding, and feed-forward weights of the large model in two.
Tensor golden_part(const Golden& golden, const std::string& group, const Parameter& parameter, DType type);
/// Copies `weights/NAME` into every parameter.
void load_golden_xlstm(const Golden& golden, ParameterSet& parameters);

/// A model with the weights of a golden file, on a backend of its own.
struct XlstmFixture {
  XlstmFixture(const Golden& golden, DType type, Communicator* tensor = nullptr);
  XlstmFixture(const XlstmOptions& options, DType type, Communicator* tensor = nullptr);

  /// Loss of every position against the next token, and gradients. Targets of the last position and of those
  /// before a start do not count.
  double train(const Tensor& tokens, const Tensor& starts = {}, bool recompute = false);
  LanguageForward how(bool recompute = false) const { return {.type = type, .recompute = recompute}; }
  Tensor logits(const Tensor& tokens, const Tensor& starts = {}) const;

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_test_backend();
  std::unique_ptr<Communicator> single = make_single_process();
  DType type;
  Xlstm model;
};

}  // namespace bireme::test
