#include "launch/evaluation.h"

#include "core/base/error.h"
#include "launch/model_folder.h"
#include "launch/progress.h"

namespace bireme {

Evaluation::Evaluation(const std::string& model, Communicator& world)
    : world_(world), context_(make_context({}, world)), alone_(make_single_process()) {
  if (model == "pixels") return;
  loaded_ = load_vision_transformer(resolve_model_folder(model, world), context_.backend->memory(), *alone_);
}

EvaluationPictures Evaluation::pictures(const std::string& folder) const {
  const Dataset dataset = Dataset::open(folder);
  const ImageManifest& manifest = dataset.manifest();
  if (!loaded_) {
    if (manifest.width == 0 || manifest.width != manifest.height)
      throw Error(ErrorKind::data, "pixels are features only where all pictures have one square size", folder,
                  "prepare the dataset with --image-size");
    return {dataset, manifest.width, manifest.channels, manifest.pixel_mean, manifest.pixel_std};
  }
  const PublishedVisionTransformer& published = loaded_->published;
  const bool knows = !published.mean.empty();
  return {dataset, published.options.image_size, published.options.channels,
          knows ? published.mean : manifest.pixel_mean, knows ? published.deviation : manifest.pixel_std};
}

FeatureProgress Evaluation::progress(const std::string& dataset) const {
  auto bar = std::make_shared<std::optional<Progress>>();
  return [bar, rank = world_.rank(), dataset](std::int64_t done, std::int64_t total) {
    if (!*bar) bar->emplace(terminal_progress("features of " + dataset, total, 0, rank));
    (*bar)->update(done);
  };
}

LabeledFeatures Evaluation::features(const std::string& dataset) const {
  const EvaluationPictures all = pictures(dataset);
  if (!loaded_) return pixel_features(backend(), all);
  return class_token_features(backend(), world_, *loaded_->model, all, context_.type, progress(dataset));
}

LabeledFeatures Evaluation::last_blocks(const std::string& dataset, int blocks) const {
  const EvaluationPictures all = pictures(dataset);
  if (!loaded_) return pixel_features(backend(), all);
  return last_blocks_features(backend(), world_, *loaded_->model, all,
                              std::min(blocks, loaded_->published.options.depth), context_.type,
                              progress(dataset));
}

}  // namespace bireme
