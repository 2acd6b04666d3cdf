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
    /// 0: red, green, blue; 1: these and one byte that is not looked at; 2: blue, green, red and one byte that is not; 3: gray; 4 and 5:
    /// a plane of luma and one of chroma, of full and of video range.
    pub format: u32,
    /// Of the square that the model sees; 0: the largest.
    pub side: u32,
    /// The plane of chroma, blue and red in turn for each 2 x 2 pixels; null: behind the rows of luma.
    pub chroma: *const u8,
    /// Bytes from one of its rows to the next; 0: as `stride`, or as many as a row has where that is 0.
    pub chroma_stride: usize,
}

// SAFETY: numbers and a pointer behind a size.
unsafe impl Sized0 for Pixels {}

/// `TVLM_FORMAT_NV12` and `TVLM_FORMAT_NV12_VIDEO`.
const NV12: u32 = 4;
const NV12_VIDEO: u32 = 5;

impl Pixels {
    /// Bytes that are read behind `data`; none if no such picture can be.
    pub(crate) fn extent(&self) -> Option<usize> {
        if let NV12 | NV12_VIDEO = self.format {
            let (luma, chroma) = self.planes();
            return if self.chroma.is_null() { luma.whole()?.checked_add(chroma.extent()?) } else { luma.extent() };
        }
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

    /// Luma and chroma.
    fn planes(&self) -> (Plane, Plane) {
        let (width, height) = (self.width as usize, self.height as usize);
        let own = |stride: usize, row: usize| if stride == 0 { row } else { stride };
        let pairs = 2 * width.div_ceil(2);
        let chroma_stride = own(self.chroma_stride, own(self.stride, pairs));
        (
            Plane { row: width, rows: height, stride: own(self.stride, width) },
            Plane { row: pairs, rows: height.div_ceil(2), stride: chroma_stride },
        )
    }
}

/// Rows of bytes.
#[derive(Clone, Copy)]
struct Plane {
    row: usize,
    rows: usize,
    stride: usize,
}

impl Plane {
    /// Bytes with the gap behind the last row.
    fn whole(&self) -> Option<usize> {
        self.rows.checked_mul(self.stride)
    }

    /// Bytes without it.
    fn extent(&self) -> Option<usize> {
        self.rows.checked_sub(1)?.checked_mul(self.stride)?.checked_add(self.row)
    }

    /// The bytes at `from`.
    ///
    /// # Safety
    /// They are there, and stay as they are for `'a`.
    unsafe fn bytes<'a>(&self, from: *const u8, stride: &'static str) -> Result<&'a [u8], Problem> {
        if self.stride < self.row {
            return Err(Problem::argument(stride, "is less than a row has"));
        }
        let whole = self.extent().filter(|n| *n <= isize::MAX as usize);
        let whole = whole.ok_or_else(|| Problem::argument(stride, "makes the picture larger than memory can be"))?;
        // SAFETY: the rows are there, the last one without what may follow it.
        Ok(unsafe { core::slice::from_raw_parts(from, whole) })
    }
}

/// What makes red, green and blue of luma and chroma, in 65536ths: BT.601.
struct Matrix {
    /// Subtracted from luma.
    black: i32,
    luma: i32,
    red: i32,
    green: [i32; 2],
    blue: i32,
}

const fn fixed(factor: f64) -> i32 {
    (factor * 65536.0 + 0.5) as i32
}

impl Matrix {
    /// Luma from `black` on in `luma` steps up to white, chroma in as many as `chroma`.
    const fn new(black: i32, luma: f64, chroma: f64) -> Matrix {
        // The shares of red, green and blue in luma.
        let (r, g, b) = (0.299, 0.587, 0.114);
        let scale = 255.0 / chroma;
        Matrix {
            black,
            luma: fixed(255.0 / luma),
            red: fixed(2.0 * (1.0 - r) * scale),
            green: [fixed(2.0 * (1.0 - b) * b / g * scale), fixed(2.0 * (1.0 - r) * r / g * scale)],
            blue: fixed(2.0 * (1.0 - b) * scale),
        }
    }

    /// Rounded, and cut off where there is no such color.
    fn rgb(&self, luma: u8, [cb, cr]: [u8; 2]) -> [u8; 3] {
        let y = (i32::from(luma) - self.black) * self.luma + (1 << 15);
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        let all = [y + self.red * cr, y - self.green[0] * cb - self.green[1] * cr, y + self.blue * cb];
        all.map(|sum| (sum >> 16).clamp(0, 255) as u8)
    }
}

const FULL: Matrix = Matrix::new(0, 255.0, 255.0);
const VIDEO: Matrix = Matrix::new(16, 219.0, 224.0);

/// Planes of luma and chroma as red, green, blue; the chroma of 2 x 2 pixels is that of each.
///
/// # Safety
/// The rows are there.
unsafe fn from_planes(pixels: &Pixels, matrix: &Matrix) -> Result<Vec<u8>, Problem> {
    let (luma, chroma) = pixels.planes();
    // SAFETY: passed on.
    let above = unsafe { luma.bytes(pixels.data, "pixels.stride")? };
    let at = if pixels.chroma.is_null() {
        let whole = luma.whole().filter(|n| *n <= isize::MAX as usize);
        let whole =
            whole.ok_or_else(|| Problem::argument("pixels.stride", "makes the picture larger than memory can be"))?;
        pixels.data.wrapping_add(whole)
    } else {
        pixels.chroma
    };
    // SAFETY: passed on.
    let colors = unsafe { chroma.bytes(at, "pixels.chroma_stride")? };
    let mut to = room(luma.row, luma.rows)?;
    for (i, line) in above.chunks(luma.stride).enumerate() {
        let pairs = &colors[i / 2 * chroma.stride..][..chroma.row];
        for (two, pair) in line[..luma.row].chunks(2).zip(pairs.chunks_exact(2)) {
            to.extend(two.iter().flat_map(|y| matrix.rgb(*y, [pair[0], pair[1]])));
        }
    }
    Ok(to)
}

/// Room for red, green and blue of so many pixels.
fn room(width: usize, height: usize) -> Result<Vec<u8>, Problem> {
    let mut to = Vec::new();
    let need = 3 * width * height;
    to.try_reserve_exact(need).map_err(|_| Error::OutOfMemory {
        item: "the picture",
        need: need as u64,
        have: None,
    })?;
    Ok(to)
}

/// The rows of `pixels` as red, green, blue without gaps: the caller's own where they are so.
///
/// # Safety
/// `pixels` is null or has the size that it says; its rows stay as they are for `'a`.
pub(crate) unsafe fn packed<'a>(pixels: *const Pixels) -> Result<(usize, usize, Cow<'a, [u8]>), Problem> {
    // SAFETY: passed on.
    let pixels = unsafe { given::options("pixels", pixels)? }.ok_or_else(|| Problem::argument("pixels", "is NULL"))?;
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let planes = match pixels.format {
        NV12 => Some(&FULL),
        NV12_VIDEO => Some(&VIDEO),
        _ => None,
    };
    if let Some(matrix) = planes {
        Rgb8::check(width, height)?;
        if pixels.data.is_null() {
            return Err(Problem::argument("pixels.data", "is NULL"));
        }
        // SAFETY: passed on.
        return Ok((width, height, Cow::Owned(unsafe { from_planes(&pixels, matrix)? })));
    }
    let (bytes, [red, green, blue]) = pixels.layout()?;
    if !pixels.chroma.is_null() || pixels.chroma_stride != 0 {
        return Err(Problem::argument("pixels.chroma", "is for TVLM_FORMAT_NV12 and TVLM_FORMAT_NV12_VIDEO"));
    }
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
    let mut to = room(width, height)?;
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
        let (chroma, chroma_stride) = (core::ptr::null(), 0);
        Pixels { size: size_of::<Pixels>(), data, width, height, stride, format, side: 0, chroma, chroma_stride }
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

    /// The definition, in double precision: shares of 0.299, 0.587 and 0.114, chroma as differences from luma.
    fn exactly(luma: u8, [cb, cr]: [u8; 2], video: bool) -> [f64; 3] {
        let (black, steps, chroma) = if video { (16.0, 219.0, 224.0) } else { (0.0, 255.0, 255.0) };
        let y = (f64::from(luma) - black) / steps;
        let (pb, pr) = ((f64::from(cb) - 128.0) / chroma, (f64::from(cr) - 128.0) / chroma);
        let (r, b) = (y + 1.402 * pr, y + 1.772 * pb);
        [r, (y - 0.299 * r - 0.114 * b) / 0.587, b].map(|share| 255.0 * share.clamp(0.0, 1.0))
    }

    #[test]
    fn luma_and_chroma_become_the_colors_of_the_definition() {
        for (matrix, video) in [(&FULL, false), (&VIDEO, true)] {
            let mut most: f64 = 0.0;
            for luma in 0..=255 {
                for cb in (0..=255).step_by(3) {
                    for cr in (0..=255).step_by(3) {
                        let exact = exactly(luma, [cb, cr], video);
                        let found = matrix.rgb(luma, [cb, cr]);
                        let apart = exact.iter().zip(found).map(|(exact, found)| (exact - f64::from(found)).abs());
                        most = apart.fold(most, f64::max);
                    }
                }
            }
            assert!(most < 0.51, "{most}");
        }
        // Black, white, gray.
        assert_eq!([16, 235, 126].map(|y| VIDEO.rgb(y, [128; 2])[0]), [0, 255, 128]);
        assert_eq!([0, 255, 128].map(|y| FULL.rgb(y, [128; 2])), [[0; 3], [255; 3], [128; 3]]);
    }

    #[test]
    fn planes_are_read_where_they_are() {
        // 3 x 3 pixels, rows of luma 5 bytes apart and of chroma 6.
        let luma = [10, 20, 30, 0, 0, 40, 50, 60, 0, 0, 70, 80, 90];
        let chroma = [100, 150, 120, 140, 0, 0, 90, 160, 110, 170];
        let pair = |x: usize, y: usize| [chroma[y / 2 * 6 + x / 2 * 2], chroma[y / 2 * 6 + x / 2 * 2 + 1]];
        let pixels_of = |matrix: &Matrix| -> Vec<u8> {
            (0..9).flat_map(|i| matrix.rgb(luma[i / 3 * 5 + i % 3], pair(i % 3, i / 3))).collect()
        };
        for (format, matrix) in [(NV12, &FULL), (NV12_VIDEO, &VIDEO)] {
            let apart = pixels(&luma, (3, 3, 5), format);
            let apart = Pixels { chroma: chroma.as_ptr(), chroma_stride: 6, ..apart };
            assert_eq!(apart.extent(), Some(13));
            // SAFETY: both planes are there.
            let (width, height, rgb) = unsafe { packed(&apart) }.unwrap_or_else(|_| panic!("refused"));
            assert_eq!((width, height, &rgb[..]), (3, 3, &pixels_of(matrix)[..]));

            // In one piece, with and without gaps.
            let mut whole = [0; 28];
            (0..3).for_each(|y| whole[y * 6..][..3].copy_from_slice(&luma[y * 5..][..3]));
            whole[18..].copy_from_slice(&chroma);
            let together = pixels(&whole, (3, 3, 6), format);
            assert_eq!(together.extent(), Some(28));
            // SAFETY: one behind the other.
            let (.., rgb) = unsafe { packed(&together) }.unwrap_or_else(|_| panic!("refused"));
            assert_eq!(&rgb[..], pixels_of(matrix));
            let mut dense = [0; 17];
            (0..3).for_each(|y| dense[y * 3..][..3].copy_from_slice(&luma[y * 5..][..3]));
            (0..2).for_each(|y| dense[9 + y * 4..][..4].copy_from_slice(&chroma[y * 6..][..4]));
            let dense = pixels(&dense, (3, 3, 0), format);
            assert_eq!(dense.extent(), Some(17));
            // SAFETY: one behind the other.
            let (.., rgb) = unsafe { packed(&dense) }.unwrap_or_else(|_| panic!("refused"));
            assert_eq!(&rgb[..], pixels_of(matrix));
        }
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
            Pixels { format: 6, ..good },
            Pixels { chroma: some.as_ptr(), ..good },
            Pixels { chroma_stride: 2, ..good },
            Pixels { format: NV12, chroma_stride: 1, ..good },
            Pixels { format: NV12, stride: 1, ..good },
            Pixels { format: NV12, stride: usize::MAX, ..good },
            Pixels { format: NV12_VIDEO, data: core::ptr::null(), ..good },
            Pixels { format: NV12_VIDEO, width: 0, ..good },
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
