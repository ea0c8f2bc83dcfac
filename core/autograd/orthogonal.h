#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace bireme {

/// A matrix [rows, columns] with orthonormal rows or columns, whichever are fewer, drawn uniformly from all
/// such matrices: Q of the QR decomposition of a matrix of normal numbers, with the diagonal of R positive
/// (Mezzadri 2007). In fp64; the same bits on any number of threads.
/// @param normal  the number at a position of the matrix, row by row
std::vector<double> orthogonal_matrix(std::int64_t rows, std::int64_t columns,
                                      const std::function<double(std::int64_t)>& normal);

}  // namespace bireme
