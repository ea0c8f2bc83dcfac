#include "core/ops/pointwise/rotary.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/error.h"

namespace bireme {

namespace {

float base_frequency(double theta, std::int64_t j, std::int64_t dimension) {
  const float exponent = static_cast<float>(2 * j) / static_cast<float>(dimension);
  return 1.0F / std::pow(static_cast<float>(theta), exponent);
}

/// Long waves are stretched, short ones are not, and those between are blended.
float llama3_frequency(const RotaryOptions& o, float f) {
  const double wavelength = 2 * std::numbers::pi / f, context = static_cast<double>(o.original_positions);
  if (wavelength < context / o.high_frequency_factor) return f;
  if (wavelength > context / o.low_frequency_factor) return static_cast<float>(f / o.factor);
  const double share =
      (context / wavelength - o.low_frequency_factor) / (o.high_frequency_factor - o.low_frequency_factor);
  return static_cast<float>((1 - share) * f / o.factor + share * f);
}

/// Peng et al. 2023: a ramp over the components, from those that turn beta_fast times in the original context
/// to those that turn beta_slow times.
float yarn_frequency(const RotaryOptions& o, float f, std::int64_t j, std::int64_t dimension) {
  const auto component = [&](double turns) {
    return static_cast<double>(dimension) *
           std::log(static_cast<double>(o.original_positions) / (2 * std::numbers::pi * turns)) /
           (2 * std::log(o.theta));
  };
  const double low = std::max(std::floor(component(o.beta_fast)), 0.0);
  double high = std::min(std::ceil(component(o.beta_slow)), static_cast<double>(dimension - 1));
  if (low == high) high += 0.001;
  const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
  return static_cast<float>(f * (1 - ramp) + f / o.factor * ramp);
}

double amplitude(const RotaryOptions& o) {
  if (o.type != "yarn") return 1;
  if (o.attention_factor != 0) return o.attention_factor;
  return o.factor <= 1 ? 1 : 0.1 * std::log(o.factor) + 1;
}

}  // namespace

std::vector<float> rotary_frequencies(const RotaryOptions& options, std::int64_t dimension,
                                      std::int64_t length) {
  double theta = options.theta;
  const auto context = static_cast<double>(options.original_positions);
  if (options.type == "dynamic" && static_cast<double>(length) > context) {
    const double stretch = options.factor * static_cast<double>(length) / context - (options.factor - 1);
    theta *= std::pow(stretch, static_cast<double>(dimension) / static_cast<double>(dimension - 2));
  }
  std::vector<float> frequencies;
  for (std::int64_t j = 0; j < dimension / 2; ++j) {
    const float f = base_frequency(theta, j, dimension);
    if (options.type == "default" || options.type == "dynamic") {
      frequencies.push_back(f);
    } else if (options.type == "linear") {
      frequencies.push_back(static_cast<float>(f / options.factor));
    } else if (options.type == "llama3") {
      frequencies.push_back(llama3_frequency(options, f));
    } else if (options.type == "yarn") {
      frequencies.push_back(yarn_frequency(options, f, j, dimension));
    } else {
      throw Error(ErrorKind::usage, fmt::format("rotary scaling of type `{}` is not known", options.type),
                  "rope_type", "choose default, linear, dynamic, llama3 or yarn");
    }
  }
  return frequencies;
}

RotaryTable::RotaryTable(Memory& memory, const RotaryOptions& options, std::int64_t dimension,
                         std::int64_t positions, DType type)
    : cosines(memory.host(), {positions, dimension / 2}, type),
      sines(memory.host(), {positions, dimension / 2}, type) {
  const std::vector<float> frequencies = rotary_frequencies(options, dimension, positions);
  const double scale = amplitude(options);
  const auto write = [](const Tensor& tensor, std::int64_t at, double value) {
    if (tensor.dtype() == DType::f64) {
      tensor.data<double>()[at] = value;
    } else {
      tensor.data<float>()[at] = static_cast<float>(value);
    }
  };
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t j = 0; j < dimension / 2; ++j) {
      const float frequency = frequencies[static_cast<std::size_t>(j)];
      // Outside of checks the angle is rounded to fp32, as published models have it.
      const double angle = type == DType::f64 ? static_cast<double>(p) * frequency
                                              : static_cast<double>(static_cast<float>(p) * frequency);
      write(cosines, p * (dimension / 2) + j, scale * std::cos(angle));
      write(sines, p * (dimension / 2) + j, scale * std::sin(angle));
    }
  }
  cosines = on_device(memory, cosines);
  sines = on_device(memory, sines);
}

}  // namespace bireme
