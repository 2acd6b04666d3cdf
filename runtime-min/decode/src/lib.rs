//! Picture files to rows of 8-bit red, green and blue, as the reference's Pillow reads them.
//!
//! PNG, JPEG, GIF, WebP, BMP and PNM. Sizes are checked before anything is decoded. Of animations the first frame
//! counts, 16-bit channels give their upper byte (16-bit gray too, of which Pillow makes white), and gray becomes
//! three equal channels. Inks (CMYK) are refused: what color they are depends on the press. So is a JPEG without its
//! end, as Pillow does: a decoder would make up the rest of the picture.
//!
//! A package of its own, because it needs the crate `image`: a library that is given pixels needs nothing.

#![forbid(unsafe_code)]

mod error;
mod jpeg;

use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

pub use error::{Error, Problem};

/// Largest picture file, in bytes.
pub const MAX_FILE: u64 = 512 << 20;

/// Most pixels: where Pillow calls a file a decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Longest side.
pub const MAX_SIDE: u32 = 1 << 20;

/// Most bytes that decoding may take besides the picture: tables, palettes, profiles, one more copy.
const MAX_WORK: u64 = 2 << 30;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`: red, green, blue.
    pub pixels: Vec<u8>,
}

/// How files become pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What becomes of transparency; `alpha` in a compiled model's `manifest.json`.
    pub alpha: Alpha,
    /// Turn the picture as the camera was held. The reference does not.
    pub exif: bool,
}

/// How transparent pictures become RGB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alpha {
    /// Seen before white, as by transformers.
    #[default]
    White,
    /// The colors as stored, transparent or not, as in Apple's code.
    Drop,
}

impl Alpha {
    /// Both.
    pub const ALL: [Alpha; 2] = [Alpha::White, Alpha::Drop];

    /// As a manifest calls it.
    pub fn name(self) -> &'static str {
        match self {
            Alpha::White => "white",
            Alpha::Drop => "drop",
        }
    }
}

/// Reads a picture file.
///
/// # Errors
/// [`Error`], which names the file: what is no picture, not a whole one, or a larger one than [`MAX_FILE`],
/// [`MAX_PIXELS`] and [`MAX_SIDE`] allow, and what the system refuses.
pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Picture, Error> {
    let path = path.as_ref();
    let failed = |problem| Error { path: Some(path.to_owned()), problem };
    let unreadable = |e: io::Error| {
        failed(match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Problem::Missing,
            _ => Problem::Io(e),
        })
    };
    if fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Err(failed(Problem::Folder));
    }
    let file = File::open(path).map_err(unreadable)?;
    read(file, options).map_err(|e| failed(e.problem))
}

/// Reads a picture from a stream, to its end.
///
/// # Errors
/// As [`open`], without a file's name.
pub fn read(from: impl Read, options: Options) -> Result<Picture, Error> {
    let failed = |problem| Error { path: None, problem };
    let mut bytes = Vec::new();
    from.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| failed(Problem::Io(e)))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(Problem::LongFile));
    }
    decode(&bytes, options)
}

/// Decodes a picture file that is in memory.
///
/// # Errors
/// As [`open`], without a file's name.
pub fn decode(bytes: &[u8], options: Options) -> Result<Picture, Error> {
    decoded(bytes, options).map_err(|problem| Error { path: None, problem })
}

fn decoded(bytes: &[u8], Options { alpha, exif }: Options) -> Result<Picture, Problem> {
    if bytes.is_empty() {
        return Err(Problem::Empty);
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(Problem::Io)?;
    let format = reader.format().ok_or(Problem::Unknown)?;
    if format == ImageFormat::Jpeg && jpeg::channels(bytes) == Some(4) {
        return Err(Problem::Inks);
    }
    if format == ImageFormat::Jpeg && !jpeg::has_end(bytes) {
        return Err(Problem::NoEnd);
    }
    let refused = |e: ImageError| match e {
        ImageError::Unsupported(e) => Problem::Unsupported(e.to_string()),
        e => Problem::Damaged(e.to_string()),
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
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Picture { width, height, pixels: rgb(image, alpha) })
}

fn check_size(width: u32, height: u32) -> Result<(), Problem> {
    let large = width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS;
    if width == 0 || height == 0 || large { Err(Problem::Size { width, height }) } else { Ok(()) }
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
