#include "distributed/mesh.h"

#include <spdlog/fmt/fmt.h>

#include <string>

#include "core/base/error.h"

namespace bireme {

namespace {

std::string divisors_of(int size) {
  std::string list;
  for (int degree = 1; degree <= size; ++degree) {
    if (size % degree != 0) continue;
    if (!list.empty()) list += degree == size ? " or " : ", ";
    list += std::to_string(degree);
  }
  return list;
}

}  // namespace

Mesh::Mesh(Communicator& world, int tensor_degree) : world_(world) {
  if (tensor_degree < 1 || world.size() % tensor_degree != 0) {
    throw Error(ErrorKind::usage,
                fmt::format("parallel.tensor is {0}, but {1} rank{2} not divide by {0}", tensor_degree,
                            world.size(), world.size() == 1 ? " does" : "s do"),
                "the configuration; of a run that resumes, its config.toml",
                "choose " + divisors_of(world.size()) + " with --parallel.tensor");
  }
  const int row = world.rank() / tensor_degree, column = world.rank() % tensor_degree;
  data_ = world.split(column, row);
  tensor_ = world.split(row, column);
}

}  // namespace bireme
