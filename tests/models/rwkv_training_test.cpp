#include <gtest/gtest.h>

#include "core/optimizer/adamw.h"
#include "core/optimizer/clip.h"
#include "tests/support/ranks.h"
#include "tests/support/rwkv.h"

namespace bireme::test {
namespace {

/// The reference's training steps, on a share of the batch and of the model.
class RwkvTraining {
 public:
  RwkvTraining(const std::string& file, Communicator& data, Communicator& tensor)
      : golden_("rwkv/" + file + ".h5"),
        data_(data),
        tensor_(tensor),
        rwkv_(options(), DType::f32, &tensor),
        adamw_(*rwkv_.backend, rwkv_.model.parameters(),
               {.beta1 = setting("beta1"), .beta2 = setting("beta2"), .epsilon = setting("epsilon")}, 0,
               rwkv_.model.parameters().flat_values().elements()) {
    load_golden_weights(golden_, rwkv_.model.parameters());
  }

  void expect_golden() {
    const Tensor rates = golden_.tensor("inputs/lr"), tokens = golden_.tensor("inputs/tokens");
    for (std::int64_t step = 0; step < rates.elements(); ++step) {
      const std::string at = "steps/" + std::to_string(step) + "/";
      const double loss = backward(tokens.slice(step, step + 1));
      const double expected = golden_.tensor(at + "loss").data<double>()[0];
      EXPECT_NEAR(loss, expected, 1e-5 * expected) << at;
      const ClippedGradients clipped =
          clip_gradients(*rwkv_.backend, rwkv_.model.parameters(), {.limit = setting("clip_norm")},
                         [this](const Tensor& squares) { tensor_.all_reduce(squares, Reduce::sum).wait(); });
      const double norm = golden_.tensor(at + "grad_norm").data<double>()[0];
      EXPECT_NEAR(clipped.norm, norm, 1e-4 * norm) << at;
      adamw_.step(rates.data<double>()[step], setting("weight_decay"), clipped.scales);
    }
    for (std::size_t i = 0; i < rwkv_.model.parameters().size(); ++i) {
      const Parameter& p = rwkv_.model.parameters()[i];
      const Tensor whole = golden_.tensor("final_weights/" + p.name()).reshape(p.whole_shape());
      const Tensor part(*rwkv_.memory, p.shape(), whole.dtype());
      copy_part(whole, part, p.partition());
      expect_close(p.value(), part, 1e-4, 0, p.name());
    }
  }

 private:
  double setting(const char* name) const { return golden_.number("config", name); }

  RwkvOptions options() const {
    RwkvOptions options = golden_rwkv_options(golden_);
    options.time_mix_rate = setting("scale_time_mix");
    options.time_decay_rate = setting("scale_time_decay");
    options.time_first_rate = setting("scale_time_first");
    return options;
  }

  /// Of `batch` [1, B, T + 1] this rank's sequences; the loss of all, and the gradient of all.
  double backward(const Tensor& batch) {
    const std::int64_t all = batch.shape()[1], length = batch.shape()[2] - 1;
    const std::int64_t own = (all - data_.rank() + data_.size() - 1) / data_.size();
    const Tensor tokens(*rwkv_.memory, {own, length}, DType::i32),
        targets(*rwkv_.memory, {own, length}, DType::i32);
    for (std::int64_t b = 0; b < own; ++b) {
      const std::int32_t* row = batch.data<std::int32_t>() + (b * data_.size() + data_.rank()) * (length + 1);
      std::copy_n(row, length, tokens.data<std::int32_t>() + b * length);
      std::copy_n(row + 1, length, targets.data<std::int32_t>() + b * length);
    }
    Rwkv& model = rwkv_.model;
    model.parameters().begin_gradients();
    Tape tape(*rwkv_.backend);
    const Var hidden = model.hidden(tape, {.tokens = tokens, .starts = {}}, {});
    const TokenLoss loss = model.head().loss(tape, hidden, targets,
                                             {.count = static_cast<double>(all * length),
                                              .z_loss = 0,
                                              .l2_wrap = setting("l2wrap") != 0 ? 1e-4 : 0});
    const double value = convert(*rwkv_.memory, loss.loss.value(), DType::f64).data<double>()[0];
    tape.backward(loss.loss, &model.parameters());
    data_.all_reduce(model.parameters().flat_gradients(), Reduce::sum).wait();
    return data_.all_reduce_value(value, Reduce::sum);
  }

  Golden golden_;
  Communicator &data_, &tensor_;
  RwkvFixture rwkv_;
  AdamWOptimizer adamw_;
};

class RwkvTrainingTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Golden, RwkvTrainingTest, testing::Values("train_neo", "train_adamw"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(RwkvTrainingTest, FollowsTheReference) {
  const auto single = make_single_process(), other = make_single_process();
  RwkvTraining(GetParam(), *single, *other).expect_golden();
}

TEST_P(RwkvTrainingTest, FollowsTheReferenceOverDataRanks) {
  run_on_ranks(2, [](Communicator& data) {
    const auto single = make_single_process();
    RwkvTraining(GetParam(), data, *single).expect_golden();
  });
}

TEST_P(RwkvTrainingTest, FollowsTheReferenceOverTensorRanks) {
  run_on_ranks(2, [](Communicator& tensor) {
    const auto single = make_single_process();
    RwkvTraining(GetParam(), *single, tensor).expect_golden();
  });
}

}  // namespace
}  // namespace bireme::test
