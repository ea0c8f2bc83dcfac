#include "tests/support/gradients.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <map>
#include <string>

#include "core/cpu/cpu_backend.h"
#include "tests/support/expect.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {

namespace {

/// The op's inputs and parameters in a type of its choice.
class Instance {
 public:
  Instance(const Backend& backend, const OpCase& op, DType type) : backend_(backend), op_(op), type_(type) {
    const DType master = type == DType::f64 ? DType::f64 : DType::f32;
    for (const OpInput& input : op.inputs)
      inputs_.push_back(convert(backend.memory(), input.value, input.is_residual ? master : type));
    for (std::size_t i = 0; i < op.parameters.size(); ++i)
      parameters_.add({.name = fmt::format("p{}", i), .shape = op.parameters[i].shape()});
    parameters_.build(backend.memory(),
                      {.master = master, .gradients = true, .bf16_copy = type == DType::bf16});
    for (std::size_t i = 0; i < op.parameters.size(); ++i) copy(op.parameters[i], parameters_[i].value());
    parameters_.refresh_bf16();
  }

  std::vector<Var> run(Tape& tape) {
    leaves_.clear();
    for (const Tensor& input : inputs_) leaves_.push_back(tape.leaf(clone(backend_.memory(), input)));
    return op_.run(tape, leaves_, parameters_, type_);
  }

  const std::vector<Tensor>& inputs() const { return inputs_; }
  const std::vector<Var>& leaves() const { return leaves_; }
  ParameterSet& parameters() { return parameters_; }

 private:
  const Backend& backend_;
  const OpCase& op_;
  DType type_;
  std::vector<Tensor> inputs_;
  std::vector<Var> leaves_;
  ParameterSet parameters_;
};

/// What the values of an output are multiplied by. Multiples of 1/16, hence the same in every type. They are
/// kept, since central differences ask for them twice an entry.
const Tensor& weights(const Shape& shape, std::size_t output) {
  thread_local std::map<std::pair<std::size_t, std::vector<std::int64_t>>, Tensor> known;
  Tensor& tensor = known[{output, {shape.begin(), shape.end()}}];
  if (!tensor) {
    tensor = random_normal(shape, {.seed = 1000 + output});
    for (double& w : tensor.values<double>()) w = std::round(16 * w) / 16;
  }
  return tensor;
}

double weighed(const std::vector<Var>& outputs) {
  double total = 0;
  const auto memory = make_host_memory();
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Tensor y = convert(*memory, outputs[i].value(), DType::f64);
    const auto values = y.values<double>(), w = weights(y.shape(), i).values<double>();
    for (std::size_t j = 0; j < values.size(); ++j) total += values[j] * w[j];
  }
  return total;
}

/// The same sum as a step on the tape.
Var weigh(Tape& tape, const std::vector<Var>& outputs) {
  const Tensor sum = tape.empty({}, DType::f64);
  fill(sum, weighed(outputs));
  return tape.record(
      "weigh", {outputs.begin(), outputs.end()}, sum, [outputs, &tape](const Tensor&, Gradients& into) {
        for (std::size_t i = 0; i < outputs.size(); ++i)
          into.give(outputs[i],
                    convert(tape.backend().memory(), weights(outputs[i].shape(), i), outputs[i].dtype()));
      });
}

/// d(weighed sum) / d(entry), entry by entry. On a GPU of some entries only, the others as in `gradient`:
/// without one, kernels take a thousand times longer.
Tensor central_differences(const Backend& backend, Instance& instance, const Tensor& values,
                           const Tensor& gradient, double step) {
  const Tensor result = clone(*make_host_memory(), gradient), host = on_host(values);
  constexpr std::int64_t kEnough = 13;
  const std::int64_t stride = values.device().type == DeviceType::cpu ? 1 : 1 + values.elements() / kEnough;
  for (std::int64_t i = 0; i < values.elements(); i += stride) {
    double& x = host.data<double>()[i];
    const double before = x;
    double difference = 0;
    for (const double sign : {1.0, -1.0}) {
      x = before + sign * step;
      copy(host, values);
      Tape tape(backend, Tape::Mode::inference);
      difference += sign * weighed(instance.run(tape));
    }
    x = before;
    copy(host, values);
    result.data<double>()[i] = difference / (2 * step);
  }
  return result;
}

void compare(const OpResult& actual, const OpResult& expected,
             const std::function<void(const Tensor&, const Tensor&, const std::string&)>& expect) {
  const auto all = [&expect](const std::string& what, const std::vector<Tensor>& a,
                             const std::vector<Tensor>& e) {
    ASSERT_EQ(a.size(), e.size());
    for (std::size_t i = 0; i < e.size(); ++i) expect(a[i], e[i], what + " " + std::to_string(i));
  };
  all("output", actual.outputs, expected.outputs);
  all("gradient of input", actual.input_gradients, expected.input_gradients);
  all("gradient of parameter", actual.parameter_gradients, expected.parameter_gradients);
}

}  // namespace

OpResult run_op(const Backend& backend, const OpCase& op, DType type) {
  Instance instance(backend, op, type);
  Tape tape(backend);
  const std::vector<Var> outputs = instance.run(tape);
  OpResult result;
  const auto host = make_host_memory();
  for (const Var& output : outputs) result.outputs.push_back(clone(*host, output.value()));
  instance.parameters().begin_gradients();
  tape.backward(weigh(tape, outputs), &instance.parameters());
  for (const Var& leaf : instance.leaves()) {
    const Tensor gradient = tape.gradient(leaf);
    EXPECT_TRUE(gradient.defined()) << "no gradient reached an input";
    result.input_gradients.push_back(gradient ? clone(*host, gradient) : gradient);
  }
  for (std::size_t i = 0; i < instance.parameters().size(); ++i)
    result.parameter_gradients.push_back(clone(*host, instance.parameters()[i].gradient()));
  return result;
}

void expect_gradients(const Backend& backend, const OpCase& op, const GradientTolerance& tolerance) {
  const OpResult result = run_op(backend, op, DType::f64);
  Instance instance(backend, op, DType::f64);
  const auto check = [&](const Tensor& values, const Tensor& gradient, const std::string& what) {
    const Tensor expected = central_differences(backend, instance, values, gradient, tolerance.step);
    expect_close(gradient, expected, tolerance.relative, tolerance.absolute, what);
  };
  for (std::size_t i = 0; i < result.input_gradients.size(); ++i)
    check(instance.inputs()[i], result.input_gradients[i], "gradient of input " + std::to_string(i));
  for (std::size_t i = 0; i < result.parameter_gradients.size(); ++i)
    check(instance.parameters()[i].value(), result.parameter_gradients[i],
          "gradient of parameter " + std::to_string(i));
}

void expect_agrees_with_double(const Backend& backend, const OpCase& op, DType type, double relative) {
  OpCase rounded = op;
  const DType master = type == DType::f64 ? DType::f64 : DType::f32;
  const auto host = make_host_memory();
  const auto round = [&host](Tensor& tensor, DType to) {
    tensor = convert(*host, convert(*host, tensor, to), DType::f64);
  };
  for (OpInput& input : rounded.inputs) round(input.value, input.is_residual ? master : type);
  for (Tensor& parameter : rounded.parameters) round(parameter, master);
  // What a GPU computes is held against the CPU.
  const std::unique_ptr<Backend> cpu = make_cpu_backend(make_host_memory());
  const Backend& reference = backend.memory().device().type == DeviceType::cpu ? backend : *cpu;
  compare(run_op(backend, rounded, type), run_op(reference, rounded, DType::f64),
          [&](const Tensor& actual, const Tensor& expected, const std::string& what) {
            expect_close(actual, expected, relative, 0, std::string(to_string(type)) + " " + what);
          });
}

void expect_same_bits_on_any_number_of_threads(const Backend& backend, const OpCase& op, DType type) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const OpResult alone = run_op(backend, op, type);
  // On a GPU the order of blocks takes the place of the number of threads.
  const bool is_gpu = backend.memory().device().type != DeviceType::cpu;
  for (const int threads : is_gpu ? std::vector{2} : std::vector{2, 5}) {
    omp_set_num_threads(threads);
    compare(run_op(backend, op, type), alone,
            [&](const Tensor& actual, const Tensor& expected, const std::string& what) {
              expect_identical(actual, expected, std::to_string(threads) + " threads: " + what);
            });
  }
  omp_set_num_threads(before);
}

}  // namespace bireme::test
