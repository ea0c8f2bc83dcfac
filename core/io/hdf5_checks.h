#pragma once

#include <cstdint>
#include <string_view>

#include "core/io/hdf5_library.h"

// What makes it safe to read a stranger's file; the list of checks stands in hdf5.h. Callers hold the
// LibraryLock.
namespace bireme::hdf5 {

struct CheckedDataset {
  Object object;
  Shape shape;
  DType type;
};

/// The object at a path, reached through hard links alone; none when a component is missing.
Object find(const Checker& check, hid_t file, std::string_view path);

/// Takes a dataset whose bytes lie in this file, in a plain layout, and are enough for what it declares.
CheckedDataset open_dataset(const Checker& check, Object object, std::string_view path,
                            std::int64_t file_bytes);

/// The tensor type for a type in a file; refuses all but fixed-size numbers.
DType tensor_type(const Checker& check, std::string_view name, hid_t type);

}  // namespace bireme::hdf5
