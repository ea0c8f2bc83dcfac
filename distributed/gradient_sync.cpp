#include "distributed/gradient_sync.h"

namespace bireme {

GradientSync::GradientSync(ParameterSet& parameters, Communicator& data, std::int64_t bucket_bytes)
    : parameters_(parameters), data_(data), bucket_of_(parameters.size()) {
  // The flat buffers hold parameters in reverse order of registration.
  for (std::size_t i = parameters.size(); i-- > 0;) {
    const std::int64_t begin = parameters.offset(parameters[i]);
    const std::int64_t end =
        i > 0 ? parameters.offset(parameters[i - 1]) : parameters.flat_gradients().elements();
    const auto bytes = [](std::int64_t elements) {
      return elements * static_cast<std::int64_t>(sizeof(float));
    };
    if (buckets_.empty() || bytes(buckets_.back().end - buckets_.back().begin) >= bucket_bytes ||
        bytes(end - begin) >= bucket_bytes) {
      buckets_.push_back({.begin = begin, .end = begin});
    }
    buckets_.back().end = end;
    ++buckets_.back().parameters;
    bucket_of_[i] = buckets_.size() - 1;
  }
}

void GradientSync::begin(bool communicates) {
  communicates_ = communicates && data_.size() > 1;
  for (Bucket& bucket : buckets_) bucket.missing = bucket.parameters;
}

void GradientSync::ready(const Parameter& parameter) {
  if (!communicates_) return;
  Bucket& bucket = buckets_[bucket_of_[static_cast<std::size_t>(parameter.index())]];
  if (--bucket.missing > 0) return;
  under_way_.push_back(data_.all_reduce(
      parameters_.flat_gradients().view(bucket.begin, {bucket.end - bucket.begin}), Reduce::sum));
}

void GradientSync::wait() {
  for (Work& work : under_way_) work.wait();
  under_way_.clear();
}

}  // namespace bireme
