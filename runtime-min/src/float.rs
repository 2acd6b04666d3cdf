//! The processor's rounding mode and its treatment of tiny numbers, as the code was compiled for.
//!
//! A host may have set them otherwise for its own arithmetic: to flush denormal numbers to zero, to round up, to trap.
//! Threads inherit that. Equal input gives equal bits everywhere, so all arithmetic on floats runs inside of
//! [`standard`], which puts the host's setting back when it ends.

/// Runs `work` with rounding to nearest, denormal numbers kept, and nothing trapped.
#[inline(never)]
pub(crate) fn standard<T>(work: impl FnOnce() -> T) -> T {
    let _restored = Restore::after_setting();
    work()
}

/// Puts the host's setting back, also after a panic.
struct Restore(system::Setting);

impl Restore {
    fn after_setting() -> Self {
        let before = system::read();
        if before != system::STANDARD {
            system::write(system::STANDARD);
        }
        Self(before)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        // Work may set flags, which are no part of the setting.
        if self.0 != system::STANDARD {
            system::write(self.0);
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod system {
    use core::arch::asm;

    /// The control part of MXCSR.
    pub(super) type Setting = u32;

    /// All exceptions masked, round to nearest, neither "flush to zero" nor "denormals are zero".
    pub(super) const STANDARD: Setting = 0x1f80;
    /// Everything but the six sticky flags.
    const CONTROL: u32 = !0x3f;

    pub(super) fn read() -> Setting {
        let mut all = 0u32;
        // SAFETY: stores the register to a place of its size; SSE belongs to x86-64.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut all, options(nostack, preserves_flags)) };
        all & CONTROL
    }

    pub(super) fn write(setting: Setting) {
        // SAFETY: loads a value that was read from the register, or the processor's own initial one; no reserved bit is
        // set. Code that relies on the standard setting runs only after it was restored.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const setting, options(nostack, preserves_flags)) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod system {
    use core::arch::asm;

    /// FPCR.
    pub(super) type Setting = u64;

    /// Round to nearest, denormal numbers kept, nothing trapped.
    pub(super) const STANDARD: Setting = 0;

    pub(super) fn read() -> Setting {
        let setting: u64;
        // SAFETY: reads a register that every AArch64 processor with NEON has.
        unsafe { asm!("mrs {}, fpcr", out(reg) setting, options(nostack, preserves_flags)) };
        setting
    }

    pub(super) fn write(setting: Setting) {
        // SAFETY: writes the standard setting, or one that was read from the register. Code that relies on the standard
        // setting runs only after it was restored.
        unsafe { asm!("msr fpcr, {}", in(reg) setting, options(nostack, preserves_flags)) };
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod system {
    /// WebAssembly has one rounding mode; elsewhere nothing is known about it.
    pub(super) type Setting = u32;

    pub(super) const STANDARD: Setting = 0;

    pub(super) fn read() -> Setting {
        STANDARD
    }

    pub(super) fn write(_: Setting) {}
}
