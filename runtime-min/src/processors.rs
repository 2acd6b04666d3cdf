//! How many threads this process may run at once.
//!
//! On Linux and Android that is what the standard library would say, found without its allocations, which abort where there
//! is no memory: the processors that the scheduler may use, and no more than the quota of the process's control group.

/// Threads that run at once; 1 where nobody knows.
pub(crate) fn available() -> usize {
    #[cfg(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri)))]
    return linux::available();
    #[cfg(all(feature = "std", not(all(any(target_os = "linux", target_os = "android"), not(miri)))))]
    return std::thread::available_parallelism().map_or(1, |n| n.get());
    #[cfg(not(feature = "std"))]
    return 1;
}

#[cfg(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri)))]
pub(crate) use linux::{Mask, read_at};

#[cfg(all(feature = "std", any(target_os = "linux", target_os = "android"), not(miri)))]
mod linux {
    use core::ffi::c_int;
    use std::ffi::OsStr;
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;

    unsafe extern "C" {
        fn sched_getaffinity(process: c_int, bytes: usize, mask: *mut u64) -> c_int;
        fn sched_setaffinity(process: c_int, bytes: usize, mask: *const u64) -> c_int;
    }

    /// Words of a mask: 8192 processors, the most that Linux can be built for.
    const WORDS: usize = 128;

    /// Processors.
    #[derive(Clone, Debug)]
    pub(crate) struct Mask([u64; WORDS]);

    impl Mask {
        pub(crate) fn none() -> Self {
            Self([0; WORDS])
        }

        /// Those that this thread may run on.
        pub(crate) fn own() -> Option<Self> {
            let mut mask = Self::none();
            // SAFETY: the kernel writes at most the size that is given, which is that of the mask.
            let refused = unsafe { sched_getaffinity(0, size_of_val(&mask.0), mask.0.as_mut_ptr()) };
            (refused == 0).then_some(mask)
        }

        /// Lets this thread run on them alone; whether the system agrees.
        pub(crate) fn set(&self) -> bool {
            // SAFETY: the kernel reads the size that is given, which is that of the mask.
            unsafe { sched_setaffinity(0, size_of_val(&self.0), self.0.as_ptr()) == 0 }
        }

        pub(crate) fn add(&mut self, cpu: usize) {
            if let Some(word) = self.0.get_mut(cpu / 64) {
                *word |= 1 << (cpu % 64);
            }
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
            (0..64 * WORDS).filter(|cpu| self.0[cpu / 64] >> (cpu % 64) & 1 == 1)
        }

        pub(crate) fn count(&self) -> usize {
            self.0.iter().map(|word| word.count_ones() as usize).sum()
        }
    }

    pub(super) fn available() -> usize {
        let processors = Mask::own().map_or(1, |mask| mask.count());
        processors.min(quota().unwrap_or(usize::MAX)).max(1)
    }

    /// Whole processors that the control group (of version 2) and those around it leave to this process.
    fn quota() -> Option<usize> {
        let mut text = [0; 2048];
        let group = group(read("/proc/self/cgroup".as_bytes(), &mut text)?)?;
        let mut least = None;
        for end in (1..=group.len()).rev().filter(|&end| end == group.len() || group[end] == b'/').chain([0]) {
            let limit = read_at(&[b"/sys/fs/cgroup", &group[..end], b"/cpu.max"], &mut [0; 64]).and_then(limit);
            least = least.into_iter().chain(limit).min();
        }
        least
    }

    /// The path in `0::/user.slice/some.scope`, without its last slash.
    pub(super) fn group(text: &[u8]) -> Option<&[u8]> {
        let path = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
        Some(path.strip_suffix(b"/").unwrap_or(path))
    }

    /// Processors of `200000 100000`: microseconds in each period, and the period; none of `max 100000`.
    pub(super) fn limit(text: &[u8]) -> Option<usize> {
        let mut numbers = core::str::from_utf8(text).ok()?.split_ascii_whitespace().map(str::parse::<usize>);
        let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        quota.checked_div(period)
    }

    /// The beginning of a small file, whose path is put together.
    pub(crate) fn read_at<'b>(parts: &[&[u8]], bytes: &'b mut [u8]) -> Option<&'b [u8]> {
        // Paths below 384 bytes are opened without allocating.
        let mut path = [0; 360];
        let mut len = 0;
        for part in parts {
            path.get_mut(len..len + part.len())?.copy_from_slice(part);
            len += part.len();
        }
        read(&path[..len], bytes)
    }

    /// The beginning of a small file.
    fn read<'b>(path: &[u8], bytes: &'b mut [u8]) -> Option<&'b [u8]> {
        let n = File::open(OsStr::from_bytes(path)).ok()?.read(bytes).ok()?;
        bytes.get(..n)
    }
}

#[cfg(all(test, feature = "std", target_os = "linux", not(miri)))]
mod tests {
    use super::linux::{group, limit};

    #[test]
    fn agrees_with_the_standard_library() {
        let expected = std::thread::available_parallelism().expect("Linux knows").get();
        assert_eq!(super::available(), expected);
    }

    #[test]
    fn control_groups_are_read() {
        assert_eq!(group(b"1:cpu:/a\n0::/user.slice/x.scope\n"), Some(&b"/user.slice/x.scope"[..]));
        assert_eq!((group(b"0::/\n"), group(b"4:memory:/\n")), (Some(&b""[..]), None));
        for (text, expected) in
            [("max 100000\n", None), ("250000 100000\n", Some(2)), ("50000 100000", Some(0)), ("1 0", None), ("", None)]
        {
            assert_eq!(limit(text.as_bytes()), expected, "{text:?}");
        }
    }
}
