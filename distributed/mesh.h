#pragma once

#include <memory>

#include "distributed/communicator.h"

namespace bireme {

/// The ranks of the job as a grid of data × tensor, tensor innermost, so that a tensor group stays inside a
/// host:
///     rank = data().rank() · tensor_degree + tensor().rank()
/// Collective.
class Mesh {
 public:
  /// @param world  outlives the mesh
  /// @throws Error (usage) listing the degrees to choose from when the number of ranks does not divide by
  /// this one
  Mesh(Communicator& world, int tensor_degree);

  Communicator& world() const { return world_; }
  /// Ranks that hold the same part of the model and see other records.
  Communicator& data() const { return *data_; }
  /// Ranks that see the same records and hold other parts of the model.
  Communicator& tensor() const { return *tensor_; }

 private:
  Communicator& world_;
  std::unique_ptr<Communicator> data_, tensor_;
};

}  // namespace bireme
