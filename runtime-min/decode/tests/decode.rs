//! What becomes of picture files, and which are refused.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};
use runtime_decode::{Alpha, Options, Picture, Problem, decode, open, read};

const DROP: Options = Options { alpha: Alpha::Drop, exif: false };

fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("an encoder");
    bytes.into_inner()
}

fn picture(bytes: &[u8], options: Options) -> Picture {
    decode(bytes, options).unwrap_or_else(|e| panic!("{e}"))
}

fn problem(bytes: &[u8]) -> String {
    match decode(bytes, Options::default()) {
        Ok(picture) => panic!("decoded to {} x {}", picture.width, picture.height),
        Err(error) => error.to_string(),
    }
}

#[test]
fn depths_and_grays_become_rgb() {
    let deep = image::ImageBuffer::from_fn(2, 1, |x, _| image::Rgb([0x12ff_u16, 0x3400, x as u16 * 0xffff]));
    let rgb = picture(&encoded(deep.into(), ImageFormat::Png), Options::default());
    assert_eq!((rgb.width, rgb.height, &rgb.pixels[..]), (2, 1, &[0x12, 0x34, 0, 0x12, 0x34, 255][..]));
    let gray = image::GrayImage::from_pixel(1, 1, image::Luma([9]));
    assert_eq!(picture(&encoded(gray.into(), ImageFormat::Png), Options::default()).pixels, [9; 3]);
    let deep = image::ImageBuffer::from_pixel(1, 1, image::Luma([0x7fff_u16]));
    assert_eq!(picture(&encoded(deep.into(), ImageFormat::Png), Options::default()).pixels, [0x7f; 3]);
}

#[test]
fn transparency_is_as_the_reference_sees_it() {
    let rgba =
        |pixel: [u8; 4]| encoded(image::RgbaImage::from_pixel(1, 1, image::Rgba(pixel)).into(), ImageFormat::Png);
    // Values of Pillow 13.
    for (pixel, white) in [([10, 20, 30, 128], [132, 137, 142]), ([0, 0, 0, 0], [255; 3]), ([7, 8, 9, 255], [7, 8, 9])]
    {
        assert_eq!(picture(&rgba(pixel), Options::default()).pixels, white);
        assert_eq!(picture(&rgba(pixel), DROP).pixels, pixel[..3]);
    }
    let deep = image::ImageBuffer::from_pixel(1, 1, image::LumaA([0x0aff_u16, 0x80ff]));
    let bytes = encoded(deep.into(), ImageFormat::Png);
    assert_eq!((picture(&bytes, Options::default()).pixels, picture(&bytes, DROP).pixels), (vec![132; 3], vec![10; 3]));
}

#[test]
fn of_an_animation_the_first_frame_counts() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for color in [[200, 0, 0, 255], [0, 0, 200, 255]] {
        let frame = image::RgbaImage::from_pixel(8, 8, image::Rgba(color));
        encoder.encode_frame(image::Frame::new(frame)).expect("a frame");
    }
    drop(encoder);
    let first = picture(&bytes, Options::default());
    assert_eq!((first.width, first.height, &first.pixels[..3]), (8, 8, &[200, 0, 0][..]));
}

#[test]
fn every_format_is_read() {
    let noise = image::RgbImage::from_fn(9, 5, |x, y| image::Rgb([x as u8 * 20, y as u8 * 40, 7]));
    for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Pnm] {
        let rgb = picture(&encoded(noise.clone().into(), format), Options::default());
        assert_eq!((rgb.width, rgb.height), (9, 5), "{format:?}");
        // GIF has a palette of its own.
        assert!(rgb.pixels == *noise.as_raw() || format == ImageFormat::Gif, "{format:?}");
    }
    assert_eq!(picture(&encoded(noise.into(), ImageFormat::Jpeg), Options::default()).pixels.len(), 9 * 5 * 3);
}

#[test]
fn what_is_no_picture_is_refused() {
    assert!(problem(b"").contains("is empty"));
    assert!(problem(b"GET / HTTP/1.1").contains("is no picture"));
    let whole = encoded(DynamicImage::new_rgb8(64, 64), ImageFormat::Png);
    assert!(problem(&whole[..whole.len() / 2]).contains("damaged or incomplete"));
    // A header that promises 65,535 x 65,535 pixels.
    let mut bomb = b"P6\n65535 65535\n255\n".to_vec();
    bomb.extend([0; 100]);
    let expected = "the picture: 65,535 x 65,535 pixels: at most 1,048,576 on a side and 178,956,970 in all are taken, \
                    scale it down first";
    assert_eq!(problem(&bomb), expected);
}

#[test]
fn a_jpeg_without_its_end_is_refused() {
    let noise = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * y * 37 % 251) as u8; 3]));
    let whole = encoded(noise.into(), ImageFormat::Jpeg);
    for n in [whole.len() / 2, whole.len() - 2, whole.len() - 1] {
        assert!(problem(&whole[..n]).contains("cut off"), "{n} of {}", whole.len());
    }
    let trailing = [&whole[..], b"what a camera appends"].concat();
    assert!(decode(&trailing, Options::default()).is_ok());
}

#[test]
fn inks_are_refused() {
    let frame = [0xff, 0xd8, 0xff, 0xe0, 0, 2, 0xff, 0xff, 0xc0, 0, 20, 8, 0, 1, 0, 1, 4];
    assert!(problem(&frame).contains("CMYK"));
    // Cut before the number of its components.
    assert!(problem(&frame[..12]).contains("cut off"));
    let rgb = encoded(DynamicImage::new_rgb8(8, 8), ImageFormat::Jpeg);
    assert_eq!(picture(&rgb, Options::default()).width, 8);
}

#[test]
fn cameras_are_turned_only_when_asked() {
    let mut jpeg = encoded(DynamicImage::new_rgb8(16, 8), ImageFormat::Jpeg);
    // One entry, tag 0x112 (orientation), a short: 6, to be turned clockwise.
    let tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let exif = [b"Exif\0\0", &tiff[..]].concat();
    let segment = [&[0xff, 0xe1][..], &(exif.len() as u16 + 2).to_be_bytes(), &exif].concat();
    jpeg.splice(2..2, segment);
    let size = |exif| {
        let picture = picture(&jpeg, Options { exif, ..Options::default() });
        (picture.width, picture.height)
    };
    assert_eq!((size(false), size(true)), ((16, 8), (8, 16)));
}

#[test]
fn odd_shapes_are_taken() {
    for (width, height) in [(1, 1), (20_000, 3)] {
        let bytes = encoded(DynamicImage::new_rgb8(width, height), ImageFormat::Png);
        let rgb = picture(&bytes, Options::default());
        assert_eq!((rgb.width, rgb.height), (width as usize, height as usize));
    }
}

#[test]
fn files_and_streams_are_read_and_named() {
    let folder = std::env::temp_dir().join(format!("runtime-decode-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let bytes = encoded(DynamicImage::new_rgb8(3, 2), ImageFormat::Png);
    let path = folder.join("a.png");
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(open(&path, Options::default()).expect("a picture"), read(&bytes[..], Options::default()).expect("one"));
    let missing = open(folder.join("none.png"), Options::default()).expect_err("missing");
    assert!(matches!(missing.problem, Problem::Missing));
    assert!(missing.to_string().ends_with("none.png: no such file: a picture is expected"), "{missing}");
    assert!(matches!(open(&folder, Options::default()).expect_err("a folder").problem, Problem::Folder));
    std::fs::remove_dir_all(&folder).expect("removed");
}
