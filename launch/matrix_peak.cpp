#include "launch/matrix_peak.h"

#include <algorithm>
#include <chrono>

#include "core/ops/linear/linear_kernels.h"

namespace bireme {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point from) {
  return std::chrono::duration<double>(Clock::now() - from).count();
}

}  // namespace

double product_rate(const cpu::MatrixProducts& products, const cpu::Product& p, Memory& memory,
                    double seconds) {
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
    best = std::max(best, 2.0 * static_cast<double>(p.m * p.n * p.k) / seconds_since(before));
  } while (seconds_since(start) < seconds);
  return best;
}

namespace {

/// Operations a second of one product of squares by a device's kernels, with the waiting for it.
double device_product_rate(const Backend& backend, DType type, std::int64_t side) {
  const Shape square{side, side};
  const Tensor x(backend.memory(), square, type), weight(backend.memory(), square, type),
      y(backend.memory(), square, type);
  fill(x, 0.5);
  fill(weight, 0.25);
  (void)on_host(weight.view(0, {1}));
  const auto before = Clock::now();
  backend.linear().linear(LinearForward{.x = x, .weight = weight, .bias = {}, .y = y});
  (void)on_host(y.view(0, {1}));
  return 2.0 * static_cast<double>(side * side * side) / seconds_since(before);
}

/// The best of some products, of squares that are as large as it takes for the waiting to be nothing beside
/// them.
double device_product_rate(const Backend& backend, DType type) {
  // On the harness for CUDA kernels, where launches are counted, the smallest is large enough on any machine.
  constexpr std::int64_t kSmallest = 768, kLargest = 6144;
  constexpr double kLongEnough = 2e-3;
  constexpr int kProducts = 5;
  std::int64_t side = kSmallest;
  double best = device_product_rate(backend, type, side);
  while (side < kLargest && 2.0 * static_cast<double>(side * side * side) / best < kLongEnough) {
    side *= 2;
    best = std::max(best, device_product_rate(backend, type, side));
  }
  for (int i = 0; i < kProducts; ++i) best = std::max(best, device_product_rate(backend, type, side));
  return best;
}

}  // namespace

double measure_matrix_peak(DType type, const Backend& backend, Communicator& world) {
  constexpr std::int64_t side = 1536;
  constexpr double seconds = 0.2;
  const cpu::MatrixProducts products;
  const cpu::Product square{.m = side, .n = side, .k = side, .input = type, .output = type};
  world.barrier();
  const double rate = backend.memory().device().type == DeviceType::cpu
                          ? product_rate(products, square, backend.memory(), seconds)
                          : device_product_rate(backend, type);
  return world.all_reduce_value(rate, Reduce::sum);
}

}  // namespace bireme
