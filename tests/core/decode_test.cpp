#include "core/image/decode.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>

#include "tests/support/encode.h"
#include "tests/support/expect_error.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

Picture decode(const std::string& bytes, Channels channels = Channels::as_stored) {
  return PictureDecoder().decode({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()},
                                 "album/cat.jpg", channels);
}

std::string error(const std::string& bytes) {
  return error_of(ErrorKind::data, [&] { decode(bytes); });
}

std::string pixels(const Picture& picture) { return {picture.pixels.begin(), picture.pixels.end()}; }

int largest_difference(const std::string& a, const std::string& b) {
  int largest = a.size() == b.size() ? 0 : 256;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest =
        std::max(largest, std::abs(static_cast<unsigned char>(a[i]) - static_cast<unsigned char>(b[i])));
  return largest;
}

TEST(Decode, PngOfEveryFormGivesThePixelsThatPillowGives) {
  const std::string rgb = test::ramp(5, 3, 3), grey = test::ramp(5, 3, 1);
  EXPECT_EQ(pixels(decode(test::png({5, 3, 8, PNG_COLOR_TYPE_RGB, rgb}))), rgb);
  const Picture picture = decode(test::png({5, 3, 8, PNG_COLOR_TYPE_GRAY, grey}));
  EXPECT_EQ(picture.channels, 1);
  EXPECT_EQ(picture.width, 5);
  EXPECT_EQ(picture.height, 3);
  EXPECT_EQ(pixels(picture), grey);
  EXPECT_EQ(pixels(decode(test::png({5, 3, 8, PNG_COLOR_TYPE_RGB, rgb, {}, {}, true}))), rgb) << "interlaced";

  // Alpha is dropped, not blended.
  EXPECT_EQ(pixels(decode(test::png(
                {2, 1, 8, PNG_COLOR_TYPE_RGBA, std::string("\x01\x02\x03\x00\x04\x05\x06\x80", 8)}))),
            "\x01\x02\x03\x04\x05\x06");
  EXPECT_EQ(
      pixels(decode(test::png({2, 1, 8, PNG_COLOR_TYPE_GRAY_ALPHA, std::string("\x07\x00\x09\x80", 4)}))),
      "\x07\x09");
  // Of 16 bits the upper 8 count.
  EXPECT_EQ(pixels(decode(test::png({2, 1, 16, PNG_COLOR_TYPE_GRAY, "\x12\xff\x34\x80"}))), "\x12\x34");
  EXPECT_EQ(pixels(decode(test::png({1, 1, 16, PNG_COLOR_TYPE_RGB, "\x12\xff\x34\x80\x56\x7f"}))),
            "\x12\x34\x56");
  // Fewer than 8 bits of grey are spread over the whole range: 1 bit to 0 and 255, 4 bits times 17.
  EXPECT_EQ(pixels(decode(test::png({4, 1, 1, PNG_COLOR_TYPE_GRAY, "\x50"}))),
            std::string("\x00\xff\x00\xff", 4));
  EXPECT_EQ(pixels(decode(test::png({2, 1, 4, PNG_COLOR_TYPE_GRAY, "\x2f"}))), "\x22\xff");
  // A palette becomes RGB, also where some of its colours are transparent.
  EXPECT_EQ(
      pixels(decode(test::png(
          {2, 1, 8, PNG_COLOR_TYPE_PALETTE, std::string("\x01\x00", 2), {{1, 2, 3}, {9, 8, 7}}, {0, 128}}))),
      "\x09\x08\x07\x01\x02\x03");
}

TEST(Decode, GreyIsRepeatedOnRequest) {
  const Picture picture = decode(test::png({2, 1, 8, PNG_COLOR_TYPE_GRAY, "ab"}), Channels::rgb);
  EXPECT_EQ(picture.channels, 3);
  EXPECT_EQ(pixels(picture), "aaabbb");
}

TEST(Decode, JpegComesBackWithinItsQuantisation) {
  const std::string rgb = test::ramp(17, 9, 3), grey = test::ramp(17, 9, 1);
  // At quality 100 every coefficient is rounded to 1: at most 2 levels of error, and 2 more from the colour
  // transform.
  EXPECT_LE(largest_difference(pixels(decode(test::jpeg(17, 9, rgb))), rgb), 4);
  const Picture picture = decode(test::jpeg(17, 9, grey, TJPF_GRAY, TJSAMP_GRAY));
  EXPECT_EQ(picture.channels, 1);
  EXPECT_LE(largest_difference(pixels(picture), grey), 2);
  EXPECT_EQ(decode(test::jpeg(17, 9, rgb, TJPF_RGB, TJSAMP_444, 90, TJFLAG_PROGRESSIVE)).width, 17);
}

TEST(Decode, InksOfAdobeJpegBecomeRgb) {
  // One colour, so that nothing but rounding is lost: stored C, M, Y, K (inverted) of 200, 100, 50, 128 gives
  // the products with K over 255: 100, 50, 25.
  std::string inks;
  for (int i = 0; i < 64; ++i) inks += "\xc8\x64\x32\x80";
  const Picture picture = decode(test::jpeg(8, 8, inks, TJPF_CMYK));
  ASSERT_EQ(picture.channels, 3);
  EXPECT_NEAR(picture.pixels[0], 100, 2);
  EXPECT_NEAR(picture.pixels[1], 50, 2);
  EXPECT_NEAR(picture.pixels[2], 25, 2);
}

TEST(Decode, ExifOrientationIsNotApplied) {
  // APP1 with one big-endian IFD entry: orientation (0x0112) = 6, a quarter turn.
  const std::string exif(
      "\xff\xe1\x00\x22"
      "Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
      36);
  std::string bytes = test::jpeg(17, 9, test::ramp(17, 9, 3));
  const Picture plain = decode(bytes);
  const Picture turned = decode(bytes.insert(2, exif));
  EXPECT_EQ(turned.width, 17);
  EXPECT_EQ(pixels(turned), pixels(plain));
}

TEST(Decode, CutShortAtAnyLengthIsAnErrorWithTheName) {
  const std::string jpeg = test::jpeg(40, 30, test::ramp(40, 30, 3), TJPF_RGB, TJSAMP_420, 90);
  const std::string png = test::png({40, 30, 8, PNG_COLOR_TYPE_RGB, test::ramp(40, 30, 3)});
  for (const std::string& whole : {jpeg, png})
    // The last two bytes of a JPEG are its end mark, of a PNG the end chunk's checksum: they count as well.
    for (std::size_t length = 0; length < whole.size(); ++length)
      ASSERT_TRUE(mentions(error(whole.substr(0, length)), {"album/cat.jpg"}))
          << length << " of " << whole.size();
}

TEST(Decode, AFlippedBitInAPngIsAlwaysFound) {
  const std::string png = test::png({40, 30, 8, PNG_COLOR_TYPE_RGB, test::ramp(40, 30, 3)});
  for (std::size_t i = 0; i < png.size(); ++i) {
    std::string bad = png;
    bad[i] = static_cast<char>(bad[i] ^ 16);
    EXPECT_THROW(decode(bad), Error) << "byte " << i;
  }
}

TEST(Decode, CorruptEntropyCodesInAJpegAreAnError) {
  std::string bytes = test::jpeg(64, 64, test::ramp(64, 64, 3), TJPF_RGB, TJSAMP_420, 90);
  ASSERT_GT(bytes.size(), 800u);
  for (std::size_t i = bytes.size() - 200; i < bytes.size() - 160; i += 2)
    bytes.replace(i, 2, std::string("\xff\x00", 2));  // ones only: no Huffman code is that
  EXPECT_TRUE(mentions(error(bytes), {"JPEG", "does not decode", "album/cat.jpg"}));
}

TEST(Decode, PaddingBetweenSegmentsIsHarmless) {
  std::string bytes = test::jpeg(16, 16, test::ramp(16, 16, 3));
  const Picture plain = decode(bytes);
  bytes.insert(bytes.size() - 2, "padding");  // before the end mark
  EXPECT_EQ(pixels(decode(bytes)), pixels(plain));
}

TEST(Decode, OtherFilesAreRefused) {
  EXPECT_TRUE(mentions(error(""), {"empty"}));
  EXPECT_TRUE(mentions(error("GIF89a......"), {"neither a JPEG nor a PNG", "album/cat.jpg"}));
}

TEST(Decode, ADeclaredSizeBeyondTheLimitTakesNoMemory) {
  std::string jpeg = test::jpeg(16, 16, test::ramp(16, 16, 3));
  const std::size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\xff\xdc\xff\xdc");  // height and width 65500
  EXPECT_TRUE(mentions(error(jpeg), {"65500 x 65500", "178956970"}));

  std::string png = test::png({16, 16, 8, PNG_COLOR_TYPE_RGB, test::ramp(16, 16, 3)});
  png.replace(16, 8,
              std::string("\0\x01\0\0\0\x01\0\0", 8));  // 65536 x 65536, with the header's CRC made to fit
  const auto crc = static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(png.data()) + 12, 17));
  for (int i = 0; i < 4; ++i) png[29 + i] = static_cast<char>(crc >> (24 - 8 * i));
  EXPECT_TRUE(mentions(error(png), {"65536 x 65536", "178956970"}));
}

TEST(Decode, RecordsOfADatasetMustBeWhatTheyDeclare) {
  PictureDecoder decoder;
  EncodedPicture record{
      .codec = Codec::raw, .bytes = {1, 2, 3, 4, 5, 6}, .height = 2, .width = 3, .channels = 1};
  EXPECT_EQ(decoder.decode(record, "record 0").pixels, record.bytes);
  EXPECT_EQ(decoder.decode(record, "record 0", Channels::rgb).pixels.size(), 18u);
  record.width = 4;
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { decoder.decode(record, "record 0"); }),
                       {"6 bytes", "record 0"}));
  const std::string png = test::png({3, 2, 8, PNG_COLOR_TYPE_GRAY, "abcdef"});
  record.codec = Codec::png;
  record.bytes.assign(png.begin(), png.end());
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { decoder.decode(record, "record 0"); }), {"3 x 2", "4 x 2"}));
}

TEST(Decode, EncodedJpegComesBack) {
  const std::string rgb = test::ramp(20, 10, 3);
  const Picture picture{.width = 20, .height = 10, .channels = 3, .pixels = {rgb.begin(), rgb.end()}};
  const std::vector<std::uint8_t> bytes = encode_jpeg(picture, 100);
  EXPECT_EQ(codec_of(bytes, ""), Codec::jpeg);
  EXPECT_LE(largest_difference(pixels(PictureDecoder().decode(bytes, "")), rgb), 4);
}

}  // namespace
}  // namespace bireme
