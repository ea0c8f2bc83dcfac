#pragma once

#include <memory>
#include <string>

#include "distributed/communicator.h"
#include "models/rwkv.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"
#include "tests/support/vision.h"

namespace bireme::test {

/// The settings of a golden RWKV.
RwkvOptions golden_rwkv_options(const Golden& golden);

/// The next token of each, [B, T]; -1 at the last position, and where the next one starts a document.
Tensor next_tokens(Memory& memory, const Tensor& tokens, const Tensor& starts = {});

/// A model with a backend of its own, on one tensor rank unless told.
struct RwkvFixture {
  RwkvFixture(const RwkvOptions& options, DType master, Communicator* tensor = nullptr);
  /// The same with a fixture's settings and weights.
  RwkvFixture(const Golden& golden, DType master, Communicator* tensor = nullptr);

  DType type() const { return model.parameters().flat_values().dtype(); }
  /// Whole logits of a forward pass without gradients, [B·T, V].
  Tensor logits(const Tensor& tokens, const Tensor& starts = {}) const;
  Tensor logits_of(const Tensor& hidden) const { return model.head().logits(*backend, hidden); }
  /// Mean cross-entropy over the targets that are not -1; gradients are there afterwards.
  double train(const Tensor& tokens, const Tensor& targets, const Tensor& starts = {},
               bool recompute = false);

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_test_backend();
  std::unique_ptr<Communicator> single = make_single_process();
  Rwkv model;
};

}  // namespace bireme::test
