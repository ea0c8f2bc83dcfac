#include "core/image/planes.h"

namespace bireme {

Planes to_planes(const Picture& picture) {
  Planes planes;
  planes.resize(picture.width, picture.height, picture.channels);
  for (int c = 0; c < picture.channels; ++c)
    for (std::int64_t i = 0; i < planes.area(); ++i)
      planes.plane(c)[i] = picture.pixels[i * picture.channels + c];
  return planes;
}

Picture to_picture(const Planes& planes) {
  Picture picture{planes.width, planes.height, planes.channels, {}};
  picture.pixels.resize(planes.values.size());
  for (int c = 0; c < planes.channels; ++c)
    for (std::int64_t i = 0; i < planes.area(); ++i)
      picture.pixels[i * planes.channels + c] = planes.plane(c)[i];
  return picture;
}

}  // namespace bireme
