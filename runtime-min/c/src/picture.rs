//! Pixels as platforms have them, and handles of encoded images.

use crate::given::{self, Sized0};
use crate::status::Problem;
use runtime_min::{Error, Rgb8, Side};
use std::borrow::Cow;

/// `tvlm_image`: what a picture became, for sessions of the same model.
pub struct Image(pub(crate) runtime_min::Image);

/// `tvlm_pixels`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pixels {
    /// Bytes of the whole, as the caller was compiled.
    pub size: usize,
    /// The first row, the upper one.
    pub data: *const u8,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next; 0: as many as a row has.
    pub stride: usize,
    /// 0: red, green, blue; 1: these and one byte that is not looked at; 2: blue, green, red and one byte that is not; 3: gray.
    pub format: u32,
    /// Of the square that the model sees; 0: the largest.
    pub side: u32,
}

// SAFETY: numbers and a pointer behind a size.
unsafe impl Sized0 for Pixels {}

impl Pixels {
    /// Bytes that are read, from the first pixel to the end of the last row; none if no such picture can be.
    pub(crate) fn extent(&self) -> Option<usize> {
        let row = (self.width as usize).checked_mul(self.layout().ok()?.0)?;
        let stride = if self.stride == 0 { row } else { self.stride };
        (self.height as usize).checked_sub(1)?.checked_mul(stride)?.checked_add(row)
    }

    /// Bytes of a pixel, and where its red, green and blue are.
    fn layout(&self) -> Result<(usize, [usize; 3]), Problem> {
        match self.format {
            0 => Ok((3, [0, 1, 2])),
            1 => Ok((4, [0, 1, 2])),
            2 => Ok((4, [2, 1, 0])),
            3 => Ok((1, [0, 0, 0])),
            _ => Err(Problem::argument("pixels.format", "is none of TVLM_FORMAT_*")),
        }
    }
}

/// The rows of `pixels` as red, green, blue without gaps: the caller's own where they are so.
///
/// # Safety
/// `pixels` is null or has the size that it says; its rows stay as they are for `'a`.
pub(crate) unsafe fn packed<'a>(pixels: *const Pixels) -> Result<(usize, usize, Cow<'a, [u8]>), Problem> {
    // SAFETY: passed on.
    let pixels = unsafe { given::options("pixels", pixels)? }.ok_or_else(|| Problem::argument("pixels", "is NULL"))?;
    let (bytes, [red, green, blue]) = pixels.layout()?;
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    // Sizes first, so that no product below is too large.
    Rgb8::check(width, height)?;
    let row = width * bytes;
    let stride = if pixels.stride == 0 { row } else { pixels.stride };
    if stride < row {
        return Err(Problem::argument("pixels.stride", "is less than a row has"));
    }
    if pixels.data.is_null() {
        return Err(Problem::argument("pixels.data", "is NULL"));
    }
    let whole = (height - 1).checked_mul(stride).and_then(|n| n.checked_add(row)).filter(|n| *n <= isize::MAX as usize);
    let whole =
        whole.ok_or_else(|| Problem::argument("pixels.stride", "makes the picture larger than memory can be"))?;
    // SAFETY: the rows are there, the last one without what may follow it.
    let from = unsafe { core::slice::from_raw_parts(pixels.data, whole) };
    if bytes == 3 && stride == row {
        return Ok((width, height, Cow::Borrowed(from)));
    }
    let mut to = Vec::new();
    let need = 3 * width * height;
    let refused = |_| Error::OutOfMemory { item: "the picture", need: need as u64, have: None };
    to.try_reserve_exact(need).map_err(refused)?;
    for line in from.chunks(stride) {
        to.extend(line[..row].chunks_exact(bytes).flat_map(|p| [p[red], p[green], p[blue]]));
    }
    Ok((width, height, Cow::Owned(to)))
}

/// The side that `pixels` asks for, one of `known`, or `otherwise` if it asks for none.
///
/// # Safety
/// `pixels` is null or has the size that it says.
pub(crate) unsafe fn side(pixels: *const Pixels, known: &[Side], otherwise: usize) -> Result<usize, Problem> {
    // SAFETY: passed on.
    let asked = unsafe { given::options("pixels", pixels)? }.map_or(0, |pixels| pixels.side) as usize;
    if asked == 0 || known.iter().any(|known| known.side == asked) {
        return Ok(if asked == 0 { otherwise } else { asked });
    }
    let all: Vec<String> = known.iter().map(|known| known.side.to_string()).collect();
    Err(Problem::argument("pixels.side", &format!("{asked} is not of the model, which has {}", all.join(", "))))
}

/// # Safety
/// `image` is null or a handle that nobody uses any more.
pub unsafe fn close(image: *mut Image) -> Result<(), Problem> {
    // SAFETY: passed on.
    unsafe { given::end(image) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(data: &[u8], (width, height, stride): (u32, u32, usize), format: u32) -> Pixels {
        let data = data.as_ptr();
        Pixels { size: size_of::<Pixels>(), data, width, height, stride, format, side: 0 }
    }

    #[test]
    fn rows_lose_gaps_and_channels_find_their_order() {
        let bgra = [3, 2, 1, 9, 6, 5, 4, 9, 0, 0, 13, 12, 11, 9, 16, 15, 14, 9];
        let given = pixels(&bgra, (2, 2, 10), 2);
        // SAFETY: two rows of two pixels, the first with a gap.
        let (width, height, rgb) = unsafe { packed(&given) }.unwrap_or_else(|_| panic!("refused"));
        assert_eq!((width, height, &rgb[..]), (2, 2, &[1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16][..]));
        let given = pixels(&[7, 8], (1, 2, 0), 3);
        // SAFETY: two bytes.
        let (.., gray) = unsafe { packed(&given) }.unwrap_or_else(|_| panic!("refused"));
        assert_eq!(&gray[..], [7, 7, 7, 8, 8, 8]);
    }

    #[test]
    fn a_side_is_one_of_the_models() {
        let known = [64, 128].map(|side| Side { side, tokens: 1, input: 0, rows: 0, steps: &[] });
        let asked = |side| {
            let given = Pixels { side, ..pixels(&[], (0, 0, 0), 0) };
            // SAFETY: it has the size that it says.
            unsafe { super::side(&given, &known, 64) }
        };
        for (asked, taken) in [(asked(0), 64), (asked(64), 64), (asked(128), 128)] {
            assert_eq!(asked.unwrap_or_else(|_| panic!("refused")), taken);
        }
        let Err(Problem::Error(error)) = asked(96) else { panic!("taken") };
        assert_eq!(error.to_string(), "pixels.side: 96 is not of the model, which has 64, 128");
    }

    #[test]
    fn what_cannot_be_a_picture_is_refused() {
        let some = [0; 12];
        let good = pixels(&some, (2, 2, 0), 0);
        let bad = [
            Pixels { width: 0, ..good },
            Pixels { height: u32::MAX, width: u32::MAX, ..good },
            Pixels { stride: 5, ..good },
            Pixels { stride: usize::MAX, ..good },
            Pixels { format: 4, ..good },
            Pixels { data: core::ptr::null(), ..good },
            Pixels { size: 7, ..good },
        ];
        for pixels in &bad {
            // SAFETY: refused before a pixel is read.
            assert!(unsafe { packed(pixels) }.is_err());
        }
        // SAFETY: null is allowed to be said.
        assert!(unsafe { packed(core::ptr::null()) }.is_err());
    }
}
