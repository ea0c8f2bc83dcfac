#include "core/data/picture_input.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/io/archive.h"

namespace bireme {

namespace {

namespace fs = std::filesystem;

constexpr const char* kInputs = "give a folder with one sub-folder per class, a .tar of one, or an IDX pair";
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 30;

bool is_picture_name(const std::string& name) {
  std::string extension = fs::path(name).extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

std::vector<std::string> folders_of(const std::string& path) {
  std::vector<std::string> folders;
  for (const fs::path& part : fs::path(path).parent_path())
    if (part != "." && part != "/") folders.push_back(part.string());
  return folders;
}

/// A folder or an archive: named files that are read on demand.
class FileTree {
 public:
  virtual ~FileTree() = default;
  virtual std::vector<std::uint8_t> read(std::size_t i) const = 0;
  virtual std::string name(std::size_t i) const = 0;

  const std::vector<std::string>& paths() const { return paths_; }  // within the tree, in byte order
  std::int64_t ignored() const { return ignored_; }

 protected:
  /// Keeps pictures, counts the rest. Files that systems hide beside pictures (`.DS_Store`, `._cat.jpg`) are
  /// the rest.
  bool wanted(const std::string& path) {
    const bool is_wanted = is_picture_name(path) && !fs::path(path).filename().string().starts_with('.');
    if (!is_wanted) ++ignored_;
    return is_wanted;
  }
  std::vector<std::string> paths_;
  std::int64_t ignored_ = 0;
};

class Folder final : public FileTree {
 public:
  explicit Folder(fs::path root) : root_(std::move(root)) {
    std::error_code failure;
    for (fs::recursive_directory_iterator at(root_, failure), end; !failure && at != end;
         at.increment(failure))
      if (at->is_regular_file(failure) && wanted(at->path().string()))
        paths_.push_back(at->path().lexically_relative(root_).generic_string());
    if (failure)
      throw Error(ErrorKind::data, fmt::format("cannot list it ({})", failure.message()), root_.string(),
                  kInputs);
    std::sort(paths_.begin(), paths_.end());
  }
  std::string name(std::size_t i) const override { return (root_ / paths_[i]).string(); }
  std::vector<std::uint8_t> read(std::size_t i) const override {
    const InputFile file(root_ / paths_[i], ErrorKind::data);
    if (file.size() > kMaxFileBytes)
      throw Error(ErrorKind::data, "the file is larger than 1 GiB", name(i), "remove it");
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(file.size()));
    file.read_at(0, std::as_writable_bytes(std::span(bytes)));
    return bytes;
  }

 private:
  fs::path root_;
};

class Archive final : public FileTree {
 public:
  explicit Archive(const fs::path& path) : path_(path), archive_(path) {
    for (const ArchiveMember& member : archive_.members()) {
      if (!wanted(member.name)) continue;
      paths_.push_back(member.name);
      members_.push_back(member);
    }
  }
  std::string name(std::size_t i) const override { return fmt::format("{}: {}", path_.string(), paths_[i]); }
  std::vector<std::uint8_t> read(std::size_t i) const override {
    if (members_[i].bytes > kMaxFileBytes)
      throw Error(ErrorKind::data, "the file is larger than 1 GiB", name(i), "remove it");
    return archive_.read(members_[i]);
  }

 private:
  fs::path path_;
  TarArchive archive_;
  std::vector<ArchiveMember> members_;
};

/// How many leading folders all paths have in common. The folder that holds a picture is never one of them,
/// so that one class alone is still a class.
std::size_t common_folders(const std::vector<std::string>& paths) {
  std::vector<std::string> common = folders_of(paths.front());
  if (!common.empty()) common.pop_back();
  for (const std::string& path : paths) {
    std::vector<std::string> folders = folders_of(path);
    if (!folders.empty()) folders.pop_back();
    const auto differ = std::mismatch(common.begin(), common.end(), folders.begin(), folders.end()).first;
    common.erase(differ, common.end());
  }
  return common.size();
}

class TreeInput final : public PictureInput {
 public:
  explicit TreeInput(std::vector<std::unique_ptr<FileTree>> trees) : trees_(std::move(trees)) {
    std::vector<std::string> class_of;
    for (const auto& tree : trees_) {
      ignored_ += tree->ignored();
      if (tree->paths().empty()) continue;
      const std::size_t skipped = common_folders(tree->paths());
      for (std::size_t i = 0; i < tree->paths().size(); ++i) {
        const std::vector<std::string> folders = folders_of(tree->paths()[i]);
        class_of.push_back(skipped < folders.size() ? folders[skipped] : "");
        entries_.push_back({tree.get(), i, -1});
      }
    }
    const std::set<std::string> names(class_of.begin(), class_of.end());
    std::copy_if(names.begin(), names.end(), std::back_inserter(classes_),
                 [](const std::string& n) { return !n.empty(); });
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const auto found = std::lower_bound(classes_.begin(), classes_.end(), class_of[i]);
      if (!class_of[i].empty()) entries_[i].label = static_cast<std::int32_t>(found - classes_.begin());
    }
  }

  std::int64_t size() const override { return std::ssize(entries_); }
  std::string name(std::int64_t i) const override { return at(i).tree->name(at(i).index); }
  EncodedPicture load(std::int64_t i) const override {
    EncodedPicture picture;
    picture.bytes = at(i).tree->read(at(i).index);
    picture.label = at(i).label;
    return picture;
  }

 private:
  struct Entry {
    const FileTree* tree;
    std::size_t index;
    std::int32_t label;
  };
  const Entry& at(std::int64_t i) const { return entries_[static_cast<std::size_t>(i)]; }

  std::vector<std::unique_ptr<FileTree>> trees_;
  std::vector<Entry> entries_;
};

class IdxInput final : public PictureInput {
 public:
  explicit IdxInput(const std::vector<fs::path>& inputs) {
    bool has_images = false, has_labels = false;
    for (const fs::path& path : inputs) {
      IdxArray array = read_idx(path);
      const bool is_labels = array.shape.rank() == 1;
      if (std::exchange(is_labels ? has_labels : has_images, true))
        throw Error(ErrorKind::data, fmt::format("is a second file of {}", is_labels ? "labels" : "images"),
                    path.string(), "give one IDX file of images and one of labels");
      (is_labels ? labels_ : images_) = std::move(array);
      if (!is_labels) path_ = path;
    }
    if (!has_images)
      throw Error(ErrorKind::data, "holds labels, but no images", inputs.front().string(), kInputs);
    check_shapes(has_labels, inputs);
    if (!has_labels) return;
    const int last =
        labels_.bytes.empty() ? -1 : *std::max_element(labels_.bytes.begin(), labels_.bytes.end());
    for (int label = 0; label <= last; ++label) classes_.push_back(std::to_string(label));
  }

  std::int64_t size() const override { return images_.shape.front(); }
  std::string name(std::int64_t i) const override { return fmt::format("{}: picture {}", path_.string(), i); }
  EncodedPicture load(std::int64_t i) const override {
    const std::ptrdiff_t bytes = std::ssize(images_.bytes) / size();
    EncodedPicture picture{
        .codec = Codec::raw,
        .bytes = {images_.bytes.begin() + i * bytes, images_.bytes.begin() + (i + 1) * bytes},
        .height = static_cast<int>(images_.shape[1]),
        .width = static_cast<int>(images_.shape[2]),
        .channels = images_.shape.rank() == 4 ? 3 : 1};
    if (!labels_.bytes.empty()) picture.label = labels_.bytes[static_cast<std::size_t>(i)];
    return picture;
  }

 private:
  void check_shapes(bool has_labels, const std::vector<fs::path>& inputs) const {
    const Shape& shape = images_.shape;
    const auto fail = [&](const std::string& what) {
      throw Error(ErrorKind::data, what, path_.string(), kInputs);
    };
    if (shape.rank() != 3 && !(shape.rank() == 4 && shape.back() == 3))
      fail(fmt::format("the images have shape {}, not [N, height, width] or [N, height, width, 3]",
                       to_string(shape)));
    if (shape.elements() > 0 && shape[1] * shape[2] > kMaxPixels) fail("its pictures are too large");
    if (shape.elements() == 0) fail(fmt::format("holds no picture, its shape is {}", to_string(shape)));
    if (inputs.size() > 2) fail(fmt::format("{} IDX files were given", inputs.size()));
    if (has_labels && labels_.shape.front() != shape.front())
      fail(fmt::format("there are {} images, but {} labels", shape.front(), labels_.shape.front()));
  }

  fs::path path_;
  IdxArray images_, labels_;
};

}  // namespace

std::unique_ptr<PictureInput> open_picture_input(const std::vector<fs::path>& inputs) {
  std::vector<fs::path> idx;
  std::vector<std::unique_ptr<FileTree>> trees;
  for (const fs::path& input : inputs) {
    if (!fs::exists(input)) throw Error(ErrorKind::data, "the input does not exist", input.string(), kInputs);
    if (fs::is_directory(input))
      trees.push_back(std::make_unique<Folder>(input));
    else if (is_idx(input))
      idx.push_back(input);
    else
      trees.push_back(std::make_unique<Archive>(input));
  }
  if (!idx.empty() && !trees.empty())
    throw Error(ErrorKind::data, "IDX files cannot be mixed with folders or archives", idx.front().string(),
                kInputs);
  if (!idx.empty()) return std::make_unique<IdxInput>(idx);
  auto input = std::make_unique<TreeInput>(std::move(trees));
  if (input->size() == 0)
    throw Error(ErrorKind::data, fmt::format("no .jpg, .jpeg or .png file among {} files", input->ignored()),
                inputs.empty() ? "--input" : inputs.front().string(), kInputs);
  return input;
}

}  // namespace bireme
