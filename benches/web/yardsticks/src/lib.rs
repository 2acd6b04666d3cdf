//! The fastest loops that were found for V8 without VNNI, each stripped to what it measures: no zero points, no edges, operands in cache
//! where the real kernel has to fetch them. `codegen-wasm/examples/rates` times them in turn with the emitted kernels.

#![no_std]

use core::arch::wasm32::*;

const ROWS: usize = 8;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// Eight rows of bytes by four columns, `groups` times four bytes deep: `c = a b`. `a` is `[groups][8][4]`, `b` `[groups][4][4]` of
/// at most seven bits, `c` `[8][4]`. The dot product is spelled in three instructions, with its vector of ones kept in a register.
///
/// # Safety
/// The pointers have as much behind them as said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tile(a: *const u8, b: *const u8, c: *mut i32, groups: usize) {
    // Opaque, or the ones are made anew in every turn.
    let ones = i16x8_splat(core::hint::black_box(1));
    let mut sums = [i32x4_splat(0); ROWS];
    for g in 0..groups {
        unsafe {
            let columns = v128_load(b.add(16 * g).cast());
            for (row, sum) in sums.iter_mut().enumerate() {
                let left = v128_load32_splat(a.add(4 * (ROWS * g + row)).cast());
                let pairs = i16x8_relaxed_dot_i8x16_i7x16(columns, left);
                *sum = i32x4_add(*sum, i32x4_dot_i16x8(pairs, ones));
            }
        }
    }
    for (row, sum) in sums.into_iter().enumerate() {
        unsafe { v128_store(c.add(4 * row).cast(), sum) }
    }
}

/// A vector by a matrix of nibbles: `y = w x`. `w` is `[rows / 4][blocks][4][16]` bytes, two nibbles each, `scales`
/// `[rows / 4][blocks][4]`, `x` `[blocks][32]` bytes, `x_scales` `[blocks]`, `y` `[rows]`. Products of a block are added in 16 bits.
///
/// # Safety
/// The pointers have as much behind them as said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nibbles(
    mut w: *const u8,
    mut scales: *const f32,
    x: *const u8,
    x_scales: *const f32,
    y: *mut f32,
    rows: usize,
    blocks: usize,
) {
    let low = u8x16_splat(15);
    for four in 0..rows / 4 {
        let mut sums = [f32x4_splat(0.0); 4];
        for b in 0..blocks {
            unsafe {
                let (even, odd) = (v128_load(x.add(32 * b).cast()), v128_load(x.add(32 * b + 16).cast()));
                let scale = f32x4_mul(v128_load(scales.cast()), v128_load32_splat(x_scales.add(b).cast()));
                let each = [
                    i32x4_shuffle::<0, 0, 0, 0>(scale, scale),
                    i32x4_shuffle::<1, 1, 1, 1>(scale, scale),
                    i32x4_shuffle::<2, 2, 2, 2>(scale, scale),
                    i32x4_shuffle::<3, 3, 3, 3>(scale, scale),
                ];
                for (row, sum) in sums.iter_mut().enumerate() {
                    let line = v128_load(w.add(16 * row).cast());
                    let pairs = i16x8_add(
                        i16x8_relaxed_dot_i8x16_i7x16(even, v128_and(line, low)),
                        i16x8_relaxed_dot_i8x16_i7x16(odd, u8x16_shr(line, 4)),
                    );
                    let dots = f32x4_convert_i32x4(i32x4_extadd_pairwise_i16x8(pairs));
                    *sum = f32x4_relaxed_madd(dots, each[row], *sum);
                }
                (w, scales) = (w.add(64), scales.add(4));
            }
        }
        for (row, sum) in sums.into_iter().enumerate() {
            let [a, b, c, d] = [
                f32x4_extract_lane::<0>(sum),
                f32x4_extract_lane::<1>(sum),
                f32x4_extract_lane::<2>(sum),
                f32x4_extract_lane::<3>(sum),
            ];
            unsafe { *y.add(4 * four + row) = a + b + c + d }
        }
    }
}

/// Reads `bytes`, a multiple of 128, and does next to nothing with them.
///
/// # Safety
/// As much is behind the pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(p: *const u8, bytes: usize) -> i32 {
    let mut sums = [i32x4_splat(0); 8];
    for line in 0..bytes / 128 {
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum = i32x4_add(*sum, unsafe { v128_load(p.add(128 * line + 16 * k).cast()) });
        }
    }
    i32x4_extract_lane::<0>(sums.into_iter().fold(i32x4_splat(0), |a, b| i32x4_add(a, b)))
}
