//! Picture files to plain RGB, as the reference's Pillow reads them.
//!
//! Sizes are checked before anything is decoded. Of animations the first frame counts, 16-bit channels give
//! their upper byte (16-bit gray too, of which Pillow makes white), and gray becomes three equal channels.
//! Inks (CMYK) are refused: what color they are depends on the press. So is a JPEG without its end, as Pillow does:
//! a decoder would make up the rest of the picture.

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::model::Alpha;
use crate::error::Error;
use crate::error::grouped;

/// Largest picture file, in bytes.
const MAX_FILE: u64 = 512 << 20;

/// Most pixels: where Pillow calls a file a decompression bomb.
const MAX_PIXELS: u64 = 178_956_970;

/// Longest side.
const MAX_SIDE: u32 = 1 << 20;

/// Most bytes that decoding may take besides the picture: tables, palettes, profiles, one more copy.
const MAX_WORK: u64 = 2 << 30;

/// A picture: rows of 8-bit red, green, blue.
pub struct Rgb {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// Reads a picture file, or stdin if `path` is `-`. `exif` turns it as the camera was held.
///
/// # Errors
/// [`Error::Input`] for what is no picture or one that is too large, else [`Error::Io`].
pub fn read(path: &Path, alpha: Alpha, exif: bool) -> Result<Rgb, Error> {
    let (name, bytes) = if path == Path::new("-") {
        ("standard input".to_owned(), limited(io::stdin().lock(), path)?)
    } else {
        let name = path.display().to_string();
        let meta = fs::metadata(path).map_err(|e| unreadable(path, e))?;
        if meta.is_dir() {
            return Err(Error::input(name, "", "is a folder, a picture file is expected"));
        }
        let file = File::open(path).map_err(|e| unreadable(path, e))?;
        (name, limited(BufReader::new(file), path)?)
    };
    decode(&bytes, alpha, exif).map_err(|problem| Error::input(name, "", problem))
}

/// A picture that is not there is bad input, one that the system refuses is the surroundings.
fn unreadable(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::input(path.display().to_string(), "", "no such file: a picture is expected")
        }
        _ => Error::io("open", path)(e),
    }
}

fn limited(from: impl Read, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > MAX_FILE {
        let problem = format!("more than {} bytes: scale the picture down first", grouped(MAX_FILE));
        return Err(Error::input(path.display().to_string(), "", problem));
    }
    Ok(bytes)
}

fn decode(bytes: &[u8], alpha: Alpha, exif: bool) -> Result<Rgb, String> {
    if bytes.is_empty() {
        return Err("is empty, a picture is expected".into());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let Some(format) = reader.format() else {
        return Err("is no picture that is known here: PNG, JPEG, GIF, WebP, BMP and PNM are".into());
    };
    if format == ImageFormat::Jpeg && jpeg_channels(bytes) == Some(4) {
        return Err("is a JPEG in CMYK: convert it to RGB first".into());
    }
    if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
        return Err("is damaged or incomplete: the JPEG has no end, was it cut off?".into());
    }
    let refused = |e: ImageError| match e {
        ImageError::Unsupported(e) => format!("cannot be read: {e}"),
        e => format!("is damaged or incomplete: {e}"),
    };
    let mut decoder = reader.into_decoder().map_err(refused)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_WORK);
    decoder.set_limits(limits).map_err(refused)?;
    // A picture whose orientation cannot be read stays as it is.
    let orientation = if exif { decoder.orientation().ok() } else { None };
    let mut image = DynamicImage::from_decoder(decoder).map_err(refused)?;
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    let (width, height) = (image.width(), image.height());
    Ok(Rgb { width, height, pixels: rgb(image, alpha) })
}

fn check_size(width: u32, height: u32) -> Result<(), String> {
    let size = format!("{} x {} pixels", grouped(width.into()), grouped(height.into()));
    if width == 0 || height == 0 {
        return Err(format!("{size}: at least one each way is expected"));
    }
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        let (side, all) = (grouped(MAX_SIDE.into()), grouped(MAX_PIXELS));
        return Err(format!("{size}: at most {side} on a side and {all} in all are taken, scale it down first"));
    }
    Ok(())
}

/// Components of a JPEG's frame.
fn jpeg_channels(bytes: &[u8]) -> Option<u8> {
    let mut at = 2;
    loop {
        let [0xff, marker, high, low] = *bytes.get(at..at + 4)?.first_chunk::<4>()? else { return None };
        match marker {
            // Fill bytes before a marker.
            0xff => at += 1,
            // Start of frame, all kinds; not tables, arithmetic conditioning, reserved.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => return bytes.get(at + 9).copied(),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
}

/// Whether the end marker comes, thumbnails inside of segments apart. Bytes after it do not matter.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[mark, marker]) = bytes.get(at..at + 2).and_then(<[u8]>::first_chunk::<2>) {
        match (mark, marker) {
            (0xff, 0xd9) => return true,
            // Coded data and what may stand in it: a stuffed zero, restarts, fill bytes.
            (0..=0xfe, _) | (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, _) => match bytes.get(at + 2..at + 4).and_then(<[u8]>::first_chunk::<2>) {
                Some(&length) => at += 2 + usize::from(u16::from_be_bytes(length)),
                None => return false,
            },
        }
    }
    false
}

fn rgb(image: DynamicImage, alpha: Alpha) -> Vec<u8> {
    let seen = |rgba: &[u8]| match alpha {
        Alpha::Drop => [rgba[0], rgba[1], rgba[2]],
        Alpha::White => [0, 1, 2].map(|c| over_white(rgba[c], rgba[3])),
    };
    let upper = |v: u16| (v >> 8) as u8;
    match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLuma8(image) => image.into_raw().into_iter().flat_map(|v| [v; 3]).collect(),
        DynamicImage::ImageLuma16(image) => image.into_raw().into_iter().flat_map(|v| [upper(v); 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.into_raw().into_iter().map(upper).collect(),
        DynamicImage::ImageRgba16(image) => {
            let bytes: Vec<u8> = image.into_raw().into_iter().map(upper).collect();
            bytes.chunks_exact(4).flat_map(seen).collect()
        }
        DynamicImage::ImageLumaA16(image) => {
            let bytes: Vec<u8> = image.into_raw().into_iter().map(upper).collect();
            bytes.chunks_exact(2).flat_map(|v| seen(&[v[0], v[0], v[0], v[1]])).collect()
        }
        DynamicImage::ImageLumaA8(image) => {
            image.into_raw().chunks_exact(2).flat_map(|v| seen(&[v[0], v[0], v[0], v[1]])).collect()
        }
        DynamicImage::ImageRgba8(image) => image.into_raw().chunks_exact(4).flat_map(seen).collect(),
        // Float pictures, which no format here gives.
        other => other.to_rgb8().into_raw(),
    }
}

/// One channel before white, with Pillow's rounding: 7 more bits, and a division by 255 of shifts and adds.
fn over_white(value: u8, alpha: u8) -> u8 {
    const BITS: u32 = 7;
    if alpha == 0 {
        return 255;
    }
    let coef = u32::from(alpha) << BITS;
    let rest = (255 << BITS) - coef;
    let sum = u32::from(value) * coef + 255 * rest + (0x80 << BITS);
    ((((sum >> 8) + sum) >> 8) >> BITS) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("an encoder");
        bytes.into_inner()
    }

    fn problem(bytes: &[u8]) -> String {
        match decode(bytes, Alpha::White, false) {
            Ok(rgb) => panic!("decoded to {} x {}", rgb.width, rgb.height),
            Err(problem) => problem,
        }
    }

    #[test]
    fn depths_and_grays_become_rgb() {
        let deep = image::ImageBuffer::from_fn(2, 1, |x, _| image::Rgb([0x12ff_u16, 0x3400, x as u16 * 0xffff]));
        let rgb = decode(&encoded(deep.into(), ImageFormat::Png), Alpha::White, false).expect("16 bits");
        assert_eq!((rgb.width, rgb.height, &rgb.pixels[..]), (2, 1, &[0x12, 0x34, 0, 0x12, 0x34, 255][..]));
        let gray = image::GrayImage::from_pixel(1, 1, image::Luma([9]));
        let rgb = decode(&encoded(gray.into(), ImageFormat::Png), Alpha::White, false).expect("gray");
        assert_eq!(rgb.pixels, [9; 3]);
    }

    #[test]
    fn transparency_is_as_the_reference_sees_it() {
        let half = image::RgbaImage::from_pixel(1, 1, image::Rgba([10, 20, 30, 128]));
        let bytes = encoded(half.into(), ImageFormat::Png);
        // Values of Pillow 13.
        assert_eq!(decode(&bytes, Alpha::White, false).expect("white").pixels, [132, 137, 142]);
        assert_eq!(decode(&bytes, Alpha::Drop, false).expect("dropped").pixels, [10, 20, 30]);
        assert_eq!((over_white(0, 0), over_white(7, 255)), (255, 7));
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
        assert!(problem(&bomb).contains("scale it down"), "{}", problem(&bomb));
    }

    #[test]
    fn a_jpeg_without_its_end_is_refused() {
        let noise = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * y * 37 % 251) as u8; 3]));
        let whole = encoded(noise.into(), ImageFormat::Jpeg);
        for n in [whole.len() / 2, whole.len() - 2, whole.len() - 1] {
            assert!(problem(&whole[..n]).contains("cut off"), "{n} of {}", whole.len());
        }
        let trailing = [&whole[..], b"what a camera appends"].concat();
        assert!(decode(&trailing, Alpha::White, false).is_ok());
    }

    #[test]
    fn inks_are_refused() {
        let frame = [0xff, 0xd8, 0xff, 0xe0, 0, 2, 0xff, 0xff, 0xc0, 0, 20, 8, 0, 1, 0, 1, 4];
        assert_eq!(jpeg_channels(&frame), Some(4));
        assert!(problem(&frame).contains("CMYK"));
        assert_eq!(jpeg_channels(&frame[..12]), None);
        let rgb = encoded(DynamicImage::new_rgb8(8, 8), ImageFormat::Jpeg);
        assert_eq!(jpeg_channels(&rgb), Some(3));
    }

    #[test]
    fn cameras_are_turned_only_when_asked() {
        let mut jpeg = encoded(DynamicImage::new_rgb8(16, 8), ImageFormat::Jpeg);
        // One entry, tag 0x112 (orientation), a short: 6, to be turned clockwise.
        let tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let exif = [b"Exif\0\0", &tiff[..]].concat();
        let segment = [&[0xff, 0xe1][..], &(exif.len() as u16 + 2).to_be_bytes(), &exif].concat();
        jpeg.splice(2..2, segment);
        let size = |exif| decode(&jpeg, Alpha::White, exif).map(|rgb| (rgb.width, rgb.height));
        assert_eq!((size(false), size(true)), (Ok((16, 8)), Ok((8, 16))));
    }

    #[test]
    fn odd_shapes_are_taken() {
        for (width, height) in [(1, 1), (20_000, 3)] {
            let bytes = encoded(DynamicImage::new_rgb8(width, height), ImageFormat::Png);
            let rgb = decode(&bytes, Alpha::White, false).expect("a picture");
            assert_eq!((rgb.width, rgb.height), (width, height));
        }
    }
}
