#include "launch/matrix_peak.h"

#include <algorithm>
#include <chrono>

namespace bireme {

double product_rate(const cpu::MatrixProducts& products, const cpu::Product& p, Memory& memory,
                    double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point from) {
    return std::chrono::duration<double>(Clock::now() - from).count();
  };
  const Tensor a(memory, {p.m, p.k}, p.input), b(memory, {p.k, p.n}, p.input),
      c(memory, {p.m, p.n}, p.output);
  fill(a, 0.5);
  fill(b, 0.25);
  fill(c, 0);
  products.run(p, a.raw(), b.raw(), c.raw());  // makes the primitive
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto before = Clock::now();
    products.run(p, a.raw(), b.raw(), c.raw());
    best = std::max(best, 2.0 * static_cast<double>(p.m * p.n * p.k) / since(before));
  } while (since(start) < seconds);
  return best;
}

double measure_matrix_peak(DType type, Memory& memory, Communicator& world) {
  constexpr std::int64_t side = 1536;
  constexpr double seconds = 0.2;
  const cpu::MatrixProducts products;
  const cpu::Product square{.m = side, .n = side, .k = side, .input = type, .output = type};
  world.barrier();
  return world.all_reduce_value(product_rate(products, square, memory, seconds), Reduce::sum);
}

}  // namespace bireme
