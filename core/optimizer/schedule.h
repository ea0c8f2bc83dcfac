#pragma once

#include <cstdint>

namespace bireme {

/// Learning rate of iteration `it` of `total`, evaluated in fp64 (as in DINO's code; cosine after Loshchilov
/// and Hutter 2017):
///     it < w:   base · it / (w - 1)   (w = 1: 0)
///     it ≥ w:   cosine:    min + ½·(base - min)·(1 + cos(π·(it - w)/(total - w)))
///               linear:    base + (min - base)·(it - w)/(total - w)
///               constant:  base
struct LearningRateSchedule {
  enum class Shape { cosine, linear, constant };
  Shape shape = Shape::cosine;
  double base = 0, minimum = 0;
  std::int64_t warmup = 0, total = 0;

  double at(std::int64_t it) const;
};

/// end + ½·(start - end)·(1 + cos(π·it/total)): weight decay, and the teacher's momentum on its way to 1.
double cosine_between(double start, double end, std::int64_t it, std::int64_t total);

/// start + (end - start)·i/(warmup - 1) for i < warmup (warmup = 1: start), then end: the teacher's
/// temperature.
double ramp(double start, double end, std::int64_t i, std::int64_t warmup);

}  // namespace bireme
