#pragma once

#include <cstdint>

namespace bireme {

/// Learning rate of iteration `it` of `total`, evaluated in fp64 (as in DINO's code; cosine after Loshchilov
/// and Hutter 2017):
///     it < w:   base · it / (w - 1)   (w = 1: 0)
///     it ≥ w:   cosine:    min + ½·(base - min)·(1 + cos(π·(it - w)/(total - w)))
///               linear:    base + (min - base)·(it - w)/(total - w)
///               constant:  base
///     exponential, as in RWKV's training code, with a warm-up of its own:
///         base · (min/base)^x, or base + (min - base)·x where either is 0;  x = (it - w + 1)/(total - w) in
///         0 … 1, times 0.2 + 0.8·it/w for it < w
struct LearningRateSchedule {
  enum class Shape { cosine, linear, constant, exponential };
  Shape shape = Shape::cosine;
  double base = 0, minimum = 0;
  std::int64_t warmup = 0, total = 0;

  double at(std::int64_t it) const;

 private:
  double exponential_at(std::int64_t it) const;
};

/// end + ½·(start - end)·(1 + cos(π·it/total)): weight decay, and the teacher's momentum on its way to 1.
double cosine_between(double start, double end, std::int64_t it, std::int64_t total);

/// start + (end - start)·i/(warmup - 1) for i < warmup (warmup = 1: start), then end: the teacher's
/// temperature.
double ramp(double start, double end, std::int64_t i, std::int64_t warmup);

}  // namespace bireme
