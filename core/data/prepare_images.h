#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace bireme {

struct PrepareImagesOptions {
  std::vector<std::filesystem::path> inputs;  ///< see open_picture_input()
  std::filesystem::path output;
  std::string split = "train";
  int image_size = 0;               ///< pixels that the shorter side is resized to; 0: sizes stay
  std::int64_t shard_size = 16384;  ///< records of a shard
  bool skip_broken = false;  ///< leave pictures out that do not decode, instead of stopping at the first
  bool replace = false;      ///< a dataset that stands at `output` makes way
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};
};

struct PrepareImagesReport {
  std::int64_t records = 0;
  std::int64_t ignored = 0;         ///< files that are not pictures by their name
  std::vector<std::string> broken;  ///< pictures left out, with the reason
  std::vector<std::string> classes;
};

/// Turns folders, archives or an IDX pair into a dataset. Every picture is decoded once, so a broken one is
/// found here and not during training; the decoded pixels give mean and deviation of the channels. Pictures
/// of at most 64 x 64 pixels are stored as pixels, since decoding them again in each epoch costs more than
/// reading; larger ones keep the bytes of their file, unless they are resized. The result depends neither on
/// the number of threads nor on the order in which the disk lists files.
/// @throws Error (data) for a broken picture or input, (usage) for an output in use, (checkpoint) for a full
/// disk
PrepareImagesReport prepare_images(const PrepareImagesOptions& options);

}  // namespace bireme
