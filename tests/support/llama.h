#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/llama.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"

namespace bireme::test {

/// The settings of a golden LLaMA.
LlamaOptions golden_llama_options(const Golden& golden);

/// A model with the weights of a golden file, on a backend of its own.
struct LlamaFixture {
  LlamaFixture(const Golden& golden, DType type, Communicator* tensor = nullptr);

  /// [B, T] i32 from integers of any golden type, 64 bits or fewer.
  Tensor tokens(const Tensor& golden) const;
  /// Targets of a [B, T] batch: the label of the next position, -1 for none.
  Tensor next(const Tensor& labels) const;

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_test_backend();
  std::unique_ptr<Communicator> single;
  std::unique_ptr<Llama> model;
  DType type;
};

/// Calls check(rank's part of a published tensor, golden whole tensor's same part, name) for every tensor
/// GROUP/NAME: of the values, or of the gradients.
void for_golden_tensors(const Golden& golden, const std::string& group, const LlamaFixture& fixture,
                        bool gradients,
                        const std::function<void(const Tensor&, const Tensor&, const std::string&)>& check);

}  // namespace bireme::test
