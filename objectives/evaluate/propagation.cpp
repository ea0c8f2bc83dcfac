#include "objectives/evaluate/propagation.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/base/error.h"
#include "core/tensor/random.h"

namespace bireme {

std::vector<double> decay_curve(std::span<const double> time_decay) {
  std::vector<double> curve;
  curve.reserve(time_decay.size());
  for (const double x : time_decay) curve.push_back(std::exp(-std::exp(x)));
  std::sort(curve.begin(), curve.end(), std::greater<>());
  return curve;
}

std::vector<std::vector<double>> decay_curves(const Rwkv& model) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  std::vector<std::vector<double>> curves;
  curves.reserve(static_cast<std::size_t>(model.options().layers));
  for (int l = 0; l < model.options().layers; ++l) {
    const Parameter* decay = model.parameters().find(fmt::format("blocks.{}.att.time_decay", l));
    curves.push_back(decay_curve(convert(*memory, decay->value(), DType::f64).values<double>()));
  }
  return curves;
}

std::vector<std::vector<double>> initial_decay_curves(const RwkvOptions& options) {
  std::vector<std::vector<double>> curves;
  curves.reserve(static_cast<std::size_t>(options.layers));
  for (int l = 0; l < options.layers; ++l)
    curves.push_back(decay_curve(rwkv_initial_values(options, l).time_decay));
  return curves;
}

namespace {

constexpr std::int64_t kRowsOfABatch = 4096;  // tokens run at once

class Tracer {
 public:
  Tracer(const Backend& backend, const Rwkv& model, const PropagationInput& input)
      : backend_(backend), model_(model), input_(input), length_(input.tokens.elements()) {
    const std::int64_t subject = input.subject_end - input.subject_begin;
    if (input.subject_begin < 0 || subject < 1 || input.subject_end > length_)
      throw Error(ErrorKind::usage,
                  fmt::format("the subject is tokens {} to {}, the prompt has {}", input.subject_begin,
                              input.subject_end, length_),
                  "propagation", "name tokens of the prompt");
    require_shape("propagation: noise", input.noise, {draws(), subject, model.channels()});
  }

  Propagation run() {
    Propagation result;
    const std::vector<double> clean = probabilities(1, [this](int after, const Tensor& stream) {
      if (after >= 0) clean_.push_back(clone(backend_.memory(), stream));
    })[0];
    result.answer =
        input_.answer >= 0
            ? input_.answer
            : static_cast<std::int32_t>(std::max_element(clean.begin(), clean.end()) - clean.begin());
    const auto answer = static_cast<std::size_t>(result.answer);
    if (answer >= clean.size())
      throw Error(ErrorKind::usage,
                  fmt::format("the answer is token {}, the vocabulary has {}", answer, clean.size()),
                  "propagation", "name a token of the vocabulary");
    result.clean_probability = clean[answer];
    result.corrupted_probability = mean(restored(-1, 0, 1), answer, 0);
    const int layers = model_.options().layers;
    result.probability = Tensor(backend_.memory(), {layers, length_}, DType::f64);
    const std::int64_t step = std::max<std::int64_t>(1, kRowsOfABatch / (draws() * length_));
    for (int l = 0; l < layers; ++l)
      for (std::int64_t begin = 0; begin < length_; begin += step) {
        const std::int64_t end = std::min(length_, begin + step);
        const auto runs = restored(l, begin, end);
        for (std::int64_t t = begin; t < end; ++t)
          result.probability.data<double>()[l * length_ + t] = mean(runs, answer, t - begin);
      }
    return result;
  }

 private:
  using Runs = std::vector<std::vector<double>>;  // of each sequence, the probabilities of all tokens

  std::int64_t draws() const { return input_.noise.shape()[0]; }

  /// Every draw with the stream after block `layer` restored at each position of [begin, end); -1: nowhere.
  Runs restored(int layer, std::int64_t begin, std::int64_t end) {
    return probabilities((end - begin) * draws(), [=, this](int after, const Tensor& stream) {
      for (std::int64_t b = 0; b < (end - begin) * draws(); ++b) {
        const Tensor own = stream.slice(b * length_, (b + 1) * length_);
        const std::int64_t position = begin + b / draws();
        if (after == -1) {
          add_noise(own, b % draws());
        } else if (after == layer) {
          copy(clean_[static_cast<std::size_t>(layer)].slice(position, position + 1),
               own.slice(position, position + 1));
        }
      }
    });
  }

  void add_noise(const Tensor& stream, std::int64_t draw) const {
    const Tensor noise = convert(backend_.memory(), input_.noise.slice(draw, draw + 1), stream.dtype());
    const Tensor subject = stream.slice(input_.subject_begin, input_.subject_end);
    const auto add = [&]<class T>(T* to) {
      for (std::int64_t i = 0; i < subject.elements(); ++i) to[i] += noise.data<T>()[i];
    };
    stream.dtype() == DType::f64 ? add(subject.data<double>()) : add(subject.data<float>());
  }

  /// After the last token of `count` copies of the prompt.
  Runs probabilities(std::int64_t count, const Rwkv::Edit& edit) const {
    const Tensor tokens(backend_.memory(), {count, length_}, DType::i32);
    for (std::int64_t b = 0; b < count; ++b)
      std::copy_n(input_.tokens.data<std::int32_t>(), length_, tokens.data<std::int32_t>() + b * length_);
    const Tensor hidden = model_.hidden_with(backend_, {.tokens = tokens, .starts = {}}, input_.type, edit);
    const Tensor last(backend_.memory(), {count, model_.channels()}, hidden.dtype());
    for (std::int64_t b = 0; b < count; ++b)
      copy(hidden.slice((b + 1) * length_ - 1, (b + 1) * length_), last.slice(b, b + 1));
    const Tensor logits = convert(backend_.memory(), model_.head().logits(backend_, last), DType::f64);
    Runs runs;
    for (std::int64_t b = 0; b < count; ++b) {
      const auto row = logits.slice(b, b + 1).values<double>();
      const double largest = *std::max_element(row.begin(), row.end());
      std::vector<double> shares;
      double total = 0;
      for (const double x : row) total += shares.emplace_back(std::exp(x - largest));
      for (double& share : shares) share /= total;
      runs.push_back(std::move(shares));
    }
    return runs;
  }

  double mean(const Runs& runs, std::size_t answer, std::int64_t position) const {
    double sum = 0;
    for (std::int64_t draw = 0; draw < draws(); ++draw)
      sum += runs[static_cast<std::size_t>(position * draws() + draw)][answer];
    return sum / static_cast<double>(draws());
  }

  const Backend& backend_;
  const Rwkv& model_;
  const PropagationInput& input_;
  std::int64_t length_;
  std::vector<Tensor> clean_;  // after each block
};

}  // namespace

Propagation trace_propagation(const Backend& backend, const Rwkv& model, const PropagationInput& input) {
  return Tracer(backend, model, input).run();
}

Tensor propagation_noise(const Rwkv& model, std::int64_t draws, std::int64_t tokens, std::uint64_t seed) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor table = convert(*memory, model.parameters().find("emb.weight")->value(), DType::f64);
  double mean = 0, squares = 0;
  for (const double x : table.values<double>()) mean += x;
  mean /= static_cast<double>(table.elements());
  for (const double x : table.values<double>()) squares += (x - mean) * (x - mean);
  const double deviation = 3 * std::sqrt(squares / static_cast<double>(table.elements()));
  const Tensor noise(*memory, {draws, tokens, model.channels()}, DType::f32);
  RandomStream random(seed, 0, RandomUse::noise);
  for (float& x : noise.values<float>()) x = static_cast<float>(deviation * random.normal());
  return noise;
}

}  // namespace bireme
