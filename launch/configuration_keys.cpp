#include "launch/configuration_keys.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>

namespace bireme {

namespace {

template <auto Section, auto Member>
Place place_of(Configuration& configuration) {
  return &((configuration.*Section).*Member);
}
using C = Configuration;
template <auto Member>
constexpr auto model = place_of<&C::model, Member>;
template <auto Member>
constexpr auto data = place_of<&C::data, Member>;
template <auto Member>
constexpr auto objective = place_of<&C::objective, Member>;
template <auto Member>
constexpr auto optimizer = place_of<&C::optimizer, Member>;
template <auto Member>
constexpr auto schedule = place_of<&C::schedule, Member>;
template <auto Member>
constexpr auto parallel = place_of<&C::parallel, Member>;
template <auto Member>
constexpr auto precision = place_of<&C::precision, Member>;
template <auto Member>
constexpr auto evaluation = place_of<&C::evaluation, Member>;
template <auto Member>
constexpr auto run = place_of<&C::run, Member>;

using Model = C::Model;
using Data = C::Data;
using Objective = C::Objective;
using Optimizer = C::Optimizer;
using Schedule = C::Schedule;
using Parallel = C::Parallel;
using Precision = C::Precision;
using Evaluation = C::Evaluation;
using Run = C::Run;

constexpr Effect mathematics = Effect::mathematics;
constexpr Effect execution = Effect::execution;
constexpr Topic pictures = Topic::pictures;
constexpr Topic language = Topic::language;
constexpr Topic rwkv = Topic::rwkv;
constexpr Topic xlstm = Topic::xlstm;
constexpr Topic llama = Topic::llama;
constexpr Aim text = Aim::text;
constexpr Aim alignment = Aim::alignment;

Allowed anything() { return {}; }
Allowed at_least(double low) { return {.low = low, .words = {}}; }
Allowed above(double low) { return {.low = low, .low_is_open = true, .words = {}}; }
Allowed between(double low, double high) { return {.low = low, .high = high, .words = {}}; }
/// 0 belongs to it, 1 does not: averages that would never move.
Allowed below_one() { return {.low = 0, .high = 1, .high_is_open = true, .words = {}}; }
Allowed share() { return {.low = 0, .high = 1, .low_is_open = true, .words = {}}; }
Allowed one_of(std::vector<std::string> words) { return {.words = std::move(words)}; }

constexpr std::array<std::string_view, 7> kAlignment = {"sft", "orpo", "dpo", "ipo", "kto", "simpo", "dro"};

std::vector<Key> make_table() {
  const Allowed probability = between(0, 1);
  return {
      {"model.type", model<&Model::type>, one_of({"vit", "rwkv", "xlstm", "llama"}), mathematics, "",
       "Kind of network: vision transformer, or a language model: RWKV-4, xLSTM, LLaMA-style decoder. "
       "Where it is not given, that of model.init."},
      {"model.size", model<&Model::size>, one_of({"custom", "tiny", "small", "base"}), mathematics, "",
       "Shorthand that sets embed_dim, depth and heads where they are not given: tiny 192/12/3, small "
       "384/12/6, base 768/12/12.",
       pictures},
      {"model.init", model<&Model::init>, anything(), execution, "",
       "Checkpoint, run or Hugging Face folder to take the first weights from; empty for random ones."},
      {"model.embed_dim", model<&Model::embed_dim>, between(1, 65536), mathematics, "channels",
       "Width of the token vectors; a multiple of heads."},
      {"model.depth", model<&Model::depth>, between(1, 1000), mathematics, "blocks", "Number of blocks."},
      {"model.heads", model<&Model::heads>, between(1, 1024), mathematics, "",
       "Heads of each block, of attention or memory.", Topic::vit | xlstm | llama},
      {"model.patch_size", model<&Model::patch_size>, between(1, 1024), mathematics, "pixels",
       "Side of the square patch that becomes one token.", pictures},
      {"model.image_size", model<&Model::image_size>, between(1, 16384), mathematics, "pixels",
       "Side of the picture whose patch grid the position embedding has.", pictures},
      {"model.channels", model<&Model::channels>, between(1, 64), mathematics, "",
       "Channels of the pictures: 1 for grey, 3 for colour.", pictures},
      {"model.mlp_ratio", model<&Model::mlp_ratio>, above(0), mathematics, "",
       "Width of the hidden layer of each block, in multiples of embed_dim.", pictures},
      {"model.drop_path", model<&Model::drop_path>, below_one(), mathematics, "",
       "Rate at which the student skips the last block's branches (stochastic depth), rising linearly from 0 "
       "at the first block.",
       pictures},
      {"model.init_std", model<&Model::init_std>, at_least(0), mathematics, "",
       "Standard deviation of the first weights; 0 is Xavier-uniform, better below about 384 channels.",
       pictures},
      {"model.head_layers", model<&Model::head_layers>, between(1, 16), mathematics, "",
       "Linear layers of the projection head, the one into the bottleneck included.", pictures},
      {"model.head_hidden", model<&Model::head_hidden>, between(1, 1048576), mathematics, "channels",
       "Width of the projection head's hidden layers.", pictures},
      {"model.head_bottleneck", model<&Model::head_bottleneck>, between(1, 65536), mathematics, "channels",
       "Width of the normalised vector that is compared with the prototypes.", pictures},
      {"model.prototypes", model<&Model::prototypes>, between(2, 16777216), mathematics, "",
       "Outputs of the head: prototypes that pictures are assigned to (K of the paper).", pictures},
      {"model.norm_last_layer", model<&Model::norm_last_layer>, anything(), mathematics, "",
       "Keep all prototypes at unit length (stable); false trains their lengths too.", pictures},
      {"model.head_batch_norm", model<&Model::head_batch_norm>, anything(), mathematics, "",
       "Batch normalisation in the hidden layers of the head.", pictures},
      {"model.vocabulary_size", model<&Model::vocabulary_size>, between(0, 16777216), mathematics, "tokens",
       "Rows of the embedding and the head; 0 takes the tokenizer's number of tokens.", language},
      {"model.kv_heads", model<&Model::kv_heads>, between(0, 1024), mathematics, "",
       "Heads of keys and values that the query heads share; 0 gives each its own.", llama},
      {"model.head_dim", model<&Model::head_dim>, between(0, 65536), mathematics, "channels",
       "Width of a head; 0 is embed_dim / heads.", llama},
      {"model.hidden_dim", model<&Model::hidden_dim>, between(0, 1048576), mathematics, "channels",
       "Width inside the feed-forward part; 0 is the usual one: 4 (rwkv), 8/3 (llama, large xlstm) or 1.3 "
       "(xlstm) times embed_dim, rounded up to a multiple of 64 but for rwkv.",
       language},
      {"model.attention_dim", model<&Model::attention_dim>, between(0, 1048576), mathematics, "channels",
       "Width inside time mixing; 0 is embed_dim.", rwkv},
      {"model.context", model<&Model::context>, between(0, 16777216), mathematics, "tokens",
       "Longest sequence that the model is made for, as its published folder says; 0 is sequence_length.",
       language},
      {"model.rope_theta", model<&Model::rope_theta>, above(0), mathematics, "",
       "Base of the rotary position embedding.", llama},
      {"model.tie_embeddings", model<&Model::tie_embeddings>, anything(), mathematics, "",
       "Let the head share the embedding's weights.", language},
      {"model.variant", model<&Model::variant>, one_of({"paper", "large"}), mathematics, "",
       "Architecture: that of the paper, or the large one that published weights have.", xlstm},
      {"model.pattern", model<&Model::pattern>, anything(), mathematics, "",
       "Blocks of the paper's architecture, m (matrix memory) and s (scalar memory), repeated up to depth: "
       "mmmmmmms.",
       xlstm},
      {"model.memory", model<&Model::memory>, one_of({"associative", "learned", "learned_initial"}),
       mathematics, "",
       "Memory of the m blocks: the associative one, a learned matrix in its place, or the associative one "
       "starting from a learned matrix.",
       xlstm},

      {"data.path", data<&Data::path>, anything(), execution, "",
       "Dataset to train on, a folder written by `bireme prepare`."},
      {"data.evaluation_train", data<&Data::evaluation_train>, anything(), execution, "",
       "Labelled dataset whose features are the neighbours of the k-NN during training; empty for none.",
       pictures},
      {"data.evaluation_test", data<&Data::evaluation_test>, anything(), execution, "",
       "Labelled dataset that the k-NN during training classifies; empty for none.", pictures},
      {"data.batch_size", data<&Data::batch_size>, between(1, 16777216), mathematics, "records",
       "Records of one optimiser step, over all ranks and accumulated parts."},
      {"data.order", data<&Data::order>, one_of({"shuffled", "sequential"}), mathematics, "",
       "Order of the records within an epoch."},
      {"data.workers", data<&Data::workers>, between(0, 1024), execution, "threads",
       "Threads of each rank that decode and augment ahead; 0 chooses by the number of cores.", pictures},
      {"data.sequence_length", data<&Data::sequence_length>, between(1, 16777216), mathematics, "tokens",
       "Length of the sequences that text is cut into.", language},
      {"data.global_size", data<&Data::global_size>, between(1, 16384), mathematics, "pixels",
       "Side of the two global crops.", pictures},
      {"data.local_size", data<&Data::local_size>, between(1, 16384), mathematics, "pixels",
       "Side of the local crops.", pictures},
      {"data.local_crops", data<&Data::local_crops>, between(0, 64), mathematics, "crops",
       "Local crops of each picture; 0 trains on the two globals alone.", pictures},
      {"data.global_scale_min", data<&Data::global_scale_min>, share(), mathematics, "of the area",
       "Smallest part of the picture that a global crop shows.", pictures},
      {"data.global_scale_max", data<&Data::global_scale_max>, share(), mathematics, "of the area",
       "Largest part of the picture that a global crop shows.", pictures},
      {"data.local_scale_min", data<&Data::local_scale_min>, share(), mathematics, "of the area",
       "Smallest part of the picture that a local crop shows.", pictures},
      {"data.local_scale_max", data<&Data::local_scale_max>, share(), mathematics, "of the area",
       "Largest part of the picture that a local crop shows.", pictures},
      {"data.flip_probability", data<&Data::flip_probability>, probability, mathematics, "",
       "Probability that a crop is mirrored left to right.", pictures},
      {"data.jitter_probability", data<&Data::jitter_probability>, probability, mathematics, "",
       "Probability that a crop's colours are changed by the next four keys, in random order.", pictures},
      {"data.brightness", data<&Data::brightness>, at_least(0), mathematics, "",
       "Brightness is multiplied by a factor of 1 - value to 1 + value.", pictures},
      {"data.contrast", data<&Data::contrast>, at_least(0), mathematics, "",
       "Contrast is multiplied by a factor of 1 - value to 1 + value.", pictures},
      {"data.saturation", data<&Data::saturation>, at_least(0), mathematics, "",
       "Saturation is multiplied by a factor of 1 - value to 1 + value; colour pictures only.", pictures},
      {"data.hue", data<&Data::hue>, between(0, 0.5), mathematics, "turns",
       "Hue is turned by -value to value; colour pictures only.", pictures},
      {"data.greyscale_probability", data<&Data::greyscale_probability>, probability, mathematics, "",
       "Probability that a crop loses its colour; colour pictures only.", pictures},
      {"data.blur_probability_global1", data<&Data::blur_probability_global1>, probability, mathematics, "",
       "Probability of Gaussian blur on the first global crop.", pictures},
      {"data.blur_probability_global2", data<&Data::blur_probability_global2>, probability, mathematics, "",
       "Probability of Gaussian blur on the second global crop.", pictures},
      {"data.blur_probability_local", data<&Data::blur_probability_local>, probability, mathematics, "",
       "Probability of Gaussian blur on each local crop.", pictures},
      {"data.blur_radius_min", data<&Data::blur_radius_min>, at_least(0), mathematics, "pixels",
       "Smallest standard deviation of the blur.", pictures},
      {"data.blur_radius_max", data<&Data::blur_radius_max>, at_least(0), mathematics, "pixels",
       "Largest standard deviation of the blur.", pictures},
      {"data.solarize_probability", data<&Data::solarize_probability>, probability, mathematics, "",
       "Probability that the second global crop has its bright pixels inverted.", pictures},
      {"data.mean", data<&Data::mean>, anything(), mathematics, "of full scale",
       "Mean of each channel, taken off the pixels; empty for the dataset's own.", pictures},
      {"data.std", data<&Data::std>, above(0), mathematics, "of full scale",
       "Standard deviation of each channel, divided out of the pixels; empty for the dataset's own.",
       pictures},
      {"data.validation", data<&Data::validation>, anything(), execution, "",
       "Dataset that is evaluated during training: text for its perplexity, pairs of answers for their "
       "ranking; "
       "empty for none.",
       language},
      {"data.validation_sequences", data<&Data::validation_sequences>, at_least(1), execution, "sequences",
       "Sequences of it that each of these measurements takes, from the beginning.", language, text},
      {"data.documents_apart", data<&Data::documents_apart>, anything(), mathematics, "",
       "Keep state and attention from reaching across the borders of documents.", language, text},

      {"objective.type", objective<&Objective::type>,
       one_of({"dino", "language_model", "sft", "orpo", "dpo", "ipo", "kto", "simpo", "dro", "judge"}),
       mathematics, "",
       "What is learnt: self-distillation of pictures without labels (DINO), the next token of text, or "
       "answers to prompts: to imitate them (sft), to prefer chosen over rejected ones (orpo, dpo, ipo, "
       "simpo), "
       "single ones by their label (kto) or score (dro), or to tell which of two people prefer (judge)."},
      {"objective.student_temperature", objective<&Objective::student_temperature>, above(0), mathematics, "",
       "Temperature of the student's softmax.", pictures},
      {"objective.teacher_temperature_start", objective<&Objective::teacher_temperature_start>, above(0),
       mathematics, "", "Temperature of the teacher's softmax at the first step; lower is sharper.",
       pictures},
      {"objective.teacher_temperature", objective<&Objective::teacher_temperature>, above(0), mathematics, "",
       "Temperature of the teacher's softmax after its warm-up.", pictures},
      {"objective.teacher_temperature_warmup_steps", objective<&Objective::teacher_temperature_warmup_steps>,
       at_least(0), mathematics, "steps",
       "Steps in which the teacher's temperature goes from its start to its final value.", pictures},
      {"objective.teacher_momentum", objective<&Objective::teacher_momentum>, between(0, 1), mathematics, "",
       "Share of the teacher's weights that a step keeps, at the first step; short runs want 0.99, long ones "
       "0.996.",
       pictures},
      {"objective.teacher_momentum_end", objective<&Objective::teacher_momentum_end>, between(0, 1),
       mathematics, "", "The same at the last step, reached along a cosine.", pictures},
      {"objective.center_momentum", objective<&Objective::center_momentum>, below_one(), mathematics, "",
       "Share of the teacher outputs' running mean that a step keeps.", pictures},
      {"objective.freeze_last_layer_steps", objective<&Objective::freeze_last_layer_steps>, at_least(0),
       mathematics, "steps", "Steps at the start in which the prototypes do not train.", pictures},
      {"objective.z_loss", objective<&Objective::z_loss>, at_least(0), mathematics, "",
       "Weight of the squared logarithm of the softmax's denominator, which keeps logits small.", language,
       text},
      {"objective.l2_wrap", objective<&Objective::l2_wrap>, at_least(0), mathematics, "",
       "Weight of half the squared largest logit, in gradients only (L2Wrap of RWKV's recipe: 1e-4).",
       language, text},
      {"objective.reference", objective<&Objective::reference>, anything(), execution, "",
       "Model folder whose log-probabilities answers are compared with (dpo, ipo, kto, dro); empty is "
       "model.init.",
       language, alignment},
      {"objective.share_prompts", objective<&Objective::share_prompts>, anything(), execution, "",
       "Compute a prompt once for all of its answers; false computes it for each, with the same result.",
       language, alignment},
      {"objective.beta", objective<&Objective::beta>, above(0), mathematics, "",
       "Strength of the pull towards the reference: of the log ratio (dpo, kto), of the gap 1 / (2 beta) "
       "(ipo), "
       "or of the average log-probability (simpo).",
       language, alignment},
      {"objective.gamma", objective<&Objective::gamma>, at_least(0), mathematics, "",
       "What the reference counts for (dpo; 1 is DPO, 0 ignores it), or the margin of the reward (simpo).",
       language, alignment},
      {"objective.label_smoothing", objective<&Objective::label_smoothing>, between(0, 0.5), mathematics, "",
       "Share of pairs that are taken to be labelled the wrong way round (dpo).", language, alignment},
      {"objective.length_normalise", objective<&Objective::length_normalise>, anything(), mathematics, "",
       "Compare log ratios per token and not of whole answers (ipo, dro).", language, alignment},
      {"objective.lambda", objective<&Objective::lambda>, at_least(0), mathematics, "",
       "Weight of the odds ratio beside the likelihood (orpo).", language, alignment},
      {"objective.log_prob_ceiling", objective<&Objective::log_prob_ceiling>, between(-1, -1e-12),
       mathematics, "nats",
       "Average log-probability above which an answer counts as no more likely (orpo), so that certainty "
       "stays "
       "finite.",
       language, alignment},
      {"objective.nll_answers", objective<&Objective::nll_answers>, one_of({"all", "liked"}), mathematics, "",
       "Which answers of a feedback dataset are imitated: all, or those with a like or a score above the "
       "mean "
       "(sft).",
       language, alignment},
      {"objective.nll_scope", objective<&Objective::nll_scope>, one_of({"completion", "sequence"}),
       mathematics, "", "Tokens that likelihood imitates: the answer's, or the prompt's as well (sft, orpo).",
       language, alignment},
      {"objective.nll_reduction", objective<&Objective::nll_reduction>, one_of({"token", "sequence"}),
       mathematics, "",
       "Likelihood as a mean over all tokens of a step, or over records of their means (sft, orpo).",
       language, alignment},
      {"objective.kl_pairing", objective<&Objective::kl_pairing>,
       one_of({"previous_other_prompt", "previous", "dataset", "none"}), mathematics, "",
       "Whose answers stand in for those to a prompt where kto estimates its reference point: of the record "
       "before in the batch with another prompt, of the one before whatever its prompt, of the one before in "
       "the dataset, or none.",
       language, alignment},
      {"objective.desirable_weight", objective<&Objective::desirable_weight>, at_least(0), mathematics, "",
       "Weight of answers that are liked (kto).", language, alignment},
      {"objective.undesirable_weight", objective<&Objective::undesirable_weight>, at_least(0), mathematics,
       "", "Weight of answers that are not (kto).", language, alignment},
      {"objective.tau", objective<&Objective::tau>, above(0), mathematics, "",
       "Strength of the pull towards the reference (dro): the log ratio that a reward of tau is worth is 1.",
       language, alignment},
      {"objective.rescale_policy", objective<&Objective::rescale_policy>, anything(), mathematics, "",
       "Divide the policy's gradient by tau, as the paper does (dro).", language, alignment},
      {"objective.variant", objective<&Objective::variant>, one_of({"value", "batch", "group"}), mathematics,
       "",
       "What rewards are compared with (dro): a value function of the prompt, the mean of the batch, or the "
       "other answers to the prompt.",
       language, alignment},
      {"objective.value", objective<&Objective::value>, one_of({"separate", "shared", "constant"}),
       mathematics, "",
       "The value function (dro): a network of its own, a head on the policy's hidden vectors, or one "
       "number.",
       language, alignment},
      {"objective.value_detach", objective<&Objective::value_detach>, anything(), mathematics, "",
       "Keep a shared value function's gradient out of the policy.", language, alignment},
      {"objective.value_learning_rate", objective<&Objective::value_learning_rate>, at_least(0), mathematics,
       "", "Learning rate of the value function after warm-up; 0 is twice the policy's.", language,
       alignment},
      {"objective.value_warmup_steps", objective<&Objective::value_warmup_steps>, at_least(0), mathematics,
       "steps", "Steps at the start in which the value function trains alone.", language, alignment},
      {"objective.reward_normalise", objective<&Objective::reward_normalise>, one_of({"standard", "none"}),
       mathematics, "",
       "Bring the scores of the dataset to mean 0 and variance 1, or leave them as they are (dro).", language,
       alignment},
      {"objective.reward_scale", objective<&Objective::reward_scale>, above(0), mathematics, "",
       "Factor of the rewards after that (dro).", language, alignment},
      {"objective.reward_clip", objective<&Objective::reward_clip>, at_least(0), mathematics,
       "standard deviations", "Largest magnitude of a normalised reward (dro); 0 does not clip.", language,
       alignment},
      {"objective.diagnostics_every", objective<&Objective::diagnostics_every>, at_least(0), execution,
       "steps",
       "Steps between two rows of diagnostics that cost a pass of their own, and of diagnostics.h5 (orpo); 0 "
       "makes none.",
       language, alignment},
      {"objective.variance_every", objective<&Objective::variance_every>, at_least(0), execution, "steps",
       "Steps between two measurements of the policy gradient's variance with and without the value function "
       "(dro); 0 makes none.",
       language, alignment},
      {"objective.variance_answers", objective<&Objective::variance_answers>, between(2, 1 << 20), execution,
       "answers",
       "Answers of the steps to come that each of these measurements takes, one backward pass each.",
       language, alignment},

      {"optimizer.learning_rate", optimizer<&Optimizer::learning_rate>, at_least(0), mathematics, "",
       "Learning rate after warm-up, for the batch size as it is (no scaling rule is applied)."},
      {"optimizer.minimum_learning_rate", optimizer<&Optimizer::minimum_learning_rate>, at_least(0),
       mathematics, "", "Learning rate that the schedule ends at."},
      {"optimizer.weight_decay", optimizer<&Optimizer::weight_decay>, at_least(0), mathematics, "",
       "Weight decay at the first step, decoupled; biases and norm weights have none."},
      {"optimizer.weight_decay_end", optimizer<&Optimizer::weight_decay_end>, at_least(0), mathematics, "",
       "Weight decay at the last step, reached along a cosine."},
      {"optimizer.beta1", optimizer<&Optimizer::beta1>, below_one(), mathematics, "",
       "Share of the gradient's running mean that a step keeps (AdamW)."},
      {"optimizer.beta2", optimizer<&Optimizer::beta2>, below_one(), mathematics, "",
       "Share of the squared gradient's running mean that a step keeps (AdamW)."},
      {"optimizer.epsilon", optimizer<&Optimizer::epsilon>, above(0), mathematics, "",
       "Added to the root of the squared gradient's mean (AdamW)."},
      {"optimizer.clip_norm", optimizer<&Optimizer::clip_norm>, at_least(0), mathematics, "",
       "Largest norm that a gradient keeps; 0 does not clip."},
      {"optimizer.clip_type", optimizer<&Optimizer::clip_type>, one_of({"parameter", "global"}), mathematics,
       "", "Whether clip_norm applies to each parameter tensor or to all together."},

      {"schedule.type", schedule<&Schedule::type>, one_of({"cosine", "linear", "exponential", "constant"}),
       mathematics, "", "Course of the learning rate after warm-up."},
      {"schedule.warmup_steps", schedule<&Schedule::warmup_steps>, at_least(0), mathematics, "steps",
       "Steps in which the learning rate rises linearly from 0."},

      {"parallel.tensor", parallel<&Parallel::tensor>, between(1, 1024), execution, "ranks",
       "Ranks that share each layer's weights (tensor parallelism)."},
      {"parallel.zero", parallel<&Parallel::zero>, between(0, 1), execution, "",
       "1 spreads the optimiser's state over the data-parallel ranks (ZeRO-1)."},
      {"parallel.accumulate", parallel<&Parallel::accumulate>, between(1, 65536), execution, "parts",
       "Parts in which each rank works through its share of a batch, to save memory; the result stays the "
       "same."},
      {"parallel.bucket_bytes", parallel<&Parallel::bucket_bytes>, between(1024, 1e12), execution, "bytes",
       "Gradients that are sent together while backward goes on."},

      {"precision.type", precision<&Precision::type>, one_of({"fp32", "bf16"}), mathematics, "",
       "Number format of matrix products; weights, sums and statistics stay in fp32."},
      {"precision.recompute", precision<&Precision::recompute>, anything(), execution, "",
       "Rebuild each block's activations in backward instead of keeping them: less memory, a third more "
       "work."},

      {"evaluation.prompts", evaluation<&Evaluation::prompts>, anything(), execution, "",
       "File of prompts (.jsonl[.gz]) that the policy answers every run.evaluate_every steps, for judges to "
       "compare with the reference's answers; empty for none.",
       language, alignment},
      {"evaluation.judge", evaluation<&Evaluation::judge>, anything(), execution, "",
       "Judges that compare them: runs or folders of objective.type judge; three of different seeds before a "
       "claim.",
       language, alignment},
      {"evaluation.judge_validation", evaluation<&Evaluation::judge_validation>, anything(), execution, "",
       "File of pairs that the judges are checked on; empty is evaluation.prompts.", language, alignment},
      {"evaluation.gold_rule", evaluation<&Evaluation::gold_rule>, anything(), execution, "",
       "The prompts are of `bireme prepare synthetic --task preference`, whose rule is known: report the "
       "exact "
       "win rate too.",
       language, alignment},
      {"evaluation.part", evaluation<&Evaluation::part>,
       one_of({"all", "train", "judge", "judge-validation", "evaluation"}), execution, "",
       "Prompts of the file to take, by their hash, as in `bireme prepare`.", language, alignment},
      {"evaluation.allow_overlap", evaluation<&Evaluation::allow_overlap>, anything(), execution, "",
       "Take judges too that may have seen these prompts, or those of the policy's training.", language,
       alignment},
      {"evaluation.prompt_limit", evaluation<&Evaluation::prompt_limit>, at_least(0), execution, "prompts",
       "Prompts at most, from the beginning of the file; 0 takes all.", language, alignment},
      {"evaluation.max_tokens", evaluation<&Evaluation::max_tokens>, between(1, 1 << 20), execution, "tokens",
       "Length at which an answer is ended.", language, alignment},
      {"evaluation.temperature", evaluation<&Evaluation::temperature>, at_least(0), execution, "",
       "Temperature that answers are sampled at.", language, alignment},
      {"evaluation.seed", evaluation<&Evaluation::seed>, at_least(0), execution, "",
       "Seed of their random numbers, of its own so that runs are compared on the same draws.", language,
       alignment},
      {"evaluation.batch_size", evaluation<&Evaluation::batch_size>, between(1, 65536), execution, "answers",
       "Answers that a rank writes side by side.", language, alignment},
      {"evaluation.tie_band", evaluation<&Evaluation::tie_band>, at_least(0), execution, "",
       "Standardised scores that differ by no more are a tie.", language, alignment},

      {"run.steps", run<&Run::steps>, at_least(0), mathematics, "steps",
       "Optimiser steps of the whole run; schedules span them."},
      {"run.epochs", run<&Run::epochs>, at_least(0), mathematics, "epochs",
       "Length of the run in passes over the dataset, instead of run.steps; 0 uses run.steps."},
      {"run.seed", run<&Run::seed>, at_least(0), mathematics, "", "Seed of every random number."},
      {"run.log_every", run<&Run::log_every>, at_least(1), execution, "steps",
       "Steps between two lines of metrics."},
      {"run.checkpoint_every", run<&Run::checkpoint_every>, at_least(0), execution, "steps",
       "Steps between two checkpoints; 0 writes one at the end only."},
      {"run.keep_checkpoints", run<&Run::keep_checkpoints>, at_least(1), execution, "",
       "Newest checkpoints that stay on disk."},
      {"run.evaluate_every", run<&Run::evaluate_every>, at_least(0), execution, "steps",
       "Steps between two evaluations (k-NN of pictures, perplexity of text, ranking and win rate of "
       "answers); 0 makes "
       "none."},
      {"run.device", run<&Run::device>, one_of({"auto", "cpu", "cuda"}), execution, "",
       "Where to compute; auto is the CPU as long as no run on a real GPU has been seen."},
      {"run.cuda_graphs", run<&Run::cuda_graphs>, anything(), execution, "",
       "Give the GPU a step as CUDA graphs, in a few calls instead of one a kernel; needs run.device "
       "cuda and the same kernels in each step. No gain has been measured yet."},
      {"run.threads", run<&Run::threads>, between(0, 4096), execution, "threads",
       "Compute threads of each rank; 0 takes OMP_NUM_THREADS, or the cores that the rank may use."},
      {"run.max_skipped_steps", run<&Run::max_skipped_steps>, at_least(0), execution, "steps",
       "Steps in a row with a loss or gradient that is not finite which are skipped before the run stops."},
      {"run.timeout_seconds", run<&Run::timeout_seconds>, above(0), execution, "seconds",
       "Time after which a collective operation that has not finished ends the run."},
      {"run.profile", run<&Run::profile>, anything(), execution, "",
       "Measure where the time of a step goes, by operation: a table in the log, and profile.json."},
  };
}

}  // namespace

Topic topic_of(const Configuration& configuration) {
  const std::string& type = configuration.model.type;
  return type == "rwkv" ? rwkv : type == "xlstm" ? xlstm : type == "llama" ? llama : pictures;
}

bool is_alignment(std::string_view objective) {
  return std::ranges::find(kAlignment, objective) != kAlignment.end();
}

bool is_language(const Configuration& configuration) { return topic_of(configuration) != pictures; }

std::string topic_name(Topic topic) {
  if (topic == Topic::any) return "";
  if (topic == language) return "Language models";
  static constexpr std::pair<Topic, const char*> types[] = {
      {pictures, "Pictures"}, {rwkv, "RWKV"}, {xlstm, "xLSTM"}, {llama, "LLaMA"}};
  std::string list;
  for (const auto& [type, name] : types)
    if ((static_cast<unsigned>(type) & static_cast<unsigned>(topic)) != 0)
      list += (list.empty() ? "" : ", ") + std::string(name);
  return list;
}

const std::vector<Key>& key_table() {
  static const std::vector<Key> table = make_table();
  return table;
}

const Key* find_key(std::string_view name) {
  const auto& table = key_table();
  const auto found =
      std::find_if(table.begin(), table.end(), [&](const Key& key) { return key.name == name; });
  return found == table.end() ? nullptr : &*found;
}

ConstantPlace Key::value_in(const Configuration& configuration) const {
  // The table's one accessor per key hands out writable places; this one is only read through.
  return std::visit([](auto* value) -> ConstantPlace { return value; },
                    place(const_cast<Configuration&>(configuration)));
}

std::string Allowed::text() const {
  if (!words.empty()) return fmt::format("one of {}", fmt::join(words, ", "));
  const bool has_low = low != -std::numeric_limits<double>::infinity();
  const bool has_high = high != std::numeric_limits<double>::infinity();
  if (has_low && has_high) {
    const std::string from = low_is_open ? fmt::format("above {}", low) : fmt::format("{}", low);
    return high_is_open ? fmt::format("{} to below {}", from, high) : fmt::format("{} to {}", from, high);
  }
  if (has_low) return low_is_open ? fmt::format("above {}", low) : fmt::format("at least {}", low);
  return "";
}

}  // namespace bireme
