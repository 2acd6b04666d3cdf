//! Pictures to the model's input, byte for byte as Pillow and the CLIP image processor make it.
//!
//! A picture is fitted to a square (padded whole, or its center) and resized with Pillow's bicubic filter (`resize`).
//! Decoding files is left to the caller; pictures come as plain RGB, and [`Rgb8::oriented`] turns those of cameras.

mod resize;

use crate::room::{self, text};
use crate::{Error, ImagePolicy, float};
use alloc::string::String;
use alloc::vec::Vec;
use resize::{Fit, Resize};

/// Most pixels of a picture: where Pillow calls a file a decompression bomb.
pub const MAX_PIXELS: usize = 178_956_970;

/// Longest side of a picture, in pixels.
pub const MAX_SIDE: usize = 1 << 20;

/// Longest side of the model's input, in pixels.
pub const MAX_INPUT_SIDE: usize = 1 << 14;

/// A picture: rows of 8-bit red, green, blue, without gaps.
#[derive(Clone, Copy)]
pub struct Rgb8<'a> {
    width: usize,
    height: usize,
    pixels: &'a [u8],
}

impl<'a> Rgb8<'a> {
    /// Checks that `pixels` holds `[height, width, 3]` bytes, and that the sides are between 1 and [`MAX_SIDE`] and the
    /// pixels at most [`MAX_PIXELS`]. Fails with [`Error::Image`].
    pub fn new(width: usize, height: usize, pixels: &'a [u8]) -> Result<Self, Error> {
        check_size(width, height)?;
        let expected = width * height * 3;
        if pixels.len() != expected {
            let found = pixels.len();
            return Err(fault(text!(
                "{width} x {height} pixels of 3 bytes are {expected} bytes, not {found}: is it RGB without padding?"
            )));
        }
        Ok(Self { width, height, pixels })
    }

    /// Refuses sizes that [`new`](Self::new) refuses, before pixels of that size are made.
    ///
    /// # Errors
    /// [`Error::Image`].
    pub fn check(width: usize, height: usize) -> Result<(), Error> {
        check_size(width, height)
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// `[height, width, 3]` bytes.
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }

    /// The picture as it is meant to be seen, where a camera stored it with this EXIF orientation, 1 to 8.
    pub fn oriented(&self, orientation: u8) -> Result<Picture, Error> {
        if !(1..=8).contains(&orientation) {
            return Err(fault(text!("orientation {orientation}, expected 1 to 8 as in EXIF")));
        }
        let (w, h) = (self.width, self.height);
        let (width, height) = if orientation < 5 { (w, h) } else { (h, w) };
        let mut pixels = bytes(width * height * 3)?;
        let from = self.pixels.as_chunks::<3>().0;
        for (y, row) in pixels.chunks_exact_mut(width * 3).enumerate() {
            // Start and step in `from` of what becomes this row.
            let (start, step) = match orientation {
                1 => (y * w, 1),
                2 => (y * w + w - 1, -1),
                3 => ((h - 1 - y) * w + w - 1, -1),
                4 => ((h - 1 - y) * w, 1),
                5 => (y, w as isize),
                6 => ((h - 1) * w + y, -(w as isize)),
                7 => ((h - 1) * w + w - 1 - y, -(w as isize)),
                _ => (w - 1 - y, w as isize),
            };
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                *pixel = from[start.wrapping_add_signed(x as isize * step)];
            }
        }
        Ok(Picture { width, height, pixels })
    }
}

impl core::fmt::Debug for Rgb8<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Rgb8 {} x {}", self.width, self.height)
    }
}

/// A picture that owns its pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// The picture, borrowed.
    pub fn view(&self) -> Rgb8<'_> {
        Rgb8 { width: self.width, height: self.height, pixels: &self.pixels }
    }
}

impl core::fmt::Debug for Picture {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.view().fmt(f)
    }
}

/// The model's input, `[side, side, 3]` bytes.
///
/// [`ImagePolicy::Pad`] centers the whole picture on a square of its color; [`ImagePolicy::Crop`] fits the shorter side and
/// shows the center. Fails with [`Error::Image`] if `side` is 0 or above [`MAX_INPUT_SIDE`].
pub fn preprocess(image: &Rgb8<'_>, side: usize, policy: &ImagePolicy) -> Result<Vec<u8>, Error> {
    if !(1..=MAX_INPUT_SIDE).contains(&side) {
        return Err(fault(text!("the model's input side is {side}, expected 1 to {MAX_INPUT_SIDE}")));
    }
    let (width, height) = (image.width, image.height);
    let (x, y, color) = match policy {
        ImagePolicy::Pad { color } => {
            let whole = width.max(height);
            (Fit::padded(width, whole, side), Fit::padded(height, whole, side), *color)
        }
        ImagePolicy::Crop => {
            let shorter = width.min(height);
            (Fit::cropped(width, shorter, side), Fit::cropped(height, shorter, side), [0; 3])
        }
    };
    let mut out = bytes(side * side * 3)?;
    if x.is_unscaled() && y.is_unscaled() {
        place(image, &x, &y, color, side, &mut out);
    } else {
        // The weights are made in floating point.
        let pass = float::standard(|| Resize::new(image, &x, &y, color, side))?;
        pass.run(&mut out)?;
    }
    Ok(out)
}

/// Copies the picture where nothing has to be resized.
fn place(image: &Rgb8<'_>, x: &Fit, y: &Fit, color: [u8; 3], side: usize, out: &mut [u8]) {
    out.as_chunks_mut::<3>().0.fill(color);
    // Either padded (everything is shown) or cropped (nothing stands before).
    let (columns, rows) = (x.len.min(side), y.len.min(side));
    for row in 0..rows {
        let from = ((y.first as usize + row) * image.width + x.first as usize) * 3;
        let to = ((y.before + row) * side + x.before) * 3;
        out[to..to + columns * 3].copy_from_slice(&image.pixels[from..from + columns * 3]);
    }
}

fn check_size(width: usize, height: usize) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(fault(text!("{width} x {height} pixels, expected at least one each way")));
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(fault(text!("{width} x {height} pixels, expected sides of {MAX_SIDE} at most: scale it down")));
    }
    let found = width as u64 * height as u64;
    if found > MAX_PIXELS as u64 {
        return Err(fault(text!("{found} pixels, expected {MAX_PIXELS} at most: scale it down first")));
    }
    Ok(())
}

/// What memory of this module is for, in errors.
const ITEM: &str = "a picture";

/// Zeroed bytes, or the error that there are none.
fn bytes(n: usize) -> Result<Vec<u8>, Error> {
    room::filled(0, n, ITEM)
}

fn fault(reason: String) -> Error {
    Error::Image { reason }
}
